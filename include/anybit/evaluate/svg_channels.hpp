#pragma once
// A panel of a picture: one stroke per channel, in channel order.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <span>
#include <string>
#include <string_view>

#include <anybit/evaluate/svg_shapes.hpp>

namespace anybit::evaluate {
inline namespace ANYBIT_CODE {

/// `highest` is the value at the upper edge.
inline std::string svg_channels(std::span<const double> values, const SvgPanel& at, double highest, std::string_view title,
                                std::string_view note, std::string_view colour = "#1f77b4") {
  using namespace detail;
  const auto channels = static_cast<double>(values.size());
  const double bottom = at.top + at.height;
  std::string path;
  for (std::size_t j = 0; j < values.size(); ++j)
    path += "M" + fixed(at.left + at.width * (static_cast<double>(j) + 0.5) / channels, 1) + " " + fixed(bottom, 1) + "V" +
            fixed(bottom - at.height * std::min(values[j] / highest, 1.0), 1);
  return svg_line(at.left, bottom, at.left + at.width, bottom, "#808080") + svg_text(at.left, at.top - 24, "start", 13, title) +
         svg_text(at.left, at.top - 8, "start", 12, note, " fill=\"#555555\"") +
         svg_text(at.left - 6, at.top + 8, "end", 11, highest < 10 ? number(highest, 2) : fixed(highest, 0)) +
         svg_text(at.left - 6, bottom, "end", 11, "0") + "<path d=\"" + path + "\" stroke=\"" + std::string(colour) +
         "\" stroke-width=\"" + fixed(std::max(0.3, 0.8 * at.width / channels), 2) + "\" fill=\"none\"/>\n";
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::evaluate

#include <anybit/core/macros_end.hpp>
