#pragma once
// Lottery tickets (Frankle and Carbin, arXiv:1803.03635; rewinding: Frankle et al., arXiv:1912.05671): sparse networks that train
// from the weights that they had early on, found by training, pruning the smallest weights and going back.
//
// imp      masks only grow, a share of what is left per round; then back to the first weights and on
// mplth    the published variant of 2025: rates of every round anew on the trained weights, not added up, each followed by
// training samplth  simulated annealing: pruned weights come back as noise that cools, several networks, merged by their
// perplexity

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <anybit/core/result.hpp>
#include <anybit/train/lottery/masks.hpp>
#include <anybit/train/random.hpp>

namespace anybit::train::lottery {
inline namespace ANYBIT_CODE {

/// Trains d under masks for one round, 0, 1, ..; the mean loss of its last steps, or of a text of the caller's.
using TrainRound = std::function<Result<double>(model::Decoder& d, const Kept& masks, Index round)>;

struct Ticket {
  Kept masks;
  std::vector<double> losses;  ///< of each round
};

struct IterativePruning {
  double share = 0.5;   ///< of every linear, behind the last round
  Index rounds = 3;     ///< prunings; training runs once more than that
  bool rewinds = true;  ///< to the weights that d came with; else training goes on
};

/// Behind round r = 1 .. rounds the share 1 - (1 - share)^(r / rounds) is gone. d ends trained under the last mask.
inline Result<Ticket> iterative_magnitude_pruning(model::Decoder& d, const IterativePruning& o, const TrainRound& train) {
  ANYBIT_CHECK(o.rounds > 0 && o.share >= 0 && o.share < 1, "iterative_magnitude_pruning: rounds or share out of range");
  const Values first = values_of(d);
  Ticket out{dense_masks(d), {}};
  for (Index r = 0; r <= o.rounds; ++r) {
    ANYBIT_TRY(const double loss, train(d, out.masks, r));
    out.losses.push_back(loss);
    if (r == o.rounds) break;
    const double share = 1 - std::pow(1 - o.share, static_cast<double>(r + 1) / static_cast<double>(o.rounds));
    prune_to(out.masks, values_of(d), share);
    set_weights(d, o.rewinds ? first : values_of(d), out.masks);
  }
  return out;
}

struct Mplth {
  std::vector<double> rates{0.1, 0.2, 0.3};  ///< of each round
  bool as_published = true;  ///< masks of one round do not bind the next: the sparsity behind the last round is its rate alone
};

inline Result<Ticket> mplth(model::Decoder& d, const Mplth& o, const TrainRound& train) {
  ANYBIT_CHECK(!o.rates.empty(), "mplth: give at least one rate");
  const Values first = values_of(d);
  Ticket out{dense_masks(d), {}};
  Index round = 0;
  for (const double rate : o.rates) {
    if (o.as_published) out.masks = dense_masks(d);
    // Of what is left: without the defect the rates add up.
    prune_to(out.masks, values_of(d), o.as_published ? rate : 1 - (1 - sparsity(out.masks)) * (1 - rate));
    set_weights(d, first, out.masks);
    ANYBIT_TRY(const double loss, train(d, out.masks, round++));
    out.losses.push_back(loss);
  }
  return out;
}

struct SaMplth {
  std::vector<double> rates{0.7, 0.8, 0.9};  ///< one network each
  double first_temperature = 1, cooling = 0.95, last_temperature = 0.01;
  Index epochs = 3;  ///< of each network, each with a temperature
  std::uint64_t seed = 0;
  /// Noise has the standard deviation T and the merged network is dense. Else noise is T times the standard deviation of the
  /// matrix, and the merged network is pruned to `share`.
  bool as_published = false;
  double share = 0.5;
};

/// Every network starts from the weights of d; the merged one is their average weighted by 1 / perplexity, trained once more.
inline Result<Ticket> sa_mplth(model::Decoder& d, const SaMplth& o, const TrainRound& train) {
  ANYBIT_CHECK(!o.rates.empty() && o.epochs > 0, "sa_mplth: give rates and epochs");
  const Values first = values_of(d);
  const Kept dense = dense_masks(d);
  Ticket out{dense, {}};
  Values merged;
  double weight_sum = 0;
  Index round = 0;
  for (std::size_t network = 0; network < o.rates.size(); ++network) {
    set_weights(d, first, dense);
    Kept masks = dense;
    prune_to(masks, first, o.rates[network]);
    double loss = 0;
    for (Index epoch = 0; epoch < o.epochs; ++epoch) {
      const double temperature =
          std::max(o.last_temperature, o.first_temperature * std::pow(o.cooling, static_cast<double>(epoch)));
      const Draws draws(o.seed, (static_cast<std::uint64_t>(network) << 20) + static_cast<std::uint64_t>(epoch));
      Values noisy = values_of(d);
      std::uint64_t drawn = 0;
      for (auto& [name, values] : noisy) {
        double squares = 0;
        for (const float w : values) squares += static_cast<double>(w) * static_cast<double>(w);
        const double size = o.as_published ? 1 : std::sqrt(squares / static_cast<double>(values.size()));
        const std::vector<std::uint8_t>& kept = masks.find(name)->second;
        for (std::size_t i = 0; i < values.size(); ++i) {
          if (kept[i]) continue;
          // Box and Muller.
          const double u = 1 - static_cast<double>(draws.uniform(drawn)), v = static_cast<double>(draws.uniform(drawn + 1));
          drawn += 2;
          values[i] = static_cast<float>(temperature * size * std::sqrt(-2 * std::log(u)) * std::cos(6.283185307179586 * v));
        }
      }
      set_weights(d, noisy, dense);
      ANYBIT_TRY(loss, train(d, dense, round++));
      out.losses.push_back(loss);
    }
    const double weight = std::exp(-loss);
    weight_sum += weight;
    for (const auto& [name, values] : values_of(d)) {
      std::vector<float>& sum = merged[name];
      sum.resize(values.size());
      for (std::size_t i = 0; i < values.size(); ++i) sum[i] += static_cast<float>(weight) * values[i];
    }
  }
  for (auto& [name, values] : merged)
    for (float& w : values) w = static_cast<float>(static_cast<double>(w) / weight_sum);
  if (!o.as_published) prune_to(out.masks, merged, o.share);
  set_weights(d, merged, out.masks);
  ANYBIT_TRY(const double loss, train(d, out.masks, round));
  out.losses.push_back(loss);
  return out;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::train::lottery

#include <anybit/core/macros_end.hpp>
