#pragma once
// The picture of a training run: the loss of every step and its running mean.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <string_view>
#include <vector>

#include <anybit/core/finite.hpp>
#include <anybit/evaluate/svg_shapes.hpp>

namespace anybit::evaluate {
inline namespace ANYBIT_CODE {

namespace detail {

/// 1, 2 or 5 times a power of ten, such that `range` has 2 to 5 of them.
inline double round_step(double range) {
  const double power = std::pow(10, std::floor(std::log10(range)));
  const double share = range / power;  // 1 .. 10
  return power * (share < 2 ? 0.5 : share < 5 ? 1 : 2);
}

}  // namespace detail

/// `steps`: a range of what has a `step` and a `loss`, such as train::TrainStep. The running mean is m <- m + (loss - m) /
/// min(steps so far, a twentieth of all). Steps whose loss is not finite are left out.
template <class Steps>
std::string loss_curve_svg(const Steps& steps, std::string_view title) {
  using Point = std::array<double, 2>;
  std::vector<Point> losses, means;
  const double window = std::max(1.0, static_cast<double>(steps.size()) / 20);
  double mean = 0, low = 0, high = 1;
  for (const auto& s : steps) {
    if (!is_finite(s.loss)) continue;
    const auto x = static_cast<double>(s.step);
    mean += (s.loss - mean) / std::min(static_cast<double>(losses.size() + 1), window);
    low = losses.empty() ? s.loss : std::min(low, s.loss), high = losses.empty() ? s.loss : std::max(high, s.loss);
    losses.push_back({x, s.loss}), means.push_back({x, mean});
  }
  if (!(high > low)) high = low + 1;
  const double last = losses.empty() ? 1 : std::max(1.0, losses.back()[0]);
  const SvgPlot plot{{70, 50, 640, 320}, {0, last}, {low, high}};
  std::string out = plot.title(title);
  const double up = detail::round_step(high - low), across = std::max(1.0, detail::round_step(last));
  for (double y = std::ceil(low / up) * up; y <= high; y += up) out += plot.row(y, detail::number(y, 3));
  for (double x = 0; x <= last; x += across) out += plot.column(x, detail::fixed(x, 0));
  out += plot.x_name("step");
  out += plot.curve(losses, "#93c5fd") + plot.curve(means, "#1f5fa8");
  out += plot.legend(0, 0, "#93c5fd", "loss of the step (nats per token)") + plot.legend(1, 0, "#1f5fa8", "running mean");
  return svg_page({740, 470, std::string(title) + ": loss by step", true}, out);
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::evaluate

#include <anybit/core/macros_end.hpp>
