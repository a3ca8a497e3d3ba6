# bus_schemas(<target> PROTOS a.proto ... [DEPS other schema targets] [NO_INSTALL])
# A static library of the code that protoc makes of these files, which are named relative to the
# calling folder. Generated code lies in the build folder under the path of its schema in the
# project, so that schemas/bus/card.proto is imported as "schemas/bus/card.proto" and included as
# "schemas/bus/card.pb.h". It is not ours: it is compiled without our warnings, and its headers are
# system headers to those who include them. (CMake's own protobuf_generate names schemas relative to
# the calling folder, and does not see that one schema imports another.)
function(bus_schemas target)
  cmake_parse_arguments(SCHEMAS "NO_INSTALL" "" "PROTOS;DEPS" ${ARGN})
  file(RELATIVE_PATH room ${PROJECT_SOURCE_DIR} ${CMAKE_CURRENT_SOURCE_DIR})
  set(generated "")
  foreach(proto IN LISTS SCHEMAS_PROTOS)
    cmake_path(REMOVE_EXTENSION proto LAST_ONLY OUTPUT_VARIABLE stem)
    set(code ${PROJECT_BINARY_DIR}/${room}/${stem}.pb.cc)
    set(header ${PROJECT_BINARY_DIR}/${room}/${stem}.pb.h)
    set(depends ${PROJECT_BINARY_DIR}/${room}/${stem}.d)
    cmake_path(GET code PARENT_PATH folder)
    file(MAKE_DIRECTORY ${folder})
    add_custom_command(
      OUTPUT ${code} ${header}
      COMMAND protobuf::protoc --proto_path=${PROJECT_SOURCE_DIR} --cpp_out=${PROJECT_BINARY_DIR}
              --dependency_out=${depends} ${room}/${proto}
      DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${proto} protobuf::protoc
      DEPFILE ${depends}
      WORKING_DIRECTORY ${PROJECT_SOURCE_DIR}
      COMMENT "protoc ${room}/${proto}"
      VERBATIM)
    list(APPEND generated ${code} ${header})
    if(NOT SCHEMAS_NO_INSTALL)
      cmake_path(GET proto PARENT_PATH below)
      install(FILES ${header} ${CMAKE_CURRENT_SOURCE_DIR}/${proto}
              DESTINATION ${OMNIBUS_INSTALL_INCLUDEDIR}/${room}/${below})
    endif()
  endforeach()

  add_library(${target} STATIC ${generated})
  set_target_properties(${target} PROPERTIES
    POSITION_INDEPENDENT_CODE ON COMPILE_WARNING_AS_ERROR OFF CXX_CLANG_TIDY "")
  target_compile_features(${target} PUBLIC cxx_std_20)
  target_include_directories(${target} SYSTEM PUBLIC
    $<BUILD_INTERFACE:${PROJECT_BINARY_DIR}>
    $<INSTALL_INTERFACE:${OMNIBUS_INSTALL_INCLUDEDIR}>)
  target_link_libraries(${target} PUBLIC protobuf::libprotobuf ${SCHEMAS_DEPS})
  if(NOT SCHEMAS_NO_INSTALL)
    bus_install_room(${target})
  endif()
endfunction()
