#pragma once
// Catch2 2.13 (one header) and 3 (a library) by the same include.

// An exception ends its test case, not only its assertion: nothing here throws, and assertions compile a good deal faster.
#define CATCH_CONFIG_FAST_COMPILE
#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>
using Catch::Approx;
#else
#include <catch2/catch.hpp>
#endif
