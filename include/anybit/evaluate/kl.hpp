#pragma once
// KL divergence from a reference model's next-token distributions: the statistics and formulas of `llama-perplexity
// --kl-divergence`. KL_t = sum over i with log p_ref(i) > -16 of p_ref(i) (log p_ref(i) - log p(i)). Twin: reference/kl.hpp.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include <anybit/core/distance.hpp>
#include <anybit/core/view.hpp>
#include <anybit/evaluate/softmax.hpp>
#include <anybit/evaluate/statistics.hpp>

namespace anybit::evaluate {
inline namespace ANYBIT_ABI {

/// The two models' predictions at one scored position, compared.
struct TokenComparison {
  double kl = 0;
  double nll_reference = 0, nll = 0;  ///< -log p of the token that follows in the text
  bool same_top = false;              ///< both hold the same token for most probable
};

/// How the reference is remembered. `uint16` is what llama.cpp's base file holds: logits clipped at 16 below the greatest,
/// in 65535 steps. It takes half the memory, and a model compared with itself then shows a KL above 0: the floor below
/// which llama.cpp's figures say nothing.
enum class ReferenceStorage { float32, uint16 };

struct KlStatistics {
  Index count = 0;
  double perplexity = 0, perplexity_reference = 0;
  Estimate log_perplexity_ratio;  ///< ln(perplexity / reference), its error by the covariance of the two
  Estimate perplexity_ratio;
  Estimate perplexity_difference;
  double correlation_percent = 0;  ///< of the two mean log-likelihoods
  Estimate kl;
  double kl_max = 0, kl_min = 0;
  /// At the fractions of `kl_fractions` and `dp_fractions`.
  static constexpr std::array<double, 9> kl_fractions{0.999, 0.99, 0.95, 0.90, 0.50, 0.10, 0.05, 0.01, 0.001};
  static constexpr std::array<double, 11> dp_fractions{0.999, 0.99, 0.95, 0.90, 0.75, 0.50, 0.25, 0.10, 0.05, 0.01, 0.001};
  std::array<double, 9> kl_percentiles{};
  /// p(correct) - p_reference(correct), in percent.
  Estimate dp_percent, rms_dp_percent;
  double dp_max = 0, dp_min = 0;
  std::array<double, 11> dp_percentiles{};
  Estimate same_top_percent;
  /// Below 100 tokens llama.cpp prints nothing; the figures are there, but mean little.
  bool enough() const { return count >= 100; }
};

}  // namespace ANYBIT_ABI
}  // namespace anybit::evaluate

namespace anybit::evaluate {
inline namespace ANYBIT_CODE {

/// The reference model's logits at the scored positions, kept in memory: count x vocabulary floats (2000 positions of 49152
/// tokens take 393 MB) or half of it as uint16. Rows are filled in any order, so that positions may run in parallel.
class ReferenceLogits {
 public:
  ReferenceLogits() = default;
  ReferenceLogits(Index positions, Index vocabulary, ReferenceStorage storage = ReferenceStorage::float32)
      : vocabulary_(vocabulary),
        storage_(storage),
        rows_(static_cast<std::size_t>(positions)),
        floats_(storage == ReferenceStorage::float32 ? static_cast<std::size_t>(positions * vocabulary) : 0),
        codes_(storage == ReferenceStorage::uint16 ? static_cast<std::size_t>(positions * vocabulary) : 0) {}

  Index positions() const { return static_cast<Index>(rows_.size()); }
  Index vocabulary() const { return vocabulary_; }
  ReferenceStorage storage() const { return storage_; }

  void set(Index position, std::span<const float> logits, std::int32_t target);
  /// A position as ReferenceStorage::uint16 holds it: log p = scale * code + least.
  struct Stored {
    float scale = 0, least = 0;
    std::span<const std::uint16_t> codes{};
  };
  Stored stored(Index position) const {
    const Row& row = rows_[static_cast<std::size_t>(position)];
    return {row.scale, row.least,
            std::span(codes_).subspan(static_cast<std::size_t>(position * vocabulary_), static_cast<std::size_t>(vocabulary_))};
  }
  void set_stored(Index position, const Stored& s, std::int32_t target);
  /// The reference's log-probabilities of one position as remembered.
  void log_probabilities(Index position, std::span<double> out) const;
  TokenComparison compare(Index position, std::span<const float> logits) const;
  /// The reference's own loss at each position, for its perplexity.
  std::vector<double> nll() const {
    std::vector<double> all;
    for (const Row& r : rows_) all.push_back(r.nll);
    return all;
  }

 private:
  struct Row {
    double log_sum_exp = 0;      ///< float32: log p = logit - log_sum_exp
    float scale = 0, least = 0;  ///< uint16: log p = scale * code + least
    std::int32_t target = 0;
    Index top = 0;
    double nll = 0;
  };
  template <class LogP>
  TokenComparison compare(const Row& row, LogP log_p_reference, std::span<const float> logits) const;

  Index vocabulary_ = 0;
  ReferenceStorage storage_ = ReferenceStorage::float32;
  std::vector<Row> rows_;
  std::vector<float> floats_;
  std::vector<std::uint16_t> codes_;
};

inline void ReferenceLogits::set(Index position, std::span<const float> logits, std::int32_t target) {
  ANYBIT_CHECK(static_cast<Index>(logits.size()) == vocabulary_,
               "ReferenceLogits::set: one logit for each token of the vocabulary");
  ANYBIT_CHECK(target >= 0 && target < vocabulary_, "ReferenceLogits::set: the target is a token of the vocabulary");
  Row& row = rows_[static_cast<std::size_t>(position)];
  const LogNormalizer n = log_normalizer(logits);
  row.target = target;
  row.top = n.top;
  row.log_sum_exp = n.log_sum_exp;
  const std::size_t base = static_cast<std::size_t>(position * vocabulary_);
  if (storage_ == ReferenceStorage::float32) {
    std::memcpy(floats_.data() + base, logits.data(), logits.size_bytes());
    row.nll = n.log_sum_exp - double{logits[static_cast<std::size_t>(target)]};
    return;
  }
  // As llama.cpp stores it, in float32; the most probable token is then found again in the codes, first of equals.
  const float top = logits[static_cast<std::size_t>(n.top)];
  float least = top;
  for (const float l : logits) least = l < least ? l : least;
  least = least < top - 16.f ? top - 16.f : least;
  row.scale = (top - least) / 65535.f;
  row.least = static_cast<float>(double{least} - n.log_sum_exp);
  const float inverse = row.scale > 0 ? 1.f / row.scale : 0.f;
  std::uint16_t greatest = 0;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const float steps = std::nearbyint(inverse * (logits[i] - least));
    codes_[base + i] = steps > 0 ? static_cast<std::uint16_t>(steps < 65535.f ? steps : 65535.f) : std::uint16_t{0};
    if (codes_[base + i] > greatest) greatest = codes_[base + i], row.top = static_cast<Index>(i);
  }
  row.nll = -(double{row.scale} * codes_[base + static_cast<std::size_t>(target)] + double{row.least});
}

inline void ReferenceLogits::set_stored(Index position, const Stored& s, std::int32_t target) {
  ANYBIT_CHECK(storage_ == ReferenceStorage::uint16 && static_cast<Index>(s.codes.size()) == vocabulary_ && target >= 0 &&
                   target < vocabulary_,
               "ReferenceLogits::set_stored: one code for each token of the vocabulary");
  Row& row = rows_[static_cast<std::size_t>(position)];
  std::copy(s.codes.begin(), s.codes.end(), codes_.begin() + static_cast<std::ptrdiff_t>(position * vocabulary_));
  row.scale = s.scale, row.least = s.least, row.target = target;
  row.top = static_cast<Index>(std::max_element(s.codes.begin(), s.codes.end()) - s.codes.begin());
  row.nll = -(double{s.scale} * s.codes[static_cast<std::size_t>(target)] + double{s.least});
}

inline void ReferenceLogits::log_probabilities(Index position, std::span<double> out) const {
  const Row& row = rows_[static_cast<std::size_t>(position)];
  const std::size_t base = static_cast<std::size_t>(position * vocabulary_);
  for (std::size_t i = 0; i < out.size(); ++i)
    out[i] = storage_ == ReferenceStorage::float32 ? double{floats_[base + i]} - row.log_sum_exp
                                                   : double{row.scale} * codes_[base + i] + double{row.least};
}

template <class LogP>
inline TokenComparison ReferenceLogits::compare(const Row& row, LogP log_p_reference, std::span<const float> logits) const {
  const LogNormalizer n = log_normalizer(logits);
  const float* x = logits.data();
  TokenComparison t;
  t.kl = lane_sum(vocabulary_, [&](Index i) {
    const double log_p = log_p_reference(i);
    const double term = exp_nonpositive(log_p) * (log_p - (double{x[i]} - n.log_sum_exp));
    return log_p > -16.0 ? term : 0.0;
  });
  t.nll_reference = row.nll;
  t.nll = n.log_sum_exp - double{logits[static_cast<std::size_t>(row.target)]};
  t.same_top = n.top == row.top;
  return t;
}

inline TokenComparison ReferenceLogits::compare(Index position, std::span<const float> logits) const {
  ANYBIT_CHECK(static_cast<Index>(logits.size()) == vocabulary_,
               "ReferenceLogits::compare: one logit for each token of the vocabulary");
  const Row& row = rows_[static_cast<std::size_t>(position)];
  const std::size_t base = static_cast<std::size_t>(position * vocabulary_);
  if (storage_ == ReferenceStorage::float32) {
    const float* reference = floats_.data() + base;
    return compare(row, [&](Index i) { return double{reference[i]} - row.log_sum_exp; }, logits);
  }
  const std::uint16_t* codes = codes_.data() + base;
  return compare(row, [&](Index i) { return double{row.scale} * codes[i] + double{row.least}; }, logits);
}

inline KlStatistics kl_statistics(std::span<const TokenComparison> tokens) {
  KlStatistics s;
  s.count = static_cast<Index>(tokens.size());
  if (tokens.empty()) return s;
  std::vector<double> kl, nll, nll_reference, dp, dp2;
  double same = 0;
  for (const TokenComparison& t : tokens) {
    kl.push_back(t.kl);
    nll.push_back(t.nll);
    nll_reference.push_back(t.nll_reference);
    const double d = std::exp(-t.nll) - std::exp(-t.nll_reference);
    dp.push_back(d);
    dp2.push_back(d * d);
    same += t.same_top;
  }
  const Estimate q = estimate(nll), b = estimate(nll_reference);
  const double covariance = covariance_of_means(nll, nll_reference);
  const auto root = [](double variance) { return variance > 0 ? std::sqrt(variance) : 0.0; };
  s.perplexity = std::exp(q.value);
  s.perplexity_reference = std::exp(b.value);
  s.log_perplexity_ratio = {q.value - b.value, root(q.plus_minus * q.plus_minus + b.plus_minus * b.plus_minus - 2 * covariance)};
  const double ratio = std::exp(s.log_perplexity_ratio.value);
  s.perplexity_ratio = {ratio, ratio * s.log_perplexity_ratio.plus_minus};
  const double dq = s.perplexity * q.plus_minus, db = s.perplexity_reference * b.plus_minus;
  s.perplexity_difference = {s.perplexity - s.perplexity_reference,
                             root(dq * dq + db * db - 2 * s.perplexity * s.perplexity_reference * covariance)};
  s.correlation_percent = q.plus_minus > 0 && b.plus_minus > 0 ? 100 * covariance / (q.plus_minus * b.plus_minus) : 0;

  s.kl = estimate(kl);
  kl = sorted(kl);
  s.kl_min = kl.front();
  s.kl_max = kl.back();
  for (std::size_t i = 0; i < s.kl_percentiles.size(); ++i) s.kl_percentiles[i] = percentile(kl, KlStatistics::kl_fractions[i]);

  const Estimate mean_dp = estimate(dp), mean_dp2 = estimate(dp2);
  const double rms = std::sqrt(mean_dp2.value);
  s.dp_percent = {100 * mean_dp.value, 100 * mean_dp.plus_minus};
  s.rms_dp_percent = {100 * rms, rms > 0 ? 100 * 0.5 / rms * mean_dp2.plus_minus : 0};
  dp = sorted(dp);
  s.dp_min = 100 * dp.front();
  s.dp_max = 100 * dp.back();
  for (std::size_t i = 0; i < s.dp_percentiles.size(); ++i)
    s.dp_percentiles[i] = 100 * percentile(dp, KlStatistics::dp_fractions[i]);

  const double n = static_cast<double>(tokens.size()), p = same / n;
  s.same_top_percent = {100 * p, tokens.size() > 1 ? 100 * std::sqrt(p * (1 - p) / (n - 1)) : 0};
  return s;
}

/// One line for each figure, in llama.cpp's words and order.
inline std::string to_text(const KlStatistics& s) {
  std::string out;
  const auto line = [&](const char* label, double value, const char* unit = "") {
    char text[96];
    std::snprintf(text, sizeof text, "%-21s: %10.6f%s\n", label, value, unit);
    out += text;
  };
  const auto estimate_line = [&](const char* label, Estimate e, const char* unit = "") {
    char text[96];
    std::snprintf(text, sizeof text, "%-21s: %10.6f +/- %10.6f%s\n", label, e.value, e.plus_minus, unit);
    out += text;
  };
  const auto percentile_label = [](double fraction) {
    char text[16];
    std::snprintf(text, sizeof text, "%4.1f%%", 100 * fraction);
    return std::string(text);
  };
  line("PPL(Q)", s.perplexity);
  line("PPL(base)", s.perplexity_reference);
  line("Cor(ln PPL)", s.correlation_percent, " %");
  estimate_line("ln(PPL(Q)/PPL(base))", s.log_perplexity_ratio);
  estimate_line("PPL(Q)/PPL(base)", s.perplexity_ratio);
  estimate_line("PPL(Q)-PPL(base)", s.perplexity_difference);
  estimate_line("Mean    KLD", s.kl);
  line("Maximum KLD", s.kl_max);
  for (std::size_t i = 0; i < s.kl_percentiles.size(); ++i)
    line(((KlStatistics::kl_fractions[i] == 0.5 ? std::string("Median ")
                                                : percentile_label(KlStatistics::kl_fractions[i]) + "  ") +
          " KLD")
             .c_str(),
         s.kl_percentiles[i]);
  line("Minimum KLD", s.kl_min);
  estimate_line("Mean    dp", s.dp_percent, " %");
  line("Maximum dp", s.dp_max, " %");
  for (std::size_t i = 0; i < s.dp_percentiles.size(); ++i)
    line(((KlStatistics::dp_fractions[i] == 0.5 ? std::string("Median ")
                                                : percentile_label(KlStatistics::dp_fractions[i]) + "  ") +
          " dp")
             .c_str(),
         s.dp_percentiles[i], " %");
  line("Minimum dp", s.dp_min, " %");
  estimate_line("RMS dp", s.rms_dp_percent, " %");
  estimate_line("Same top p", s.same_top_percent, " %");
  return out;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::evaluate
