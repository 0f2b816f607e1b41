#pragma once
// Quantization with Hessians that the gradient of the end loss weights (calibrate/guided_hessian.hpp): groups of rows of every
// linear, each with a Hessian of its own, by any recipe that reads one. train/guided.hpp finds them. See
// docs/methods/guided_quant.md.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <anybit/calibrate/guided_hessian.hpp>
#include <anybit/quantize/plan.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

/// Of every linear in a decoder's blocks.
class GuidedHessians {
 public:
  GuidedHessians() = default;
  static Result<GuidedHessians> make(const Decoder& d, Index groups) {
    GuidedHessians out;
    out.groups_ = groups;
    out.of_.resize(d.weights.size());
    for (const WeightId id : d.blueprint->linears) {
      auto made = GuidedHessian::make((*d.blueprint)[id].shape, groups);
      if (!made) return in_context(made.error(), (*d.blueprint)[id].name);
      out.of_[place(id)] = *std::move(made);
    }
    return out;
  }

  Index groups() const { return groups_; }
  std::size_t weights() const { return of_.size(); }
  /// Null for what is no linear of a block.
  GuidedHessian* find(WeightId id) { return of_[place(id)].groups() > 0 ? &of_[place(id)] : nullptr; }
  const GuidedHessian& operator[](WeightId id) const { return of_[place(id)]; }

 private:
  Index groups_ = 0;
  std::vector<GuidedHessian> of_;  ///< by WeightId
};

/// Whether a recipe's algorithm reads a Hessian; that of its transforms stays the plain one.
inline bool takes_guidance(const ModelRecipe& recipe) { return covers(recipe.algorithm_needs, Needs::hessian); }

/// Some recipe of the plan reads a Hessian, and what it makes of groups of rows can be joined.
inline Status check_guided(const ModelPlan& plan, Index groups) {
  using io::detail::text;
  bool used = false;
  for (const ModelRecipe* const r : plan.linears) {
    if (!takes_guidance(*r)) continue;
    used = true;
    if (groups < 2) continue;
    const char* const why = !r->open_codes            ? "its weights have no codes of their own"
                            : r->column_order         ? "it stores one order of columns per matrix: leave out act_order"
                            : r->scheme->joint_scales ? "it stores the scales of a matrix jointly"
                            : r->scheme->per_tensor   ? "it has one scale per matrix"
                                                      : nullptr;
    if (why)
      return Error{ErrorCode::unsupported,
                   text("guided: recipe ", r->name, " cannot have ", groups, " groups of rows: ", why, "; or give 1 group")};
  }
  if (!used)
    return Error{ErrorCode::unsupported,
                 text("guided: recipe ", plan.linears.empty() ? plan.name : plan.linears.front()->name,
                      " reads no Hessian, which is all that gradients change: give gptq, ldlq or learned")};
  return Ok{};
}

namespace detail {

/// Rows of `part` become the rows of `whole` from `begin` on.
inline void copy_rows(const AnyQuantized& part, const AnyQuantized& whole, Index begin) {
  for (Index r = 0; r < part.extents.rows; ++r) {
    std::copy_n(part.code(r, 0), part.extents.cols * part.code_bytes(), whole.code(begin + r, 0));
    for (Index g = 0; g < part.groups_per_row; ++g) whole.affine(begin + r, g) = part.affine(r, g);
  }
}

/// One linear by the recipe that check_guided() let pass. `fitted`: what its transforms found, null where there is nothing to
/// apply. `plain`: statistics of its inputs.
inline Result<QuantizedSiblings> quantize_guided(const ModelRecipe& recipe, const FittedTransforms* fitted, ConstMatrix w,
                                                 const Stats& plain, const GuidedHessian& guide, const QuantizeOptions& options) {
  ANYBIT_CHECK(guide.extents() == w.extents(), "quantize_guided: Hessians of another layer");
  const Index groups = guide.groups();
  std::vector<AnyPacked> parts;
  Report report;
  RelativeError weights;
  for (Index k = 0; k < groups; ++k) {
    const Index begin = guide.begin(k), end = guide.end(k);
    const std::string rows = io::detail::text("rows ", begin, " to ", end - 1, ": ");
    const ConstMatrix some[] = {w.row_range(begin, end)};
    std::optional<Stats> own;
    if (!guide.silent(k)) {
      ANYBIT_TRY(own, guide.stats(k, plain));
    }
    const Stats& stats = own ? *own : plain;
    FittedTransforms part;
    if (fitted) {
      part = *fitted;
      for (Matrix& limits : part.clip_limits)
        if (limits.rows() > 0) limits = Matrix(limits.view().row_range(begin, end));
    }
    auto done = fitted ? recipe.finish(part, some, stats, options) : recipe.quantize(Upstream::nothing, some, stats, options);
    if (!done) return in_context(done.error(), io::detail::text("rows ", begin, " to ", end - 1));
    parts.push_back(std::move(done->packed.front()));
    Report& one = done->reports.front();
    if (!own) one.fallbacks.emplace_back("no token has a gradient there: the plain Hessian was used");
    RelativeError size;
    size.add(some[0], some[0]);
    weights.add({one.weight_error * one.weight_error * size.reference, size.reference});
    if (k == 0) report.requested = one.requested, report.done = one.done, report.output_error = one.output_error;
    if (one.done != one.requested) report.done = one.done;
    const auto add = [&](const std::vector<std::string>& from, std::vector<std::string>& to) {
      for (const std::string& line : from) to.push_back(groups > 1 ? rows + line : line);
    };
    add(one.remarks, report.remarks), add(one.fallbacks, report.fallbacks);
    report.bits_per_weight = one.bits_per_weight;
  }
  report.weight_error = weights.value();
  QuantizedSiblings out;
  if (groups == 1) {
    out.packed.push_back(std::move(parts.front())), out.reports.push_back(std::move(report));
    return out;
  }
  report.output_error.reset();  // each group has its own measure
  AnyPacked whole = recipe.blank(w.extents());
  const OpenedCodes opened = recipe.open_codes(whole);
  for (Index k = 0; k < groups; ++k)
    copy_rows(*recipe.open_codes(parts[static_cast<std::size_t>(k)]).codes, *opened.codes, guide.begin(k));
  report.bits_per_weight = recipe.bits_per_weight(w.extents());
  out.packed.push_back(opened.pack()), out.reports.push_back(std::move(report));
  return out;
}

/// Siblings of one recipe: its transforms for all of them by the plain statistics, then each linear by its own Hessians.
inline Result<QuantizedSiblings> quantize_guided(const ModelRecipe& recipe, Upstream upstream,
                                                 std::span<const ConstMatrix> weights, const Stats& plain,
                                                 std::span<const GuidedHessian* const> guides, const QuantizeOptions& options) {
  std::optional<FittedTransforms> fitted;
  if (recipe.fit && upstream != Upstream::nothing) {
    ANYBIT_TRY(fitted, recipe.fit(upstream, weights, plain, options));
  }
  QuantizedSiblings out;
  QuantizeOptions bare = options;
  bare.clip = {}, bare.tied = {};
  for (std::size_t i = 0; i < weights.size(); ++i) {
    std::optional<FittedTransforms> own = fitted;
    if (own && !own->clip_limits.empty()) own->clip_limits = {fitted->clip_limits[i]};
    auto done = quantize_guided(recipe, own ? &*own : nullptr, weights[i], plain, *guides[i], bare);
    if (!done) return in_context(done.error(), "sibling " + std::to_string(i));
    out.packed.push_back(std::move(done->packed.front())), out.reports.push_back(std::move(done->reports.front()));
  }
  if (fitted) out.input_scale = std::move(fitted->input_scale);
  return out;
}

}  // namespace detail

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
