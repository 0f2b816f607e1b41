// Draws what methods do to layers of one block of a model. The pages of docs/ show the pictures.
//   layer_pictures nearest|formats|pruning MODEL.gguf TEXT OUT.svg [BLOCK]
// ctest: skip
// uses: anybit_study

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <anybit/algorithm/nearest.hpp>
#include <anybit/evaluate/svg_shapes.hpp>
#include <anybit/exec/thread_pool.hpp>
#include <anybit/format/formats.hpp>
#include <anybit/prune/magnitude.hpp>
#include <anybit/prune/sparse_gpt.hpp>
#include <anybit/prune/wanda.hpp>

#include "drawing/picture.hpp"

using namespace anybit;
using evaluate::SvgPlot;
using evaluate::detail::fixed, evaluate::detail::number, evaluate::detail::svg_line, evaluate::detail::svg_text;

namespace {

using Point = std::array<double, 2>;
constexpr std::array<std::string_view, 4> colours{"#1f77b4", "#c2410c", "#15803d", "#6b7280"};
constexpr tool::Calibration calibration{8192, Needs::mean_square | Needs::hessian, true};

std::string heading(const tool::Calibrated& seen, Index block, const std::string& text) {
  return svg_text(60, 30, "start", 16, seen.model.name + ", block " + std::to_string(block) + ": " + text);
}
std::string per_cent(double share) { return fixed(100 * share, 1) + " %"; }

/// What weights are rounded to.
struct Levels {
  std::string name, note;
  std::vector<Point> places;  ///< of every level: where it is, and the share of weights on it
};

/// The levels of S, their scale one `unit`, and how many of the codes are on each.
template <class S>
std::vector<Point> levels_of(std::span<const typename S::code> codes, double unit) {
  std::vector<Point> places;
  for (int c = 0; c < 1 << S::format::bits; ++c) {
    const auto on = std::count(codes.begin(), codes.end(), static_cast<typename S::code>(c));
    places.push_back({unit * static_cast<double>(S::format::decode(static_cast<Code>(c))),
                      static_cast<double>(on) / static_cast<double>(codes.size())});
  }
  return places;
}

/// How often weights of each size occur, and below it the levels of each grid, as tall as their share of the weights.
std::string levels_panel(SvgPlot plot, std::span<const double> weights, Index bins, const std::vector<Levels>& grids,
                         const std::string& title) {
  std::vector<double> heights(static_cast<std::size_t>(bins));
  for (const double w : weights) {
    const double place = (w - plot.x[0]) / (plot.x[1] - plot.x[0]) * static_cast<double>(bins);
    heights[static_cast<std::size_t>(std::clamp(place, 0.0, static_cast<double>(bins) - 1))] += 1;
  }
  plot.y[1] = *std::max_element(heights.begin(), heights.end());
  std::string out = plot.title(title);
  const double width = plot.at.width / static_cast<double>(bins);
  for (std::size_t b = 0; b < heights.size(); ++b)
    out += "<rect x=\"" + fixed(plot.at.left + width * static_cast<double>(b), 1) + "\" y=\"" + fixed(plot.y_of(heights[b]), 1) +
           "\" width=\"" + fixed(0.9 * width, 1) + "\" height=\"" + fixed(plot.bottom() - plot.y_of(heights[b]), 1) +
           "\" fill=\"#9ca3af\"/>\n";
  double most = 0, line = plot.bottom();
  for (const Levels& g : grids)
    for (const Point& p : g.places) most = std::max(most, p[1]);
  for (std::size_t g = 0; g < grids.size(); ++g) {
    line += 62;
    out += svg_text(plot.at.left, line - 42, "start", 12, grids[g].name) +
           svg_text(plot.at.left + plot.at.width, line - 42, "end", 12, grids[g].note) +
           svg_line(plot.at.left, line, plot.at.left + plot.at.width, line, "#9ca3af");
    std::string path;
    for (const Point& p : grids[g].places)
      path += "M" + fixed(plot.x_of(p[0]), 1) + " " + fixed(line + 4, 1) + "V" + fixed(line - 34 * p[1] / most, 1);
    out += "<path d=\"" + path + "\" stroke=\"" + std::string(colours[g % colours.size()]) +
           "\" stroke-width=\"3\" fill=\"none\"/>\n";
  }
  return out;
}

/// Weight error of all groups of `w` cut at the same share of their largest magnitude.
template <class S>
Result<double> error_cut_at(ConstMatrix w, float kept) {
  constexpr Index group = S::granularity::group_cols(0);
  Matrix limits(w.rows, (w.cols + group - 1) / group);
  for (Index r = 0; r < w.rows; ++r)
    for (Index j = 0; j < w.cols; ++j) limits(r, j / group) = std::max(limits(r, j / group), kept * std::abs(w(r, j)));
  QuantizeOptions options;
  options.clip_limits = limits.view();
  ANYBIT_TRY(const auto q, Nearest<S>{}.quantize(w, {}, options));
  return q.report.weight_error;
}

struct NamedSearch {
  std::string name;
  Search search;
  bool weighted = false;
};
const std::vector<NamedSearch>& searches() {
  static const std::vector<NamedSearch> all{{"none", Search::none},
                                            {"mse", Search::mse},
                                            {"least squares", Search::least_squares},
                                            {"half-quadratic", Search::half_quadratic},
                                            {"least squares, weighted", Search::least_squares, true}};
  return all;
}

/// Left: error against a cut that all groups share; right: what searches make of the levels of one group. Prints the errors of
/// all searches.
Status draw_nearest(const std::string& model, const std::string& text, const std::string& picture, Index block) {
  ThreadPool pool;
  ANYBIT_TRY(const tool::Calibrated seen, tool::calibrated(model, text, block, calibration, pool));
  const ConstMatrix w = seen.model.decoder.linear(block, "ffn_up").dense()->view();
  const Stats stats = seen.stats.at(seen.model.decoder.site(block, "ffn_gate"), calibration.needs);
  QuantizeOptions options;
  options.executor = pool;

  const SvgPlot cuts{{60, 80, 440, 300}, {0.2, 1}, {0.4, 1.2}};
  std::string body = heading(seen, block, "up, rounded to nearest in groups of 128");
  body += cuts.title("error of the weights over that of the whole range, all groups cut alike");
  for (int i = 4; i <= 12; ++i) body += cuts.row(0.1 * i, fixed(0.1 * i, 1));
  for (int i = 1; i <= 5; ++i) body += cuts.column(0.2 * i, fixed(0.2 * i, 1));
  body += cuts.x_name("share of each group's range that is kept");
  std::vector<std::string> table;
  for (const NamedSearch& s : searches()) table.push_back("| " + s.name);
  const auto width = [&]<class S>(std::size_t place) -> Status {
    std::vector<Point> curve;
    ANYBIT_TRY(const double whole, error_cut_at<S>(w, 1));
    for (int i = 10; i <= 50; ++i) {
      ANYBIT_TRY(const double e, error_cut_at<S>(w, 0.02f * static_cast<float>(i)));
      if (e <= 1.2 * whole) curve.push_back({0.02 * i, e / whole});
    }
    const Point best = *std::min_element(curve.begin(), curve.end(), [](const Point& a, const Point& b) { return a[1] < b[1]; });
    std::vector<double> errors;
    for (std::size_t i = 0; i < searches().size(); ++i) {
      const NamedSearch& s = searches()[i];
      ANYBIT_TRY(const auto q, (Nearest<S>{.search = s.search, .weighted = s.weighted}.quantize(w, stats, options)));
      errors.push_back(q.report.weight_error);
      table[i] += " | " + per_cent(q.report.weight_error) + " | " + per_cent(*q.report.output_error);
    }
    body +=
        cuts.curve(curve, colours[place]) + cuts.mark(best, place, colours[place]) +
        cuts.legend(place, place, colours[place],
                    std::to_string(S::format::bits) + " bits: uncut " + per_cent(whole) + ", cut alike " +
                        per_cent(best[1] * whole) + ", mse " + per_cent(errors[1]) + ", least squares " + per_cent(errors[2]));
    return Ok{};
  };
  ANYBIT_TRY_STATUS((width.operator()<Scheme<SInt<2>>>(0)));
  ANYBIT_TRY_STATUS((width.operator()<Scheme<SInt<3>>>(1)));
  ANYBIT_TRY_STATUS((width.operator()<Scheme<SInt<4>>>(2)));
  std::printf(
      "| search | 2 bits: weights | outputs | 3 bits: weights | outputs | 4 bits: weights | outputs |\n|---|---|---|---|---|---|---|\n");
  for (const std::string& line : table) std::printf("%s |\n", line.c_str());

  using S = Scheme<SInt<3>>;
  // The group whose gain by least squares is the median of all.
  const auto error_of = [&](const QuantizedMatrix<S>& q, Index row, Index group) {
    double squares = 0;
    const double scale = static_cast<double>(q.affine(row, group).scale);
    for (Index j = 128 * group; j < 128 * group + 128; ++j) {
      const auto level = static_cast<double>(S::format::decode(static_cast<Code>(q.row(row)[static_cast<std::size_t>(j)])));
      squares += std::pow(static_cast<double>(w(row, j)) - scale * level, 2);
    }
    return std::sqrt(squares);
  };
  ANYBIT_TRY(const auto plain, (Nearest<S>{}.quantize(w, stats, options)));
  ANYBIT_TRY(const auto fitted, (Nearest<S>{.search = Search::least_squares}.quantize(w, stats, options)));
  std::vector<std::pair<double, std::pair<Index, Index>>> gains;
  for (Index r = 0; r < w.rows; ++r)
    for (Index g = 0; g < w.cols / 128; ++g)
      gains.push_back({error_of(fitted.matrix, r, g) / error_of(plain.matrix, r, g), {r, g}});
  std::nth_element(gains.begin(), gains.begin() + static_cast<std::ptrdiff_t>(gains.size() / 2), gains.end());
  const auto [row, group] = gains[gains.size() / 2].second;
  std::vector<double> weights;
  double squares = 0, reach = 0;
  for (Index j = 128 * group; j < 128 * group + 128; ++j) {
    weights.push_back(static_cast<double>(w(row, j)));
    squares += weights.back() * weights.back(), reach = std::max(reach, 1.4 * std::abs(weights.back()));
  }
  std::vector<Levels> grids;
  for (const NamedSearch& s : searches()) {
    if (s.weighted) continue;
    ANYBIT_TRY(const auto q, (Nearest<S>{.search = s.search}.quantize(w, stats, options)));
    const auto codes = std::span(q.matrix.row(row)).subspan(static_cast<std::size_t>(128 * group), 128);
    grids.push_back({"search: " + s.name, "error " + per_cent(error_of(q.matrix, row, group) / std::sqrt(squares)),
                     levels_of<S>(codes, static_cast<double>(q.matrix.affine(row, group).scale))});
  }
  body += levels_panel({{600, 80, 420, 120}, {-reach, reach}, {0, 0}}, weights, 40, grids,
                       "3 bits: weights of one group, and the levels");
  return tool::write_svg(picture, 1060, 500, body);
}

/// The levels of formats of 4 bits over the weights of a layer.
Status draw_formats(const std::string& model, const std::string& text, const std::string& picture, Index block) {
  ThreadPool pool;
  ANYBIT_TRY(const tool::Calibrated seen, tool::calibrated(model, text, block, calibration, pool));
  const ConstMatrix w = seen.model.decoder.linear(block, "ffn_up").dense()->view();
  const Stats stats = seen.stats.at(seen.model.decoder.site(block, "ffn_gate"), calibration.needs);
  std::vector<double> weights;
  for (Index r = 0; r < w.rows; ++r)
    for (Index first = 0; first < w.cols; first += 64) {
      double largest = 0;
      for (Index j = first; j < std::min(first + 64, w.cols); ++j)
        largest = std::max(largest, std::abs(static_cast<double>(w(r, j))));
      for (Index j = first; j < std::min(first + 64, w.cols); ++j)
        weights.push_back(largest > 0 ? static_cast<double>(w(r, j)) / largest : 0);
    }
  std::vector<Levels> grids;
  const auto add = [&]<class F>(const char* name, double largest) -> Status {
    using S = Scheme<F, PerGroup<64>>;
    ANYBIT_TRY(const auto q, Nearest<S>{}.quantize(w, stats));
    grids.push_back({name,
                     "error of weights " + per_cent(q.report.weight_error) + ", of outputs " + per_cent(*q.report.output_error),
                     levels_of<S>(q.matrix.codes, 1 / largest)});
    return Ok{};
  };
  ANYBIT_TRY_STATUS((add.operator()<SInt<4>>("integers", 7)));
  ANYBIT_TRY_STATUS((add.operator()<Minifloat<2, 1>>("FP4 (E2M1)", 6)));
  ANYBIT_TRY_STATUS((add.operator()<Fp4>("FP4 of bitsandbytes", 1)));
  ANYBIT_TRY_STATUS((add.operator()<Nf4>("NF4", 1)));
  return tool::write_svg(
      picture, 820, 500,
      heading(seen, block, "up, 4 bits") + levels_panel({{60, 80, 700, 130}, {-1.2, 1.2}, {0, 0}}, weights, 96, grids,
                                                        "weights over the largest of their group of 64, and the levels"));
}

/// Error of outputs against the share of zeros.
Status draw_pruning(const std::string& model, const std::string& text, const std::string& picture, Index block) {
  ThreadPool pool;
  ANYBIT_TRY(const tool::Calibrated seen, tool::calibrated(model, text, block, calibration, pool));
  const model::Decoder& d = seen.model.decoder;
  std::string body = heading(seen, block, "error of outputs against the share of weights that are 0");
  struct Place {
    std::string name;
    const char* linear;
    double left;
  };
  for (const Place& at : {Place{"query", "attn_q", 60}, {"down", "ffn_down", 590}}) {
    const ConstMatrix w = d.linear(block, at.linear).dense()->view();
    const Stats stats = seen.stats.at(d.site(block, at.linear), calibration.needs);
    const SvgPlot plot{{at.left, 80, 440, 300}, {0, 1}, {0, 0.8}};
    body += plot.title(at.name) + plot.x_name("share of zeros");
    for (int i = 0; i <= 4; ++i) body += plot.row(0.2 * i, fixed(0.2 * i, 1));
    for (int i = 0; i <= 5; ++i) body += plot.column(0.2 * i, fixed(0.2 * i, 1));
    const auto method = [&](std::size_t place, const std::string& name, const auto& pruned) -> Status {
      std::vector<Point> curve{{0, 0}};
      for (int i = 1; i <= 19; ++i) {
        ANYBIT_TRY(const double e, pruned(Sparsity{.share = 0.05 * i}));
        curve.push_back({0.05 * i, e});
      }
      ANYBIT_TRY(const double pattern, pruned(Sparsity::n_of_m(2, 4)));
      body +=
          plot.curve(curve, colours[place]) + plot.mark({0.5, pattern}, place, colours[place]) +
          plot.legend(place, place, colours[place],
                      name + ": half of the weights " + per_cent(curve[10][1]) + ", two of four (the mark) " + per_cent(pattern));
      return Ok{};
    };
    const auto error = [](const Result<Pruned>& p) -> Result<double> {
      if (!p) return p.error();
      return *p->report.output_error;
    };
    ANYBIT_TRY_STATUS(method(0, "magnitude", [&](const Sparsity& s) { return error(Magnitude{s}.prune(w, stats)); }));
    ANYBIT_TRY_STATUS(method(1, "Wanda", [&](const Sparsity& s) { return error(Wanda{s}.prune(w, stats)); }));
    ANYBIT_TRY_STATUS(method(2, "SparseGPT", [&](const Sparsity& s) { return error(SparseGpt{.sparsity = s}.prune(w, stats)); }));
  }
  return tool::write_svg(picture, 1060, 490, body);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view what = argc > 1 ? argv[1] : "";
  if (what == "nearest") return tool::draw_block(argc - 1, argv + 1, "layer_pictures nearest", 10, draw_nearest);
  if (what == "formats") return tool::draw_block(argc - 1, argv + 1, "layer_pictures formats", 10, draw_formats);
  if (what == "pruning") return tool::draw_block(argc - 1, argv + 1, "layer_pictures pruning", 10, draw_pruning);
  return std::fprintf(stderr, "layer_pictures nearest|formats|pruning MODEL.gguf TEXT OUT.svg [BLOCK]\n"), 2;
}
