// Draws what AWQ searches on two real layers: the error of outputs against the ratio, after rounding to nearest and after GPTQ,
// and which ratio is chosen for either.
//   awq_picture MODEL.gguf TEXT OUT.svg [BLOCK]
// ctest: skip
// uses: anybit_study

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include <anybit/algorithm/gptq.hpp>
#include <anybit/algorithm/nearest.hpp>
#include <anybit/evaluate/svg_shapes.hpp>
#include <anybit/exec/thread_pool.hpp>
#include <anybit/format/formats.hpp>
#include <anybit/quantize/sites.hpp>
#include <anybit/transform/awq.hpp>

#include "drawing/picture.hpp"

using namespace anybit;

namespace {

using S = Scheme<UInt<3>, PerGroup<128>>;
constexpr int ratios = 20;

struct Curve {
  std::string name, colour;
  std::vector<double> errors;  ///< of ratio 0, 1 / ratios, ..
  std::size_t chosen = 0;
};

/// Relative error of all siblings' outputs, root mean square, if they are quantized under scale s.
template <class Algorithm>
Result<double> error_under(const Algorithm& algorithm, std::span<const ConstMatrix> weights, const Stats& stats,
                           std::span<const float> s, const QuantizeOptions& options) {
  Siblings set(weights, stats);
  recipe::scale_inputs(set, s);
  double squares = 0;
  for (const ConstMatrix& w : set.views()) {
    ANYBIT_TRY(const auto q, algorithm.quantize(w, *set.stats, options));
    squares += *q.report.output_error * *q.report.output_error;
  }
  return std::sqrt(squares / static_cast<double>(weights.size()));
}

Result<std::vector<Curve>> curves_of(const model::SiblingGroup& group, const Stats& stats, ExecutorRef executor) {
  std::vector<ConstMatrix> weights;
  for (const model::NamedLinear& l : group.linears) weights.push_back(l.linear->dense()->view());
  QuantizeOptions options;
  options.executor = executor;
  const Nearest<S> nearest{};
  const Gptq<S> gptq{};
  const GridFit fit = awq::grid_of(nearest);
  const std::vector<float> mean = stats.mean_abs(), costs = gptq.column_costs(stats);
  std::vector<float> reach = costs;
  for (float& r : reach) r = std::sqrt(r);
  const Matrix hessian = stats.hessian();
  const MatrixView<const float> h(hessian.data(), hessian.rows(), hessian.cols());
  const auto published = awq::search_scale(mean, ratios, [&](std::span<const float> s, double least) {
    return awq::linear_loss<S>(weights, s, fit, h, least, executor);
  });
  const auto for_gptq = awq::search_scale(reach, ratios, [&](std::span<const float> s, double least) {
    return awq::feedback_loss<S>(weights, s, fit, costs, least, executor);
  });
  const auto place = [](float ratio) { return static_cast<std::size_t>(std::lround(ratio * static_cast<float>(ratios))); };
  std::vector<Curve> curves{{"rounded to nearest, s = (mean |x|)^r", "#1f77b4", {}, place(published.ratio)},
                            {"GPTQ, the same s", "#6b7280", {}, place(published.ratio)},
                            {"GPTQ, s = (what it leaves)^r", "#c2410c", {}, place(for_gptq.ratio)}};
  for (int k = 0; k < ratios; ++k) {
    const float ratio = static_cast<float>(k) / static_cast<float>(ratios);
    const std::vector<float> by_mean = awq::scale_for(mean, ratio), by_reach = awq::scale_for(reach, ratio);
    ANYBIT_TRY(const double rounded, error_under(nearest, weights, stats, by_mean, options));
    ANYBIT_TRY(const double fed_back, error_under(gptq, weights, stats, by_mean, options));
    ANYBIT_TRY(const double reached, error_under(gptq, weights, stats, by_reach, options));
    curves[0].errors.push_back(rounded), curves[1].errors.push_back(fed_back), curves[2].errors.push_back(reached);
  }
  return curves;
}

std::string panel(const std::vector<Curve>& curves, double left, double top, const std::string& title) {
  using namespace evaluate::detail;
  double highest = 0;  // ratios far off need not be seen whole
  for (const Curve& c : curves) highest = std::max(highest, 1.15 * c.errors[0]);
  const evaluate::SvgPlot plot{{left, top, 440, 300}, {0, 1}, {0, highest}};
  std::string out = plot.title(title);
  for (int i = 0; i <= 4; ++i)
    out += plot.row(highest * i / 4, number(highest * i / 4, 2)) + plot.column(i / 4.0, fixed(i / 4.0, 2));
  out += plot.x_name("ratio r");
  for (std::size_t c = 0; c < curves.size(); ++c) {
    std::vector<std::array<double, 2>> points;
    for (const double e : curves[c].errors) points.push_back({static_cast<double>(points.size()) / ratios, e});
    const std::array<double, 2> chosen = points[curves[c].chosen];
    out += plot.curve(points, curves[c].colour) + plot.mark(chosen, c, curves[c].colour) +
           plot.legend(c, c, curves[c].colour,
                       curves[c].name + ": " + number(chosen[1], 3) + " at the chosen r = " + fixed(chosen[0], 2));
  }
  return out;
}

Status work(const std::string& model_file, const std::string& text_file, const std::string& picture, Index block) {
  ThreadPool pool(2);
  ANYBIT_TRY(tool::Calibrated seen, tool::calibrated(model_file, text_file, block, {4096, Awq::needs, true}, pool));
  model::Model& m = seen.model;
  std::string body = evaluate::detail::svg_text(
      60, 30, "start", 16,
      m.name + ", block " + std::to_string(block) + ", 3 bits in groups of 128: relative error of outputs against AWQ's ratio");
  double left = 60;
  for (const auto& [site, name] : {std::pair{"attn_q", "query, key and value"}, {"ffn_down", "down"}}) {
    const model::SiblingGroup group = model::sibling_group(m.decoder, m.decoder.site(block, site));
    ANYBIT_TRY(const auto curves, curves_of(group, seen.stats.at(group.id, Awq::needs), pool));
    body += panel(curves, left, 80, name);
    left += 520;
  }
  return tool::write_svg(picture, 1060, 500, body);
}

}  // namespace

int main(int argc, char** argv) { return tool::draw_block(argc, argv, "awq_picture", 10, work); }
