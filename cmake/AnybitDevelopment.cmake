# What tests, benchmarks and examples share, and no consumer gets: warnings and the native switch.

add_library(anybit_development INTERFACE)
target_link_libraries(anybit_development INTERFACE anybit::anybit)

set(anybit_gnu_like "$<CXX_COMPILER_ID:GNU,Clang,AppleClang>")
target_compile_options(anybit_development INTERFACE
  "$<${anybit_gnu_like}:-Wall;-Wextra;-Wpedantic;-Wshadow;-Wconversion;-Wsign-conversion>"
  "$<$<CXX_COMPILER_ID:GNU>:-fconcepts-diagnostics-depth=2>"
  # GCC 12 takes the deliberately undefined operands inside its own AVX-512 intrinsics for mistakes, and at -O3 sees
  # overlaps and overflows in std::string and vectorized loops that are not there (its bugs 105329, 105651). The
  # sanitizers look for the real ones.
  "$<$<AND:$<CXX_COMPILER_ID:GNU>,$<VERSION_LESS:$<CXX_COMPILER_VERSION>,13>>:-Wno-uninitialized;-Wno-maybe-uninitialized;-Wno-restrict;-Wno-stringop-overflow>")
if(ANYBIT_WARNINGS_AS_ERRORS)
  target_compile_options(anybit_development INTERFACE "$<${anybit_gnu_like}:-Werror>")
endif()
if(ANYBIT_NATIVE)
  target_compile_options(anybit_development INTERFACE "$<${anybit_gnu_like}:-march=native>")
endif()

set(CMAKE_CXX_EXTENSIONS OFF)
if(PROJECT_IS_TOP_LEVEL)
  set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
  if(NOT DEFINED CMAKE_CXX_COMPILER_LAUNCHER)
    find_program(ANYBIT_CCACHE ccache)
    mark_as_advanced(ANYBIT_CCACHE)
    if(ANYBIT_CCACHE)
      set(CMAKE_CXX_COMPILER_LAUNCHER "${ANYBIT_CCACHE}")
    endif()
  endif()
endif()
