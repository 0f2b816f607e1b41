#pragma once
// The picture of a plan: one field per matrix, blocks from left to right, darker for more bits per weight.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <string_view>

#include <anybit/evaluate/choose_bits.hpp>
#include <anybit/evaluate/svg_shapes.hpp>

namespace anybit::evaluate {
inline namespace ANYBIT_CODE {

inline std::string widths_svg(const model::ModelPlan& plan, const model::Decoder& d, std::string_view title) {
  constexpr double left = 130, top = 70, cell = 30, height = 26;
  std::vector<std::string> kinds;  // names of linears within their blocks
  const auto kind_of = [](const std::string& name) {
    const std::size_t from = name.find('.', name.find('.') + 1) + 1;
    return name.substr(from, name.rfind('.') - from);
  };
  for (const model::WeightId id : d.blueprint->linears)
    if (const std::string kind = kind_of((*d.blueprint)[id].name); std::find(kinds.begin(), kinds.end(), kind) == kinds.end())
      kinds.push_back(kind);
  const Index blocks = d.config.blocks;
  const double width = std::max(left + cell * static_cast<double>(blocks) + 20, 520.0),
               bottom = top + (static_cast<double>(kinds.size()) + 1.6) * height + 50;
  // 2 bits are nearly white, 8 and more dark blue.
  const auto colour = [](double bits) {
    const double t = std::clamp((bits - 2) / 6, 0.0, 1.0);
    const auto mix = [&](double from, double to) { return std::to_string(std::lround(from + t * (to - from))); };
    return "rgb(" + mix(232, 8) + "," + mix(240, 48) + "," + mix(250, 107) + ")";
  };
  const auto field = [&](double x, double y, double w, double bits) {
    return "<rect x=\"" + detail::fixed(x, 1) + "\" y=\"" + detail::fixed(y, 1) + "\" width=\"" + detail::fixed(w, 1) +
           "\" height=\"" + detail::fixed(height - 2, 1) + "\" fill=\"" + colour(bits) + "\"/>\n" +
           detail::svg_text(x + w / 2, y + height / 2 + 3, "middle", 10, detail::fixed(bits, bits < 9.95 ? 1 : 0),
                            bits > 4.6 ? " fill=\"#ffffff\"" : "");
  };
  std::string out;
  out += detail::svg_text(left, 28, "start", 16, title);
  out += detail::svg_text(left, 48, "start", 12, "bits a weight, scales and zero points included; blocks from left to right");
  for (std::size_t i = 0; i < plan.linears.size(); ++i) {
    const model::WeightSpec& spec = (*d.blueprint)[d.blueprint->linears[i]];
    const auto kind = static_cast<double>(std::find(kinds.begin(), kinds.end(), kind_of(spec.name)) - kinds.begin());
    out += field(left + cell * static_cast<double>(spec.block), top + height * kind, cell - 2,
                 plan.linears[i]->bits_per_weight(spec.shape));
  }
  for (std::size_t k = 0; k < kinds.size(); ++k)
    out += detail::svg_text(left - 8, top + height * static_cast<double>(k) + height / 2 + 4, "end", 12, kinds[k]);
  const auto outside = [&](const model::ModelRecipe* r, Extents e) {
    return r ? r->bits_per_weight(e) : model::EmbeddingScheme::bits_per_weight(e);
  };
  const double last = top + (static_cast<double>(kinds.size()) + 0.6) * height;
  out +=
      detail::svg_text(left - 8, last + height / 2 + 4, "end", 12, d.has_head() || plan.head ? "token_embd" : "embedding, head");
  out += field(left, last, 4 * cell - 2, outside(plan.embedding, d.token_embedding().extents()));
  if (d.has_head() || plan.head) {
    out += detail::svg_text(left + 5.6 * cell, last + height / 2 + 4, "end", 12, "output");
    out += field(left + 6 * cell, last, 4 * cell - 2, outside(plan.head, d.output_head().extents()));
  }
  return svg_page({width, bottom, {}, true}, out);
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::evaluate

#include <anybit/core/macros_end.hpp>
