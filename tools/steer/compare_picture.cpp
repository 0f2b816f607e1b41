#include <algorithm>
#include <cmath>

#include <anybit/evaluate/svg_shapes.hpp>

#include "steer/compare_study.hpp"

namespace tool {

using namespace anybit;

namespace {

struct Curve {
  std::string method;
  std::vector<const CompareRow*> rows;  ///< by bits
};

constexpr const char* curve_colours[] = {"#1f5fa8", "#c2410c", "#15803d"};

/// One field: a figure of every row against bits.
template <class F>
std::string field(const evaluate::SvgPanel& at, const std::string& title, const std::vector<Curve>& curves,
                  std::array<double, 2> bits, double low, double high, F figure) {
  const double spread = high > low ? high - low : 1;
  const evaluate::SvgPlot plot{.at = at, .x = {bits[0] - 0.4, bits[1] + 0.4}, .y = {low, low + spread}};
  std::string body = plot.title(title) + plot.x_name("bits per weight");
  for (int i = 0; i <= 4; ++i) body += plot.row(low + spread * i / 4, evaluate::detail::fixed(low + spread * i / 4, 2));
  for (double b = std::ceil(bits[0]); b <= bits[1]; ++b) body += plot.column(b, evaluate::detail::fixed(b, 0));
  for (std::size_t m = 0; m < curves.size(); ++m) {
    std::vector<std::array<double, 2>> points;
    for (const CompareRow* r : curves[m].rows) points.push_back({r->bits, std::max(figure(*r), low)});
    body += plot.curve(points, curve_colours[m % 3]);
    for (const auto& p : points) body += plot.mark(p, m, curve_colours[m % 3]);
  }
  return body;
}

}  // namespace

std::string compare_picture(const std::vector<CompareRow>& rows, const CompareOptions& o) {
  std::vector<Curve> curves;
  const CompareRow* floats = nullptr;
  std::array<double, 2> bits{1e9, 0};
  for (const CompareRow& r : rows) {
    if (r.bits == 0) floats = &r;
    if (r.bits == 0 || r.keep > 0) continue;
    bits = {std::min(bits[0], r.bits), std::max(bits[1], r.bits)};
    const auto known = std::find_if(curves.begin(), curves.end(), [&](const Curve& c) { return c.method == r.method; });
    (known == curves.end() ? curves.emplace_back(Curve{r.method, {}}) : *known).rows.push_back(&r);
  }
  if (curves.empty() || !floats) return evaluate::svg_page({.width = 200, .height = 60, .title = "Nothing to draw"}, "");
  for (Curve& c : curves)
    std::stable_sort(c.rows.begin(), c.rows.end(), [](const CompareRow* a, const CompareRow* b) { return a->bits < b->bits; });
  const auto panel = [](int i) {
    return evaluate::SvgPanel{.left = 60.0 + 330 * (i % 2), .top = 40.0 + 270 * (i / 2), .width = 260, .height = 180};
  };
  const std::size_t last = o.coefficients.size() - 1;
  const double whole = floats->measured.effect[last].mean;
  std::string body;
  body += field(panel(0), "cosine to the float directions", curves, bits, 0, 1,
                [](const CompareRow& r) { return r.measured.cosine; });
  body += field(panel(1), "pairs right, direction read anew", curves, bits, 0, 1,
                [](const CompareRow& r) { return r.measured.pairs.mean; });
  body += field(panel(2), "pairs right, float direction", curves, bits, 0, 1,
                [](const CompareRow& r) { return r.measured.pairs_of_float_direction.mean; });
  body += field(panel(3), "effect, share of the float model's", curves, bits, 0, 1.2,
                [&](const CompareRow& r) { return whole != 0 ? r.measured.effect[last].mean / whole : 0; });
  const evaluate::SvgPlot names{.at = panel(2), .x = {0, 1}, .y = {0, 1}};
  for (std::size_t m = 0; m < curves.size(); ++m) body += names.legend(m, m, curve_colours[m % 3], curves[m].method);
  return evaluate::svg_page({.width = 680,
                             .height = 560 + 20.0 * static_cast<double>(curves.size()),
                             .title = "Directions, probes and steering against bits"},
                            body);
}

}  // namespace tool
