// Draws what GPTQ does to the error of a real layer: how large it is along each principal direction of the layer's inputs, and
// what each direction adds to the error of its outputs.
//   gptq_picture MODEL.gguf TEXT OUT.svg [BLOCK]
// ctest: skip
// uses: anybit_study

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include <Eigen/Eigenvalues>

#include <anybit/algorithm/gptq.hpp>
#include <anybit/algorithm/nearest.hpp>
#include <anybit/evaluate/svg_shapes.hpp>
#include <anybit/exec/thread_pool.hpp>
#include <anybit/format/integer.hpp>

#include "drawing/picture.hpp"

using namespace anybit;

namespace {

using S = Scheme<UInt<3>, PerGroup<128>>;
constexpr Index bins = 24;

struct Curve {
  std::string name, colour;
  std::vector<double> along, adds;  ///< of each bin: mean square error of weights, and of outputs
  double output_error = 0;
};

struct Directions {
  Eigen::VectorXd power;    ///< mean square of the inputs along each direction, the largest first
  Eigen::MatrixXd vectors;  ///< a column each
};

Directions directions_of(const Matrix& hessian) {
  const MatrixView<const float> h(hessian.data(), hessian.rows(), hessian.cols());
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solver(as_eigen(h).cast<double>());
  return {solver.eigenvalues().reverse().cwiseMax(0), solver.eigenvectors().rowwise().reverse()};
}

template <class Method>
Result<Curve> curve_of(std::string name, std::string colour, const Method& method, ConstMatrix w, const Stats& stats,
                       const Directions& directions) {
  ANYBIT_TRY(const auto q, method.quantize(w, stats));
  const Matrix back = dequantize(q.matrix);
  const Eigen::MatrixXd d = (as_eigen(w) - as_eigen(back.view())).template cast<double>();
  const Eigen::RowVectorXd squares = (d * directions.vectors).colwise().squaredNorm() / static_cast<double>(w.rows);
  Curve c{std::move(name), std::move(colour), {}, {}, *q.report.output_error};
  for (Index b = 0; b < bins; ++b) {
    const Index first = w.cols * b / bins, n = w.cols * (b + 1) / bins - first;
    c.along.push_back(squares.segment(first, n).mean());
    c.adds.push_back(squares.segment(first, n).dot(directions.power.segment(first, n)));
  }
  return c;
}

std::string panel(const std::vector<Curve>& curves, std::vector<double> Curve::* values, double left, double top,
                  const std::string& title) {
  double low = 1e300, high = 0;
  for (const Curve& c : curves)
    for (const double v : c.*values) low = std::min(low, v), high = std::max(high, v);
  const double from = std::floor(std::log10(low)), to = std::ceil(std::log10(high));
  const evaluate::SvgPlot plot{{left, top, 440, 300}, {-0.5, bins - 0.5}, {from, to}};
  std::string out = plot.title(title);
  for (double decade = from; decade <= to; ++decade) out += plot.row(decade, "1e" + std::to_string(static_cast<int>(decade)));
  out += evaluate::detail::svg_text(left, plot.bottom() + 18, "start", 12, "most of the inputs' power") +
         evaluate::detail::svg_text(left + plot.at.width, plot.bottom() + 18, "end", 12, "least");
  for (std::size_t c = 0; c < curves.size(); ++c) {
    std::vector<std::array<double, 2>> points;
    for (const double v : curves[c].*values) points.push_back({static_cast<double>(points.size()), std::log10(v)});
    out += plot.curve(points, curves[c].colour);
    for (std::size_t b = 0; b < points.size(); b += 4) out += plot.mark(points[b], c, curves[c].colour);
  }
  return out;
}

Status work(const std::string& model_file, const std::string& text_file, const std::string& picture, Index block) {
  using namespace evaluate::detail;
  ThreadPool pool;
  ANYBIT_TRY(const tool::Calibrated seen, tool::calibrated(model_file, text_file, block, {8192, Needs::hessian}, pool));
  const model::Model& m = seen.model;
  const Stats here = seen.stats.at(m.decoder.site(block, "ffn_gate"), Needs::hessian);
  const ConstMatrix w = m.decoder.linear(block, "ffn_up").dense()->view();
  const Directions directions = directions_of(here.hessian());
  ANYBIT_TRY(Curve nearest, curve_of("rounded to nearest", "#1f77b4", Nearest<S>{}, w, here, directions));
  ANYBIT_TRY(Curve published, curve_of("GPTQ", "#6b7280", Gptq<S>{}, w, here, directions));
  ANYBIT_TRY(Curve best, curve_of("GPTQ, best()", "#c2410c", Gptq<S>::best(), w, here, directions));
  const std::vector<Curve> curves{nearest, published, best};

  std::string body = svg_text(70, 34, "start", 14,
                              m.name + ", up of block " + std::to_string(block) +
                                  ", 3 bits in groups of 128: error by principal direction of the inputs");
  body += panel(curves, &Curve::along, 70, 80, "squared error of the weights along a direction") +
          panel(curves, &Curve::adds, 590, 80, "what the directions add to the squared error of outputs");
  for (std::size_t c = 0; c < curves.size(); ++c) {
    const double y = 430 + 20 * static_cast<double>(c);
    body += svg_mark(78, y, c, curves[c].colour) +
            svg_text(92, y + 4, "start", 12, curves[c].name + ": relative error of outputs " + number(curves[c].output_error, 3));
  }
  return tool::write_svg(picture, 1060, 490, body);
}

}  // namespace

int main(int argc, char** argv) { return tool::draw_block(argc, argv, "gptq_picture", 10, work); }
