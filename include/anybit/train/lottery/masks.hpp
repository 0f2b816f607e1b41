#pragma once
// Sparse training: weights that a mask prunes are 0 in every forward pass and stay 0.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <anybit/core/fingerprint.hpp>
#include <anybit/model/decoder.hpp>
#include <anybit/train/reparametrization.hpp>

namespace anybit::train::lottery {
inline namespace ANYBIT_CODE {

/// Of the linears of the blocks, by name: 1 where a weight is kept.
using Kept = std::map<std::string, std::vector<std::uint8_t>, std::less<>>;

/// Everything is kept.
inline Kept dense_masks(const model::Decoder& d) {
  Kept out;
  for (const model::WeightId id : d.blueprint->linears)
    if (const Matrix* const w = d[id].linear.dense())
      out[(*d.blueprint)[id].name].assign(static_cast<std::size_t>(w->extents().size()), 1);
  return out;
}

/// Pruned weights over all.
inline double sparsity(const Kept& masks) {
  double zeros = 0, all = 0;
  for (const auto& [name, kept] : masks) {
    zeros += static_cast<double>(std::count(kept.begin(), kept.end(), std::uint8_t{0}));
    all += static_cast<double>(kept.size());
  }
  return all > 0 ? zeros / all : 0;
}

/// A copy of the values of the linears of the blocks, to rewind to.
using Values = std::map<std::string, std::vector<float>, std::less<>>;
inline Values values_of(const model::Decoder& d) {
  Values out;
  for (const model::WeightId id : d.blueprint->linears)
    if (const Matrix* const w = d[id].linear.dense())
      out[(*d.blueprint)[id].name].assign(w->data(), w->data() + w->extents().size());
  return out;
}

/// Weights of the linears become `values`, pruned ones 0.
inline void set_weights(model::Decoder& d, const Values& values, const Kept& masks) {
  for (const auto& [name, from] : values) {
    const MutableMatrix w = d[d.weight(name)].linear.own_dense();
    const auto mask = masks.find(name);
    for (std::size_t i = 0; i < from.size(); ++i) w.data[i] = mask == masks.end() || mask->second[i] ? from[i] : 0.0f;
  }
}

/// Where weights of `d` are 0: those of a pruning method.
inline Kept masks_of_zeros(const model::Decoder& d) {
  Kept out;
  for (const auto& [name, values] : values_of(d)) {
    std::vector<std::uint8_t>& kept = out[name];
    for (const float w : values) kept.push_back(w != 0 ? 1 : 0);
  }
  return out;
}

/// Prunes further, until `share` of each matrix is gone: the smallest magnitudes among what is kept.
inline void prune_to(Kept& masks, const Values& values, double share) {
  for (auto& [name, kept] : masks) {
    const std::vector<float>& w = values.find(name)->second;
    const auto target = static_cast<std::size_t>(share * static_cast<double>(kept.size()));
    std::vector<std::pair<float, std::size_t>> left;
    for (std::size_t i = 0; i < kept.size(); ++i)
      if (kept[i]) left.emplace_back(std::abs(w[i]), i);
    const std::size_t gone = kept.size() - left.size();
    if (target <= gone) continue;
    std::sort(left.begin(), left.end());
    for (std::size_t i = 0; i < target - gone; ++i) kept[left[i].second] = 0;
  }
}

/// For TrainOptions::reparametrize: gradients of pruned weights are 0, and steps leave them 0. `masks` outlives the run.
inline Reparametrize under(const Kept& masks) {
  return [&masks](std::span<const Parameter> weights) {
    Reparametrization out;
    std::vector<std::pair<Parameter, std::span<const std::uint8_t>>> masked;
    for (const Parameter& p : weights) {
      out.stepped.push_back(p);
      if (const auto found = masks.find(p.name); found != masks.end()) masked.emplace_back(p, found->second);
    }
    Fingerprint which;
    for (const auto& [name, kept] : masks) which.add(name).add(std::span<const std::uint8_t>(kept));
    out.description = io::detail::text("sparse, masks ", which.text());
    const auto zero = [masked](std::span<float> Parameter::* part) {
      for (const auto& [p, kept] : masked)
        for (std::size_t i = 0; i < kept.size(); ++i)
          if (!kept[i]) (p.*part)[i] = 0;
    };
    out.to_weights = [zero] { zero(&Parameter::values); };
    out.gradients_from_weights = [zero] { zero(&Parameter::gradient); };
    out.after_step = out.to_weights;
    return out;
  };
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::train::lottery

#include <anybit/core/macros_end.hpp>
