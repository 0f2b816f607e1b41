#pragma once
// Statistics of the activations that enter one linear layer: running sums per input channel.
// X is (tokens, inputs); x_tj is channel j of token t; n counts tokens.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <anybit/core/matrix.hpp>
#include <anybit/core/result.hpp>
#include <anybit/exec/executor.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

/// The statistics that a transform or an algorithm asks for; sets of them, combined with | and tested with covers().
enum class Needs : unsigned {
  none = 0,
  abs_max = 1,       ///< max_t |x_tj|
  mean_abs = 2,      ///< 1/n sum_t |x_tj|
  mean_square = 4,   ///< 1/n sum_t x_tj^2
  hessian = 8,       ///< 2/n X^T X
  samples = 16,      ///< some rows of X themselves
  input_drift = 32,  ///< 2/n (X0 - X)^T X, where X0 is what the float model would have sent in
  sequences = 64,    ///< what enters attention and MLP, token after token; kept by model::ModelStats, not by Stats
};
constexpr Needs operator|(Needs a, Needs b) { return static_cast<Needs>(static_cast<unsigned>(a) | static_cast<unsigned>(b)); }
constexpr Needs operator&(Needs a, Needs b) { return static_cast<Needs>(static_cast<unsigned>(a) & static_cast<unsigned>(b)); }
constexpr bool covers(Needs have, Needs wanted) { return (have & wanted) == wanted; }
class Stats;
}  // namespace ANYBIT_ABI

inline namespace ANYBIT_CODE {

/// "abs_max | hessian", for messages.
inline std::string describe(Needs needs) {
  constexpr std::pair<Needs, std::string_view> all[] = {{Needs::abs_max, "abs_max"},         {Needs::mean_abs, "mean_abs"},
                                                        {Needs::mean_square, "mean_square"}, {Needs::hessian, "hessian"},
                                                        {Needs::samples, "samples"},         {Needs::input_drift, "input_drift"},
                                                        {Needs::sequences, "sequences"}};
  std::string text;
  for (const auto& [need, need_name] : all)
    if (covers(needs, need)) text += (text.empty() ? "" : " | ") + std::string(need_name);
  return text.empty() ? "none" : text;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit

namespace anybit::calibrate {
inline namespace ANYBIT_CODE {
/// total (lower triangle by rows) += x^T x.
template <class Real>
void add_block(MatrixView<const Real> x, std::vector<double>& total, ExecutorRef executor);
using AddBlock = void (*)(ConstMatrix, std::vector<double>&, ExecutorRef);
Status add_tokens(Stats& stats, ConstMatrix x, ExecutorRef executor, AddBlock add);
Status accumulate(Stats& stats, ConstMatrix x, ExecutorRef executor, AddBlock add);
/// total (by rows) += (original - x)^T x.
template <class Real>
void add_drift(MatrixView<const Real> x, MatrixView<const Real> original, std::vector<double>& total, ExecutorRef executor);
using AddDrift = void (*)(ConstMatrix, ConstMatrix, std::vector<double>&, ExecutorRef);
Status accumulate(Stats& stats, ConstMatrix x, ConstMatrix original, ExecutorRef executor, AddBlock add, AddDrift add_drift);
Status merge(Stats& stats, const Stats& other);
void thin_samples(Stats& stats);
void divide_inputs(Stats& stats, std::span<const float> divisor);
void expand_hessian(const Stats& stats, MatrixView<double> out);
Status assign_hessian(Stats& stats, MatrixView<const double> h, Index tokens);
std::vector<std::byte> stats_to_bytes(const Stats& stats);
Result<Stats> stats_from_bytes(std::span<const std::byte> bytes, std::string_view where);
}  // namespace ANYBIT_CODE
}  // namespace anybit::calibrate

namespace anybit {
inline namespace ANYBIT_ABI {

/// Streaming and mergeable: accumulate() may be called with any cut of the tokens, and merge() of parts gives what the whole
/// would have given, up to rounding. Sums are held in double; of the Hessian only the lower triangle, which takes as many
/// bytes as the full matrix in float would.
class Stats {
 public:
  static constexpr Index default_sample_cap = 512;

  Stats() = default;
  Stats(Index inputs, Needs needs, Index sample_cap = default_sample_cap)
      : inputs_(inputs), sample_cap_(sample_cap), needs_(needs) {
    ANYBIT_CHECK(inputs >= 0 && sample_cap >= 1, "Stats: the number of inputs is negative or the sample cap below 1");
    const auto n = static_cast<std::size_t>(inputs);
    if (covers(needs, Needs::abs_max)) abs_max_.resize(n);
    if (covers(needs, Needs::mean_abs)) sum_abs_.resize(n);
    if (covers(needs, Needs::mean_square)) sum_square_.resize(n);
    if (covers(needs, Needs::hessian)) sum_product_.resize(n * (n + 1) / 2);
    if (covers(needs, Needs::input_drift)) sum_drift_.resize(n * n);
  }

  /// Adds the tokens of x, (tokens, inputs). A NaN or an infinity is an error that names its token and channel, and then
  /// nothing of x has been added. The same bits for any number of threads. A template, so that only programs that calibrate
  /// compile its product.
  template <class Activations>
    requires std::is_convertible_v<const Activations&, ConstMatrix>
  ANYBIT_INLINE Status accumulate(const Activations& x, ExecutorRef executor = {}) {
    return calibrate::accumulate(*this, x, executor, &calibrate::add_block<float>);
  }
  /// The same where x is what a partly quantized model sends in and `original` what the float model does, token by token:
  /// statistics with Needs::input_drift want both.
  template <class Activations, class Originals>
    requires std::is_convertible_v<const Activations&, ConstMatrix> && std::is_convertible_v<const Originals&, ConstMatrix>
  ANYBIT_INLINE Status accumulate(const Activations& x, const Originals& original, ExecutorRef executor = {}) {
    return calibrate::accumulate(*this, x, original, executor, &calibrate::add_block<float>, &calibrate::add_drift<float>);
  }
  /// Adds what another pass over other tokens has seen. Both must keep the same statistics of as many inputs of the same model.
  ANYBIT_INLINE Status merge(const Stats& other) { return calibrate::merge(*this, other); }

  Index inputs() const { return inputs_; }
  Index tokens() const { return tokens_; }
  Needs needs() const { return needs_; }
  bool has(Needs wanted) const { return covers(needs_, wanted); }

  std::span<const float> abs_max() const { return require(Needs::abs_max), std::span<const float>(abs_max_); }
  ANYBIT_INLINE std::vector<float> mean_abs() const { return require(Needs::mean_abs), means(sum_abs_); }
  ANYBIT_INLINE std::vector<float> mean_square() const { return require(Needs::mean_square), means(sum_square_); }
  /// 2/n X^T X, full and symmetric, rounded to float.
  ANYBIT_INLINE Matrix hessian() const {
    Matrix h(inputs_, inputs_);
    std::vector<double> wide(static_cast<std::size_t>(inputs_ * inputs_));
    hessian(MatrixView<double>(wide.data(), inputs_, inputs_));
    for (std::size_t i = 0; i < wide.size(); ++i) h.data()[i] = static_cast<float>(wide[i]);
    return h;
  }
  /// The same in double, into an (inputs, inputs) matrix of the caller.
  ANYBIT_INLINE void hessian(MatrixView<double> out) const {
    require(Needs::hessian);
    calibrate::expand_hessian(*this, out);
  }
  /// Columns begin .. end - 1 of the Hessian from row `begin` on, divided by `unit`: what a product reads, without the whole.
  template <class Real>
  void hessian_columns(Index begin, Index end, double unit, MatrixView<Real> out) const {
    require(Needs::hessian);
    const double factor = tokens_ > 0 ? 2.0 / static_cast<double>(tokens_) : 0.0;
    for (Index i = begin; i < inputs_; ++i) {
      const double* const row = sum_product_.data() + i * (i + 1) / 2;
      for (Index j = begin; j < std::min(end, i + 1); ++j) out(i - begin, j - begin) = static_cast<Real>(row[j] * factor / unit);
    }
    for (Index i = begin; i < end; ++i)
      for (Index j = i + 1; j < end; ++j) out(i - begin, j - begin) = out(j - begin, i - begin);
  }
  ANYBIT_INLINE double largest_hessian_diagonal() const {
    require(Needs::hessian);
    const double factor = tokens_ > 0 ? 2.0 / static_cast<double>(tokens_) : 0.0;
    double largest = 0;
    for (Index i = 0; i < inputs_; ++i)
      largest = std::max(largest, std::fabs(sum_product_[static_cast<std::size_t>(i * (i + 1) / 2 + i)] * factor));
    return largest;
  }
  /// 2/n (X0 - X)^T X into an (inputs, inputs) matrix of the caller.
  ANYBIT_INLINE void drift(MatrixView<double> out) const {
    require(Needs::input_drift);
    for (Index i = 0; i < inputs_; ++i)
      for (Index j = 0; j < inputs_; ++j)
        out(i, j) =
            tokens_ > 0 ? sum_drift_[static_cast<std::size_t>(i * inputs_ + j)] * (2.0 / static_cast<double>(tokens_)) : 0.0;
  }
  /// Replaces the Hessian by a given one, which must be symmetric and finite: for Hessians that were computed elsewhere.
  ANYBIT_INLINE Status set_hessian(MatrixView<const double> h, Index tokens) {
    return calibrate::assign_hessian(*this, h, tokens);
  }
  /// Of inputs that are all alike and independent: no search prefers one, and no feedback has anything to make up for, so that
  /// every algorithm rounds to nearest. For layers that calibration did not reach.
  static ANYBIT_INLINE Stats neutral(Index inputs, Needs needs) {
    Stats s(inputs, needs);
    std::fill(s.abs_max_.begin(), s.abs_max_.end(), 1.0f);
    std::fill(s.sum_abs_.begin(), s.sum_abs_.end(), 1.0);
    std::fill(s.sum_square_.begin(), s.sum_square_.end(), 1.0);
    if (covers(needs, Needs::hessian))
      for (Index i = 0; i < inputs; ++i) s.sum_product_[static_cast<std::size_t>(i * (i + 1) / 2 + i)] = 0.5;
    s.tokens_ = 1;
    return s;
  }
  /// Rows of X, evenly spread over the tokens seen: every `sample_stride()`-th, at most the cap.
  ConstMatrix samples() const {
    require(Needs::samples);
    return {samples_.data(), inputs_ > 0 ? static_cast<Index>(samples_.size()) / inputs_ : 0, inputs_};
  }
  Index sample_stride() const { return sample_stride_; }

  /// Changes the statistics as dividing channel j of every token by divisor[j] > 0 would: the partner of multiplying
  /// column j of the weights.
  ANYBIT_INLINE void divide_inputs(std::span<const float> divisor) { calibrate::divide_inputs(*this, divisor); }

  /// Names the model and text that the tokens came from; merge() refuses two different non-empty ones.
  std::string fingerprint;

  /// Versioned, little-endian. `where` (a file's name) goes into the messages of errors.
  ANYBIT_INLINE std::vector<std::byte> to_bytes() const { return calibrate::stats_to_bytes(*this); }
  static ANYBIT_INLINE Result<Stats> from_bytes(std::span<const std::byte> bytes, std::string_view where) {
    return calibrate::stats_from_bytes(bytes, where);
  }

 private:
  friend Status calibrate::add_tokens(Stats&, ConstMatrix, ExecutorRef, calibrate::AddBlock);
  friend Status calibrate::accumulate(Stats&, ConstMatrix, ConstMatrix, ExecutorRef, calibrate::AddBlock, calibrate::AddDrift);
  friend Status calibrate::merge(Stats&, const Stats&);
  friend void calibrate::thin_samples(Stats&);
  friend void calibrate::divide_inputs(Stats&, std::span<const float>);
  friend void calibrate::expand_hessian(const Stats&, MatrixView<double>);
  friend Status calibrate::assign_hessian(Stats&, MatrixView<const double>, Index);
  friend std::vector<std::byte> calibrate::stats_to_bytes(const Stats&);
  friend Result<Stats> calibrate::stats_from_bytes(std::span<const std::byte>, std::string_view);

  void require(Needs wanted) const { ANYBIT_CHECK(has(wanted), "Stats: this statistic was not asked for at construction"); }
  ANYBIT_INLINE std::vector<float> means(const std::vector<double>& sums) const {
    std::vector<float> m(sums.size());
    for (std::size_t j = 0; j < sums.size(); ++j)
      m[j] = tokens_ > 0 ? static_cast<float>(sums[j] / static_cast<double>(tokens_)) : 0.0f;
    return m;
  }

  Index inputs_ = 0, tokens_ = 0, sample_cap_ = default_sample_cap, sample_stride_ = 1;
  Needs needs_ = Needs::none;
  std::vector<float> abs_max_;
  std::vector<double> sum_abs_, sum_square_;
  std::vector<double> sum_product_;  ///< lower triangle of X^T X by rows: (i, j <= i) at i (i + 1) / 2 + j
  std::vector<double> sum_drift_;    ///< (X0 - X)^T X by rows
  std::vector<float> samples_;       ///< kept rows, one after the other
};

}  // namespace ANYBIT_ABI
}  // namespace anybit

#include <anybit/calibrate/accumulate.hpp>
#include <anybit/calibrate/stats_bytes.hpp>

#include <anybit/core/macros_end.hpp>
