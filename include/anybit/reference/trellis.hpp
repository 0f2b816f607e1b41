#pragma once
// Trellis coded quantization with a bitshift trellis (Tseng et al. 2024, "QTIP", arXiv:2406.11235; EXL3 of exllamav3).
//
//   s_t = (s_{t-1} << K | b_t) mod 2^L,   w_t = value(s_t),   s_0 = s_n: a loop of n steps of K bits (tail-biting)
//
// Encoding: the shortest path through the states (Viterbi), D_t(s) = (w(s) - x_t)^2 + min D_{t-1}(p) over the 2^K states p that
// lead to s, those whose last L - K bits, the edge, are the first L - K bits of s. A loop is found in two passes: the edge in the
// middle of the best path through the sequence turned by half is where the loop is cut; the second pass starts and ends there.
//
// The bits of a loop are written first bit first, in words of 32 whose highest bit comes first.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cstdint>
#include <limits>

#include <anybit/reference/matrix.hpp>

namespace anybit::reference {
inline namespace ANYBIT_CODE {

struct TrellisShape {
  int state_bits = 16, step_bits = 2;
  Index states() const { return Index{1} << state_bits; }
  Index edges() const { return Index{1} << (state_bits - step_bits); }
  Index choices() const { return Index{1} << step_bits; }
};

/// The states of a loop of n steps.
inline Row<Index> trellis_states(const Row<std::uint32_t>& words, Index n, TrellisShape shape) {
  const auto bit = [&](Index i) {
    const Index at = (i % (n * shape.step_bits) + n * shape.step_bits) % (n * shape.step_bits);
    return static_cast<Index>(words[at / 32] >> (31 - at % 32) & 1);
  };
  Row<Index> states(n);
  for (Index t = 0; t < n; ++t)
    for (int b = 0; b < shape.state_bits; ++b) states[t] = 2 * states[t] + bit((t + 1) * shape.step_bits - shape.state_bits + b);
  return states;
}
inline Row<std::uint32_t> trellis_words(const Row<Index>& states, TrellisShape shape) {
  Row<std::uint32_t> words(states.size() * shape.step_bits / 32);
  for (Index i = 0; i < states.size() * shape.step_bits; ++i) {
    const Index bit = states[i / shape.step_bits] >> (shape.step_bits - 1 - i % shape.step_bits) & 1;
    words[i / 32] |= static_cast<std::uint32_t>(bit) << (31 - i % 32);
  }
  return words;
}

struct TrellisPath {
  Row<Index> states;
  double cost = std::numeric_limits<double>::infinity();
};

/// The best path from edge `from` to edge `to`, -1: any. value(state) is what a state stands for.
template <class Value>
TrellisPath viterbi(const Vector& x, TrellisShape shape, Index from, Index to, Value value) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  Vector best(shape.edges(), from < 0 ? 0 : infinity);  // by the edge that was reached
  if (from >= 0) best[from] = 0;
  Table<Index> choice(x.size(), shape.edges());
  for (Index t = 0; t < x.size(); ++t) {
    Vector next(shape.edges(), infinity);
    for (Index s = 0; s < shape.states(); ++s) {
      const double d = value(s) - x[t], cost = best[s >> shape.step_bits] + d * d;
      const Index edge = s % shape.edges();
      if (cost < next[edge]) next[edge] = cost, choice(t, edge) = s;
    }
    best = next;
  }
  Index edge = to;
  if (edge < 0) edge = std::min_element(best.begin(), best.end()) - best.begin();
  TrellisPath path{Row<Index>(x.size()), best[edge]};
  for (Index t = x.size(); t-- > 0; edge = path.states[t] >> shape.step_bits) path.states[t] = choice(t, edge);
  return path;
}

template <class Value>
TrellisPath tail_biting_in_two_passes(const Vector& x, TrellisShape shape, Value value) {
  const Index half = x.size() / 2;
  Vector turned(x.size());
  for (Index t = 0; t < x.size(); ++t) turned[t] = x[(t + half) % x.size()];
  const Index edge = viterbi(turned, shape, -1, -1, value).states[x.size() - half - 1] % shape.edges();
  return viterbi(x, shape, edge, edge, value);
}

/// The best of all loops: every edge tried.
template <class Value>
TrellisPath tail_biting(const Vector& x, TrellisShape shape, Value value) {
  TrellisPath best;
  for (Index edge = 0; edge < shape.edges(); ++edge)
    if (TrellisPath path = viterbi(x, shape, edge, edge, value); path.cost < best.cost) best = path;
  return best;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::reference

#include <anybit/core/macros_end.hpp>
