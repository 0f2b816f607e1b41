// Against the published implementations, where their outputs are at hand.

#include <cmath>
#include <string>
#include <vector>

#include <anybit/algorithm/compiled_methods.hpp>
#include <anybit/format/integer.hpp>
#include <anybit/io/safetensors.hpp>
#include <anybit/prune/magnitude.hpp>
#include <anybit/prune/sparse_gptq.hpp>
#include <anybit/prune/wanda.hpp>

#include "algorithm/random_layers.hpp"
#include "support/catch.hpp"
#include "support/test_data.hpp"

using namespace anybit;
using test_layers::rel_err;

namespace {

struct Case {
  const char* name;
  Sparsity sparsity;
  double magnitude, wanda, sparse_gpt, joint;  // rel_err of the reference
};
const Case cases[] = {
    {"s50", {.share = 0.5}, 0.04547936252716087, 0.027795056194428146, 0.007766044767721324, 0.011671649738226599},
    {"n2m4", Sparsity::n_of_m(2, 4), 0.13250130364303786, 0.05417699594245702, 0.014073611075398803, 0.017156458584211966},
    {"n4m8", Sparsity::n_of_m(4, 8), 0.07894129173465723, 0.040326626392014134, 0.010494167147531456, 0.013353395128466661},
};

/// The layer of the file, its inputs as one matrix, and statistics that count sequences, as the reference does.
struct Layer {
  io::SafetensorsFile file;
  Matrix w, x;
  Stats stats;
};

Layer read_layer(const std::string& path) {
  auto file = io::SafetensorsFile::open(path);
  REQUIRE(file.ok());
  const Matrix sequences = *file->read_f32("X");
  REQUIRE(sequences.extents().size() == 3 * 128 * 256);
  Layer l{*std::move(file), {}, Matrix(3 * 128, 256), Stats(256, Needs::mean_square | Needs::hessian)};
  l.w = *l.file.read_f32("W");
  std::copy_n(sequences.data(), 3 * 128 * 256, l.x.data());
  REQUIRE(l.stats.accumulate(l.x.view()).ok());
  std::vector<double> h(256 * 256);
  l.stats.hessian(MatrixView<double>(h.data(), 256, 256));
  for (double& v : h) v *= 128;
  REQUIRE(l.stats.set_hessian({h.data(), 256, 256}, l.stats.tokens()).ok());
  return l;
}

Index differing(const Mask& mask, const std::vector<std::uint8_t>& expected) {
  REQUIRE(static_cast<Index>(expected.size()) == mask.rows() * mask.cols());
  Index n = 0;
  for (Index i = 0; i < mask.rows() * mask.cols(); ++i)
    n += mask.pruned(i / mask.cols(), i % mask.cols()) != (expected[static_cast<std::size_t>(i)] != 0);
  return n;
}

float largest_difference(const Matrix& a, const Matrix& b) {
  float d = 0;
  for (Index i = 0; i < a.extents().size(); ++i) d = std::max(d, std::fabs(a.data()[i] - b.data()[i]));
  return d;
}

}  // namespace

TEST_CASE("magnitude and wanda reproduce the published masks") {
  ANYBIT_TEST_DATA_OR_SKIP(path, "vectors/prune.safetensors");
  const Layer l = read_layer(path);
  const auto scaler = *l.file.read<float>("wanda.scaler_row");
  const auto mean_square = l.stats.mean_square();
  for (std::size_t j = 0; j < scaler.size(); ++j) CHECK(mean_square[j] * 128 == Approx(scaler[j]).epsilon(1e-5));
  for (const Case& c : cases) {
    INFO(c.name);
    Sparsity published = c.sparsity;
    published.through_threshold = true;
    const auto magnitude = Magnitude{published}.prune(l.w.view()), wanda = Wanda{c.sparsity}.prune(l.w.view(), l.stats);
    REQUIRE((magnitude.ok() && wanda.ok()));
    CHECK(differing(magnitude->mask, *l.file.read<std::uint8_t>(std::string("magnitude.") + c.name + ".mask")) == 0);
    CHECK(differing(wanda->mask, *l.file.read<std::uint8_t>(std::string("wanda.") + c.name + ".mask")) == 0);
    CHECK(rel_err(l.w, magnitude->weights, l.x) == Approx(c.magnitude).epsilon(1e-4));
    CHECK(rel_err(l.w, wanda->weights, l.x) == Approx(c.wanda).epsilon(1e-4));
    CHECK(*wanda->report.output_error == Approx(std::sqrt(c.wanda)).epsilon(1e-4));
  }
  const auto variant = Wanda{{.share = 0.5}, Compare::row_share}.prune(l.w.view(), l.stats);
  CHECK(differing(variant->mask, *l.file.read<std::uint8_t>("wanda_variant.s50.mask")) == 0);
  CHECK(rel_err(l.w, variant->weights, l.x) == Approx(0.027960718844212307).epsilon(1e-4));
}

TEST_CASE("sparsegpt reproduces the published masks and weights") {
  ANYBIT_TEST_DATA_OR_SKIP(path, "vectors/prune.safetensors");
  const Layer l = read_layer(path);
  for (const Case& c : cases) {
    INFO(c.name);
    SparseGpt method{.sparsity = c.sparsity, .dead_diagonal = 1};
    method.sparsity.through_threshold = true;
    const std::string name = std::string("sparsegpt.") + c.name;
    const auto p = method.prune(l.w.view(), l.stats);
    REQUIRE(p.ok());
    CHECK(p->report.done == p->report.requested);
    const Index off = differing(p->mask, *l.file.read<std::uint8_t>(name + ".mask"));
    const float worst = largest_difference(p->weights, *l.file.read_f32(name + ".W"));
    INFO(off << " mask bits differ, weights by at most " << worst);
    CHECK(static_cast<double>(off) <= 1e-3 * static_cast<double>(p->weights.extents().size()));
    CHECK((off > 0 || worst <= 1e-5f));  // a weight that goes or stays moves those after it
    CHECK(rel_err(l.w, p->weights, l.x) == Approx(c.sparse_gpt).epsilon(1e-3));
  }
}

TEST_CASE("sparsegpt joint with 4-bit rounding reproduces the published weights") {
  ANYBIT_TEST_DATA_OR_SKIP(path, "vectors/prune.safetensors");
  const Layer l = read_layer(path);
  for (const Case& c : cases) {
    INFO(c.name);
    SparseGptq<UInt<4>, PerRow, ScaleF32> method{.pruner = {.sparsity = c.sparsity, .dead_diagonal = 1}};
    method.pruner.sparsity.through_threshold = true;
    const auto q = method.quantize(l.w.view(), l.stats);
    REQUIRE(q.ok());
    CHECK(q->report.done == q->report.requested);
    const Matrix scale = *l.file.read_f32("sparsegpt.quant_scale4"), zero = *l.file.read_f32("sparsegpt.quant_zero4");
    for (Index r = 0; r < l.w.rows(); ++r) {
      CHECK(q->matrix.affine(r, 0).scale == Approx(scale(r, 0)).epsilon(2e-7));
      CHECK(q->matrix.affine(r, 0).zero == zero(r, 0));
    }
    const Matrix back = dequantize(q->matrix), expected = *l.file.read_f32(std::string("sparsegpt.") + c.name + ".q4.W");
    Index off = 0;
    for (Index i = 0; i < back.extents().size(); ++i) off += std::fabs(back.data()[i] - expected.data()[i]) > 1e-5f;
    INFO(off << " weights differ");
    CHECK(static_cast<double>(off) <= 1e-3 * static_cast<double>(back.extents().size()));
    CHECK(rel_err(l.w, back, l.x) == Approx(c.joint).epsilon(1e-3));
  }
}
