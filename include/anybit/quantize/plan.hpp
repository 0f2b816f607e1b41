#pragma once
// The recipe of each linear of a model: one for all, or a choice of widths.

#include <anybit/core/macros_begin.hpp>

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include <anybit/model/decoder.hpp>
#include <anybit/quantize/any_recipe.hpp>
#include <anybit/quantize/sites.hpp>

namespace anybit::model {
inline namespace ANYBIT_ABI {

/// Recipes are the caller's and must outlive the plan.
struct ModelPlan {
  std::string name;
  /// In the order of Blueprint::linears: site after site, in each the linears that read it.
  std::vector<const ModelRecipe*> linears;
  /// Null: the usual 8 bits. Where embedding and head are one tensor, so they stay unless `head` is set.
  const ModelRecipe* embedding = nullptr;
  const ModelRecipe* head = nullptr;
  bool guards = true;  ///< WeightSpec::least_bits holds
};

}  // namespace ANYBIT_ABI
}  // namespace anybit::model

namespace anybit::model {
inline namespace ANYBIT_CODE {

/// The same recipe for every linear of the blocks.
inline ModelPlan uniform_plan(const ModelRecipe& recipe, const Decoder& d) {
  return {recipe.name, std::vector<const ModelRecipe*>(d.blueprint->linears.size(), &recipe)};
}

/// The statistics that the plan needs of the linears' inputs; those of the head's input are head_needs().
inline Needs needs(const ModelPlan& plan) {
  Needs all = Needs::none;
  for (const ModelRecipe* r : plan.linears) all = all | r->needs;
  return all;
}
/// Of what enters the output head: `plan.embedding` learns from it too where it is the head.
inline Needs head_needs(const ModelPlan& plan) {
  Needs all = Needs::none;
  for (const ModelRecipe* r : {plan.embedding, plan.head})
    if (r) all = all | r->needs;
  return all;
}

/// One recipe a linear, all for the rotation that `d` has.
inline Status check(const ModelPlan& plan, const Decoder& d) {
  const std::size_t expected = d.blueprint->linears.size();
  if (plan.linears.size() != expected)
    return Error{ErrorCode::invalid_argument,
                 io::detail::text("plan ", plan.name, " has ", plan.linears.size(), " recipes, the model ", expected,
                                  " linears in its blocks: give one each")};
  std::vector<const ModelRecipe*> all = plan.linears;
  for (const ModelRecipe* r : {plan.embedding, plan.head})
    if (r) all.push_back(r);
  if (plan.head && !d.config.form.head)
    return Error{ErrorCode::invalid_argument,
                 io::detail::text("plan ", plan.name, " has a recipe for the output head, the model has no head: leave it out")};
  for (std::size_t i = 0; i < expected; ++i) ANYBIT_CHECK(plan.linears[i] != nullptr, "ModelPlan: a linear without a recipe");
  for (const ModelRecipe* r : plan.linears)
    if (r->rotation != plan.linears.front()->rotation)
      return Error{ErrorCode::invalid_argument,
                   io::detail::text("plan ", plan.name, ": recipes ", plan.linears.front()->name, " and ", r->name,
                                    " are for models that are rotated differently: give all the same rotation")};
  for (const ModelRecipe* r : all)
    if (r->rotation && r->rotation != d.rotation)
      return Error{ErrorCode::invalid_argument,
                   io::detail::text("recipe ", r->name,
                                    " is for a rotated model: give what rotate(model, *recipe.rotation) makes of it, and "
                                    "statistics of that")};
  return Ok{};
}

/// Whether a recipe has too few bits for a weight, which then stays at 8 bits (WeightSpec::least_bits).
inline bool is_kept_at_eight_bits(const ModelPlan& plan, const ModelRecipe& recipe, const WeightSpec& spec) {
  return plan.guards && recipe.bits_per_weight(spec.shape) < spec.least_bits;
}

/// Bytes that hold the weights of one matrix by a recipe; scales and zero points are in it, the column order of act-order is not.
inline Index bytes(const ModelRecipe& recipe, Extents e) {
  return static_cast<Index>(std::llround(recipe.bits_per_weight(e) * static_cast<double>(e.size()) / 8));
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
