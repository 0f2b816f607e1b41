#pragma once
// Mixture of experts: a router's choice for each token, lists of tokens by expert, and the rows of activations that they name.
// Readable twin: reference/experts.hpp.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <vector>

#include <anybit/core/view.hpp>
#include <anybit/exec/executor.hpp>
#include <anybit/nn/elementwise.hpp>
#include <anybit/nn/router_weights.hpp>

namespace anybit::nn {
inline namespace ANYBIT_CODE {

/// Entries of one expert: rows of the activations, ascending, and the weight of its output in each.
struct ExpertTokens {
  std::span<const Index> rows{};
  std::span<const float> weights{};

  Index size() const { return static_cast<Index>(rows.size()); }
};

/// Which experts each token goes to. Its vectors are kept from call to call.
class Routing {
 public:
  /// From the router's logits (tokens, experts): the `used` experts with the largest logits; of equal logits the first. Weights
  /// are computed in float, the softmax over all experts. A logit that is no number counts as the lowest.
  void choose(ConstMatrix logits, Index used, RouterWeights kind) {
    ANYBIT_CHECK(used >= 1 && used <= logits.cols, "nn::Routing: more experts per token than there are");
    used_ = used, experts_of_all_ = logits.cols;
    chosen_.assign(static_cast<std::size_t>(logits.rows * used), 0);
    weights_.assign(chosen_.size(), 0.0f);
    for (Index t = 0; t < logits.rows; ++t) choose_for_token(logits.row(t), kind, at(chosen_, t), at(weights_, t));
    make_lists(logits.rows);
  }

  Index used() const { return used_; }
  /// Of one token, by falling logit.
  std::span<const Index> experts(Index token) const { return at(chosen_, token); }
  std::span<const float> weights(Index token) const { return at(weights_, token); }

  ExpertTokens of(Index expert) const {
    const std::size_t begin = begins_[static_cast<std::size_t>(expert)];
    const std::size_t size = begins_[static_cast<std::size_t>(expert) + 1] - begin;
    return {std::span(rows_).subspan(begin, size), std::span(row_weights_).subspan(begin, size)};
  }
  /// Places in the order of of(): entry i of the list of `expert` is the weight at chosen place slots(expert)[i], counted over
  /// tokens and then over their experts. Backward passes return gradients of weights there.
  std::span<const std::size_t> slots(Index expert) const {
    const std::size_t begin = begins_[static_cast<std::size_t>(expert)];
    return std::span(slots_).subspan(begin, begins_[static_cast<std::size_t>(expert) + 1] - begin);
  }

 private:
  template <class T>
  std::span<T> at(std::vector<T>& v, Index token) const {
    return std::span(v).subspan(static_cast<std::size_t>(token * used_), static_cast<std::size_t>(used_));
  }
  template <class T>
  std::span<const T> at(const std::vector<T>& v, Index token) const {
    return std::span(v).subspan(static_cast<std::size_t>(token * used_), static_cast<std::size_t>(used_));
  }

  static void choose_for_token(std::span<const float> z, RouterWeights kind, std::span<Index> chosen, std::span<float> weights) {
    std::size_t count = 0;
    const auto logit = [&](std::size_t e) {
      constexpr float lowest = -std::numeric_limits<float>::infinity();
      return z[e] > lowest ? z[e] : lowest;
    };
    for (std::size_t e = 0; e < z.size(); ++e) {
      std::size_t place = count;
      while (place > 0 && logit(e) > logit(static_cast<std::size_t>(chosen[place - 1]))) --place;
      if (place == chosen.size()) continue;
      if (count < chosen.size()) ++count;
      for (std::size_t i = count - 1; i > place; --i) chosen[i] = chosen[i - 1];
      chosen[place] = static_cast<Index>(e);
    }
    const float largest = z[static_cast<std::size_t>(chosen[0])];
    float sum = 0, of_chosen = 0;
    for (std::size_t i = 0; i < chosen.size(); ++i)
      of_chosen += weights[i] = std::exp(z[static_cast<std::size_t>(chosen[i])] - largest);
    if (kind != RouterWeights::softmax_of_chosen)
      for (const float& each : z) sum += std::exp(each - largest);
    for (float& w : weights) {
      switch (kind) {
        case RouterWeights::softmax: w /= sum; break;
        case RouterWeights::renormalized: w = (w / sum) / (of_chosen / sum); break;
        case RouterWeights::softmax_of_chosen: w /= of_chosen; break;
      }
    }
  }

  /// Counting sort of all choices by expert: tokens stay in order.
  void make_lists(Index tokens) {
    begins_.assign(static_cast<std::size_t>(experts_of_all_) + 1, 0);
    for (const Index e : chosen_) ++begins_[static_cast<std::size_t>(e) + 1];
    for (std::size_t e = 1; e < begins_.size(); ++e) begins_[e] += begins_[e - 1];
    next_ = begins_;
    rows_.resize(chosen_.size()), row_weights_.resize(chosen_.size()), slots_.resize(chosen_.size());
    std::size_t slot = 0;
    for (Index t = 0; t < tokens; ++t)
      for (Index i = 0; i < used_; ++i, ++slot) {
        const std::size_t to = next_[static_cast<std::size_t>(chosen_[slot])]++;
        rows_[to] = t, row_weights_[to] = weights_[slot], slots_[to] = slot;
      }
  }

  Index used_ = 0, experts_of_all_ = 0;
  std::vector<Index> chosen_;   ///< (tokens, used)
  std::vector<float> weights_;  ///< likewise
  std::vector<std::size_t> begins_, next_, slots_;
  std::vector<Index> rows_;
  std::vector<float> row_weights_;
};

/// to_i = x_rows[i], both of one width.
inline void gather_rows(ConstMatrix x, std::span<const Index> rows, MutableMatrix to, ExecutorRef executor) {
  ANYBIT_CHECK(to.rows == static_cast<Index>(rows.size()) && to.cols == x.cols, "nn::gather_rows: shapes differ");
  executor.parallel_for(to.rows, 4 * token_grain, [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) {
      const std::span<const float> from = x.row(rows[static_cast<std::size_t>(i)]);
      std::copy(from.begin(), from.end(), to.row(i).begin());
    }
  });
}

/// to_rows[i] += weights[i] x_i. No row may be named twice.
inline void add_rows(ConstMatrix x, ExpertTokens list, MutableMatrix to, ExecutorRef executor) {
  ANYBIT_CHECK(x.rows == list.size() && to.cols == x.cols, "nn::add_rows: shapes differ");
  executor.parallel_for(x.rows, 4 * token_grain, [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) {
      const float w = list.weights[static_cast<std::size_t>(i)];
      const std::span<const float> from = x.row(i);
      const std::span<float> sum = to.row(list.rows[static_cast<std::size_t>(i)]);
      for (std::size_t j = 0; j < sum.size(); ++j) sum[j] += w * from[j];
    }
  });
}

/// 1 / (1 + e^-z).
inline float sigmoid(float z) { return 1.0f / (1.0f + std::exp(-z)); }

/// to_t += sigmoid(z_t) x_t, z (tokens, 1): a shared expert behind its gate.
inline void add_gated_rows(ConstMatrix x, ConstMatrix z, MutableMatrix to, ExecutorRef executor) {
  ANYBIT_CHECK(x.extents() == to.extents() && z.rows == x.rows && z.cols == 1, "nn::add_gated_rows: shapes differ");
  executor.parallel_for(x.rows, 4 * token_grain, [&](Index begin, Index end) {
    for (Index t = begin; t < end; ++t) {
      const float g = sigmoid(z(t, 0));
      for (Index j = 0; j < x.cols; ++j) to(t, j) += g * x(t, j);
    }
  });
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::nn

#include <anybit/core/macros_end.hpp>
