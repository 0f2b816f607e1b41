#pragma once
// The elements of the pictures: text, lines, marks, fields with axes, and the page around them.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <array>
#include <span>
#include <string>
#include <string_view>

#include <anybit/evaluate/report.hpp>

namespace anybit::evaluate {
inline namespace ANYBIT_ABI {

struct SvgPage {
  double width = 0, height = 0;
  std::string title{};      ///< what the file is called; not drawn
  bool fixed_size = false;  ///< shown at this size; else as large as there is room for
};

struct SvgPanel {
  double left = 0, top = 0, width = 480, height = 180;
};

}  // namespace ANYBIT_ABI
}  // namespace anybit::evaluate

namespace anybit::evaluate {
inline namespace ANYBIT_CODE {

namespace detail {

inline std::string xml_escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '"')
      out += "&quot;";
    else if (static_cast<unsigned char>(c) >= 0x20)
      out += c;
  }
  return out;
}

inline std::string svg_text(double x, double y, std::string_view anchor, double size, std::string_view text,
                            std::string_view extra = {}) {
  return "<text x=\"" + fixed(x, 1) + "\" y=\"" + fixed(y, 1) + "\" text-anchor=\"" + std::string(anchor) + "\" font-size=\"" +
         fixed(size, 0) + "\"" + std::string(extra) + ">" + xml_escaped(text) + "</text>\n";
}
inline std::string svg_line(double x1, double y1, double x2, double y2, std::string_view stroke) {
  return "<line x1=\"" + fixed(x1, 1) + "\" y1=\"" + fixed(y1, 1) + "\" x2=\"" + fixed(x2, 1) + "\" y2=\"" + fixed(y2, 1) +
         "\" stroke=\"" + std::string(stroke) + "\"/>\n";
}

/// Shapes differ too, so that the picture can be read without colours.
inline std::string svg_mark(double x, double y, std::size_t kind, std::string_view colour) {
  const auto point = [&](double dx, double dy) { return fixed(x + dx, 1) + "," + fixed(y + dy, 1) + " "; };
  const std::string fill = "\" fill=\"" + std::string(colour) + "\" stroke=\"#ffffff\" stroke-width=\"0.7\"/>\n";
  switch (kind % 5) {
    case 0: return "<circle cx=\"" + fixed(x, 1) + "\" cy=\"" + fixed(y, 1) + "\" r=\"4.5" + fill;
    case 1: return "<rect x=\"" + fixed(x - 4, 1) + "\" y=\"" + fixed(y - 4, 1) + "\" width=\"8\" height=\"8" + fill;
    case 2: return "<polygon points=\"" + point(0, -6) + point(5.5, 4.5) + point(-5.5, 4.5) + fill;
    case 3: return "<polygon points=\"" + point(0, -6.5) + point(6.5, 0) + point(0, 6.5) + point(-6.5, 0) + fill;
    default: return "<polygon points=\"" + point(0, 6) + point(5.5, -4.5) + point(-5.5, -4.5) + fill;
  }
}

}  // namespace detail

/// `body` on white, so that it can be read on a dark page too: a whole file, without scripts, style sheets or fonts of its own.
inline std::string svg_page(const SvgPage& page, std::string_view body) {
  const std::string width = detail::fixed(page.width, 0), height = detail::fixed(page.height, 0);
  const bool titled = !page.title.empty();
  std::string out = "<svg xmlns=\"http://www.w3.org/2000/svg\"";
  if (page.fixed_size) out += " width=\"" + width + "\" height=\"" + height + "\"";
  out += " viewBox=\"0 0 " + width + " " + height + "\" font-family=\"";
  out += titled ? "Helvetica, Arial, 'DejaVu Sans', sans-serif\" fill=\"#111827" : "sans-serif";
  out += "\">\n";
  if (titled) out += "<title>" + detail::xml_escaped(page.title) + "</title>\n";
  out += "<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n";
  return out.append(body) + "</svg>\n";
}

/// A field of a page with a linear axis each way. What is drawn on it is returned as text.
struct SvgPlot {
  SvgPanel at;
  std::array<double, 2> x, y;  ///< the values at its edges: left and right, lower and upper

  double x_of(double value) const { return at.left + at.width * (value - x[0]) / (x[1] - x[0]); }
  /// Marks above the field are put on its upper edge.
  double y_of(double value) const { return bottom() - at.height * std::min((value - y[0]) / (y[1] - y[0]), 1.0); }
  double bottom() const { return at.top + at.height; }

  std::string title(std::string_view text) const { return detail::svg_text(at.left, at.top - 14, "start", 14, text); }
  /// A line across, with its value at the left.
  std::string row(double value, std::string_view label) const {
    return detail::svg_line(at.left, y_of(value), at.left + at.width, y_of(value), "#e5e7eb") +
           detail::svg_text(at.left - 6, y_of(value) + 4, "end", 11, label);
  }
  /// The value below.
  std::string column(double value, std::string_view label) const {
    return detail::svg_text(x_of(value), bottom() + 16, "middle", 11, label);
  }
  std::string x_name(std::string_view text) const {
    return detail::svg_text(at.left + at.width / 2, bottom() + 34, "middle", 12, text);
  }
  std::string curve(std::span<const std::array<double, 2>> points, std::string_view colour) const {
    std::string path;
    for (const auto& [across, up] : points)
      path += (path.empty() ? "M" : "L") + detail::fixed(x_of(across), 1) + " " + detail::fixed(y_of(up), 1);
    return "<path d=\"" + path + "\" stroke=\"" + std::string(colour) + "\" stroke-width=\"2\" fill=\"none\"/>\n";
  }
  std::string mark(std::array<double, 2> point, std::size_t kind, std::string_view colour) const {
    return detail::svg_mark(x_of(point[0]), y_of(point[1]), kind, colour);
  }
  /// Line `place` of the names below the field.
  std::string legend(std::size_t place, std::size_t kind, std::string_view colour, std::string_view text) const {
    const double line = bottom() + 58 + 20 * static_cast<double>(place);
    return detail::svg_mark(at.left + 8, line, kind, colour) + detail::svg_text(at.left + 22, line + 4, "start", 12, text);
  }
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::evaluate

#include <anybit/core/macros_end.hpp>
