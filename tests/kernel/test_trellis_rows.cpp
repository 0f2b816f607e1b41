// Integer products with trellis codes against the definition, to the bit.

#include <anybit/kernel/trellis_rows.hpp>

#include <anybit/kernel/any_packed.hpp>
#include <anybit/kernel/exl3_matmul.hpp>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include <anybit/core/matrix.hpp>
#include <anybit/exec/thread_pool.hpp>

#include "support/catch.hpp"

using namespace anybit;
using kernel::RoundedActivations;

namespace {

template <class S>
PackedTensor<S> random_tensor(Extents e, unsigned seed) {
  std::mt19937 random(seed);
  auto t = PackedTensor<S>::allocate(e, false, "random bits");
  PackedBytes& b = t.bytes();
  for (std::byte& v : b.mutable_section(b.section(section_tags::trellis))) v = std::byte(random() & 255);
  std::vector<float> scales(static_cast<std::size_t>(S::granularity::count(e)));
  for (float& s : scales) s = 0.01f * static_cast<float>(1 + random() % 100);
  S::scale_store::store(scales, b.mutable_section(b.section(section_tags::scales)).data());
  return t;
}

/// a * b + c as the vectors round it: once, or twice where the processor has no instruction for it.
float multiply_add(float a, float b, float c) {
  float out[static_cast<std::size_t>(simd::width)];
  simd::store(out, simd::fma(simd::broadcast(a), simd::broadcast(b), simd::broadcast(c)));
  return out[0];
}

/// total <- fma(sum of value * code over a segment, scale, total), in the order of segments, times the token's scale.
template <class S>
float expected(const PackedTensor<S>& t, const RoundedActivations& x, Index token, Index row) {
  using G = typename S::granularity;
  const Extents e = t.extents();
  const typename PackedTensor<S>::SectionsOf sections(t.bytes());
  const std::int8_t* codes = x.codes + token * x.stride;
  float total = 0;
  Index index = 0;
  for (kernel::Segment s(e.cols, x.group, x.segment_cols); !s.done(); s.next(), ++index) {
    std::int64_t sum = 0;
    for (Index c = s.first; c < s.end(); ++c) {
      std::uint16_t states[static_cast<std::size_t>(S::steps)];
      S::code::read(Sections(sections)[0].data() + S::tile_at(e, row, c) * S::tile_bytes, states);
      sum += static_cast<std::int64_t>(
                 trellis_value<typename S::codebook>(states[S::step_of(row % 16, c % 16)], c % S::step_weights)) *
             codes[c - s.first];
    }
    codes += round_up(s.length, 4);
    float scale;
    S::scale_store::load(t.bytes().scales().data(), G::count(e), G::index(e, row, s.group), {&scale, 1});
    if (x.blocks) scale *= x.blocks[token * x.segments + index];
    total = multiply_add(static_cast<float>(sum), scale, total);
  }
  return x.blocks ? total : total * x.scales[token];
}

template <class S>
void check_products(Extents e) {
  INFO(std::string_view(S::name) << ": " << e.rows << " x " << e.cols);
  const auto t = random_tensor<S>(e, static_cast<unsigned>(e.cols));
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  ThreadPool pool(2);
  for (const Index tokens : {1, 3, 15, 17})  // the last through lines of bytes
    for (const Compute compute : {Compute::int8_per_token, Compute::int8_per_block}) {
      Matrix x(tokens, e.cols), y(tokens, e.rows), z(tokens, e.rows);
      for (Index i = 0; i < x.extents().size(); ++i) x.data()[i] = normal(random);
      Workspace workspace, other;
      Serial serial;
      matmul(t, x.view(), y.view(), compute, workspace, serial);
      matmul(t, x.view(), z.view(), compute, other, pool);
      const auto rounded = kernel::round_activations(
          std::as_const(x).view(), std::max<Index>(S::granularity::group_cols(e.cols), 1), compute, other, serial);
      for (Index i = 0; i < tokens; ++i)
        for (Index r = 0; r < e.rows; ++r) {
          REQUIRE(std::memcmp(&y(i, r), &z(i, r), 4) == 0);
          REQUIRE(y(i, r) == expected(t, rounded, i, r));
        }
    }
}

/// Weights of a source against the scheme's own decode(), to the bit, at odd places.
template <class S>
void check_weights(const kernel::PackedRows& source, Sections sections, Extents e) {
  INFO(std::string_view(S::name) << ": " << e.rows << " x " << e.cols);
  for (const auto& [row, rows, first, n] : {std::array<Index, 4>{0, e.rows, 0, e.cols},
                                            {e.rows / 3, 1, e.cols / 2, e.cols - e.cols / 2},
                                            {e.rows / 2, e.rows - e.rows / 2, e.cols / 3, 1}}) {
    std::vector<float> out(static_cast<std::size_t>(rows * (n + 3)), -7.0f);
    for (Index c = 0; c < n; c += 512)
      source.ops->weights(source.tensor, row, rows, first + c, std::min<Index>(512, n - c), out.data() + c, n + 3);
    for (Index r = 0; r < rows; ++r)
      for (Index c = 0; c < n; ++c) {
        float granule[256];
        S::decode(sections, e, (row + r) / 16 * 16, (first + c) / 16 * 16, granule);
        const float expected = granule[(row + r) % 16 * 16 + (first + c) % 16],
                    mine = out[static_cast<std::size_t>(r * (n + 3) + c)];
        REQUIRE(std::memcmp(&mine, &expected, 4) == 0);
      }
  }
}
template <class S>
void check_decoding(Extents e) {
  const auto t = random_tensor<S>(e, 5);
  const typename PackedTensor<S>::SectionsOf sections(t.bytes());
  check_weights<S>(kernel::PackedRows(t), sections, e);
}

template <class S>
void check_exl3() {
  const Extents e{150, 200};
  INFO(std::string_view(S::name));
  std::mt19937 random(9);
  auto t = PackedTensor<S>::allocate(e, false, "random bits");
  PackedBytes& b = t.bytes();
  for (std::byte& v : b.mutable_section(b.section(section_tags::trellis))) v = std::byte(random() & 255);
  for (const SectionTag& tag : {section_tags::input_scales, section_tags::output_scales}) {
    const auto section = b.mutable_section(b.section(tag));
    for (std::size_t i = 0; i < section.size(); i += 2) {
      const std::uint16_t half = f32_to_f16((random() & 1 ? 0.02f : -0.01f) * static_cast<float>(1 + random() % 5));
      std::memcpy(section.data() + i, &half, 2);
    }
  }
  const typename PackedTensor<S>::SectionsOf sections(t.bytes());
  check_weights<typename S::Inner>(kernel::rows_between_rotations(t), sections, S::padded(e));
  Matrix x(3, e.cols), y(3, e.rows);
  std::normal_distribution<float> normal;
  for (Index i = 0; i < x.extents().size(); ++i) x.data()[i] = normal(random);
  Workspace workspace;
  Serial serial;
  kernel::exl3_matmul(t, std::as_const(x).view(), y.view(), Compute::f32, workspace, serial);
  double off = 0, all = 0;
  for (Index r = 0; r < e.rows; ++r) {
    std::vector<float> granule(16 * 128), row;
    for (Index c = 0; c < e.cols; c += 128) {
      S::decode(sections, e, r / 16 * 16, c, granule.data());
      row.insert(row.end(), granule.begin() + r % 16 * 128, granule.begin() + (r % 16 + 1) * 128);
    }
    for (Index i = 0; i < 3; ++i) {
      double sum = 0;
      for (Index c = 0; c < e.cols; ++c)
        sum += static_cast<double>(x(i, c)) * static_cast<double>(row[static_cast<std::size_t>(c)]);
      off += std::pow(sum - static_cast<double>(y(i, r)), 2), all += sum * sum;
    }
  }
  CHECK(std::sqrt(off) <= 2e-6 * std::sqrt(all));
  // The same bits through the handle, and for slices of rows that cut blocks.
  const AnyPacked any(std::move(t));
  Matrix z(3, e.rows);
  for (const Compute compute : {Compute::f32, Compute::int8_per_token}) {
    any.matmul(x.view(), y.view(), compute, serial, workspace);
    const Activations a = round_activations(x.view(), any.plan(compute), workspace);
    for (const auto& [begin, end] : {std::pair<Index, Index>{0, 5}, {5, 140}, {140, e.rows}})
      any.matmul_rows(a, z.view(), begin, end);
    CHECK(std::memcmp(y.data(), z.data(), static_cast<std::size_t>(3 * e.rows) * sizeof(float)) == 0);
  }
}

/// A third party's.
struct Halves {
  static constexpr std::string_view name = "halves";
  static constexpr std::array<float, 4> value(std::uint32_t state) {
    return {static_cast<float>(state % 7), 0.5f, static_cast<float>(state) / 3.0f, -1.0f};
  }
};

}  // namespace

TEST_CASE("trellis tiles: decoded in registers to the bits of the schemes") {
  for (const Extents e : {Extents{16, 16}, Extents{37, 45}, Extents{1, 1}, Extents{20, 530}}) {
    check_decoding<Trellis<16, 2, ByteSum, PerGroup<32>>>(e), check_decoding<Trellis<12, 3, BytePairs>>(e);
    check_decoding<Trellis<16, 5, Mul1>>(e), check_decoding<Trellis<10, 1, ThreeInst>>(e), check_decoding<Trellis<16, 4, Mcg>>(e);
    check_decoding<Trellis<12, 2, Quantiles>>(e), check_decoding<Trellis<16, 4, Quantiles, PerGroup<16>>>(e);
    check_decoding<Trellis<8, 4, Halves, PerTensor>>(e), check_decoding<Trellis<16, 8, OneMad, PerTensor>>(e);
  }
}

TEST_CASE("exl3: products through rotated activations are those with the weights") {
  check_exl3<Exl3<1, Mul1>>(), check_exl3<Exl3<3, ThreeInst>>(), check_exl3<Exl3<4, Mcg>>(), check_exl3<Exl3<8, Mul1>>();
}

TEST_CASE("trellis rows: integer products are exact at every width and shape") {
  for (const Extents e : {Extents{16, 16}, Extents{37, 45}, Extents{1, 1}, Extents{20, 700}}) {
    check_products<Trellis<16, 1, ByteSum>>(e), check_products<Trellis<16, 2, ByteSum>>(e);
    check_products<Trellis<12, 3, ByteSum, PerGroup<64>>>(e), check_products<Trellis<16, 4, ByteSum, PerGroup<128>>>(e);
    check_products<Trellis<16, 3, BytePairs>>(e), check_products<Trellis<12, 5, BytePairs, PerGroup<32>>>(e);
    check_products<Trellis<16, 6, ByteSum, PerTensor>>(e), check_products<Trellis<16, 8, BytePairs>>(e);
    check_products<Trellis<12, 2, Quantiles>>(e), check_products<Trellis<12, 1, Quantiles, PerGroup<64>>>(e);
    check_products<Trellis<16, 3, Quantiles>>(e), check_products<Trellis<10, 4, Quantiles, PerGroup<32>>>(e);
    check_products<Trellis<16, 5, Quantiles>>(e), check_products<Trellis<8, 3, Quantiles>>(e),
        check_products<Trellis<16, 4, Quantiles>>(e);
  }
}

TEST_CASE("trellis rows: the handle of any scheme multiplies straight from the bits") {
  using S = Trellis<12, 3, ByteSum, PerGroup<64>>;
  const Extents e{37, 150};
  const auto t = random_tensor<S>(e, 4);
  AnyPacked any(t);
  Serial serial;
  for (const Compute compute : {Compute::int8_per_token, Compute::int8_per_block}) {
    const kernel::Prepared made = any.prepare(compute);
    CHECK((!made && made.in_place && made.bytes == 0));
    Matrix x(5, e.cols), y(5, e.rows), z(5, e.rows);
    std::mt19937 random(3);
    std::normal_distribution<float> normal;
    for (Index i = 0; i < x.extents().size(); ++i) x.data()[i] = normal(random);
    Workspace workspace;
    matmul(t, x.view(), y.view(), compute, workspace, serial);
    any.matmul(std::as_const(x).view(), z.view(), compute, serial, workspace);
    CHECK(std::memcmp(y.data(), z.data(), static_cast<std::size_t>(e.rows * 5) * sizeof(float)) == 0);
  }
  // Values that are no sums of bytes go on in float, and say why.
  AnyPacked floats(random_tensor<Trellis<10, 2, ThreeInst>>(e, 4));
  CHECK(!floats.prepare(Compute::int8_per_token).in_place);
  CHECK(!floats.prepared().why_not.empty());
}
