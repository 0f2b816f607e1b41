#pragma once
// The laws of transforms: whatever they choose, the layer computes what it did, and statistics go along.

#include <anybit/core/macros_begin.hpp>

#include <cmath>
#include <string>
#include <vector>

#include <anybit/core/finite.hpp>
#include <anybit/recipe/recipe.hpp>
#include <anybit/testing/algorithm_laws.hpp>

namespace anybit::testing {
inline namespace ANYBIT_CODE {

/// ||a - b|| <= tolerance * ||a||, value by value against the largest.
inline bool same_values(std::span<const float> a, std::span<const float> b, double tolerance) {
  double largest = 0, off = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    largest = std::max(largest, std::fabs(static_cast<double>(a[i])));
    off = std::max(off, std::fabs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
  }
  return a.size() == b.size() && off <= tolerance * largest;
}

/// (X / s)(W')^T = X W^T, statistics are those of X / s, tied inputs have one scale, nothing of the caller's is written to.
template <Transform T, Algorithm A>
Violation check_transform_laws(const T& transform, const A& algorithm) {
  const std::string name = transform.describe() + " | " + algorithm.describe() + ": ";
  const Needs needs = T::needs | AlgorithmTraits<A>::needs(algorithm) | Needs::abs_max | Needs::mean_square;
  for (const Index dead : {Index{0}, Index{2}})
    for (const bool tie : {false, true}) {
      const std::string here = name + std::to_string(dead) + " dead inputs" + (tie ? ", tied" : "") + ": ";
      const Index inputs = 37, tokens = 90;
      const Matrix a = normal_matrix(11, inputs, 1, 0.1f), b = normal_matrix(5, inputs, 2, 0.2f),
                   x = example_inputs(tokens, inputs, 3, dead), before = a;
      const ConstMatrix matrices[] = {a.view(), b.view()};
      const Stats stats = example_stats(needs, x);
      std::vector<Index> tied;
      for (Index j = 0; tie && j < inputs; ++j) tied.push_back(j / 4);
      QuantizeOptions options;
      options.tied = tied;
      Siblings set(matrices, stats);
      if (const Status done = transform.apply(set, algorithm, options); !done) return here + done.error().message;
      if (!std::equal(before.data(), before.data() + before.extents().size(), a.data()))
        return here + "the caller's weights changed";
      const std::vector<float>& s = set.input_scale;
      if (!s.empty() && static_cast<Index>(s.size()) != inputs) return here + "the input scale has another length";
      for (std::size_t j = 0; j < s.size(); ++j) {
        if (!(s[j] > 0) || !is_finite(s[j])) return here + "input " + std::to_string(j) + " has scale " + shown(s[j]);
        if (tie && s[j] != s[static_cast<std::size_t>(tied[j]) * 4]) return here + "tied inputs have different scales";
      }
      // A power of two keeps it exact; others round once.
      Matrix divided = x;
      for (Index t = 0; t < tokens && !s.empty(); ++t)
        for (Index j = 0; j < inputs; ++j) divided(t, j) /= s[static_cast<std::size_t>(j)];
      for (std::size_t i = 0; i < 2; ++i) {
        const ConstMatrix now = set.weights[i].view();
        Matrix then(tokens, now.rows), got(tokens, now.rows);
        for (Index t = 0; t < tokens; ++t)
          for (Index r = 0; r < now.rows; ++r) {
            double was = 0, is = 0;
            for (Index j = 0; j < inputs; ++j) {
              was += static_cast<double>(x(t, j)) * static_cast<double>(matrices[i](r, j));
              is += static_cast<double>(divided(t, j)) * static_cast<double>(now(r, j));
            }
            then(t, r) = static_cast<float>(was), got(t, r) = static_cast<float>(is);
          }
        const auto values = [&](const Matrix& m) {
          return std::span<const float>(m.data(), static_cast<std::size_t>(m.extents().size()));
        };
        if (!same_values(values(then), values(got), 1e-5)) return here + "outputs changed";
      }
      const Stats again = example_stats(needs, divided);
      if (!same_values(again.abs_max(), set.stats->abs_max(), 1e-5) ||
          !same_values(again.mean_square(), set.stats->mean_square(), 1e-5))
        return here + "statistics are not those of the divided inputs";
      // In a recipe: every sibling's report says what the transform said; strict mode is an error where that is a fallback.
      const auto q = quantize_siblings(transform | algorithm, matrices, stats, options);
      if (!q) return here + q.error().message;
      for (const auto& one : q->matrices) {
        if (one.report.requested.find(transform.describe() + " | " + algorithm.describe()) != 0)
          return here + "the report says that '" + one.report.requested + "' was asked for";
        for (const std::string& line : set.fallbacks)
          if (std::find(one.report.fallbacks.begin(), one.report.fallbacks.end(), line) == one.report.fallbacks.end())
            return here + "the report lacks '" + line + "'";
      }
      options.strict = true;
      const bool clean =
          std::all_of(q->matrices.begin(), q->matrices.end(), [](const auto& m) { return m.report.as_requested(); });
      if (quantize_siblings(transform | algorithm, matrices, stats, options).ok() != clean)
        return here + "strict mode is no error where the report has a fallback, or is one where it has none";
    }
  const Matrix w = normal_matrix(3, 12, 4);
  const ConstMatrix one[] = {w.view()};
  if (T::needs != Needs::none && quantize_siblings(transform | algorithm, one, Stats(12, needs)).ok())
    return name + "takes statistics of no tokens";
  return {};
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::testing

#include <anybit/core/macros_end.hpp>
