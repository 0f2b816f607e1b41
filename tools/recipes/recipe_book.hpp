#pragma once
// The recipes that the tool knows, in the order of its table.

#include <string>
#include <string_view>
#include <vector>

#include <anybit/core/result.hpp>
#include <anybit/grid/scale_search.hpp>
#include <anybit/quantize/any_recipe.hpp>

namespace tool {

class RecipeBook {
 public:
  /// A recipe of a name that is there already takes its place.
  void add(anybit::model::ModelRecipe recipe);
  /// Every recipe multiplies with activations rounded to 8 bits from now on, those that did so in their own way.
  void round_activations();
  /// Every recipe quantizes the rotated model from now on.
  void rotate();

  const std::vector<anybit::model::ModelRecipe>& all() const { return recipes_; }
  bool has(std::string_view name) const;
  /// The error lists the names that come nearest.
  anybit::Result<const anybit::model::ModelRecipe*> find(std::string_view name) const;

 private:
  std::vector<anybit::model::ModelRecipe> recipes_;
};

/// Insertions, deletions and substitutions that turn one word into the other.
std::size_t edit_distance(std::string_view a, std::string_view b);

/// Every recipe of the demo's table.
RecipeBook standard_recipes();

/// Variants that the documentation compares with those: run where --recipe names them.
RecipeBook more_recipes();

/// The recipes among which --target-bpw chooses: 2 to 8 bits at two sizes of groups.
RecipeBook width_recipes();

/// The range search of the recipes at 2 bits, nearest and GPTQ alike: four levels from the least weight of a group to the
/// largest serve nearly none of its weights. Squared error, every twentieth of the range.
inline constexpr anybit::ShrinkSearch low_bit_search{.shrink = 0.8f, .steps = 20, .norm = 2};

// Its parts, each compiled for itself because every scheme takes seconds.
void add_superfloat_recipes(RecipeBook& book);
void add_integer_recipes(RecipeBook& book);
void add_other_format_recipes(RecipeBook& book);
void add_gptq_recipes(RecipeBook& book);
void add_low_bit_gptq_recipes(RecipeBook& book);
void add_awq_recipes(RecipeBook& book);
void add_w8a8_recipes(RecipeBook& book);
void add_more_awq_recipes(RecipeBook& book);
void add_more_w8a8_recipes(RecipeBook& book);
void add_low_widths(RecipeBook& book);
void add_middle_widths(RecipeBook& book);
void add_high_widths(RecipeBook& book);

}  // namespace tool
