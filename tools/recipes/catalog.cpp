#include "catalog.hpp"

#include <algorithm>
#include <functional>

#include <anybit/train/learned_blocks.hpp>

namespace tool {

using namespace anybit;

namespace {

struct Wanted {
  unsigned methods = nearest_only;
  std::string name;  ///< for errors: "awq | gptq"
  std::size_t at = 0;
};

Wanted wanted(const RecipeText& r) {
  Wanted w;
  w.at = r.algorithm_at;
  if (std::holds_alternative<Awq>(r.transform))
    w.methods |= with_awq, w.name = "awq | ", w.at = r.transform_at;
  else if (r.transform.index() != 0)
    w.methods |= with_smooth_quant, w.name = "smooth_quant | ", w.at = r.transform_at;
  switch (r.algorithm.index()) {
    case 0: w.name += "nearest"; break;
    case 1: w.methods |= with_gptq, w.name += "gptq"; break;
    case 2: w.methods |= with_gptq, w.name += "learned"; break;
    case 3: w.methods |= with_ldlq, w.name += "ldlq"; break;
    case 4: w.methods |= with_exact, w.name += "exact"; break;
    default: w.methods |= with_pruning, w.name += "pruning";
  }
  return w;
}

/// Nearest has other options for trellis codes than for codes of single weights.
Status check_nearest(const RecipeText& r, const CompiledScheme& s) {
  const auto* const n = std::get_if<NearestOptions>(&r.algorithm);
  const bool trellis = (s.methods & with_ldlq) != 0;
  if (n && (s.methods & with_exact) != 0 && (n->grids || n->of_trellis))
    return recipe_error(r.text, r.algorithm_at, "nearest of " + s.name + " has no options: there are no scales to choose");
  if (!n || !(trellis ? n->grids : n->of_trellis)) return Ok{};
  return recipe_error(r.text, r.algorithm_at,
                      trellis ? "nearest of trellis codes has the options gain=N and exact alone: their scales are not searched"
                              : "gain=N and exact are for trellis codes, and " + s.name + " is none");
}

/// EXL3 has no scales inside the rotations, and its tiles count all errors alike.
Status check_ldlq(const RecipeText& r, const CompiledScheme& s) {
  const auto* const o = std::get_if<ldlq::Options>(&r.algorithm);
  if (!o || (s.methods & scales_as_found) == 0 || (o->weighted && o->refine_scales)) return Ok{};
  return recipe_error(
      r.text, r.algorithm_at,
      "ldlq of EXL3 has the options damp=N, gain=N and exact alone: its tiles are unweighted, and the scales are as "
      "found");
}

bool has(unsigned methods, unsigned wanted) { return (methods & wanted) == wanted; }

}  // namespace

const Catalog& catalog() {
  static const Catalog all = [] {
    Catalog c;
    add_integers(c);
    add_asymmetric_integers(c);
    add_byte_scaled_integers(c);
    add_superfloats(c);
    add_other_formats(c);
    add_trellises(c);
    add_checkpoint_schemes(c);
    add_exl3(c);
    add_lossless(c);
    return c;
  }();
  return all;
}

Result<model::ModelRecipe> Catalog::make(const RecipeText& recipe) const {
  const std::string with_layout = recipe.scheme + "/bits";
  const auto found = std::find_if(schemes_.begin(), schemes_.end(),
                                  [&](const CompiledScheme& s) { return s.name == recipe.scheme || s.name == with_layout; });
  const Wanted w = wanted(recipe);
  std::string possible;
  for (const CompiledScheme& s : schemes_)
    if (has(s.methods, w.methods)) possible += (possible.empty() ? "" : ", ") + s.name;
  if (found == schemes_.end())
    return recipe_error(recipe.text, recipe.scheme_at,
                        "this program has no scheme " + recipe.scheme + "; for " + w.name + " it has " + possible);
  if (!has(found->methods, w.methods) ||
      (w.methods & (with_pruning | with_ldlq | with_exact) && (w.methods & (with_awq | with_smooth_quant))))
    return recipe_error(recipe.text, w.at,
                        possible.empty() || has(found->methods, w.methods)
                            ? "this program does not combine " + w.name
                            : "this program has no " + w.name + " for " + found->name + "; it has it for " + possible);
  ANYBIT_TRY_STATUS(check_nearest(recipe, *found));
  ANYBIT_TRY_STATUS(check_ldlq(recipe, *found));
  model::ModelRecipe made = found->make(recipe);
  if (recipe.rotation) made = rotated(made.name, made, *recipe.rotation);
  if (recipe.blocks) {
    auto learned = train::learned_blocks(made.name, made, *recipe.blocks);
    if (!learned) return recipe_error(recipe.text, recipe.blocks_at, learned.error().message);
    made = *std::move(learned);
  }
  return made;
}

}  // namespace tool
