# The targets that anybit::anybit links: Eigen3::Eigen, anybit::xsimd, Threads::Threads. Used by the source tree and,
# installed beside anybitConfig.cmake, by consumers, so that both look in the same way. What is not found is written
# to ANYBIT_MISSING_DEPENDENCIES, one sentence each; the includer decides what that means.

set(ANYBIT_MISSING_DEPENDENCIES "")

# Found in a subdirectory, a package must still be seen by the parent project that links anybit::anybit.
macro(anybit_find_global package target)
  if(NOT TARGET ${target})
    find_package(${package} ${ARGN} QUIET)
    if(TARGET ${target})
      set_target_properties(${target} PROPERTIES IMPORTED_GLOBAL TRUE)
    endif()
  endif()
endmacro()

anybit_find_global(Eigen3 Eigen3::Eigen 3.4 CONFIG)
if(NOT TARGET Eigen3::Eigen)
  string(APPEND ANYBIT_MISSING_DEPENDENCIES
    "Eigen 3.4 was not found: install libeigen3-dev (Debian) or set Eigen3_DIR. ")
endif()

# Only xsimd's include directory is taken. Debian's target `xsimd` links a library that is not installed with it, the
# upstream target is called otherwise, and neither package accepts a version range over several majors.
if(NOT TARGET anybit::xsimd)
  set(anybit_xsimd_hints "")
  foreach(target xsimd::xsimd xsimd)
    if(TARGET ${target})
      get_target_property(anybit_xsimd_directories ${target} INTERFACE_INCLUDE_DIRECTORIES)
      foreach(directory IN LISTS anybit_xsimd_directories)
        string(REGEX REPLACE "^\\$<BUILD_INTERFACE:(.*)>$" "\\1" directory "${directory}")
        list(APPEND anybit_xsimd_hints "${directory}")
      endforeach()
    endif()
  endforeach()
  if(xsimd_DIR)
    list(APPEND anybit_xsimd_hints "${xsimd_DIR}/../../../include" "${xsimd_DIR}/../../../../include")
  endif()
  find_path(ANYBIT_XSIMD_INCLUDE_DIR xsimd/xsimd.hpp
    HINTS ${anybit_xsimd_hints} "${xsimd_ROOT}" "$ENV{xsimd_ROOT}" PATH_SUFFIXES include
    DOC "Directory that holds xsimd/xsimd.hpp")
  mark_as_advanced(ANYBIT_XSIMD_INCLUDE_DIR)
  if(ANYBIT_XSIMD_INCLUDE_DIR)
    file(STRINGS "${ANYBIT_XSIMD_INCLUDE_DIR}/xsimd/config/xsimd_config.hpp" anybit_xsimd_lines
      REGEX "define XSIMD_VERSION_(MAJOR|MINOR|PATCH) +[0-9]+")
    string(REGEX REPLACE "[^;0-9]*([0-9]+)[^;]*" "\\1" anybit_xsimd_version "${anybit_xsimd_lines}")
    string(REPLACE ";" "." anybit_xsimd_version "${anybit_xsimd_version}")
    if(anybit_xsimd_version VERSION_LESS 8.1 OR anybit_xsimd_version VERSION_GREATER_EQUAL 15)
      string(APPEND ANYBIT_MISSING_DEPENDENCIES
        "xsimd ${anybit_xsimd_version} in ${ANYBIT_XSIMD_INCLUDE_DIR} is not one of 8.1 to 14: "
        "set ANYBIT_XSIMD_INCLUDE_DIR to one that is. ")
    else()
      add_library(anybit::xsimd INTERFACE IMPORTED GLOBAL)
      set_target_properties(anybit::xsimd PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${ANYBIT_XSIMD_INCLUDE_DIR}")
    endif()
  else()
    string(APPEND ANYBIT_MISSING_DEPENDENCIES
      "xsimd 8.1 to 14 was not found: install libxsimd-dev (Debian) or set ANYBIT_XSIMD_INCLUDE_DIR. ")
  endif()
endif()

set(THREADS_PREFER_PTHREAD_FLAG ON)
anybit_find_global(Threads Threads::Threads)
if(NOT TARGET Threads::Threads)
  string(APPEND ANYBIT_MISSING_DEPENDENCIES "no thread library was found. ")
endif()
