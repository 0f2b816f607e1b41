#include <anybit/algorithm/nearest.hpp>

#include "integer_methods.hpp"
#include "integer_schemes.hpp"

namespace reproduce {

Method round_to_nearest(int bits, int group, anybit::Range range, anybit::Search search) {
  return for_scheme(bits, group,
                    [&]<class S>() { return one_by_one(anybit::Nearest<S>{.range = range, .search = search}, false); });
}

}  // namespace reproduce
