#pragma once
// Directions that quantization is to keep: their weight in the Hessian of what reads the residual stream.
//
//   H <- H + lambda tr(H) u u^T,   u = gain r / |gain r|
//
// r is the direction in the stream, u the same behind the gains of the norm that feeds a site. The error of a linear's outputs
// for a shift of length s along u is s^2 |(W - Wq) u|^2, so lambda is the share of the calibration's energy that lies in such
// shifts: the Fisher information of the shift where outputs have noise of one size. GPTQ and AWQ minimize the sum.

#include <anybit/core/macros_begin.hpp>

#include <cmath>
#include <span>
#include <vector>

#include <anybit/quantize/model_stats.hpp>
#include <anybit/steer/control.hpp>

namespace anybit::steer {
inline namespace ANYBIT_CODE {

/// u of a site for a direction of the residual stream, (inputs); an error where no norm feeds the site from the stream.
inline Result<std::vector<double>> direction_at_site(const model::Decoder& d, model::SiteId id, const Direction& direction) {
  using io::detail::text;
  const model::SiteSpec& site = (*d.blueprint)[id];
  if (site.producer.kind != model::Producer::Kind::norm)
    return {ErrorCode::unsupported, text("steer: block ", site.block, " ", site.name,
                                         " reads no normed residual stream: directions are kept there alone")};
  if (direction.width() != d.config.dim)
    return {ErrorCode::shape_mismatch, text("steer: a direction of ", direction.width(), " values for a residual stream of ",
                                            d.config.dim, ": it was read from another model or point, read it again")};
  const std::vector<float>& gain = d[site.producer.weight].values;
  double mean = 0;  // a LayerNorm takes it out
  if (d.config.form.norm == model::NormKind::layer)
    for (const double x : direction.vector) mean += x / static_cast<double>(direction.width());
  std::vector<double> u;
  for (std::size_t j = 0; j < gain.size(); ++j) u.push_back(static_cast<double>(gain[j]) * (direction.vector[j] - mean));
  const double length = norm(u);
  if (!(length > 0) || !is_finite(length))
    return {ErrorCode::numerical, text("steer: block ", site.block, " ", site.name, ": the direction behind the norm is ",
                                       length > 0 ? "not finite" : "zero", ": read it again")};
  for (double& x : u) x /= length;
  return u;
}

/// Adds the weight `lambda` of each direction to the statistics of the sites of the block behind it, which read the stream where
/// it was read. The shift is one more token of length sqrt(lambda sum_t |x_t|^2), so every statistic sees it. Call it once, after
/// the calibration text.
inline Status keep_directions(model::ModelStats& stats, const model::Decoder& d, std::span<const BlockDirection> directions,
                              double lambda) {
  using io::detail::text;
  if (!(is_finite(lambda) && lambda >= 0))
    return {ErrorCode::invalid_argument,
            text("steer: a weight of ", lambda, " in the Hessian: it must be finite and not negative")};
  if (stats.tokens() == 0)
    return {ErrorCode::insufficient_data, "steer: no calibration token was seen: accumulate a text before directions are kept"};
  for (const BlockDirection& b : directions)
    for (std::size_t i = 0; i < d.blueprint->sites.size(); ++i) {
      const auto id = static_cast<model::SiteId>(i);
      const model::SiteSpec& site = (*d.blueprint)[id];
      if (site.block != b.block + 1 || site.producer.kind != model::Producer::Kind::norm) continue;
      ANYBIT_TRY(const std::vector<double> u, direction_at_site(d, id, b.direction));
      double energy = 0;
      const Stats& seen = stats.at(id, Needs::none);
      for (const float square : seen.mean_square()) energy += static_cast<double>(square) * static_cast<double>(seen.tokens());
      Matrix shift(1, site.inputs);
      for (std::size_t j = 0; j < u.size(); ++j)
        shift(0, static_cast<Index>(j)) = static_cast<float>(std::sqrt(lambda * energy) * u[j]);
      ANYBIT_TRY_STATUS(stats.add(id, shift.view(), nullptr, {}));
    }
  return Ok{};
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::steer

#include <anybit/core/macros_end.hpp>
