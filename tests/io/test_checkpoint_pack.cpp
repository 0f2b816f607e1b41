#include <anybit/io/checkpoint_pack.hpp>

#include <cmath>
#include <string>

#include "io/checkpoint_support.hpp"
#include "support/catch.hpp"
#include "support/same_bits.hpp"

using namespace checkpoint_support;
using test_support::same_bits;

namespace {

template <class S>
void check_exact(const CheckpointLinear& l) {
  INFO(std::string_view(S::name));
  const auto q = quantized_from_checkpoint<S>(l);
  INFO((q ? "" : q.error().message));
  REQUIRE(q.ok());
  CHECK(same_bits(dequantize(pack(*q)), dequantize(l)));
  const auto back = checkpoint_from_quantized(unpack(pack(*q)));
  REQUIRE(back);
  CHECK(same_bits(dequantize(*back), dequantize(l)));
}

}  // namespace

TEST_CASE("checkpoint layers keep their weights to the bit as packed tensors, and come back") {
  check_exact<Scheme<UInt<4>, PerGroup<32>, ScaleF16>>(random_linear(5, 96, 4, 32, false));
  check_exact<Scheme<UInt<4>, PerGroup<32>, ScaleF16>>(random_linear(5, 100, 4, 64, false));
  check_exact<Scheme<SInt<3>, PerGroup<32>, ScaleF16>>(random_linear(5, 64, 3, 64, true));
  check_exact<Scheme<SInt<8>, PerRow, ScaleF32>>(random_linear(7, 33, 8, 33, true));
  check_exact<Scheme<UInt<8>, PerRow, ScaleF32>>(random_linear(7, 33, 5, 33, false));
  check_exact<Scheme<SInt<8>, PerGroup<32>, ScaleF16>>(random_linear(7, 64, 4, 64, true));
  CheckpointLinear fp8 = random_linear(4, 40, 8, 40, true);
  fp8.levels = Levels::e4m3;
  for (auto& c : fp8.codes) c &= 0x7E;
  check_exact<Scheme<Minifloat<4, 3>, PerRow, ScaleF32>>(fp8);
  CheckpointLinear nf4 = random_linear(4, 128, 4, 64, true);
  nf4.levels = Levels::nf4;
  check_exact<presets::Nf4Plain>(nf4);
}

TEST_CASE("checkpoint layers in act-order become stored columns in order of groups") {
  CheckpointLinear l = random_linear(6, 96, 4, 32, false);
  for (Index c = 0; c < 96; ++c) l.group_of_column.push_back(static_cast<std::uint32_t>(c * 35 % 96 / 32));
  check_exact<Scheme<UInt<4>, PerGroup<32>, ScaleF16>>(l);
  CHECK(*checkpoint_from_quantized(*quantized_from_checkpoint<Scheme<UInt<4>, PerGroup<32>, ScaleF16>>(l)) == l);
  l.group_of_column[0] = 2;  // groups of 31, 32 and 33 columns: no scheme has them
  CHECK(quantized_from_checkpoint<Scheme<UInt<4>, PerGroup<32>, ScaleF16>>(l).error().message.find("unequal") !=
        std::string::npos);
}

TEST_CASE("what a scheme cannot hold exactly is refused with the reason") {
  using U4 = Scheme<UInt<4>, PerGroup<32>, ScaleF16>;
  const auto reason = [](const CheckpointLinear& l) { return quantized_from_checkpoint<U4>(l).error().message; };
  CHECK(reason(random_linear(2, 64, 5, 32, false)).find("levels") != std::string::npos);
  CHECK(reason(random_linear(2, 64, 4, 16, false)).find("smaller") != std::string::npos);
  CHECK(reason(random_linear(2, 64, 4, 48, false)).find("smaller") != std::string::npos);
  CheckpointLinear l = random_linear(2, 64, 4, 32, false);
  l.zeros[1] = 7.5f;
  CHECK(reason(l).find("zero point") != std::string::npos);
  l.zeros[1] = 7;
  l.scales[1] = 0.1f;
  CHECK(reason(l).find("rounds") != std::string::npos);
  l.scales[1] = -0.5f;
  CHECK(reason(l).find("rounds") != std::string::npos);
  l.scales[1] = 0.5f;
  CHECK(quantized_from_checkpoint<Scheme<SInt<4>, PerGroup<32>, ScaleF16>>(l).error().message.find("zero points") !=
        std::string::npos);
  l.grouping = Grouping::flat;
  CHECK(reason(l).find("columns") != std::string::npos);
}

TEST_CASE("the scheme of fewest bytes is taken") {
  const auto name = [](const CheckpointLinear& l) {
    const auto packed = pack_checkpoint(l, "test");
    INFO((packed ? "" : packed.error().message));
    REQUIRE(packed.ok());
    return std::string(packed->scheme_name());
  };
  CHECK(name(random_linear(8, 256, 4, 128, false)) == "uint4/g128/f16/bits");
  CHECK(name(random_linear(8, 256, 4, 128, true)) == "int4/g128/f16/bits");
  CHECK(name(random_linear(8, 256, 5, 64, false)) == "uint5/g32/f16/bits");
  CHECK(name(random_linear(8, 256, 3, 256, true)) == "int3/g128/f16/bits");
  CHECK(name(random_linear(8, 512, 8, 512, true)) == "int8/row/f32/bits");
  CheckpointLinear fraction = random_linear(8, 256, 4, 128, false);
  fraction.zeros[0] = 0.5f;
  CHECK(!pack_checkpoint(fraction, "").ok());
}
