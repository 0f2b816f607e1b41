#pragma once
// A matrix as a picture: one coloured cell per value.

#include <string>
#include <vector>

#include <anybit/core/view.hpp>

namespace tool {

struct HeatMap {
  std::string title{};
  std::vector<std::string> rows{}, columns{};  ///< their names
  anybit::ConstMatrix values{};
  std::string legend{};  ///< what a value is
};

/// SVG. Blue is above 0, red below, white 0; the strongest colour is the largest magnitude.
std::string heat_map_svg(const HeatMap& map);

}  // namespace tool
