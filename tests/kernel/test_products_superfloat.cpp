#include "kernel/products.hpp"

using namespace anybit;
using namespace products;

TEST_CASE("superfloat products agree with the reference") {
  agree_everywhere<Scheme<Superfloat<8>>>();
  agree_everywhere<Scheme<Superfloat<5>, PerGroup<32>, ScaleF32>>();
  agree_everywhere<Scheme<Superfloat<3>, PerGroup<1>>>();
  agree_everywhere<Scheme<Superfloat<1>, PerGroup<7>, ScaleBF16>>();
  agree_everywhere<Scheme<Superfloat<2>, PerRow>>();
  agree_everywhere<Scheme<Superfloat<12>, PerGroup<100>>>();
  agree_everywhere<presets::PublishedSuperfloat8>();
}
