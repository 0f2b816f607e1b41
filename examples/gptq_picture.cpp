// Draws what GPTQ does to the error of a real layer: how large it is along each principal direction of the layer's inputs, and
// what each direction adds to the error of its outputs.
//   gptq_picture MODEL.gguf TEXT OUT.svg [BLOCK]
// ctest: skip
// uses: quantize_model

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include <Eigen/Eigenvalues>

#include <anybit/algorithm/gptq.hpp>
#include <anybit/algorithm/nearest.hpp>
#include <anybit/evaluate/svg.hpp>
#include <anybit/exec/thread_pool.hpp>
#include <anybit/format/integer.hpp>
#include <anybit/model/load.hpp>
#include <anybit/model/quantize.hpp>

#include "picture.hpp"
#include "text.hpp"

using namespace anybit;

namespace {

using S = Scheme<UInt<3>, PerGroup<128>>;
constexpr Index window = 512, tokens = 8192, bins = 24;

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

std::string panel(const std::vector<Curve>& curves, std::vector<double> Curve::*values, double left, double top,
                  const std::string& title) {
  using namespace evaluate::detail;
  const double width = 440, height = 300, bottom = top + height;
  double low = 1e300, high = 0;
  for (const Curve& c : curves)
    for (const double v : c.*values) low = std::min(low, v), high = std::max(high, v);
  const double from = std::floor(std::log10(low)), to = std::ceil(std::log10(high));
  const auto x_of = [&](Index b) { return left + width * (static_cast<double>(b) + 0.5) / bins; };
  const auto y_of = [&](double v) { return bottom - height * (std::log10(v) - from) / (to - from); };
  std::string out = svg_text(left, top - 14, "start", 14, title);
  for (double decade = from; decade <= to; ++decade) {
    const double y = y_of(std::pow(10.0, decade));
    out += svg_line(left, y, left + width, y, "#e5e7eb") +
           svg_text(left - 6, y + 4, "end", 11, "1e" + std::to_string(static_cast<int>(decade)));
  }
  out += svg_text(left, bottom + 18, "start", 12, "most of the inputs' power") +
         svg_text(left + width, bottom + 18, "end", 12, "least");
  for (std::size_t c = 0; c < curves.size(); ++c) {
    const std::vector<double>& v = curves[c].*values;
    std::string path;
    for (Index b = 0; b < bins; ++b)
      path += (b == 0 ? "M" : "L") + fixed(x_of(b), 1) + " " + fixed(y_of(v[static_cast<std::size_t>(b)]), 1);
    out += "<path d=\"" + path + "\" stroke=\"" + curves[c].colour + "\" stroke-width=\"2\" fill=\"none\"/>\n";
    for (Index b = 0; b < bins; b += 4) out += svg_mark(x_of(b), y_of(v[static_cast<std::size_t>(b)]), c, curves[c].colour);
  }
  return out;
}

Status work(const std::string& model_file, const std::string& text_file, const std::string& picture, Index block) {
  using namespace evaluate::detail;
  ThreadPool pool;
  ANYBIT_TRY(model::Model m, model::load_model(model_file));
  ANYBIT_TRY(const std::string text, tool::read_text(text_file));
  ANYBIT_TRY(std::vector<model::TokenId> ids, m.tokenizer.encode(text));
  if (static_cast<Index>(ids.size()) < tokens)
    return Error{ErrorCode::insufficient_data, "the text must have " + std::to_string(tokens) + " tokens"};
  ANYBIT_TRY_STATUS(tool::check_block(m.decoder, block));
  model::ModelStats stats(m.decoder, Needs::hessian);
  for (Index t = 0; t < tokens; t += window) {
    ANYBIT_TRY(
        const Matrix hidden,
        stats.accumulate(m.decoder, std::span(ids).subspan(static_cast<std::size_t>(t), static_cast<std::size_t>(window)), pool));
  }
  const Stats here = stats.at(block, model::Site::ffn_gate_up, Needs::hessian);
  const ConstMatrix w = m.decoder.blocks[static_cast<std::size_t>(block)].up.dense()->view();
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
