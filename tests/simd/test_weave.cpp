#include <vector>

#include <anybit/simd/transpose.hpp>

#include "support/catch.hpp"

using namespace anybit;

namespace {

template <Index Rows>
void weaves() {
  for (const Index n : {0, 1, 3, 4, 7, 8, 17, 40}) {
    const Index stride = 4 * n + 5;
    std::vector<std::int8_t> from(static_cast<std::size_t>(Rows * stride)), out(static_cast<std::size_t>(4 * Rows * n) + 3, 99);
    for (std::size_t i = 0; i < from.size(); ++i) from[i] = static_cast<std::int8_t>(i * 37);
    simd::weave_dwords<Rows>(from.data(), stride, n, out.data() + 1);
    CAPTURE(Rows, n);
    bool same = out.front() == 99 && out[out.size() - 1] == 99 && out[out.size() - 2] == 99;
    for (Index k = 0; k < n; ++k)
      for (Index r = 0; r < Rows; ++r)
        for (Index b = 0; b < 4; ++b)
          same = same && out[static_cast<std::size_t>(1 + 4 * (k * Rows + r) + b)] ==
                             from[static_cast<std::size_t>(r * stride + 4 * k + b)];
    CHECK(same);
  }
}

}  // namespace

TEST_CASE("rows of dwords are woven, and nothing beside them is written") {
  weaves<1>();
  weaves<2>();
  weaves<4>();
  weaves<8>();
}
