#include <anybit/evaluate/svg_shapes.hpp>

#include "support/catch.hpp"

using namespace anybit::evaluate;

TEST_CASE("a page is white, says its size and is closed; only a title and a fixed size are said besides") {
  const std::string plain = svg_page({300, 200}, "BODY\n");
  CHECK(plain.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 300 200\""));
  CHECK(plain.ends_with("fill=\"#ffffff\"/>\nBODY\n</svg>\n"));
  CHECK(plain.find("<title>") == std::string::npos);
  const std::string titled = svg_page({300, 200, "a < b", true}, "");
  CHECK(titled.find("width=\"300\" height=\"200\" viewBox") != std::string::npos);
  CHECK(titled.find("<title>a &lt; b</title>") != std::string::npos);
}

TEST_CASE("a plot puts values where its axes say") {
  const SvgPlot plot{{10, 20, 100, 50}, {-1, 1}, {2, 4}};
  CHECK(plot.x_of(-1) == Approx(10));
  CHECK(plot.x_of(0.5) == Approx(85));
  CHECK(plot.y_of(2) == Approx(70));
  CHECK(plot.y_of(3.5) == Approx(32.5));
  CHECK(plot.y_of(9) == Approx(20));  // above the field
  const std::array<double, 2> points[] = {{-1, 2}, {1, 4}};
  CHECK(plot.curve(points, "#000000").find("\"M10.0 70.0L110.0 20.0\"") != std::string::npos);
  CHECK(plot.row(3, "three").find("y1=\"45.0\"") != std::string::npos);
}
