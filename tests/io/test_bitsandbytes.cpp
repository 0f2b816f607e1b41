#include <anybit/core/distance.hpp>
#include <anybit/io/bitsandbytes.hpp>
#include <anybit/io/safetensors.hpp>
#include <anybit/scheme/presets.hpp>
#include <anybit/tensor/pack.hpp>
#include <anybit/tensor/quantize.hpp>

#include <random>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/test_data.hpp"

using namespace anybit;
using namespace anybit::io;

namespace {

Matrix normal_matrix(Index rows, Index cols) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, 0.02f);
  Matrix w(rows, cols);
  for (Index i = 0; i < rows * cols; ++i) w.data()[i] = normal(random);
  return w;
}

/// FP4's two zeros are the same code.
std::uint8_t one_zero(std::uint8_t pair, bool fp4) {
  if (!fp4) return pair;
  return static_cast<std::uint8_t>(((pair >> 4) == 8 ? 0 : pair & 0xF0) | ((pair & 15) == 8 ? 0 : pair & 15));
}

template <class F>
void check_against_vectors(const SafetensorsFile& file, const std::string& input, const std::string& type, Index block,
                           bool double_quant) {
  const std::string name = input + "." + type + ".bs" + std::to_string(block) + (double_quant ? ".dq" : "");
  if (!file.find(name + ".packed")) return;
  INFO(name);
  const bool fp4 = type == "fp4";
  const Matrix w = file.read_f32("x." + input).value();
  const auto ours = to_bitsandbytes<F>(w.view(), block, double_quant);
  REQUIRE(ours.ok());
  const auto packed = file.read<std::uint8_t>(name + ".packed").value();
  REQUIRE(ours->packed.size() == packed.size());
  int different = 0;
  for (std::size_t i = 0; i < packed.size(); ++i) different += one_zero(ours->packed[i], fp4) != one_zero(packed[i], fp4);
  CHECK(different == 0);
  BitsAndBytes4 theirs;
  theirs.shape = w.extents();
  theirs.block = block;
  theirs.packed = packed;
  if (double_quant) {
    theirs.absmax_codes = file.read<std::uint8_t>(name + ".absmax_u8").value();
    theirs.nested_absmax = file.read<float>(name + ".nested_absmax").value();
    theirs.nested_offset = file.read<float>(name + ".nested_offset").value()[0];
    CHECK(ours->nested_offset == Approx(theirs.nested_offset).epsilon(2e-7));
    REQUIRE(ours->nested_absmax.size() == theirs.nested_absmax.size());
    for (std::size_t i = 0; i < ours->nested_absmax.size(); ++i)
      CHECK(ours->nested_absmax[i] == Approx(theirs.nested_absmax[i]).epsilon(1e-5));
    REQUIRE(ours->absmax_codes.size() == theirs.absmax_codes.size());
    int codes = 0;
    for (std::size_t i = 0; i < theirs.absmax_codes.size(); ++i) {
      codes += ours->absmax_codes[i] != theirs.absmax_codes[i];
      CHECK(std::abs(int{ours->absmax_codes[i]} - int{theirs.absmax_codes[i]}) <= 1);
    }
    CHECK(codes <= 1 + static_cast<int>(theirs.absmax_codes.size()) / 100);
    const auto restored = file.read<float>(name + ".absmax_restored").value();
    const auto scales = bitsandbytes_scales(theirs);
    REQUIRE(scales.ok());
    CHECK(*scales == restored);
  } else {
    theirs.absmax = file.read<float>(name + ".absmax").value();
    CHECK(ours->absmax == theirs.absmax);
  }
  if (file.find(name + ".deq")) {
    const Matrix expected = file.read_f32(name + ".deq").value();
    const auto restored = from_bitsandbytes<F>(theirs);
    REQUIRE(restored.ok());
    int wrong = 0;
    for (Index i = 0; i < expected.extents().size(); ++i) wrong += restored->data()[i] != expected.data()[i];
    CHECK(wrong == 0);
  }
}

}  // namespace

TEST_CASE("bitsandbytes' own bytes and values, with and without double quantization") {
  ANYBIT_TEST_DATA_OR_SKIP(path, "vectors/nf4.safetensors");
  const auto file = SafetensorsFile::open(path);
  REQUIRE(file.ok());
  for (const std::string input : {"big", "odd", "edge", "ties_nf4", "ties_fp4"})
    for (const Index block : {64, 128})
      for (const bool double_quant : {false, true}) {
        check_against_vectors<Nf4>(*file, input, "nf4", block, double_quant);
        check_against_vectors<Fp4>(*file, input, "fp4", block, double_quant);
      }
}

TEST_CASE("every block size: nearest levels of w / absmax, blocks across rows, the first code above") {
  const Matrix w = normal_matrix(37, 331);
  const Index n = w.extents().size();
  for (const Index block : {32, 64, 256, 512, 1024, 2048, 4096}) {
    INFO(block);
    const auto m = to_bitsandbytes<Nf4>(w.view(), block);
    REQUIRE(m.ok());
    CHECK(static_cast<Index>(m->absmax.size()) == (n + block - 1) / block);
    int wrong = 0;
    for (Index i = 0; i < n; ++i) {
      float largest = 0;
      for (Index j = i / block * block; j < std::min(n, (i / block + 1) * block); ++j)
        largest = std::max(largest, std::abs(w.data()[j]));
      const int code =
          i % 2 == 0 ? m->packed[static_cast<std::size_t>(i / 2)] >> 4 : m->packed[static_cast<std::size_t>(i / 2)] & 15;
      for (int other = 0; other < 16; ++other)
        wrong += std::abs(Nf4::decode(static_cast<Code>(other)) * largest - w.data()[i]) * 1.000001f <
                 std::abs(Nf4::decode(static_cast<Code>(code)) * largest - w.data()[i]) - 1e-9f;
    }
    CHECK(wrong == 0);
    CHECK((m->packed.back() & 15) == 7);  // 37 * 331 is odd
    // Double quantization costs little: relative error of scales below 1 %.
    const auto nested = to_bitsandbytes<Nf4>(w.view(), block, true);
    const auto scales = bitsandbytes_scales(*nested);
    REQUIRE(scales.ok());
    CHECK(nested->absmax.empty());
    for (std::size_t i = 0; i < scales->size(); ++i) CHECK((*scales)[i] == Approx(m->absmax[i]).epsilon(0.01));
  }
}

TEST_CASE("a matrix of bitsandbytes becomes one of anybit's with the same weights") {
  const Matrix w = normal_matrix(24, 256);
  const auto m = to_bitsandbytes<Nf4>(w.view(), 64);
  const auto q = quantized_from_bitsandbytes<presets::Nf4Plain>(*m);
  REQUIRE(q.ok());
  CHECK(*q == quantize_nearest<presets::Nf4Plain>(w.view()).value());
  const Matrix back = dequantize(*q), expected = from_bitsandbytes<Nf4>(*m).value();
  CHECK(relative_error(expected.view(), back.view()) == 0);

  // Double quantization: our store has its own offset, close by.
  const auto nested = to_bitsandbytes<Nf4>(w.view(), 64, true);
  const auto packed = quantized_from_bitsandbytes<presets::Nf4DoubleQuant>(*nested);
  REQUIRE(packed.ok());
  CHECK(relative_error(from_bitsandbytes<Nf4>(*nested)->view(), dequantize(pack(*packed)).view()) < 0.01);

  CHECK(quantized_from_bitsandbytes<Scheme<Nf4, PerGroup<128>, ScaleF32>>(*m).error().code == ErrorCode::unsupported);
  const auto ragged = to_bitsandbytes<Nf4>(normal_matrix(4, 100).view(), 64);
  CHECK(quantized_from_bitsandbytes<presets::Nf4Plain>(*ragged).error().message.find("100") != std::string::npos);
}

TEST_CASE("bitsandbytes: wrong sizes and weights are errors") {
  Matrix w = normal_matrix(8, 64);
  for (const Index block : {0, -64, 16, 48, 8192}) CHECK(!to_bitsandbytes<Fp4>(w.view(), block).ok());
  auto m = to_bitsandbytes<Fp4>(w.view(), 64, true).value();
  CHECK(from_bitsandbytes<Fp4>(m).ok());
  for (int part = 0; part < 3; ++part) {
    BitsAndBytes4 cut = m;
    if (part == 0) cut.packed.pop_back();
    if (part == 1) cut.absmax_codes.pop_back();
    if (part == 2) cut.nested_absmax.pop_back();
    CHECK(from_bitsandbytes<Fp4>(cut).error().code == ErrorCode::shape_mismatch);
  }
  BitsAndBytes4 empty;
  empty.shape = {2, 64};
  CHECK(!bitsandbytes_scales(empty).ok());
  w(3, 5) = std::nanf("");
  CHECK(to_bitsandbytes<Nf4>(w.view(), 64).error().code == ErrorCode::not_finite);
}
