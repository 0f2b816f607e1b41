#pragma once
// The version of the library. CMake reads it from here.

#define ANYBIT_VERSION_MAJOR 0
#define ANYBIT_VERSION_MINOR 1
#define ANYBIT_VERSION_PATCH 0
