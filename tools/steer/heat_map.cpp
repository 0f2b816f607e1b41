#include "heat_map.hpp"

#include <algorithm>
#include <cmath>

#include <anybit/evaluate/svg_shapes.hpp>

namespace tool {

using namespace anybit;
namespace svg = anybit::evaluate::detail;

namespace {

std::string colour_of(double share) {
  const double strength = std::min(std::abs(share), 1.0);
  const double red[] = {194, 65, 12}, blue[] = {31, 95, 168};
  std::string out = "rgb(";
  for (std::size_t i = 0; i < 3; ++i) {
    const double full = share < 0 ? red[i] : blue[i];
    out += (i ? "," : "") + std::to_string(static_cast<int>(std::lround(255 + (full - 255) * strength)));
  }
  return out + ")";
}

}  // namespace

std::string heat_map_svg(const HeatMap& map) {
  constexpr double cell_width = 22, cell_height = 12, left = 70, top = 46;
  const auto rows = map.values.rows, cols = map.values.cols;
  double most = 0;
  for (Index r = 0; r < rows; ++r)
    for (const float v : map.values.row(r)) most = std::max(most, std::abs(static_cast<double>(v)));
  const double bottom = top + cell_height * static_cast<double>(rows);
  std::string body = svg::svg_text(left, 22, "start", 14, map.title);
  body += svg::svg_text(left, 38, "start", 11,
                        map.legend + "; blue above 0, red below, strongest " + evaluate::detail::fixed(most, 3));
  for (Index r = 0; r < rows; ++r) {
    const double y = top + cell_height * static_cast<double>(r);
    body += svg::svg_text(left - 6, y + 10, "end", 9, map.rows[static_cast<std::size_t>(r)]);
    for (Index c = 0; c < cols; ++c)
      body += "<rect x=\"" + svg::fixed(left + cell_width * static_cast<double>(c), 1) + "\" y=\"" + svg::fixed(y, 1) +
              "\" width=\"" + svg::fixed(cell_width, 1) + "\" height=\"" + svg::fixed(cell_height, 1) + "\" fill=\"" +
              colour_of(most > 0 ? static_cast<double>(map.values(r, c)) / most : 0) + "\"/>\n";
  }
  for (Index c = 0; c < cols; ++c) {
    const double x = left + cell_width * (static_cast<double>(c) + 0.5);
    body += svg::svg_text(x, bottom + 8, "end", 9, map.columns[static_cast<std::size_t>(c)],
                          " transform=\"rotate(-60 " + svg::fixed(x, 1) + " " + svg::fixed(bottom + 8, 1) + ")\"");
  }
  return evaluate::svg_page({.width = left + cell_width * static_cast<double>(std::max<Index>(cols, 16)) + 20,
                             .height = bottom + 90,
                             .title = map.title},
                            body);
}

}  // namespace tool
