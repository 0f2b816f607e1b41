#pragma once
// Quantizers of one source compared with theory: rows, their table, JSON and picture.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <anybit/core/finite.hpp>
#include <anybit/evaluate/rate_distortion.hpp>
#include <anybit/evaluate/svg_shapes.hpp>
#include <anybit/io/detail/json_subset.hpp>

namespace anybit::evaluate {
inline namespace ANYBIT_ABI {

/// One scheme under one search.
struct RateRow {
  std::string scheme;                     ///< "superfloat4/g128/f16/bits"
  std::string search;                     ///< "none", "least squares", ..
  double bits = 0;                        ///< a weight, scales and zero points counted
  double distortion = 0;                  ///< mean square error over the mean square of the weights
  double lower_bound = 0, lloyd_max = 0;  ///< distortions at `bits`; see RatePanel
};

/// All that was measured on one source.
struct RatePanel {
  std::string source;       ///< "Gaussian", "Laplace", a tensor's name
  std::string lower_bound;  ///< what RateRow::lower_bound is: "D(R)"
  std::vector<RateRow> rows;
  /// Curves (bits, dB) to draw beside the rows: "Lloyd-Max", "entropy-coded uniform".
  std::map<std::string, std::vector<std::array<double, 2>>> curves;
};

/// Rows of one scheme family, width after width, that a picture joins by a line.
struct RateSeries {
  std::string name;
  std::string prefix, suffix;  ///< of the schemes: "superfloat" and "/g128/f16/bits", with digits between
  std::string search;
};

}  // namespace ANYBIT_ABI
}  // namespace anybit::evaluate

namespace anybit::evaluate {
inline namespace ANYBIT_CODE {

/// dB by which a row misses its lower bound; 6.02 of them are a bit.
inline double gap(const RateRow& row) { return decibels(row.lower_bound) - decibels(row.distortion); }

/// One panel as aligned columns.
inline std::string table(const RatePanel& panel) {
  using detail::fixed, detail::number;
  std::vector<std::vector<std::string>> cells{
      {"scheme", "search", "bits/w", "D / variance", "dB", "below " + panel.lower_bound + ", dB", "bits", "vs Lloyd-Max, dB"}};
  for (const RateRow& r : panel.rows)
    cells.push_back({r.scheme, r.search, fixed(r.bits, 3), number(r.distortion, 4), fixed(decibels(r.distortion), 2),
                     fixed(gap(r), 2), fixed(gap(r) / decibels(0.25), 2),
                     fixed(decibels(r.distortion) - decibels(r.lloyd_max), 2)});
  std::string out = panel.source + "\n";
  std::array<std::size_t, 8> width{};
  for (const auto& row : cells)
    for (std::size_t c = 0; c < row.size(); ++c) width[c] = std::max(width[c], row[c].size());
  for (const auto& row : cells) {
    for (std::size_t c = 0; c < row.size(); ++c) {
      const std::string pad(width[c] - row[c].size(), ' ');
      out += c < 2 ? row[c] + pad : pad + row[c];
      out += c + 1 < row.size() ? "  " : "\n";
    }
  }
  return out;
}

/// Every panel with all rows and curves.
inline std::string json(const std::vector<RatePanel>& panels) {
  using io::detail::json_quoted;
  const auto value = [](double v) { return is_finite(v) ? detail::number(v, 9) : std::string("null"); };
  std::string out = "{\"panels\": [";
  for (std::size_t p = 0; p < panels.size(); ++p) {
    out += std::string(p ? "," : "") + "\n {\"source\": " + json_quoted(panels[p].source) +
           ", \"lower_bound\": " + json_quoted(panels[p].lower_bound) + ", \"rows\": [";
    for (std::size_t i = 0; i < panels[p].rows.size(); ++i) {
      const RateRow& r = panels[p].rows[i];
      out += std::string(i ? "," : "") + "\n  {\"scheme\": " + json_quoted(r.scheme) + ", \"search\": " + json_quoted(r.search) +
             ", \"bits\": " + value(r.bits) + ", \"distortion\": " + value(r.distortion) +
             ", \"decibels\": " + value(decibels(r.distortion)) + ", \"lower_bound\": " + value(r.lower_bound) +
             ", \"lloyd_max\": " + value(r.lloyd_max) + "}";
    }
    out += "],\n  \"curves\": {";
    bool first = true;
    for (const auto& [name, points] : panels[p].curves) {
      out += std::string(first ? "" : ", ") + json_quoted(name) + ": [";
      for (std::size_t i = 0; i < points.size(); ++i)
        out += std::string(i ? ", " : "") + "[" + value(points[i][0]) + ", " + value(points[i][1]) + "]";
      out += "]";
      first = false;
    }
    out += "}}";
  }
  return out + "]}\n";
}

struct RateSvgOptions {
  double width = 1000, panel_height = 420;
  double least_bits = 1.5, most_bits = 8.5;
  double most_gap = 12;  ///< dB; rows beyond it are left out
};

/// Panels one below the other: dB missed of the lower bound against bits a weight, lower is better. Series are joined by lines.
inline std::string svg(const std::vector<RatePanel>& panels, const std::vector<RateSeries>& series, std::string_view title,
                       const RateSvgOptions& options = {}) {
  using namespace detail;
  constexpr std::array<std::string_view, 9> colours{"#1f5fa8", "#c2410c", "#15803d", "#7e22ce", "#b91c1c",
                                                    "#0e7490", "#854d0e", "#475569", "#be185d"};
  const double left = 64, right = options.width - 250, head = 40;
  const double height = head + options.panel_height * static_cast<double>(panels.size());
  std::string out = svg_text(left, 26, "start", 17, title, " font-weight=\"bold\"");
  const auto x_of = [&](double bits) {
    return left + (right - left) * (bits - options.least_bits) / (options.most_bits - options.least_bits);
  };
  const auto polyline = [](const std::string& points, std::string_view colour, std::string_view extra) {
    return "<polyline fill=\"none\" stroke=\"" + std::string(colour) + "\"" + std::string(extra) + " points=\"" + points +
           "\"/>\n";
  };
  for (std::size_t p = 0; p < panels.size(); ++p) {
    const RatePanel& panel = panels[p];
    const double top = head + options.panel_height * static_cast<double>(p) + 28, bottom = top + options.panel_height - 84;
    const auto y_of = [&](double missed) { return bottom - (bottom - top) * missed / options.most_gap; };
    out += svg_text(left, top - 8, "start", 14, panel.source, " font-weight=\"bold\"");
    for (double bits = std::ceil(options.least_bits); bits <= options.most_bits; bits += 1)
      out += svg_line(x_of(bits), top, x_of(bits), bottom, "#e5e7eb") +
             svg_text(x_of(bits), bottom + 16, "middle", 12, fixed(bits, 0));
    for (double missed = 0; missed <= options.most_gap; missed += 2)
      out += svg_line(left, y_of(missed), right, y_of(missed), missed > 0 ? "#e5e7eb" : "#111827") +
             svg_text(left - 8, y_of(missed) + 4, "end", 12, fixed(missed, 0));
    out += svg_text((left + right) / 2, bottom + 34, "middle", 12, "bits per weight, scales included") +
           svg_text(0, 0, "middle", 12, "dB above " + panel.lower_bound,
                    " transform=\"translate(22 " + fixed((top + bottom) / 2, 1) + ") rotate(-90)\"");
    double legend = top + 8;
    const auto inside = [&](double bits, double missed) {
      return bits >= options.least_bits && bits <= options.most_bits && missed >= 0 && missed <= options.most_gap;
    };
    std::size_t kind = 0;
    for (const auto& [name, points] : panel.curves) {
      std::string path;
      for (const auto& [bits, missed] : points)
        if (inside(bits, missed)) path += fixed(x_of(bits), 1) + "," + fixed(y_of(missed), 1) + " ";
      const std::string dash = " stroke-width=\"1.5\" stroke-dasharray=\"" + std::string(kind % 2 ? "2 3" : "7 4") + "\"";
      out += polyline(path, "#111827", dash) +
             polyline(fixed(right + 14, 1) + "," + fixed(legend, 1) + " " + fixed(right + 36, 1) + "," + fixed(legend, 1),
                      "#111827", dash) +
             svg_text(right + 42, legend + 4, "start", 12, name);
      legend += 17;
      ++kind;
    }
    kind = 0;
    for (const RateSeries& s : series) {
      const std::string_view colour = colours[kind % colours.size()];
      std::string path, marks;
      for (const RateRow& r : panel.rows) {
        if (r.search != s.search || !r.scheme.starts_with(s.prefix) || !r.scheme.ends_with(s.suffix)) continue;
        if (r.scheme.size() < s.prefix.size() + s.suffix.size()) continue;
        const std::string_view between =
            std::string_view(r.scheme).substr(s.prefix.size(), r.scheme.size() - s.prefix.size() - s.suffix.size());
        if (!std::all_of(between.begin(), between.end(), [](char c) { return c >= '0' && c <= '9'; })) continue;
        if (!inside(r.bits, gap(r))) continue;
        path += fixed(x_of(r.bits), 1) + "," + fixed(y_of(gap(r)), 1) + " ";
        marks += svg_mark(x_of(r.bits), y_of(gap(r)), kind, colour);
      }
      if (!marks.empty()) {
        out += polyline(path, colour, " stroke-width=\"1\" stroke-opacity=\"0.6\"") + marks +
               svg_mark(right + 25, legend, kind, colour) + svg_text(right + 42, legend + 4, "start", 12, s.name);
        legend += 17;
      }
      ++kind;
    }
  }
  return svg_page({options.width, height, std::string(title), true}, out);
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::evaluate

#include <anybit/core/macros_end.hpp>
