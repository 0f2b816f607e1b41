// EXPECT: anybit: the list of a Codebook<N> must have N levels, no fewer (see docs/tutorial/03_a_format_of_your_own.md)
#include <anybit/format/codebook.hpp>

#ifdef ANYBIT_FIXED
constexpr anybit::Codebook<15> book{{-7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7}};
#else
constexpr anybit::Codebook<16> book{{-7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7}};
#endif
