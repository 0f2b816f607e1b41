#include "kernel/products.hpp"

using namespace anybit;
using namespace products;

TEST_CASE("integer products agree with the reference") {
  agree_everywhere<Scheme<SInt<8>, PerGroup<64>>>();
  agree_everywhere<Scheme<SInt<7>, PerGroup<48>>>();
  agree_everywhere<Scheme<SInt<6>, PerGroup<1024>>>();
  agree_everywhere<Scheme<SInt<4>, PerGroup<36>>>();
  agree_everywhere<Scheme<SInt<1>, PerGroup<32>>>();
  agree_everywhere<Scheme<SInt<16>, PerRow>>();
  agree_everywhere<Scheme<UInt<8>, PerGroup<128>>>();
  agree_everywhere<Scheme<UInt<4>, PerGroup<32>>>();
  agree_everywhere<Scheme<UInt<3>, PerGroup<5>>>();
  agree_everywhere<Scheme<UInt<2>, PerTensor, ScaleF32>>();
  agree_everywhere<Scheme<UInt<9>, PerGroup<128>>>();
}
