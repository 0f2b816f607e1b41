#pragma once
// The recipes that have names, in the order of the table of `anybit compare`.

#include <list>
#include <string>
#include <string_view>
#include <vector>

#include <anybit/core/result.hpp>
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

  /// Their addresses stay when others are added.
  const std::list<anybit::model::ModelRecipe>& all() const { return recipes_; }
  bool has(std::string_view name) const;
  /// By name, or by a text as recipe_text.hpp describes it, which is added. The error for a name lists those that come nearest.
  anybit::Result<const anybit::model::ModelRecipe*> find(std::string_view name);

 private:
  std::list<anybit::model::ModelRecipe> recipes_;
};

/// A name for files: what is no letter, digit, point, percent sign or hyphen becomes a hyphen.
std::string file_name(std::string_view recipe);

/// Every recipe of the demo's table.
RecipeBook standard_recipes();

/// Those, and variants that the documentation compares with them: run where they are named.
RecipeBook named_recipes();

/// The recipes among which --target-bpw chooses: 2 to 8 bits at two sizes of groups.
RecipeBook width_recipes();

}  // namespace tool
