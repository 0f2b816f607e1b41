#pragma once
// The result of evaluating a model under many recipes, and its table for a terminal. This header does not depend on how the
// figures were obtained; the tool writes the JSON.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <optional>
#include <string>
#include <vector>

#include <anybit/core/finite.hpp>
#include <anybit/core/types.hpp>

namespace anybit::evaluate {
inline namespace ANYBIT_ABI {

/// One model under one recipe.
struct ReportRow {
  std::string recipe;
  std::string activations = "f32";     ///< the names of the Compute of its products with packed weights
  double bits_per_weight_linears = 0;  ///< payload of all quantized linears over their weights
  double bits_per_weight_file = 0;     ///< every tensor's bytes, embedding and norms included, over every parameter
  Index bytes = 0;                     ///< of every tensor
  double layer_error_mean = 0;         ///< ||y - y_q||_F / ||y||_F of a linear's outputs, averaged over linears
  double layer_error_worst = 0;
  std::string layer_error_worst_name;
  double perplexity = 0, perplexity_plus_minus = 0;
  double perplexity_ratio = 1;
  double kl_mean = 0, kl_plus_minus = 0;  ///< nats
  double same_top_percent = 100;
  double prompt_tokens_per_s = 0, decode_tokens_per_s = 0;
  double quantize_s = 0;
  std::vector<std::string> remarks;  ///< fallbacks and other things worth knowing, one line each
};

struct EvaluationReport {
  std::string model, machine;
  Index calibration_tokens = 0, evaluation_tokens = 0;
  std::vector<ReportRow> rows;     ///< the float model first, named "reference"
  std::vector<std::string> notes;  ///< how to read the figures
};

}  // namespace ANYBIT_ABI
}  // namespace anybit::evaluate

namespace anybit::evaluate {
inline namespace ANYBIT_CODE {

namespace detail {

inline std::string number(double value, int significant) {
  if (!is_finite(value)) return is_nan(value) ? "nan" : value > 0 ? "inf" : "-inf";
  char text[40];
  if (value == 0) return "0";
  const double magnitude = std::abs(value);
  if (magnitude >= 1e6 || magnitude < 1e-5) {
    std::snprintf(text, sizeof text, "%.*e", std::max(0, significant - 2), value);
    return text;
  }
  const int whole = static_cast<int>(std::floor(std::log10(magnitude))) + 1;
  std::snprintf(text, sizeof text, "%.*f", std::max(0, significant - whole), value);
  return text;
}

inline std::string fixed(double value, int decimals) {
  if (!is_finite(value)) return number(value, 3);
  char text[400];
  std::snprintf(text, sizeof text, "%.*f", decimals, value);
  return text;
}

}  // namespace detail

/// The rows as aligned columns, a rule under the heading, 170 characters wide or so.
inline std::string table(const EvaluationReport& report) {
  const std::vector<std::string> heading{"recipe",     "activations", "bits/w",     "file",    "MB",
                                         "layer err",  "worst",       "perplexity", "ratio",   "KL",
                                         "same top %", "prompt t/s",  "decode t/s", "quant s", "worst layer"};
  std::vector<std::vector<std::string>> cells{heading};
  for (const ReportRow& r : report.rows) {
    using detail::fixed, detail::number;
    const bool quantized = !r.layer_error_worst_name.empty();
    cells.push_back({r.recipe, r.activations, fixed(r.bits_per_weight_linears, 2), fixed(r.bits_per_weight_file, 2),
                     fixed(static_cast<double>(r.bytes) / 1e6, 1), quantized ? number(r.layer_error_mean, 3) : "-",
                     quantized ? number(r.layer_error_worst, 3) : "-", number(r.perplexity, 5), number(r.perplexity_ratio, 4),
                     number(r.kl_mean, 3), fixed(r.same_top_percent, 1), number(r.prompt_tokens_per_s, 3),
                     number(r.decode_tokens_per_s, 3), fixed(r.quantize_s, 1), quantized ? r.layer_error_worst_name : "-"});
  }
  std::vector<std::size_t> width(heading.size(), 0);
  for (const auto& row : cells)
    for (std::size_t c = 0; c < row.size(); ++c) width[c] = std::max(width[c], row[c].size());
  std::string out;
  for (std::size_t r = 0; r < cells.size(); ++r) {
    std::string line;
    for (std::size_t c = 0; c < cells[r].size(); ++c) {
      const std::string& cell = cells[r][c];
      const bool left = c <= 1 || c + 1 == cells[r].size();
      if (c) line += "  ";
      if (!left) line.append(width[c] - cell.size(), ' ');
      line += cell;
      if (c <= 1) line.append(width[c] - cell.size(), ' ');
    }
    out += line + "\n";
    if (r == 0) {
      std::size_t total = 2 * (width.size() - 1);
      for (const std::size_t w : width) total += w;
      out.append(total, '-');
      out += "\n";
    }
  }
  for (const std::string& note : report.notes) out += note + "\n";
  return out;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::evaluate

#include <anybit/core/macros_end.hpp>
