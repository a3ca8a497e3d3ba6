# What Omnibus needs of the machine is named once: found here for the build, and written into the
# package, which finds it again for whoever links omnibus::omnibus. What only tests or programs need
# (Catch2, CLI11, ...) is found with plain find_package beside them, and asked of no user.
find_package(PkgConfig REQUIRED)

# bus_external(<package> [arguments of find_package])
macro(bus_external)
  find_package(${ARGN} REQUIRED)
  string(REPLACE ";" " " omnibus_arguments "${ARGN}")
  set_property(GLOBAL APPEND_STRING PROPERTY OMNIBUS_EXTERNALS
               "find_dependency(${omnibus_arguments})\n")
endmacro()

# bus_external_by_pkg_config(<prefix> <module>): gives the target PkgConfig::<prefix>.
macro(bus_external_by_pkg_config prefix module)
  pkg_check_modules(${prefix} REQUIRED IMPORTED_TARGET ${module})
  set_property(GLOBAL APPEND_STRING PROPERTY OMNIBUS_EXTERNALS
    "find_dependency(PkgConfig)\npkg_check_modules(${prefix} REQUIRED IMPORTED_TARGET ${module})\n")
endmacro()
