# The installed package: headers under include/omnibus, one static library per room, the command,
# and a CMake package, so that a user writes
#   find_package(omnibus REQUIRED)
#   target_link_libraries(mine PRIVATE omnibus::omnibus)
# and has every room. Rooms enroll themselves (bus_room, bus_schemas); nothing is listed twice.
set(OMNIBUS_INSTALL_INCLUDEDIR ${CMAKE_INSTALL_INCLUDEDIR}/omnibus)
set(OMNIBUS_INSTALL_CMAKEDIR ${CMAKE_INSTALL_LIBDIR}/cmake/omnibus)

# bus_install_room(<target>): the room's library and the headers of its folder.
function(bus_install_room target)
  file(RELATIVE_PATH room ${PROJECT_SOURCE_DIR} ${CMAKE_CURRENT_SOURCE_DIR})
  if(NOT room MATCHES "^(bus|transports|schemas)(/|$)")
    return()
  endif()
  set_property(GLOBAL APPEND PROPERTY OMNIBUS_ROOMS ${target})
  install(TARGETS ${target} EXPORT omnibus ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}/omnibus)
  install(DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR}/
          DESTINATION ${OMNIBUS_INSTALL_INCLUDEDIR}/${room}
          FILES_MATCHING PATTERN "*.hpp")
endfunction()

# bus_install_package(): after the last room. Makes omnibus::omnibus, here and for others.
function(bus_install_package)
  get_property(rooms GLOBAL PROPERTY OMNIBUS_ROOMS)
  get_property(OMNIBUS_EXTERNALS GLOBAL PROPERTY OMNIBUS_EXTERNALS)
  add_library(omnibus INTERFACE)
  add_library(omnibus::omnibus ALIAS omnibus)
  target_link_libraries(omnibus INTERFACE ${rooms})
  install(TARGETS omnibus EXPORT omnibus)
  if(EXISTS ${PROJECT_SOURCE_DIR}/bus/bus.hpp)
    install(FILES ${PROJECT_SOURCE_DIR}/bus/bus.hpp DESTINATION ${OMNIBUS_INSTALL_INCLUDEDIR}/bus)
  endif()

  include(CMakePackageConfigHelpers)
  set(made ${PROJECT_BINARY_DIR}/package)
  configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/omnibus-config.cmake.in
    ${made}/omnibus-config.cmake INSTALL_DESTINATION ${OMNIBUS_INSTALL_CMAKEDIR}
    NO_SET_AND_CHECK_MACRO)
  write_basic_package_version_file(${made}/omnibus-config-version.cmake
    COMPATIBILITY SameMinorVersion)
  install(FILES ${made}/omnibus-config.cmake ${made}/omnibus-config-version.cmake
          DESTINATION ${OMNIBUS_INSTALL_CMAKEDIR})
  install(EXPORT omnibus FILE omnibus-targets.cmake NAMESPACE omnibus::
          DESTINATION ${OMNIBUS_INSTALL_CMAKEDIR})
endfunction()
