# ccache when the machine has it, never required. Paths are hashed relative to the project, so that
# a second clone of the same sources (CI's, a worktree's) is built from the cache of the first.
if(PROJECT_IS_TOP_LEVEL AND NOT DEFINED CMAKE_CXX_COMPILER_LAUNCHER)
  find_program(OMNIBUS_CCACHE ccache)
  if(OMNIBUS_CCACHE)
    set(CMAKE_CXX_COMPILER_LAUNCHER
        env CCACHE_BASEDIR=${PROJECT_SOURCE_DIR} CCACHE_NOHASHDIR=1 ${OMNIBUS_CCACHE})
  endif()
endif()
