// Compiled with -ffast-math: input is checked all the same. (tests/package/two_isas links such files with others.)

#include <array>
#include <bit>
#include <cstring>
#include <fstream>

#include <anybit/algorithm/gptq.hpp>
#include <anybit/algorithm/nearest.hpp>
#include <anybit/calibrate/accumulate.hpp>
#include <anybit/core/finite.hpp>
#include <anybit/format/integer.hpp>
#include <anybit/io/llama2c.hpp>
#include <anybit/kernel/any_packed.hpp>
#include <anybit/kernel/attention_codes.hpp>
#include <anybit/model/load_tensors.hpp>
#include <anybit/tensor/pack.hpp>
#include <anybit/tensor/quantize.hpp>
#include <anybit/transform/smooth_quant.hpp>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

#if !defined(__FAST_MATH__)
#error "tests/CMakeLists.txt must compile this folder with -ffast-math"
#endif

using namespace anybit;

namespace {

/// A float that the compiler knows nothing of.
float from_bits(std::uint32_t bits) {
  volatile std::uint32_t hidden = bits;
  return std::bit_cast<float>(std::uint32_t{hidden});
}
float nan() { return from_bits(0x7FC00000); }
float infinity() { return from_bits(0x7F800000); }
bool is_nan_by_bits(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return (bits & 0x7FFFFFFF) > 0x7F800000;
}

using Int4 = Scheme<UInt<4>, PerGroup<32>, ScaleF32>;

Matrix ramp(Index rows, Index cols) {
  Matrix m(rows, cols);
  for (Index i = 0; i < rows * cols; ++i) m.data()[i] = static_cast<float>(i % 37 - 18) / 16;
  return m;
}

}  // namespace

TEST_CASE("finite, infinite and NaN are told apart by their bits", "[fast-math]") {
  struct Case {
    std::uint32_t bits;
    bool finite, infinite;
  };
  for (const auto& [bits, finite, infinite] : {Case{0, true, false},
                                               {0x80000000, true, false},
                                               {1, true, false},
                                               {0x7F7FFFFF, true, false},
                                               {0xFF7FFFFF, true, false},
                                               {0x7F800000, false, true},
                                               {0xFF800000, false, true},
                                               {0x7F800001, false, false},
                                               {0xFFFFFFFF, false, false}}) {
    const float x = from_bits(bits);
    CAPTURE(bits);
    CHECK(is_finite(x) == finite);
    CHECK(is_infinite(x) == infinite);
    CHECK(is_nan(x) == (!finite && !infinite));
  }
  for (const auto& [bits, finite, infinite] : {std::tuple{std::uint64_t{1}, true, false},
                                               {0x7FEFFFFFFFFFFFFF, true, false},
                                               {0xFFF0000000000000, false, true},
                                               {0x7FF0000000000001, false, false}}) {
    volatile std::uint64_t hidden = bits;
    const auto x = std::bit_cast<double>(std::uint64_t{hidden});
    CAPTURE(bits);
    CHECK(is_finite(x) == finite);
    CHECK(is_infinite(x) == infinite);
    CHECK(is_nan(x) == (!finite && !infinite));
  }
  CHECK(is_within(from_bits(0x3F800000), 0, 1));
  CHECK_FALSE(is_within(nan(), 0, 1));
  CHECK_FALSE(is_within(infinity(), 0, 1));
}

TEST_CASE("weights, activations and Hessians that are not finite are refused", "[fast-math]") {
  for (const float bad : {nan(), infinity(), -infinity()}) {
    Matrix w = ramp(3, 40);
    CHECK(find_not_finite(w.view()) == std::pair<Index, Index>{-1, -1});
    CHECK(Nearest<Int4>{}.quantize(w.view()).ok());
    w(2, 39) = bad;
    CHECK(find_not_finite(w.view()) == std::pair<Index, Index>{2, 39});
    const auto q = Nearest<Int4>{}.quantize(w.view());
    REQUIRE_FALSE(q.ok());
    CHECK(q.error().code == ErrorCode::not_finite);

    Matrix x = ramp(5, 40);
    Stats stats(40, Needs::hessian);
    CHECK(stats.accumulate(x.view()).ok());
    x(4, 7) = bad;
    CHECK_FALSE(stats.accumulate(x.view()).ok());
  }
}

TEST_CASE("a packed tensor with a scale that is not finite is refused", "[fast-math]") {
  const auto good = pack(quantize_nearest<Int4>(ramp(3, 40).view()).value());
  CHECK(PackedTensor<Int4>::from(PackedBytes(good.bytes())).ok());
  for (const float bad : {nan(), infinity(), from_bits(0xBF800000)}) {
    PackedTensor<Int4> t = good;
    std::memcpy(t.bytes().mutable_section(t.bytes().scales()).data() + 4, &bad, 4);
    const auto opened = PackedTensor<Int4>::from(PackedBytes(t.bytes()));
    REQUIRE_FALSE(opened.ok());
    CHECK(opened.error().message.find("scale 1 is") != std::string::npos);
  }
}

TEST_CASE("a token or a group of keys with a value that is not finite spoils itself", "[fast-math]") {
  for (const float bad : {nan(), infinity()}) {
    std::array<float, 40> x{};
    x.fill(0.5f);
    x[33] = bad;
    std::array<std::int8_t, 40> codes;
    // Later clangs take it for impossible that a function returns NaN.
#if !defined(__clang__) || __clang_major__ < 17
    CHECK(is_nan_by_bits(kernel::round_token(x.data(), 40, codes.data())));
#endif
    CHECK_FALSE(ActivationMode::valid_scale(bad));
  }
  for (const float bad : {nan(), infinity()}) {
    const Index rows = 8, cols = 64;
    Matrix x = ramp(rows, cols), back(rows, cols);
    x(3, 40) = bad;
    const kernel::KvBlockShape shape{rows, cols, cols};
    std::vector<std::byte> bytes(4096), scratch(4096);
    const kernel::KvCodec codec = kernel::kv_codec(4);
    codec.encode(shape, x.data(), bytes.data(), reinterpret_cast<std::uint8_t*>(scratch.data()));
    codec.decode(shape, bytes.data(), back.data(), reinterpret_cast<std::uint8_t*>(scratch.data()));
    CHECK(is_nan_by_bits(back(3, 40)));
    CHECK_FALSE(is_nan_by_bits(back(3, 0)));
    CHECK_FALSE(is_nan_by_bits(back(4, 40)));
  }
}

TEST_CASE("options that are NaN are refused", "[fast-math]") {
  Matrix x = ramp(80, 40);
  Stats stats(40, Needs::hessian | Needs::abs_max);
  REQUIRE(stats.accumulate(x.view()).ok());
  CHECK_FALSE(Gptq<Int4>{.damp = nan()}.quantize(ramp(3, 40).view(), stats).ok());
  CHECK_FALSE(check_search(HalfQuadratic{.norm = nan()}).ok());
  CHECK_FALSE(check_search(ShrinkSearch{.shrink = nan()}).ok());
}

TEST_CASE("a model file with one NaN weight is refused", "[fast-math]") {
  const test_support::TemporaryFolder folder;
  const std::array<std::int32_t, 7> header{8, 12, 1, 2, 2, 4, 16};  // dim, hidden, layers, heads, KV heads, vocabulary, context
  const std::size_t floats = 4 * 8 + 8 + 4 * 64 + 8 + 3 * 96 + 8 + 2 * 16 * 2;
  for (const bool poisoned : {false, true}) {
    std::vector<float> weights(floats, 0.25f);
    if (poisoned) weights[300] = nan();
    const std::string path = folder / "m.bin";
    std::ofstream out(path, std::ios::binary);
    out.write(reinterpret_cast<const char*>(header.data()), sizeof header);
    out.write(reinterpret_cast<const char*>(weights.data()), static_cast<std::streamsize>(4 * floats));
    out.close();
    const auto file = io::Llama2cFile::open(path);
    REQUIRE(file.ok());
    model::detail::TensorReader reader(*file);
    int refused = 0;
    for (const io::TensorInfo& t : file->tensors())
      if (const auto m = reader.matrix(t.name, t.extents()); !m) {
        CHECK(m.error().code == ErrorCode::not_finite);
        ++refused;
      }
    CHECK(refused == (poisoned ? 1 : 0));
  }
}
