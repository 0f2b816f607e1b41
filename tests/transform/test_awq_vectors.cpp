// Losses, ratios, scales and clip steps against the published implementation, where its outputs are at hand.

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include <anybit/algorithm/compiled_methods.hpp>
#include <anybit/algorithm/nearest.hpp>
#include <anybit/core/eigen_view.hpp>
#include <anybit/format/formats.hpp>
#include <anybit/io/safetensors.hpp>
#include <anybit/recipe/recipe.hpp>
#include <anybit/transform/awq.hpp>

#include "support/catch.hpp"
#include "support/test_data.hpp"

using namespace anybit;

namespace {

template <int Bits, int Group>
using Grid = Nearest<UInt<Bits>, PerGroup<Group>, ScaleF32>;

Matrix product(ConstMatrix x, ConstMatrix w) {  // x w^T
  Matrix y(x.rows, w.rows);
  as_eigen(y.view()).noalias() = as_eigen(x) * as_eigen(w).transpose();
  return y;
}

Matrix mlp(ConstMatrix x, ConstMatrix gate, ConstMatrix up, ConstMatrix down) {
  Matrix g = product(x, gate);
  const Matrix u = product(x, up);
  for (Index i = 0; i < g.extents().size(); ++i) g.data()[i] = g.data()[i] / (1 + std::exp(-g.data()[i])) * u.data()[i];
  return product(g.view(), down);
}

double mean_square_difference(const Matrix& a, const Matrix& b) {
  double sum = 0;
  for (Index i = 0; i < a.extents().size(); ++i) sum += std::pow(double{a.data()[i]} - double{b.data()[i]}, 2);
  return sum / static_cast<double>(a.extents().size());
}

struct Site {
  std::vector<const char*> weights;
  const char* input;
};

template <int Bits, int Group>
void check_scales(const io::SafetensorsFile& file, const std::string& site_name, const Site& site) {
  const std::string id = "scale." + site_name + ".b" + std::to_string(Bits) + ".g" + std::to_string(Group);
  INFO(id);
  std::vector<Matrix> weights;
  for (const char* name : site.weights) weights.push_back(*file.read_f32(name));
  std::vector<ConstMatrix> views;
  for (const Matrix& w : weights) views.push_back(w.view());
  const Matrix x = *file.read_f32(site.input);
  const auto stats = *accumulate<Awq::needs>(x.view());
  const auto x_mean = *file.read<float>("x_mean." + site_name);
  for (std::size_t j = 0; j < x_mean.size(); ++j) CHECK(stats.mean_abs()[j] == Approx(x_mean[j]).epsilon(1e-5));

  const Grid<Bits, Group> algorithm{.range = Range::min_max};
  const auto expected = *file.read<double>(id + ".losses");
  const auto expected_scales = *file.read<float>(id + ".scales");
  std::vector<double> losses;
  Awq method{.clip = false};
  Matrix down, exact;
  if (site_name == "mlp_gate_up") {
    down = *file.read_f32("W_down");
    exact = mlp(x.view(), views[0], views[1], down.view());
    method.block_loss = [&](std::span<const ConstMatrix> w) {
      return mean_square_difference(exact, mlp(x.view(), w[0], w[1], down.view()));
    };
  }
  const auto hessian = stats.hessian();
  using Scheme = typename Grid<Bits, Group>::scheme;
  const GridFit fit = awq::grid_of(algorithm);
  const auto choice = awq::search_scale(stats.mean_abs(), 20, [&](std::span<const float> s, double) {
    if (!method.block_loss) return awq::linear_loss<Scheme>(views, s, fit, hessian.view());  // all of it, however large
    std::vector<Matrix> rounded;
    for (const ConstMatrix& w : views) rounded.push_back(awq::rounded_under<Scheme>(w, s, fit));
    std::vector<ConstMatrix> rounded_views;
    for (const Matrix& m : rounded) rounded_views.push_back(m.view());
    return method.block_loss(rounded_views);
  });
  REQUIRE(choice.losses.size() == expected.size());
  for (std::size_t k = 0; k < expected.size(); ++k) CHECK(choice.losses[k] == Approx(expected[k]).epsilon(1e-4));
  for (std::size_t j = 0; j < expected_scales.size(); ++j) CHECK(choice.scale[j] == Approx(expected_scales[j]).epsilon(1e-5));
  // The recipe makes the same choice.
  const auto q = quantize_siblings(method | algorithm, views, stats);
  REQUIRE(q.ok());
  for (std::size_t j = 0; j < expected_scales.size(); ++j) CHECK(q->input_scale[j] == Approx(expected_scales[j]).epsilon(1e-5));
}

Stats strided_stats(const Matrix& x, Index stride) {
  Stats s(x.cols(), Needs::mean_abs | Needs::hessian);
  for (Index t = 0; t < x.rows(); t += stride) REQUIRE(s.accumulate(x.view().row_range(t, t + 1)).ok());
  return s;
}

template <int Bits, int Group>
void check_clip(const io::SafetensorsFile& file, const std::string& linear, const char* input, Index tokens) {
  const std::string id =
      "clip." + linear + ".b" + std::to_string(Bits) + ".g" + std::to_string(Group) + ".n" + std::to_string(tokens);
  INFO(id);
  const Matrix w = *file.read_f32("W_" + linear), x = *file.read_f32(input);
  const auto hessian = strided_stats(x, x.rows() / tokens).hessian();
  const Matrix limits =
      awq::clip_limits<typename Grid<Bits, Group>::scheme>(w.view(), hessian.view(), {.range = Range::min_max}, 20);
  const auto expected = *file.read<float>(id);
  Index wrong = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) wrong += limits.data()[i] != expected[i];
  CHECK(wrong == 0);
}

template <int Bits, int Group>
void check_pipeline(const io::SafetensorsFile& file, double rel_err_scale_only, double rel_err_scale_clip) {
  const std::string id = "pipeline.down.b" + std::to_string(Bits) + ".g" + std::to_string(Group);
  INFO(id);
  const Matrix w = *file.read_f32("W_down"), x = *file.read_f32("X_down");
  const auto stats = *accumulate<Awq::needs>(x.view());
  const ConstMatrix siblings[] = {w.view()};
  const Matrix exact = product(x.view(), w.view());
  const auto effective = [&](const Awq& method) {
    const auto q = quantize_siblings(method | Grid<Bits, Group>{.range = Range::min_max}, siblings, stats);
    REQUIRE(q.ok());
    Matrix back = dequantize(q->matrices[0].matrix);
    for (Index r = 0; r < back.rows(); ++r)
      for (Index c = 0; c < back.cols(); ++c) back(r, c) /= q->input_scale[static_cast<std::size_t>(c)];
    const double measured = std::sqrt(mean_square_difference(exact, product(x.view(), back.view())) /
                                      mean_square_difference(exact, Matrix(exact.rows(), exact.cols())));
    CHECK(*q->matrices[0].report.output_error == Approx(measured).epsilon(1e-3));
    CHECK(q->matrices[0].report.weight_error == Approx(relative_error(w.view(), back.view())));
    return std::pair(std::move(back), measured * measured);
  };
  CHECK(effective(Awq{.clip = false}).second == Approx(rel_err_scale_only).epsilon(2e-3));
  const auto [back, error] = effective(Awq{});
  CHECK(error == Approx(rel_err_scale_clip).epsilon(5e-3));
  if (!file.find(id + ".Q_over_s")) return;
  const Matrix expected = *file.read_f32(id + ".Q_over_s");
  Index wrong = 0;
  for (Index i = 0; i < w.extents().size(); ++i)
    wrong += std::fabs(back.data()[i] - expected.data()[i]) > 1e-4f * std::fabs(expected.data()[i]) + 1e-6f;
  CHECK(wrong <
        w.extents().size() / 100);  // clipped groups have a tie at their zero point; the last bit of s = pow(..) decides it
}

template <int Bits, class Granularity>
void check_quantizer(const io::SafetensorsFile& file, const std::string& group) {
  const std::string id = "pq.b" + std::to_string(Bits) + ".g" + group + ".asym";
  INFO(id);
  const Matrix w = *file.read_f32("pq.W"), expected = *file.read_f32(id), scale = *file.read_f32(id + ".scale"),
               zero = *file.read_f32(id + ".zero");
  const auto q = Nearest<UInt<Bits>, Granularity, ScaleF32>{.range = Range::min_max}.quantize(w.view());
  REQUIRE(q.ok());
  const Matrix back = dequantize(q->matrix);
  for (Index r = 0; r < w.rows(); ++r) {
    for (Index g = 0; g < scale.cols(); ++g) CHECK(q->matrix.affine(r, g) == Affine{scale(r, g), zero(r, g)});
    for (Index c = 0; c < w.cols(); ++c) CHECK(back(r, c) == expected(r, c));
  }
}

}  // namespace

TEST_CASE("awq chooses the published ratios, with the published losses") {
  ANYBIT_TEST_DATA_OR_SKIP(path, "vectors/awq.safetensors");
  const auto file = io::SafetensorsFile::open(path);
  REQUIRE(file.ok());
  const std::pair<std::string, Site> sites[] = {{"attn_qkv", {{"W_q", "W_k", "W_v"}, "X_attn"}},
                                                {"mlp_gate_up", {{"W_gate", "W_up"}, "X_mlp"}},
                                                {"down", {{"W_down"}, "X_down"}}};
  for (const auto& [name, site] : sites) {
    check_scales<3, 64>(*file, name, site);
    check_scales<3, 128>(*file, name, site);
    check_scales<4, 64>(*file, name, site);
    check_scales<4, 128>(*file, name, site);
  }
}

TEST_CASE("awq clips every group at the published step") {
  ANYBIT_TEST_DATA_OR_SKIP(path, "vectors/awq.safetensors");
  const auto file = io::SafetensorsFile::open(path);
  REQUIRE(file.ok());
  const std::pair<const char*, const char*> linears[] = {{"v", "X_attn"}, {"down", "X_down"}, {"up", "X_mlp"}};
  for (const auto& [linear, input] : linears)
    for (const Index tokens : {Index{384}, Index{96}}) {
      check_clip<3, 64>(*file, linear, input, tokens);
      check_clip<3, 128>(*file, linear, input, tokens);
      check_clip<4, 64>(*file, linear, input, tokens);
      check_clip<4, 128>(*file, linear, input, tokens);
    }
}

TEST_CASE("awq end to end: scale, then clip, then round") {
  ANYBIT_TEST_DATA_OR_SKIP(path, "vectors/awq.safetensors");
  const auto file = io::SafetensorsFile::open(path);
  REQUIRE(file.ok());
  check_pipeline<3, 64>(*file, 0.028538111729349235, 0.01936742996193387);
  check_pipeline<3, 128>(*file, 0.03762882893050567, 0.023762969649235306);
  check_pipeline<4, 64>(*file, 0.006375407420841878, 0.004954119266139448);
  check_pipeline<4, 128>(*file, 0.007979807154106284, 0.006222625368414422);
}

TEST_CASE("the min-max range is awq's quantizer, bit for bit") {
  ANYBIT_TEST_DATA_OR_SKIP(path, "vectors/awq.safetensors");
  const auto file = io::SafetensorsFile::open(path);
  REQUIRE(file.ok());
  check_quantizer<2, PerGroup<64>>(*file, "64");
  check_quantizer<2, PerGroup<96>>(*file, "96");
  check_quantizer<2, PerRow>(*file, "-1");
  check_quantizer<3, PerGroup<64>>(*file, "64");
  check_quantizer<3, PerGroup<96>>(*file, "96");
  check_quantizer<3, PerRow>(*file, "-1");
  check_quantizer<4, PerGroup<64>>(*file, "64");
  check_quantizer<4, PerGroup<96>>(*file, "96");
  check_quantizer<4, PerRow>(*file, "-1");
  check_quantizer<8, PerGroup<64>>(*file, "64");
  check_quantizer<8, PerGroup<96>>(*file, "96");
  check_quantizer<8, PerRow>(*file, "-1");
}
