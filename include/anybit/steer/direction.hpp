#pragma once
// Directions of concepts in activations: the reading step of representation engineering, LAT (Zou et al., arXiv:2310.01405).
//
//   pairs        D_i = h_2i - h_2i+1
//   pca          v = first principal component of D - mean D, |v| = 1; center = mean D
//   difference   v = mean(h | 1) - mean(h | 0), not normalized; center = 0
//   sign         s = sgn(share of pairs whose labelled row projects higher - share in which it projects lower), of a tie +1
//   score        s (h - center) . v / |v|

#include <anybit/core/macros_begin.hpp>

#include <cmath>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <anybit/core/matrix.hpp>
#include <anybit/dense/product.hpp>
#include <anybit/steer/labelled.hpp>

namespace anybit::steer {
inline namespace ANYBIT_ABI {

struct Direction {
  std::vector<double> vector{};  ///< (width)
  std::vector<double> center{};  ///< (width), subtracted from activations before they are projected
  double sign = 1;               ///< 1 or -1: sign * vector points towards label 1
  double threshold = 0;          ///< of scores, half way between the mean scores of both labels
  double explained = 0;          ///< pca: share of the variance of the differences, 0 to 1

  Index width() const { return static_cast<Index>(vector.size()); }
};

enum class ReadingMethod : std::uint8_t { pca, mean_difference, random };

/// Mean activations of each label.
struct ClusterMeans {
  std::vector<double> zero, one;
};

}  // namespace ANYBIT_ABI
}  // namespace anybit::steer

namespace anybit::steer {
inline namespace ANYBIT_CODE {

template <class A, class B>
double dot(const A& a, const B& b) {
  double sum = 0;
  for (std::size_t j = 0; j < a.size(); ++j) sum += static_cast<double>(a[j]) * static_cast<double>(b[j]);
  return sum;
}
inline double norm(std::span<const double> v) { return std::sqrt(dot(v, v)); }
inline double cosine(std::span<const double> a, std::span<const double> b) {
  const double lengths = norm(a) * norm(b);
  return lengths > 0 ? dot(a, b) / lengths : 0;
}

/// A vector of normally distributed numbers, of length 1. The same on every machine.
inline std::vector<double> random_unit(Index width, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  const auto uniform = [&] { return (static_cast<double>(random() >> 11) + 0.5) * 0x1p-53; };
  std::vector<double> v(static_cast<std::size_t>(width));
  for (double& x : v) {
    const double radius = std::sqrt(-2 * std::log(uniform()));  // Box and Muller
    x = radius * std::cos(6.283185307179586 * uniform());
  }
  const double length = norm(v);
  for (double& x : v) x /= length;
  return v;
}

/// (row - center) . vector / |vector| times sign, for each row of h (rows, width).
inline std::vector<double> scores(const Direction& d, ConstMatrix h) {
  ANYBIT_CHECK(h.cols == d.width(), "steer::scores: activations of another width than the direction");
  const double length = norm(d.vector), offset = dot(d.center, d.vector);
  std::vector<double> out;
  for (Index r = 0; r < h.rows; ++r) out.push_back(d.sign * (dot(h.row(r), d.vector) - offset) / length);
  return out;
}

/// Share of pairs whose row with label 1 scores higher than the other.
inline double pair_accuracy(std::span<const double> scores, std::span<const Label> labels) {
  std::size_t right = 0;
  for (std::size_t i = 0; i + 1 < scores.size(); i += 2)
    right += labels[i] == 1 ? scores[i] > scores[i + 1] : scores[i + 1] > scores[i];
  return scores.size() < 2 ? 0 : static_cast<double>(right) / static_cast<double>(scores.size() / 2);
}

/// Share of rows on their label's side of the threshold.
inline double row_accuracy(std::span<const double> scores, std::span<const Label> labels, double threshold) {
  std::size_t right = 0;
  for (std::size_t i = 0; i < scores.size(); ++i) right += (scores[i] > threshold) == (labels[i] == 1);
  return scores.empty() ? 0 : static_cast<double>(right) / static_cast<double>(scores.size());
}

inline ClusterMeans cluster_means(ConstMatrix h, std::span<const Label> labels) {
  const auto width = static_cast<std::size_t>(h.cols);
  ClusterMeans m{std::vector<double>(width), std::vector<double>(width)};
  double zeros = 0, ones = 0;
  for (Index r = 0; r < h.rows; ++r) {
    const bool one = labels[static_cast<std::size_t>(r)] == 1;
    (one ? ones : zeros) += 1;
    std::vector<double>& sum = one ? m.one : m.zero;
    for (std::size_t j = 0; j < width; ++j) sum[j] += static_cast<double>(h.row(r)[j]);
  }
  for (std::size_t j = 0; j < width; ++j) m.zero[j] /= std::max(zeros, 1.0), m.one[j] /= std::max(ones, 1.0);
  return m;
}

namespace detail {

/// The eigenvector of the largest eigenvalue of g, symmetric and positive semidefinite, and that eigenvalue; g is overwritten.
/// P <- P^2 / trace(P^2) doubles the power at each step, so that 40 steps tell apart eigenvalues that differ by 1e-10 of
/// themselves. An error where the largest is not alone.
inline Result<std::pair<std::vector<double>, double>> top_eigenvector(MatrixView<double> g) {
  const Index n = g.rows;
  const auto trace = [&](MatrixView<const double> m) {
    double sum = 0;
    for (Index i = 0; i < n; ++i) sum += m(i, i);
    return sum;
  };
  const double total = trace(g);
  if (!(total > 0)) return {ErrorCode::numerical, "all rows are equal: there is no direction, give other texts"};
  const std::vector<double> original(g.data, g.data + n * n);
  std::vector<double> squared(original.size());
  const MatrixView<double> square(squared.data(), n, n);
  for (Index i = 0; i < n * n; ++i) g.data[i] /= total;
  double purity = 0;
  for (int step = 0; step < 40 && purity < 1 - 1e-14; ++step) {
    std::fill(squared.begin(), squared.end(), 0.0);
    dense::add_transposed_product<double>(g, g, square, 1);
    purity = trace(square);  // sum of squares of eigenvalues that add up to 1
    for (Index i = 0; i < n * n; ++i) g.data[i] = squared[static_cast<std::size_t>(i)] / purity;
  }
  if (purity < 0.999)
    return {ErrorCode::numerical,
            "the largest principal component is not alone: the differences determine no direction, give "
            "more pairs"};
  Index largest = 0;
  for (Index i = 1; i < n; ++i)
    if (g(i, i) > g(largest, largest)) largest = i;
  const auto row = g.row(largest);
  std::vector<double> v(row.begin(), row.end()), next(v.size());
  double value = 0;
  for (int polish = 0; polish < 3; ++polish) {  // what squaring rounded away
    const double length = norm(v);
    for (double& x : v) x /= length;
    for (Index i = 0; i < n; ++i)
      next[static_cast<std::size_t>(i)] = dot(std::span(original).subspan(static_cast<std::size_t>(i * n), v.size()), v);
    value = dot(next, v);
    v.swap(next);
  }
  const double length = norm(v);
  for (double& x : v) x /= length;
  return std::pair{std::move(v), value};
}

/// Sets sign and threshold by the labelled rows themselves, recentred by `center`.
inline void set_sign_and_threshold(Direction& d, ConstMatrix h, std::span<const Label> labels, bool pairs) {
  d.sign = 1;
  std::vector<double> s = scores(d, h);
  double mean[2] = {0, 0}, count[2] = {0, 0};
  for (std::size_t i = 0; i < s.size(); ++i) mean[labels[i]] += s[i], count[labels[i]] += 1;
  mean[0] /= std::max(count[0], 1.0), mean[1] /= std::max(count[1], 1.0);
  if (pairs) {
    double balance = 0;
    for (std::size_t i = 0; i + 1 < s.size(); i += 2) {
      const double labelled = labels[i] == 1 ? s[i] : s[i + 1], other = labels[i] == 1 ? s[i + 1] : s[i];
      balance += labelled > other ? 1 : labelled < other ? -1 : 0;
    }
    d.sign = balance < 0 ? -1 : 1;
  } else {
    d.sign = mean[1] < mean[0] ? -1 : 1;
  }
  d.threshold = d.sign * (mean[0] + mean[1]) / 2;
}

}  // namespace detail

/// The first principal component of the differences of pairs: rows 2i and 2i+1 of h (rows, width) are a pair, `labels` says
/// which of them has the concept. The order inside the pairs must be mixed: if the labelled row always comes first, subtracting
/// the mean of the differences removes the concept itself, and that is an error.
inline Result<Direction> pca_direction(ConstMatrix h, std::span<const Label> labels) {
  ANYBIT_TRY_STATUS(check_pairs("steer: pca", h, labels));
  const Index pairs = h.rows / 2, width = h.cols;
  Index first = 0;
  for (Index i = 0; i < pairs; ++i) first += labels[static_cast<std::size_t>(2 * i)];
  const Index rarer = std::min(first, pairs - first);
  if (rarer == 0 || static_cast<double>(rarer) < least_share * static_cast<double>(pairs))
    return {ErrorCode::invalid_argument,
            io::detail::text("steer: pca: the row with label ", first < pairs - first ? 0 : 1, " comes first in ", pairs - rarer,
                             " of ", pairs,
                             " pairs, so the mean of the differences is the concept and is subtracted: shuffle the order "
                             "inside each pair")};

  std::vector<double> data(static_cast<std::size_t>(pairs * width));
  const MatrixView<double> diff(data.data(), pairs, width);
  Direction d;
  d.center.assign(static_cast<std::size_t>(width), 0);
  for (Index i = 0; i < pairs; ++i)
    for (Index j = 0; j < width; ++j) {
      diff(i, j) = static_cast<double>(h(2 * i, j)) - static_cast<double>(h(2 * i + 1, j));
      d.center[static_cast<std::size_t>(j)] += diff(i, j);
    }
  for (double& c : d.center) c /= static_cast<double>(pairs);
  for (Index i = 0; i < pairs; ++i)
    for (Index j = 0; j < width; ++j) diff(i, j) -= d.center[static_cast<std::size_t>(j)];

  // The smaller of D D^T and D^T D: they share their eigenvalues.
  const bool by_pairs = pairs <= width;
  std::vector<double> turned;
  MatrixView<const double> factor = diff;
  if (by_pairs) {
    turned.resize(data.size());
    for (Index i = 0; i < pairs; ++i)
      for (Index j = 0; j < width; ++j) turned[static_cast<std::size_t>(j * pairs + i)] = diff(i, j);
    factor = MatrixView<const double>(turned.data(), width, pairs);
  }
  const Index n = factor.cols;
  std::vector<double> gram_data(static_cast<std::size_t>(n * n));
  const MatrixView<double> gram(gram_data.data(), n, n);
  dense::add_transposed_product<double>(factor, factor, gram, 1);
  double total = 0;
  for (Index i = 0; i < n; ++i) total += gram(i, i);
  auto top = detail::top_eigenvector(gram);
  if (!top) return in_context(top.error(), "steer: pca");
  d.explained = top->second / total;
  if (by_pairs) {
    d.vector.assign(static_cast<std::size_t>(width), 0);
    for (Index i = 0; i < pairs; ++i)
      for (Index j = 0; j < width; ++j)
        d.vector[static_cast<std::size_t>(j)] += top->first[static_cast<std::size_t>(i)] * diff(i, j);
  } else {
    d.vector = std::move(top->first);
  }
  const double length = norm(d.vector);
  for (double& x : d.vector) x /= length;
  detail::set_sign_and_threshold(d, h, labels, true);
  return d;
}

/// mean(h | 1) - mean(h | 0), not normalized; rows need not be pairs.
inline Result<Direction> mean_difference(ConstMatrix h, std::span<const Label> labels) {
  ANYBIT_TRY_STATUS(check_labelled("steer: mean difference", h, labels));
  Direction d;
  const ClusterMeans means = cluster_means(h, labels);
  d.vector = means.one;
  for (std::size_t j = 0; j < d.vector.size(); ++j) d.vector[j] -= means.zero[j];
  d.center.assign(d.vector.size(), 0);
  if (!(norm(d.vector) > 0))
    return {ErrorCode::numerical,
            "steer: mean difference: both labels have the same mean: there is no direction, give other texts"};
  detail::set_sign_and_threshold(d, h, labels, false);
  return d;
}

/// Of rows in pairs; the baseline `random` takes only its sign from them.
inline Result<Direction> read_direction(ReadingMethod method, ConstMatrix h, std::span<const Label> labels,
                                        std::uint64_t seed = 42) {
  if (method == ReadingMethod::pca) return pca_direction(h, labels);
  if (method == ReadingMethod::mean_difference) return mean_difference(h, labels);
  ANYBIT_TRY_STATUS(check_pairs("steer: random direction", h, labels));
  Direction d{.vector = random_unit(h.cols, seed), .center = std::vector<double>(static_cast<std::size_t>(h.cols))};
  detail::set_sign_and_threshold(d, h, labels, true);
  return d;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::steer

#include <anybit/core/macros_end.hpp>
