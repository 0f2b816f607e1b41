#pragma once
// Learned rounding of one linear layer from statistics to codes, compiled once for all schemes. Learned<Scheme> in
// algorithm/learned.hpp is the public form.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <limits>
#include <string>
#include <vector>

#include <anybit/algorithm/feedback/factor.hpp>
#include <anybit/algorithm/learned_rows.hpp>
#include <anybit/dense/product.hpp>
#include <anybit/exec/executor.hpp>
#include <anybit/grid/group_grids.hpp>
#include <anybit/recipe/algorithm.hpp>
#include <anybit/recipe/objective.hpp>
#include <anybit/recipe/siblings.hpp>

namespace anybit::learned {
inline namespace ANYBIT_CODE {

/// The members of Learned, which says what they mean.
struct Options {
  int iterations = 200;
  float rate = 0, ends_rate = 0;
  bool learn_ends = true;
  bool from_gptq = false;
  float drift = 0;
  GridFit fit{};

  float first_rate() const { return rate > 0 ? rate : 1.0f / static_cast<float>(std::max(iterations, 1)); }
  float first_ends_rate() const { return ends_rate > 0 ? ends_rate : first_rate(); }
  /// Everything that differs from the defaults, and the iterations.
  std::string describe() const {
    std::string text = "learned(iterations=" + std::to_string(iterations);
    if (rate > 0) text += ", rate=" + gptq::detail::number(static_cast<double>(rate));
    if (ends_rate > 0) text += ", ends_rate=" + gptq::detail::number(static_cast<double>(ends_rate));
    if (!learn_ends) text += ", ends as found";
    if (from_gptq) text += ", from gptq";
    if (drift > 0) text += ", drift=" + gptq::detail::number(static_cast<double>(drift));
    if (const std::string grids = fit.describe(); !grids.empty()) text += ", " + grids;
    return text + ")";
  }
  Status check() const {
    const auto wrong = [](std::string message) { return Error{ErrorCode::invalid_argument, "learned: " + std::move(message)}; };
    if (iterations < 0 || iterations > 100000)
      return wrong("iterations is " + std::to_string(iterations) + "; it must be 0 to 100000 (200 is usual)");
    for (const auto& [name, value] : {std::pair<const char*, float>{"rate", rate}, {"ends_rate", ends_rate}})
      if (!is_within(value, 0, 1))
        return wrong(std::string(name) + " is " + gptq::detail::number(static_cast<double>(value)) +
                     "; it must be 0 to 1, where 0 means 1 / iterations");
    if (!is_within(drift, 0, 1))
      return wrong("drift is " + gptq::detail::number(static_cast<double>(drift)) + "; it must be 0 to 1 (1 is usual)");
    if (from_gptq && (fit.search != Search::none || fit.range != Range::format))
      return wrong("grids are GPTQ's where it starts from there: leave out the range and the search");
    return Ok{};
  }
};

/// One matrix, whose codes and affines hold a start. A template so that only programs that quantize compile its products.
template <class Real = float>
class Method {
 public:
  Method(const Options& options, ConstMatrix w, const AnyQuantized& q, ExecutorRef executor)
      : o_(options), w_(w), q_(q), executor_(executor) {}

  /// Lowers tr(E H E^T) - 2 drift tr(W D E^T), E = Q - W, row by row; a row that no iteration improves stays as it is.
  void learn(const Stats& stats, Report& report) const {
    const recipe::ScaledHessian scaled(stats);
    const ConstMatrix h = scaled.view();
    const Matrix pull = o_.drift > 0 ? pull_of(stats, scaled.unit) : Matrix();
    const Index rows = dense::task_rows(w_.rows);
    std::vector<Losses> losses(static_cast<std::size_t>(ceil_div(w_.rows, rows)));
    parallel_tiles(executor_, w_.rows, rows, [&](Index begin, Index end) {
      for (Index r = begin; r < end; r += rows)
        losses[static_cast<std::size_t>(r / rows)] = learn_rows(h, pull.view(), r, std::min(r + rows, end));
    });
    Losses all;
    for (const Losses& l : losses) all.first += l.first, all.last += l.last;
    if (all.first > 0 && o_.drift == 0)
      report.remarks.push_back("learned: " + gptq::detail::number(all.last / all.first) +
                               " times the squared output error of the start");
  }

 private:
  struct Losses {
    double first = 0, last = 0;
  };

  /// drift W D / unit.
  Matrix pull_of(const Stats& stats, double unit) const {
    const Index n = w_.cols;
    std::vector<double> wide(static_cast<std::size_t>(n * n));
    stats.drift(MatrixView<double>(wide.data(), n, n));
    Matrix narrow(n, n), pull(w_.rows, n);
    for (std::size_t i = 0; i < wide.size(); ++i) narrow.data()[i] = static_cast<float>(double{o_.drift} * wide[i] / unit);
    dense::add_product<Real>(w_, std::as_const(narrow).view(), pull.view());
    return pull;
  }

  Losses learn_rows(ConstMatrix h, ConstMatrix pull, Index begin, Index end) const {
    const Index n = w_.cols, count = end - begin;
    Rows rows(w_, q_, begin, end, o_.learn_ends, o_.fit.range != Range::symmetric);
    Matrix error(count, n), slope(count, n);
    std::vector<double> first(static_cast<std::size_t>(count)), best(first);
    for (int i = 0;; ++i) {
      rows.round();
      const ConstMatrix q = rows.values();
      for (Index r = 0; r < count; ++r)
        for (Index c = 0; c < n; ++c) error(r, c) = q(r, c) - w_(begin + r, c), slope(r, c) = 0;
      dense::add_product<Real>(std::as_const(error).view(), h, slope.view());
      for (Index r = 0; r < count; ++r) {
        const float *const e = error.view().row(r).data(), *const s = slope.view().row(r).data();
        double loss = lane_sum(n, [e, s](Index c) { return static_cast<double>(e[c]) * static_cast<double>(s[c]); });
        if (pull.rows > 0) {
          const float* const p = pull.row(begin + r).data();
          loss -= 2 * lane_sum(n, [e, p](Index c) { return static_cast<double>(e[c]) * static_cast<double>(p[c]); });
          for (Index c = 0; c < n; ++c) slope(r, c) -= p[c];
        }
        double& least = best[static_cast<std::size_t>(r)];
        if (i == 0) {
          first[static_cast<std::size_t>(r)] = least = loss;
        } else if (loss < least) {
          least = loss;
          rows.keep(r);
        }
      }
      if (i == o_.iterations) break;
      const float share = 1 - static_cast<float>(i) / static_cast<float>(o_.iterations);
      rows.step(std::as_const(slope).view(), o_.first_rate() * share, o_.first_ends_rate() * share);
    }
    Losses sum;
    for (std::size_t r = 0; r < best.size(); ++r) sum.first += first[r], sum.last += best[r];
    return sum;
  }

  const Options& o_;
  ConstMatrix w_;
  const AnyQuantized& q_;
  ExecutorRef executor_;
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::learned

#include <anybit/core/macros_end.hpp>
