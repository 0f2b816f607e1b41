// Integer products with trellis codes against the definition, to the bit.

#include <anybit/kernel/trellis_rows.hpp>

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
    total = std::fma(static_cast<float>(sum), scale, total);
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
  for (const Index tokens : {1, 3, 7})
    for (const Compute compute : {Compute::int8_per_token, Compute::int8_per_block}) {
      Matrix x(tokens, e.cols), y(tokens, e.rows), z(tokens, e.rows);
      for (Index i = 0; i < x.extents().size(); ++i) x.data()[i] = normal(random);
      Workspace workspace, other;
      Serial serial;
      kernel::trellis_int8_matmul(t, x.view(), y.view(), compute, workspace, serial);
      kernel::trellis_int8_matmul(t, x.view(), z.view(), compute, other, pool);
      const auto rounded = kernel::round_activations(
          std::as_const(x).view(), std::max<Index>(S::granularity::group_cols(e.cols), 1), compute, other, serial);
      for (Index i = 0; i < tokens; ++i)
        for (Index r = 0; r < e.rows; ++r) {
          REQUIRE(std::memcmp(&y(i, r), &z(i, r), 4) == 0);
          REQUIRE(y(i, r) == expected(t, rounded, i, r));
        }
    }
}

}  // namespace

TEST_CASE("trellis rows: integer products are exact at every width and shape") {
  for (const Extents e : {Extents{16, 16}, Extents{37, 45}, Extents{1, 1}, Extents{20, 700}}) {
    check_products<Trellis<16, 1, ByteSum>>(e), check_products<Trellis<16, 2, ByteSum>>(e);
    check_products<Trellis<12, 3, ByteSum, PerGroup<64>>>(e), check_products<Trellis<16, 4, ByteSum, PerGroup<128>>>(e);
    check_products<Trellis<16, 3, BytePairs>>(e), check_products<Trellis<12, 5, BytePairs, PerGroup<32>>>(e);
    check_products<Trellis<16, 6, ByteSum, PerTensor>>(e), check_products<Trellis<16, 8, BytePairs>>(e);
  }
}
