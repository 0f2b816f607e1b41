#pragma once
// The picture of a report: mean KL (log scale) against bits per weight of the linears, one labelled mark per recipe. A plain
// SVG without scripts, style sheets or fonts of its own, so that every browser shows it.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <string_view>
#include <vector>

#include <anybit/core/finite.hpp>
#include <anybit/evaluate/report.hpp>
#include <anybit/evaluate/svg_shapes.hpp>

namespace anybit::evaluate {
inline namespace ANYBIT_ABI {

struct SvgOptions {
  double width = 1100, height = 720;
  std::string title;  ///< empty: the model's name
};

}  // namespace ANYBIT_ABI
}  // namespace anybit::evaluate

namespace anybit::evaluate {
inline namespace ANYBIT_CODE {

namespace detail {

/// Recipes are grouped by the first part of their name ("gptq-int4-g128" -> "gptq"): one colour and shape each.
inline std::string family(std::string_view recipe) { return std::string(recipe.substr(0, recipe.find('-'))); }

struct Box {
  double left, top, right, bottom;
  double overlap(const Box& o) const {
    const double w = std::min(right, o.right) - std::max(left, o.left), h = std::min(bottom, o.bottom) - std::max(top, o.top);
    return w > 0 && h > 0 ? w * h : 0;
  }
};

}  // namespace detail

/// Rows without a positive finite KL (the reference itself, a broken model) have no place on a log scale and are named below
/// the picture instead.
inline std::string svg(const EvaluationReport& report, const SvgOptions& options = {}) {
  using namespace detail;
  constexpr std::array<std::string_view, 8> colours{"#1f5fa8", "#c2410c", "#15803d", "#7e22ce",
                                                    "#b91c1c", "#0e7490", "#854d0e", "#475569"};
  const double left = 84, right = options.width - 24, top = 64, bottom = options.height - 96;

  std::vector<const ReportRow*> shown;
  std::string absent;
  for (const ReportRow& r : report.rows)
    if (is_finite(r.kl_mean) && r.kl_mean > 0 && is_finite(r.bits_per_weight_linears))
      shown.push_back(&r);
    else if (r.recipe != "reference")
      absent += (absent.empty() ? "" : ", ") + r.recipe;
  std::vector<std::string> families;
  for (const ReportRow* r : shown)
    if (std::find(families.begin(), families.end(), family(r->recipe)) == families.end()) families.push_back(family(r->recipe));

  double low = 1e-3, high = 1, fewest_bits = 0, most_bits = 8;
  if (!shown.empty()) {
    low = high = shown.front()->kl_mean;
    fewest_bits = most_bits = shown.front()->bits_per_weight_linears;
    for (const ReportRow* r : shown) {
      low = std::min(low, r->kl_mean);
      high = std::max(high, r->kl_mean);
      fewest_bits = std::min(fewest_bits, r->bits_per_weight_linears);
      most_bits = std::max(most_bits, r->bits_per_weight_linears);
    }
  }
  const double decade_low = std::floor(std::log10(low) - 0.05),
               decade_high = std::max(decade_low + 1, std::ceil(std::log10(high) + 0.05));
  const double bits_low = std::max(0.0, std::floor(fewest_bits - 0.3)), bits_high = std::ceil(most_bits + 0.6);
  const auto x_of = [&](double bits) { return left + (right - left) * (bits - bits_low) / (bits_high - bits_low); };
  const auto y_of = [&](double kl) {
    return bottom - (bottom - top) * (std::log10(kl) - decade_low) / (decade_high - decade_low);
  };

  const std::string title = options.title.empty() ? report.model : options.title;
  std::string out;
  out += svg_text(left, 26, "start", 17, title, " font-weight=\"bold\"");
  out +=
      svg_text(left, 46, "start", 12,
               "Mean KL divergence from the float model against the size of its linear layers; lower and further left is better");

  for (double bits = bits_low; bits <= bits_high; bits += 1) {
    out += svg_line(x_of(bits), top, x_of(bits), bottom, "#e5e7eb");
    out += svg_text(x_of(bits), bottom + 18, "middle", 12, fixed(bits, 0));
  }
  for (double decade = decade_low; decade <= decade_high; decade += 1) {
    const double y = y_of(std::pow(10, decade));
    out += svg_line(left, y, right, y, "#d1d5db");
    out += svg_text(left - 8, y + 4, "end", 12,
                    decade >= -3 && decade <= 3 ? number(std::pow(10, decade), 1) : "1e" + fixed(decade, 0));
    for (int k = 2; k < 10 && decade < decade_high; ++k) {
      const double minor = y_of(k * std::pow(10, decade));
      out += svg_line(left, minor, right, minor, "#f3f4f6");
    }
  }
  out += "<rect x=\"" + fixed(left, 1) + "\" y=\"" + fixed(top, 1) + "\" width=\"" + fixed(right - left, 1) + "\" height=\"" +
         fixed(bottom - top, 1) + "\" fill=\"none\" stroke=\"#6b7280\"/>\n";
  out += svg_text((left + right) / 2, bottom + 40, "middle", 13, "bits per weight of the linear layers, scales included");
  out += svg_text(0, 0, "middle", 13, "mean KL divergence (nats, log scale)",
                  " transform=\"translate(24 " + fixed((top + bottom) / 2, 1) + ") rotate(-90)\"");

  // Labels: each tries places around its mark and takes the one that covers the least of marks and labels already placed.
  std::vector<Box> taken;
  for (const ReportRow* r : shown) {
    const double x = x_of(r->bits_per_weight_linears), y = y_of(r->kl_mean);
    taken.push_back({x - 7, y - 7, x + 7, y + 7});
  }
  constexpr double font = 11, glyph = 6.5;
  std::string marks, labels;
  for (const ReportRow* r : shown) {
    const double x = x_of(r->bits_per_weight_linears), y = y_of(r->kl_mean);
    const std::size_t kind =
        static_cast<std::size_t>(std::find(families.begin(), families.end(), family(r->recipe)) - families.begin());
    const std::string_view colour = colours[kind % colours.size()];
    const double width = glyph * static_cast<double>(r->recipe.size());
    Box best{};
    double best_cost = 1e300;
    for (double distance = 0; distance < 9; distance += 1)
      for (int side = 0; side < 2; ++side)
        for (int up = -1; up <= 1; up += 2) {
          const double lift = up * distance * 7;
          const double from = side == 0 ? x + 9 : x - 9 - width;
          const Box box{from, y + lift - font / 2 - 1, from + width, y + lift + font / 2 + 2};
          double cost = distance * 25 + side * 10;
          for (const Box& t : taken) cost += 8 * box.overlap(t);
          if (box.left < left + 2 || box.right > right - 2 || box.top < top + 2 || box.bottom > bottom - 2) cost += 1e5;
          if (cost < best_cost) best_cost = cost, best = box;
        }
    taken.push_back(best);
    const double middle = (best.top + best.bottom) / 2;
    if (std::abs(middle - y) > 6) marks += svg_line(x, y, best.left > x ? best.left - 1 : best.right + 1, middle, "#9ca3af");
    labels += svg_mark(x, y, kind, colour);
    labels += svg_text(best.left, best.bottom - 3, "start", font, r->recipe, " fill=\"" + std::string(colour) + "\"");
  }
  out += marks + labels;

  double x = left;
  for (std::size_t kind = 0; kind < families.size(); ++kind) {
    const double width = 26 + 7.2 * static_cast<double>(families[kind].size());
    if (x + width > right) break;
    out += svg_mark(x + 6, bottom + 60, kind, colours[kind % colours.size()]);
    out += svg_text(x + 17, bottom + 64, "start", 12, families[kind]);
    x += width + 12;
  }
  std::string footer = std::to_string(report.evaluation_tokens) + " evaluation tokens, " +
                       std::to_string(report.calibration_tokens) + " calibration tokens";
  if (!absent.empty()) footer += "; without a finite KL above 0, so not shown: " + absent;
  out += svg_text(left, bottom + 86, "start", 11, footer, " fill=\"#6b7280\"");
  return svg_page({options.width, options.height, title + ": KL divergence against bits per weight", true}, out);
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::evaluate

#include <anybit/core/macros_end.hpp>
