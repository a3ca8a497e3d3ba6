# One target per room, made by one small function whose DEPS *are* the layering (docs/design, and
# the table in tests/tidy/tidy.py): a room can only include what its DEPS hand it, and the test
# `tidy` checks the same edges in the sources and in these calls.

set(OMNIBUS_WARNINGS -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wnon-virtual-dtor
    -Wold-style-cast -Wcast-align -Woverloaded-virtual)

# bus_room(<target> [SOURCES ...] [DEPS project targets] [LIBS external targets] [NO_INSTALL])
# A static library; without SOURCES, headers only. Rooms of bus, transports and schemas belong to
# the installed package unless they say NO_INSTALL.
function(bus_room target)
  cmake_parse_arguments(ROOM "NO_INSTALL" "" "SOURCES;DEPS;LIBS" ${ARGN})
  if(ROOM_SOURCES)
    add_library(${target} STATIC ${ROOM_SOURCES})
    set(scope PUBLIC)
    target_compile_options(${target} PRIVATE ${OMNIBUS_WARNINGS})
    set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE ON)
    # Nobody replaces a function of ours at run time; without this, none would be inlined in its own
    # file, since the code is fit for shared libraries.
    target_compile_options(${target} PRIVATE $<$<CONFIG:Release>:-fno-semantic-interposition>)
  else()
    add_library(${target} INTERFACE)
    set(scope INTERFACE)
  endif()
  target_compile_features(${target} ${scope} cxx_std_20)
  target_include_directories(${target} ${scope}
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>
    $<INSTALL_INTERFACE:${OMNIBUS_INSTALL_INCLUDEDIR}>)
  target_link_libraries(${target} ${scope} ${ROOM_DEPS} ${ROOM_LIBS})
  if(NOT ROOM_NO_INSTALL)
    bus_install_room(${target})
  endif()
endfunction()

# bus_program(<target> SOURCES ... [DEPS ...] [LIBS ...] [OUTPUT name] [INSTALL])
# Lands in bin/ of the build folder; INSTALL makes it a part of the package.
function(bus_program target)
  cmake_parse_arguments(PROGRAM "INSTALL" "OUTPUT" "SOURCES;DEPS;LIBS" ${ARGN})
  add_executable(${target} ${PROGRAM_SOURCES})
  target_compile_options(${target} PRIVATE ${OMNIBUS_WARNINGS})
  target_compile_features(${target} PRIVATE cxx_std_20)
  target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(${target} PRIVATE ${PROGRAM_DEPS} ${PROGRAM_LIBS})
  set_target_properties(${target} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bin)
  if(PROGRAM_OUTPUT)
    set_target_properties(${target} PROPERTIES OUTPUT_NAME ${PROGRAM_OUTPUT})
  endif()
  if(PROGRAM_INSTALL)
    install(TARGETS ${target} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
  endif()
endfunction()

# bus_test(<name> SOURCES ... [DEPS ...] [LIBS ...] [LABELS ...] [TIMEOUT seconds])
# A Catch2 executable and one CTest test of the same name.
function(bus_test name)
  cmake_parse_arguments(TEST "" "TIMEOUT" "SOURCES;DEPS;LIBS;LABELS" ${ARGN})
  if(NOT TARGET tests_catch_main)
    add_library(tests_catch_main STATIC ${PROJECT_SOURCE_DIR}/tests/catch_main.cpp)
    target_compile_features(tests_catch_main PUBLIC cxx_std_20)
    target_link_libraries(tests_catch_main PUBLIC Catch2::Catch2)
  endif()
  bus_program(${name} SOURCES ${TEST_SOURCES} DEPS ${TEST_DEPS} LIBS ${TEST_LIBS} tests_catch_main)
  add_test(NAME ${name} COMMAND ${name} --durations no)
  if(NOT TEST_TIMEOUT)
    set(TEST_TIMEOUT 300)
  endif()
  set_tests_properties(${name} PROPERTIES TIMEOUT ${TEST_TIMEOUT})
  if(TEST_LABELS)
    set_tests_properties(${name} PROPERTIES LABELS "${TEST_LABELS}")
  endif()
endfunction()
