# Run by anybit_add_kernels during the build, in one of two ways.
#
# OBJECTS (separated by |), ARCH, OUT: links the objects of one architecture into the object OUT in which every symbol is
# local except the functions of ANYBIT_KERNELS, whose names get the architecture's. OUT.names lists them.
#
# KERNELS (such OUTs), ARCHS (separated by commas), OUT: writes the C++ file OUT, whose functions call the chosen ones.

cmake_minimum_required(VERSION 3.22)

function(run output)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE failed OUTPUT_VARIABLE out ERROR_VARIABLE error)
  if(failed)
    string(REPLACE ";" " " command "${ARGN}")
    message(FATAL_ERROR "${command}: ${failed}\n${out}${error}")
  endif()
  set(${output} "${out}" PARENT_SCOPE)
endfunction()

set(prefix "anybit_kernels_")
get_filename_component(folder "${OUT}" DIRECTORY)
file(MAKE_DIRECTORY "${folder}")

if(DEFINED OBJECTS)
  string(REPLACE "|" ";" OBJECTS "${OBJECTS}")
  string(MAKE_C_IDENTIFIER "${ARCH}" suffix)
  set(linked "${OUT}.linked")
  # Groups keep one copy of an inline function per program: dissolved, each architecture keeps its own.
  run(_ "${LINKER}" -r --force-group-allocation ${OBJECTS} -o "${linked}")

  run(symbols "${NM}" "${linked}")
  # What runs before main would run on every processor.
  if(symbols MATCHES " (_GLOBAL__(sub_)?I[^\n]*|__cxx_global_var_init[^\n]*)")
    string(REPLACE ";" " " sources "${OBJECTS}")
    message(FATAL_ERROR
      "anybit_add_kernels: ${sources} has a variable that is initialized when the program starts (${CMAKE_MATCH_1}), for ${ARCH} "
      "also on processors that are not ${ARCH}. Make it constexpr or constinit, or a static variable of a function. "
      "<iostream> has such a variable: print elsewhere.")
  endif()
  string(REGEX MATCHALL " T ${prefix}[A-Za-z0-9_]+" names "${symbols}")
  string(REPLACE " T ${prefix}" "" names "${names}")
  list(SORT names)
  if(NOT names)
    message(FATAL_ERROR "anybit_add_kernels: the sources define no function that ANYBIT_KERNELS declares "
                        "(include the header that has it, and define it outside of any unnamed namespace)")
  endif()
  set(keep "")
  foreach(name IN LISTS names)
    list(APPEND keep "--keep-global-symbol=${prefix}${name}")
    list(APPEND renamed "--redefine-sym=${prefix}${name}=${prefix}${name}_in_${suffix}")
  endforeach()
  # In two steps: objcopy looks names up before in one release and after renaming in another.
  run(_ "${OBJCOPY}" ${keep} "${linked}" "${OUT}.local")
  run(_ "${OBJCOPY}" ${renamed} "${OUT}.local" "${OUT}")
  file(REMOVE "${linked}" "${OUT}.local")
  run(symbols "${NM}" --defined-only --extern-only "${OUT}")
  string(REGEX MATCHALL "[^\n]+" left "${symbols}")
  list(FILTER left EXCLUDE REGEX " T ${prefix}[A-Za-z0-9_]+_in_${suffix}$")
  if(left)
    message(FATAL_ERROR "anybit_add_kernels: ${OBJCOPY} left symbols of ${ARCH} visible: ${left}")
  endif()
  file(WRITE "${OUT}.names" "${names}")
  return()
endif()

string(REPLACE "|" ";" KERNELS "${KERNELS}")
string(REPLACE "," ";" archs "${ARCHS}")
foreach(kernel IN LISTS KERNELS)
  file(READ "${kernel}.names" here)
  if(DEFINED names AND NOT names STREQUAL here)
    message(FATAL_ERROR "anybit_add_kernels: one architecture has the functions ${names}, another ${here}: "
                        "define them all whatever the instruction set")
  endif()
  set(names "${here}")
endforeach()
set(code "// Written by anybit_add_kernels.\n#include <anybit/kernel/isa.hpp>\n")
foreach(name IN LISTS names)
  set(declared "extern \"C\" const void* ${prefix}${name}();\n")
  set(chosen "")
  foreach(arch IN LISTS archs)
    string(MAKE_C_IDENTIFIER "${arch}" suffix)
    string(APPEND declared "extern \"C\" const void* ${prefix}${name}_in_${suffix}();\n")
    string(APPEND chosen "    if (isa == \"${arch}\") return ${prefix}${name}_in_${suffix}();\n")
  endforeach()
  string(APPEND code "\n${declared}const void* ${prefix}${name}() {\n"
    "  static const void* const table = [] {\n"
    "    const std::string_view isa = anybit::kernel::chosen_isa(\"${ARCHS}\");\n${chosen}"
    "    std::abort();\n  }();\n  return table;\n}\n")
endforeach()
file(WRITE "${OUT}" "${code}")
