#pragma once
// Outliers of activations: how far the largest values exceed the others, which decides the error of 8-bit rounding.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <span>
#include <string>
#include <vector>

#include <anybit/core/distance.hpp>
#include <anybit/evaluate/report.hpp>
#include <anybit/model/run.hpp>
#include <anybit/quantize/one_shot.hpp>
#include <anybit/transform/smooth_quant.hpp>

namespace anybit::evaluate {
inline namespace ANYBIT_ABI {

struct Outliers {
  double largest = 0;         ///< |x|
  double median_channel = 0;  ///< the median over channels of their largest |x|
  double kurtosis = 0;        ///< of all values together: 3 if they are normal
  /// ||X - Q(X)||_F / ||X||_F of rounding to 8 bits with a scale a token, or one for all tokens.
  double int8_per_token = 0, int8_static = 0;

  double ratio() const { return median_channel > 0 ? largest / median_channel : 0; }
};

}  // namespace ANYBIT_ABI
}  // namespace anybit::evaluate

namespace anybit::evaluate {
inline namespace ANYBIT_CODE {

namespace detail {
inline double median(std::vector<double> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}
}  // namespace detail

/// Of activations (tokens, channels), which are finite.
inline Outliers outliers(ConstMatrix x) {
  Outliers o;
  std::vector<double> channels(static_cast<std::size_t>(x.cols));
  double sum = 0, count = static_cast<double>(x.rows * x.cols);
  for (Index t = 0; t < x.rows; ++t)
    for (std::size_t j = 0; j < channels.size(); ++j) {
      const double v = static_cast<double>(x.row(t)[j]);
      channels[j] = std::max(channels[j], std::fabs(v));
      sum += v;
    }
  for (const double c : channels) o.largest = std::max(o.largest, c);
  o.median_channel = detail::median(channels);
  if (o.largest == 0) return o;
  const double mean = sum / count;
  double second = 0, fourth = 0;
  for (Index t = 0; t < x.rows; ++t)
    for (const float value : x.row(t)) {
      const double squared = (static_cast<double>(value) - mean) * (static_cast<double>(value) - mean);
      second += squared, fourth += squared * squared;
    }
  if (second > 0) o.kurtosis = fourth / second * count / second;
  const auto error = [&](float fixed) {
    RelativeError e;
    e.add(x, smooth_quant::rounded_to_int8(x, fixed).view());
    return e.value();
  };
  o.int8_per_token = error(0);
  o.int8_static = error(static_cast<float>(o.largest) / 127);
  return o;
}

/// Of what enters each site of each block, site after site, while `ids` run through the decoder.
inline Result<std::vector<Outliers>> outliers(const model::Decoder& d, std::span<const model::TokenId> ids,
                                              ExecutorRef executor = {}) {
  std::vector<Outliers> all(d.blueprint->sites.size());
  nn::KvCache cache(model::cache_shape(d.config), static_cast<Index>(ids.size()));
  const std::vector<model::Tap> taps =
      model::site_taps(*d.blueprint, [&](model::SiteId site, ConstMatrix x) { all[model::place(site)] = outliers(x); });
  ANYBIT_TRY(const Matrix hidden, model::hidden_states(d, ids, cache, {executor, taps}));
  return all;
}

/// A table in Markdown of two such lists, before and after a transform: a row for each name of a site, over all blocks.
inline std::string outlier_table(const model::Blueprint& b, std::span<const Outliers> before, std::span<const Outliers> after) {
  ANYBIT_CHECK(before.size() == b.sites.size() && after.size() == b.sites.size(), "outlier_table: lists of two models");
  std::string out =
      "| input of | largest, any block | largest / median channel | kurtosis | 8-bit error, a scale a token | 8-bit error, one scale |\n"
      "|---|---|---|---|---|---|\n";
  std::vector<std::string> names;
  for (const model::SiteSpec& site : b.sites)
    if (std::find(names.begin(), names.end(), site.name) == names.end()) names.push_back(site.name);
  for (const std::string& name : names) {
    out += "| " + name;
    const auto cell = [&](auto&& of, bool largest) {
      for (const std::span<const Outliers> list : {before, after}) {
        std::vector<double> values;
        for (std::size_t i = 0; i < list.size(); ++i)
          if (b.sites[i].name == name) values.push_back(of(list[i]));
        const double v = values.empty() ? 0 : largest ? *std::max_element(values.begin(), values.end()) : detail::median(values);
        out += (list.data() == before.data() ? " | " : " → ") + detail::number(v, 3);
      }
    };
    cell([](const Outliers& o) { return o.largest; }, true);
    cell([](const Outliers& o) { return o.ratio(); }, false);
    cell([](const Outliers& o) { return o.kurtosis; }, false);
    cell([](const Outliers& o) { return o.int8_per_token; }, false);
    cell([](const Outliers& o) { return o.int8_static; }, false);
    out += " |\n";
  }
  return out;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::evaluate

#include <anybit/core/macros_end.hpp>
