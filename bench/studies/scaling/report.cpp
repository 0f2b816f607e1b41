#include "scaling/report.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string_view>
#include <utility>

#include <anybit/evaluate/svg_shapes.hpp>

namespace study {

using namespace anybit;

namespace {

constexpr std::array<std::string_view, 9> colours{"#1f5fa8", "#c2410c", "#15803d", "#7e22ce", "#b91c1c",
                                                  "#0e7490", "#854d0e", "#475569", "#be185d"};

std::string draw_chart(const Chart& c, double left, double top) {
  double x0 = 0, x1 = 0, y0 = 0, y1 = 0;
  bool any = false;
  const auto across = [&](double x) { return c.log2_x ? std::log2(x) : x; };
  for (const Series& s : c.series)
    for (const auto& [x, y] : s.points) {
      if (!std::isfinite(across(x)) || !std::isfinite(y)) continue;
      x0 = any ? std::min(x0, across(x)) : across(x), x1 = any ? std::max(x1, across(x)) : across(x);
      y0 = any ? std::min(y0, y) : y, y1 = any ? std::max(y1, y) : y;
      any = true;
    }
  if (!(x1 > x0)) x1 = x0 + 1;
  if (!(y1 > y0)) y1 = y0 + 1;
  const double margin = (y1 - y0) * 0.04;
  const evaluate::SvgPlot plot{{left, top, 360, 260}, {x0, x1}, {y0 - margin, y1 + margin}};
  std::string out = plot.title(c.title);
  for (int i = 0; i <= 4; ++i) {
    const double y = y0 + (y1 - y0) * i / 4;
    out += plot.row(y, line(y1 - y0 < 0.05 ? "%.4f" : "%.3g", y));
  }
  if (c.log2_x) {
    const double step = std::max(1.0, std::ceil((x1 - x0) / 9));
    for (double x = std::ceil(x0 - 1e-9); x <= x1 + 1e-9; x += step) out += plot.column(x, line("%.0f", std::exp2(x)));
  } else {
    for (int i = 0; i <= 4; ++i) out += plot.column(x0 + (x1 - x0) * i / 4, line("%.3g", x0 + (x1 - x0) * i / 4));
  }
  out += plot.x_name(c.x_name);
  for (std::size_t i = 0; i < c.series.size(); ++i) {
    const Series& s = c.series[i];
    const std::string_view colour = colours[i % colours.size()];
    std::vector<std::array<double, 2>> there;
    for (const auto& [x, y] : s.points)
      if (std::isfinite(across(x)) && std::isfinite(y)) there.push_back({across(x), y});
    if (s.line) out += plot.curve(there, colour);
    if (s.marks)
      for (const auto& point : there) out += plot.mark(point, i, colour);
    out += plot.legend(i, i, colour, s.name);
  }
  return out;
}

}  // namespace

std::string draw(const std::string& heading, const std::vector<Chart>& charts) {
  std::string body;
  std::size_t names = 0;
  for (std::size_t i = 0; i < charts.size(); ++i) {
    body += draw_chart(charts[i], 60 + 440 * static_cast<double>(i), 50);
    names = std::max(names, charts[i].series.size());
  }
  return evaluate::svg_page({20 + 440 * static_cast<double>(charts.size()), 380 + 20 * static_cast<double>(names), heading, true},
                            body);
}

std::string line(const char* format, ...) {
  std::array<char, 512> out{};
  va_list list;
  va_start(list, format);
  std::vsnprintf(out.data(), out.size(), format, list);
  va_end(list);
  return out.data();
}

std::string shown(const Interval& i) { return line("%.3g [%.3g, %.3g]", i.value, i.low, i.high); }

void Report::fit(const std::string& name, const Table& t, const Fit& f) {
  lines.push_back(
      line("%s: %zu runs, R2 %.3f, residual %.4f; 95 %% intervals", name.c_str(), t.rows.size(), f.r_squared, f.residual));
  for (std::size_t j = 0; j < t.names.size(); ++j) lines.push_back("  " + t.names[j] + ": " + shown(f.interval(j)));
}

Job training_job(const Study& s, Index width, double tokens_per_weight, const Grid& grid, std::uint64_t seed) {
  return {line("train width %td, tokens per weight %g, %s, seed %llu", width, tokens_per_weight, grid.name().c_str(),
               static_cast<unsigned long long>(seed)),
          [&s, width, tokens_per_weight, grid, seed]() -> Result<Values> {
            model::Decoder d = make_net(width, seed);
            Training how;
            how.tokens = s.quick ? 4096 : tokens_per_weight * static_cast<double>(block_weights(width)), how.seed = seed;
            ANYBIT_TRY_STATUS(train_net(d, s.corpus.train(), grid, how));
            ANYBIT_TRY(const Measured m, measure(d, s.corpus.test(), 256, s.windows()));
            return Values{m.loss, m.accuracy, dead_share(d), how.tokens};
          }};
}

}  // namespace study
