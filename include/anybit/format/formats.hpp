#pragma once
// Every format of the library.

#include <anybit/format/codebook.hpp>
#include <anybit/format/integer.hpp>
#include <anybit/format/lloyd_max.hpp>
#include <anybit/format/minifloat.hpp>
#include <anybit/format/superfloat.hpp>
#include <anybit/format/ternary.hpp>
