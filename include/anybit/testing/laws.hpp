#pragma once
// The laws that a format, a granularity, a scale store and a layout must keep, as plain functions that need no test framework.
// Each returns an empty text, or the first violation with the values that show it. Those of algorithms and transforms are in
// testing/algorithm_laws.hpp and testing/transform_laws.hpp, which include what quantizes.
//
//   REQUIRE(anybit::testing::check_format_laws<MyFormat>() == "");

#include <anybit/testing/format_laws.hpp>
#include <anybit/testing/scheme_laws.hpp>
