#pragma once
// GPTQ from statistics to codes, compiled once for all schemes. Gptq<Scheme> in algorithm/gptq.hpp is the public form.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include <anybit/algorithm/feedback/drift.hpp>
#include <anybit/algorithm/feedback/refine.hpp>
#include <anybit/algorithm/feedback/sweep.hpp>
#include <anybit/core/finite.hpp>
#include <anybit/exec/executor.hpp>
#include <anybit/recipe/algorithm.hpp>
#include <anybit/recipe/objective.hpp>
#include <anybit/recipe/siblings.hpp>

namespace anybit::gptq {
inline namespace ANYBIT_CODE {

/// The members of Gptq, which says what they mean.
struct Options {
  float damp;
  Index block;
  float dead_diagonal;
  bool act_order, static_groups;
  GridFit fit;
  bool group_aware, fresh_grids, weighted;
  int refine;
  float drift;
  bool whole_drift = false;

  /// Scales that are stored jointly must all be known before the first code is chosen; so must those of a whole row or tensor.
  static bool always_static(const RoundingOps& s) { return s.joint_scales || s.per_tensor || s.per_row; }
  /// Grids are found when the sweep reaches them.
  bool dynamic_groups(const RoundingOps& s) const { return !(always_static(s) || static_groups); }
  ColumnOrder order() const {
    return act_order ? ColumnOrder::act : group_aware ? ColumnOrder::group_aware : ColumnOrder::natural;
  }
  /// The published sweep with these grids and this damping: no order, no search, no refinement.
  Options plain() const {
    Options p = *this;
    p.act_order = p.static_groups = p.group_aware = p.fresh_grids = p.weighted = false;
    p.fit = {fit.range, Search::none, {}};
    p.refine = 0;
    return p;
  }
  /// Everything that differs from the defaults.
  std::string describe() const {
    std::string text = "gptq(damp=" + detail::number(damp);
    if (block != 128) text += ", block=" + std::to_string(block);
    if (dead_diagonal > 0) text += ", dead_diagonal=" + detail::number(dead_diagonal);
    if (act_order) text += ", act_order";
    if (static_groups) text += ", static_groups";
    if (group_aware) text += ", group_aware";
    if (fresh_grids) text += ", fresh_grids";
    if (const std::string grids = fit.describe(weighted); !grids.empty()) text += ", " + grids;
    if (refine > 0) text += ", refine=" + std::to_string(refine);
    if (drift > 0) text += ", drift=" + detail::number(drift);
    if (whole_drift) text += ", whole_drift";
    return text + ")";
  }
};

/// See Gptq::column_costs. `group` is the width of a group of columns.
template <class Real = double>
std::vector<float> column_costs(const Options& options, const Stats& stats, Index group) {
  const Index n = stats.inputs();
  std::vector<double> hessian(static_cast<std::size_t>(n * n));
  stats.hessian(MatrixView<double>(hessian.data(), n, n));
  Report ignored;
  const auto prepared =
      prepare<Real>(Matrix(1, n).view(), MatrixView<const Real>(hessian.data(), n, n), static_cast<double>(options.damp),
                    static_cast<double>(options.dead_diagonal), options.order(), group, ignored);
  if (!prepared) return {};
  std::vector<float> costs(static_cast<std::size_t>(n));
  for (std::size_t k = 0; k < costs.size(); ++k) costs[static_cast<std::size_t>(prepared->order[k])] = prepared->factor.weight[k];
  return costs;
}

/// The places that quantize() fills.
struct Target {
  const AnyQuantized& codes;
  std::vector<std::uint32_t>& column_order;
  std::string& provenance;
  Report& report;
};

/// One matrix. A template so that only programs that quantize compile its products.
template <class Real = float>
class Method {
 public:
  Method(const Options& options, ConstMatrix w, const QuantizeOptions& asked, const Target& target)
      : o_(options), w_(w), asked_(asked), q_(target.codes), target_(target), report_(target.report) {}

  Status quantize(const Stats& stats) {
    ANYBIT_TRY_STATUS(check(stats));
    const Index n = w_.cols;
    hessian_ = square(n);
    stats.hessian(MatrixView<double>(hessian_.as<double>(), n, n));
    if (o_.drift > 0) {
      drift_ = square(n);
      stats.drift(MatrixView<double>(drift_.as<double>(), n, n));
    }
    report_.requested = report_.done = o_.describe() + " " + std::string(q_.scheme.name);
    Report done;
    Outcome outcome = run(o_, done);
    if (outcome.swept && o_.refine > 0 && o_.describe() != refined_defaults().describe()) compare_with_defaults(outcome, done);
    report_.fallbacks = std::move(done.fallbacks);
    report_.remarks = std::move(done.remarks);
    ANYBIT_TRY_STATUS(check_strict(report_, asked_));
    if (asked_.verify || !outcome.swept)
      judge(outcome);
    else
      accept();
    report_.bits_per_weight = recipe::bits_per_weight(q_.scheme, q_.extents, !target_.column_order.empty());
    return check_strict(report_, asked_);
  }

 private:
  static AlignedBuffer square(Index n) {
    return {static_cast<std::size_t>(n * n) * sizeof(double), AlignedBuffer::Uninitialized{}};
  }
  MatrixView<const double> hessian() const { return {hessian_.as<double>(), w_.cols, w_.cols}; }
  MatrixView<const double> away() const { return {drift_.as<double>(), drift_.empty() ? 0 : w_.cols, w_.cols}; }

  Status check(const Stats& stats) const {
    ANYBIT_TRY_STATUS(check_options("gptq", static_cast<double>(o_.damp), o_.block, static_cast<double>(o_.dead_diagonal)));
    if (o_.act_order && o_.group_aware)
      return Error{ErrorCode::invalid_argument, "gptq: act_order and group_aware are two orders of the columns; choose one"};
    if (o_.refine < 0 || o_.refine > 1000)
      return Error{ErrorCode::invalid_argument, "gptq: refine is " + std::to_string(o_.refine) + "; it must be 0 to 1000"};
    if (o_.weighted && o_.fit.search != Search::neuqi && (o_.fit.search != Search::mse || o_.fit.shrink.norm != 2))
      return Error{ErrorCode::invalid_argument,
                   "gptq: weighted is for search = Search::neuqi, or Search::mse with shrink.norm = 2; "
                   "the norm is " +
                       detail::number(o_.fit.shrink.norm) + (o_.fit.search == Search::mse ? "" : ", the search off")};
    ANYBIT_TRY_STATUS(check_range(q_.format(), o_.fit.range));
    ANYBIT_TRY_STATUS(check_search(o_.fit.shrink));
    ANYBIT_TRY_STATUS(grid::check_weights(w_));
    if (!is_within(o_.drift, 0, 1))
      return Error{ErrorCode::invalid_argument,
                   "gptq: drift is " + detail::number(o_.drift) + "; it must be 0 to 1 (0.25 is usual)"};
    if (o_.whole_drift && o_.drift == 0)
      return Error{ErrorCode::invalid_argument, "gptq: whole_drift has no drift to make up for; set drift, to 1 as published"};
    ANYBIT_TRY_STATUS(
        recipe::check_stats(stats, o_.drift > 0 ? Needs::hessian | Needs::input_drift : Needs::hessian, w_.cols, "gptq"));
    return grid::check_limits(q_.scheme, w_, asked_.clip_limits);
  }

  struct Outcome {
    bool swept = false;              ///< false if no factor was to be had; q is unfinished then
    std::optional<double> damage{};  ///< tr(D (H + damping) D^T), where the sweep's own errors add up to it
    double damping = 0;
  };

  Options refined_defaults() const {
    Options p = o_.plain();
    p.refine = o_.refine;
    return p;
  }

  /// Codes, grids and column order of q.
  struct Kept {
    std::vector<std::byte> codes;
    std::vector<Affine> affines;
    std::vector<std::uint32_t> column_order;
    Matrix weights;  ///< what they stand for
  };
  Kept keep() const {
    const std::size_t bytes = static_cast<std::size_t>(q_.extents.size() * q_.code_bytes());
    Kept k{{q_.code(0, 0), q_.code(0, 0) + bytes},
           {q_.affines.begin(), q_.affines.end()},
           target_.column_order,
           Matrix(w_.rows, w_.cols)};
    dequantize_rows(q_, target_.column_order, 0, w_.rows, k.weights.view());
    return k;
  }
  void restore(const Kept& k) {
    std::copy(k.codes.begin(), k.codes.end(), q_.code(0, 0));
    std::copy(k.affines.begin(), k.affines.end(), q_.affines.begin());
    target_.column_order = k.column_order;
  }

  /// An order, a search or a joint search that pays on most layers can cost on one: what the defaults give takes the place of
  /// what `outcome` left in q where it is closer, and is refined as well.
  void compare_with_defaults(Outcome& outcome, Report& done) {
    const recipe::OutputMetric<> metric(w_, hessian(), asked_.executor);
    const Matrix pulled = o_.drift > 0 ? pull() : Matrix();
    const auto error = [&](const Kept& k) { return metric.error(k.weights.view()) + missed(k.weights.view(), pulled); };
    const auto exact = [&](const Kept& k) { return metric.exact_error(k.weights.view()) + missed(k.weights.view(), pulled); };
    Kept best = keep();
    const double asked = error(best);
    double least = asked;
    for (const Options& options : {o_.plain(), refined_defaults()}) {
      target_.column_order.clear();
      Report own;
      const Outcome other = run(options, own);
      Kept trial = keep();
      const double theirs = error(trial);
      // error() is good to 0.1 %: what is as close as that has to be looked at twice.
      if (!other.swept || !(theirs < 1.01 * least)) break;
      if (!(theirs < 0.99 * least) && !(exact(trial) < exact(best))) break;
      own.remarks.push_back("gptq: the defaults left " + detail::number(theirs / asked) +
                            " times the squared output error of the options asked for, and took their place");
      least = theirs, best = std::move(trial), outcome = other, done = std::move(own);
    }
    restore(best);
  }

  Outcome run(const Options& o, Report& report) {
    const Index n = w_.cols;
    const auto h = hessian();
    auto prepared = prepare<double>(w_, h, static_cast<double>(o.damp), static_cast<double>(o.dead_diagonal), o.order(),
                                    q_.group_cols, report);
    if (!prepared) return {};
    const auto& order = prepared->order;

    if (o.drift > 0 &&
        !(o.whole_drift ? aim_at_outputs(pull().view(), *prepared, asked_.executor)
                        : find_drift(away(), order, static_cast<double>(o.drift), prepared->factor, asked_.executor)))
      report.fallbacks.push_back("the drift of the inputs is too large next to the Hessian and was not made up for");

    SweepOptions sweep{.block = o.block,
                       .dynamic_groups = o.dynamic_groups(q_.scheme),
                       .fresh_grids = o.fresh_grids,
                       .fit = o.fit,
                       .limits = asked_.clip_limits};
    if (o.weighted) sweep.importance = prepared->factor.weight;
    std::vector<Index> position = order;
    if (sweep.dynamic_groups && o.act_order) {
      std::iota(position.begin(), position.end(), Index{0});
      target_.column_order.assign(order.begin(), order.end());
      if (sweep.limits.rows > 0)
        report.fallbacks.push_back(
            "clip limits of original groups do not fit groups of reordered columns and were not used; set static_groups");
      sweep.limits = {};
    }
    if (!sweep.dynamic_groups) {
      std::vector<float> importance(sweep.importance.size());
      for (std::size_t k = 0; k < importance.size(); ++k) importance[static_cast<std::size_t>(order[k])] = sweep.importance[k];
      Matrix alive;
      if (!Options::always_static(q_.scheme) || q_.scheme.joint_scales) {  // elsewhere dead weights are included, as published
        alive = Matrix(w_);
        for (Index r = 0; r < w_.rows; ++r)
          for (Index j = 0; j < n; ++j)
            if (h(j, j) == 0) alive(r, j) = 0;
      }
      grid::fit_groups(alive.rows() > 0 ? alive.view() : w_, o.fit, asked_.clip_limits, importance, q_, report, asked_.executor);
    }

    const Index rows = dense::task_rows(w_.rows);
    std::vector<SweepTotals> totals(static_cast<std::size_t>(ceil_div(w_.rows, rows)));
    parallel_tiles(asked_.executor, w_.rows, rows, [&](Index begin, Index end) {
      for (Index r = begin; r < end; r += rows)
        totals[static_cast<std::size_t>(r / rows)] =
            gptq::sweep<Real>(prepared->weights.view(), r, std::min(r + rows, end), prepared->factor, position, sweep, q_);
    });
    SweepTotals total;
    for (const auto& t : totals) total += t;
    total.loss.tell(report, static_cast<Index>(q_.affines.size()));
    Outcome outcome{true, {}, prepared->factor.damping};
    if (o.refine > 0)
      search_jointly(*prepared, position);
    else if (prepared->dead == 0 && o.drift == 0)
      outcome.damage = total.damage;
    return outcome;
  }

  /// Lowers tr(D (H + damping) D^T) (+ 2 drift tr(W away D^T)) from where the sweep ended.
  void search_jointly(const Prepared& prepared, std::span<const Index> position) {
    const auto h = hessian(), d = away();
    const Index n = h.rows;
    const auto& order = prepared.order;
    Matrix weights(prepared.weights.rows(), n), hessian(n, n), shift(prepared.factor.drift.empty() ? 0 : n, n);
    double largest = 0;
    for (Index j = 0; j < n; ++j) largest = std::max(largest, h(j, j) + prepared.factor.damping);
    for (std::size_t k = 0; k < order.size(); ++k) {
      for (std::size_t j = 0; j < order.size(); ++j) {
        const double damping = k == j ? prepared.factor.damping : 0;
        hessian(position[k], position[j]) = static_cast<float>((h(order[k], order[j]) + damping) / largest);
        if (shift.rows() > 0)
          shift(position[k], position[j]) = static_cast<float>(static_cast<double>(o_.drift) * d(order[k], order[j]) / largest);
      }
      for (Index r = 0; r < weights.rows(); ++r) weights(r, position[k]) = prepared.weights(r, static_cast<Index>(k));
    }
    gptq::refine<Real>({weights.view(), hessian.view(), shift.view()}, o_.refine, o_.fit.range != Range::symmetric, q_,
                       asked_.executor);
  }

  /// drift W away.
  Matrix pull() const {
    const auto d = away();
    Matrix narrow(d.rows, d.cols), pull(w_.rows, w_.cols);
    for (Index i = 0; i < d.rows; ++i)
      for (Index j = 0; j < d.cols; ++j) narrow(i, j) = static_cast<float>(static_cast<double>(o_.drift) * d(i, j));
    dense::add_product<Real>(w_, std::as_const(narrow).view(), pull.view());
    return pull;
  }
  /// 2 tr(pull (W - Q)^T): what drift adds to the objective.
  double missed(ConstMatrix q, const Matrix& pull) const {
    double sum = 0;
    for (Index r = 0; r < pull.rows(); ++r)
      for (Index c = 0; c < pull.cols(); ++c) sum += 2 * double{pull(r, c)} * (double{w_(r, c)} - double{q(r, c)});
    return sum;
  }
  /// tr(D H D^T) of what the sweep gave, without a product where that loses nothing.
  double error_of(const Outcome& outcome, ConstMatrix own, const recipe::OutputMetric<>& metric) const {
    if (outcome.damage) {
      RelativeError distance;
      distance.add(w_, own);
      const double error = *outcome.damage - outcome.damping * distance.error;
      if (error > 0.5 * *outcome.damage) return error;
    }
    return metric.error(own);
  }
  void accept() {
    Matrix own(w_.rows, w_.cols);
    dequantize_rows(q_, target_.column_order, 0, w_.rows, own.view());
    report_.weight_error = relative_error(w_, own.view());
    target_.provenance = o_.describe();
  }
  /// Errors into the report; replaces the result by rounding to nearest where that is closer, or the sweep did not happen.
  void judge(const Outcome& outcome) {
    const recipe::OutputMetric<> metric(w_, hessian(), asked_.executor);
    // Rounding to nearest takes the place of the sweep's result, unless that is better.
    const std::size_t bytes = static_cast<std::size_t>(q_.extents.size() * q_.code_bytes());
    const std::vector<std::byte> own_codes(q_.code(0, 0), q_.code(0, 0) + bytes);
    const std::vector<Affine> own_affines(q_.affines.begin(), q_.affines.end());
    Matrix own(w_.rows, w_.cols), back(w_.rows, w_.cols);
    dequantize_rows(q_, target_.column_order, 0, w_.rows, own.view());
    Report ignored;
    grid::fit_groups(w_, o_.fit, asked_.clip_limits, {}, q_, ignored, asked_.executor);
    grid::encode_nearest(w_, asked_.clip_limits, q_, asked_.executor);
    dequantize_rows(q_, {}, 0, w_.rows, back.view());
    const double by_nearest = metric.error(back.view());
    double mine = by_nearest;
    bool keep = false;
    if (outcome.swept) {
      mine = error_of(outcome, own.view(), metric);
      // With drift the outputs to reproduce are those of other inputs; what both miss of them alike does not matter.
      const Matrix pulled = o_.drift > 0 ? pull() : Matrix();
      const double mine_apart = missed(own.view(), pulled), nearest_apart = missed(back.view(), pulled);
      // The metric is good to 0.1 %: only what is closer has to be looked at twice.
      keep = mine + mine_apart < (o_.drift > 0 ? 0.9 : 0.99) * (by_nearest + nearest_apart) ||
             metric.exact_error(own.view()) + mine_apart <= metric.exact_error(back.view()) + nearest_apart;
      if (!keep) report_.fallbacks.push_back("error feedback gave a larger output error than rounding to nearest");
    }
    if (keep) {
      std::copy(own_codes.begin(), own_codes.end(), q_.code(0, 0));
      std::copy(own_affines.begin(), own_affines.end(), q_.affines.begin());
      back = std::move(own);
    } else {
      mine = by_nearest;
      target_.column_order.clear();
      report_.done = "nearest " + std::string(q_.scheme.name);
      report_.fallbacks.push_back("rounded to nearest instead");
    }
    report_.weight_error = relative_error(w_, back.view());
    if (const double relative = metric.relative_to_outputs(mine); is_finite(relative)) {
      report_.output_error = relative;
      report_.remarks.push_back("output error of rounding to nearest: " + detail::number(metric.relative_to_outputs(by_nearest)));
    } else {
      report_.remarks.push_back("the Hessian is indefinite on these weights: there is no relative output error");
    }
    target_.provenance = keep ? o_.describe() : "nearest";
  }

  const Options& o_;
  ConstMatrix w_;
  const QuantizeOptions& asked_;
  const AnyQuantized& q_;
  const Target& target_;
  Report& report_;
  AlignedBuffer hessian_, drift_;
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::gptq

#include <anybit/core/macros_end.hpp>
