// Masks, Wanda and SparseGPT of reference/: the worked example and the published masks and weights.

#include <string>

#include <anybit/reference/nearest.hpp>
#include <anybit/reference/sparse_gpt.hpp>
#include <anybit/reference/wanda.hpp>

#include "reference/vectors.hpp"

using namespace anybit;
using namespace reference_tests;

namespace {

Index differing(const ref::Mask& mask, const std::vector<std::uint8_t>& expected) {
  Index n = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) n += mask.values[i] != expected[i];
  return n;
}

struct Layer {
  ref::Matrix w, x;
};
Layer layer_of(const io::SafetensorsFile& file) {
  const auto sequences = *file.read_f32("X");
  Layer l{read(file, "W"), ref::Matrix(3 * 128, 256)};
  for (Index i = 0; i < 3 * 128 * 256; ++i) l.x.values[static_cast<std::size_t>(i)] = double{sequences.data()[i]};
  return l;
}

}  // namespace

TEST_CASE("reference: masks, by hand") {
  ref::Matrix w(2, 4);
  w.values = {4, 0, 1, -1, 3, -2, -1, -3};
  const ref::Matrix scores = ref::wanda_scores(w, {1, 2, 8, 3});
  CHECK(scores.values == std::vector<double>{4, 0, 8, 3, 3, 4, 8, 9});
  CHECK(ref::prune_rows(scores, 0.5).values == std::vector<int>{0, 1, 0, 1, 1, 1, 0, 0});
  CHECK(ref::prune_n_of_m(scores, 1, 2).values == std::vector<int>{0, 1, 0, 1, 1, 0, 1, 0});
  CHECK(ref::prune_whole(ref::magnitudes(w), 0.25).values == std::vector<int>{0, 1, 1, 0, 0, 0, 0, 0});  // of equals the first
  CHECK(ref::prune_n_of_m(scores, 2, 3).values ==
        std::vector<int>{0, 1, 0, 0, 1, 0, 0, 0});  // one column left over keeps its own
  CHECK(ref::pruned(w, ref::prune_rows(scores, 0.5)).values == std::vector<double>{4, 0, 1, 0, 0, 0, -1, -3});
  ref::Matrix x(2, 2);
  x.values = {3, 1, 4, 0};
  CHECK(ref::column_norms(x) == ref::Vector{5, 1});
}

TEST_CASE("reference: SparseGPT removes one of two equal inputs without an error") {
  ref::Matrix h(2, 2), w(1, 2);
  h.values = {1, 1, 1, 1}, w.values = {1, 2};
  const auto p = ref::sparse_gpt(w, ref::inverse_factor(ref::damped(h, 1e-9)), {.keep = 1, .of = 2});
  CHECK(p.mask.values == std::vector<int>{1, 0});
  CHECK(p.weights(0, 1) == Approx(3));
}

TEST_CASE("reference: the published masks and weights") {
  ANYBIT_TEST_DATA_OR_SKIP(path, "vectors/prune.safetensors");
  const auto file = io::SafetensorsFile::open(path);
  REQUIRE(file.ok());
  const Layer l = layer_of(*file);
  const auto mask = [&](const std::string& name) { return *file->read<std::uint8_t>(name + ".mask"); };
  const ref::Matrix scores = ref::wanda_scores(l.w, ref::column_norms(l.x));
  CHECK(differing(ref::prune_rows(scores, 0.5), mask("wanda.s50")) == 0);
  CHECK(differing(ref::prune_n_of_m(scores, 2, 4), mask("wanda.n2m4")) == 0);
  CHECK(differing(ref::prune_n_of_m(scores, 4, 8), mask("wanda.n4m8")) == 0);
  CHECK(differing(ref::prune_n_of_m(ref::magnitudes(l.w), 2, 4), mask("magnitude.n2m4")) == 0);
  CHECK(differing(ref::prune_whole(ref::magnitudes(l.w), 0.5), mask("magnitude.s50")) == 1);  // the published code takes one more

  ref::Matrix h = gram(l.x, 2.0 / 3);  // three sequences
  ref::Matrix w = l.w;
  for (Index j = 0; j < h.rows; ++j)
    if (h(j, j) == 0) {  // a dead input
      h(j, j) = 1;
      for (Index r = 0; r < w.rows; ++r) w(r, j) = 0;
    }
  const ref::Matrix u = ref::inverse_factor(ref::damped(h, 0.01));
  struct {
    const char* name;
    ref::SparseGptOptions options;
  } const cases[] = {{"sparsegpt.s50", {.share = 0.5, .through_threshold = true}},
                     {"sparsegpt.n2m4", {.keep = 2, .of = 4}},
                     {"sparsegpt.n4m8", {.keep = 4, .of = 8}}};
  for (const auto& c : cases) {
    INFO(c.name);
    const auto p = ref::sparse_gpt(w, u, c.options);
    const Index off = differing(p.mask, mask(c.name));
    const ref::Matrix expected = read(*file, std::string(c.name) + ".W"), joint = read(*file, std::string(c.name) + ".q4.W");
    CHECK(static_cast<double>(off) <= 1e-3 * static_cast<double>(p.mask.values.size()));
    for (std::size_t i = 0; i < expected.values.size() && off == 0; ++i)
      REQUIRE(p.weights.values[i] == Approx(expected.values[i]).margin(1e-5));
    const auto q = ref::sparse_gpt(w, u, c.options, [&](Index r, Index j, const ref::Matrix& now) {
      return ref::round_to(now(r, j), ref::min_max_grid(l.w.row(r), 4));  // the grid of the dense row
    });
    Index other = 0;
    for (std::size_t i = 0; i < joint.values.size(); ++i) other += std::abs(q.weights.values[i] - joint.values[i]) > 1e-5;
    CHECK(static_cast<double>(other) <= 1e-3 * static_cast<double>(joint.values.size()));
  }
}
