# Behind ANYBIT_FETCH_DEPENDENCIES: sources of what find_package does not find. Header-only projects are only
# unpacked (SOURCE_SUBDIR names a folder without a CMakeLists.txt), so that their own tests and targets stay out.
include(FetchContent)

macro(anybit_fetch_headers name target include_directory)
  FetchContent_Declare(${name} ${ARGN} GIT_SHALLOW TRUE SOURCE_SUBDIR unpack-only)
  FetchContent_MakeAvailable(${name})
  add_library(${target} INTERFACE IMPORTED GLOBAL)
  set_target_properties(${target} PROPERTIES
    INTERFACE_INCLUDE_DIRECTORIES "${${name}_SOURCE_DIR}/${include_directory}")
endmacro()

find_package(Eigen3 3.4 CONFIG QUIET)
if(NOT TARGET Eigen3::Eigen)
  anybit_fetch_headers(anybit_eigen Eigen3::Eigen "."
    GIT_REPOSITORY https://gitlab.com/libeigen/eigen.git GIT_TAG 3.4.0)
else()
  set_target_properties(Eigen3::Eigen PROPERTIES IMPORTED_GLOBAL TRUE)
endif()

find_path(ANYBIT_XSIMD_INCLUDE_DIR xsimd/xsimd.hpp DOC "Directory that holds xsimd/xsimd.hpp")
if(NOT ANYBIT_XSIMD_INCLUDE_DIR)
  anybit_fetch_headers(anybit_xsimd_source anybit::xsimd "include"
    GIT_REPOSITORY https://github.com/xtensor-stack/xsimd.git GIT_TAG 13.2.0)
endif()

if(ANYBIT_BUILD_TOOLS)
  find_package(CLI11 CONFIG QUIET)
  if(NOT TARGET CLI11::CLI11)
    anybit_fetch_headers(anybit_cli11 CLI11::CLI11 "include"
      GIT_REPOSITORY https://github.com/CLIUtils/CLI11.git GIT_TAG v2.3.2)
  endif()
  find_package(nlohmann_json CONFIG QUIET)
  if(NOT TARGET nlohmann_json::nlohmann_json)
    anybit_fetch_headers(anybit_json nlohmann_json::nlohmann_json "include"
      GIT_REPOSITORY https://github.com/nlohmann/json.git GIT_TAG v3.11.3)
  endif()
endif()

if(ANYBIT_BUILD_TESTS)
  find_package(Catch2 CONFIG QUIET)
  if(NOT TARGET Catch2::Catch2)
    FetchContent_Declare(anybit_catch2
      GIT_REPOSITORY https://github.com/catchorg/Catch2.git GIT_TAG v3.7.1 GIT_SHALLOW TRUE)
    FetchContent_MakeAvailable(anybit_catch2)
  endif()
endif()

if(ANYBIT_BUILD_BENCH)
  find_package(benchmark CONFIG QUIET)
  if(NOT TARGET benchmark::benchmark)
    set(BENCHMARK_ENABLE_TESTING OFF)
    set(BENCHMARK_ENABLE_INSTALL OFF)
    FetchContent_Declare(anybit_benchmark
      GIT_REPOSITORY https://github.com/google/benchmark.git GIT_TAG v1.8.5 GIT_SHALLOW TRUE)
    FetchContent_MakeAvailable(anybit_benchmark)
  endif()
endif()
