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

# Every *.cpp of the current folder is one program, and a test named KIND.PROGRAM: it runs without arguments, unless it has a line
#   // ctest: ARGUMENTS      runs with these; {out} is a folder to write to
#   // ctest: skip           is only built
# A line `// uses: TARGET` links that; where there is no such target, the program is not built.
function(anybit_add_programs kind)
  set(out "${CMAKE_CURRENT_BINARY_DIR}/out")
  file(MAKE_DIRECTORY "${out}")
  file(GLOB files CONFIGURE_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/*.cpp")
  foreach(file IN LISTS files)
    get_filename_component(name "${file}" NAME_WE)
    file(STRINGS "${file}" used REGEX "^// uses: " LIMIT_COUNT 1)
    string(REGEX REPLACE "^// uses: *" "" used "${used}")
    if(used AND NOT TARGET ${used})
      continue()
    endif()
    add_executable(${name} "${file}")
    target_link_libraries(${name} PRIVATE anybit_development ${used})
    target_compile_options(${name} PRIVATE ${ANYBIT_FLAGS_OF_${kind}})  # what a caller wants for these alone
    file(STRINGS "${file}" arguments REGEX "^// ctest: " LIMIT_COUNT 1)
    string(REGEX REPLACE "^// ctest: *" "" arguments "${arguments}")
    if(NOT arguments STREQUAL "skip")
      string(REPLACE "{out}" "${out}" arguments "${arguments}")
      separate_arguments(arguments UNIX_COMMAND "${arguments}")
      add_test(NAME ${kind}.${name} COMMAND ${name} ${arguments} WORKING_DIRECTORY "${out}")
    endif()
  endforeach()
endfunction()
