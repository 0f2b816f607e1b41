#include "recipe_book.hpp"

#include <algorithm>
#include <numeric>

namespace tool {

using namespace anybit;

void RecipeBook::add(model::ModelRecipe recipe) {
  for (model::ModelRecipe& known : recipes_)
    if (known.name == recipe.name) {
      known = std::move(recipe);
      return;
    }
  recipes_.push_back(std::move(recipe));
}

bool RecipeBook::has(std::string_view name) const {
  return std::any_of(recipes_.begin(), recipes_.end(), [&](const model::ModelRecipe& r) { return r.name == name; });
}

void RecipeBook::round_activations() {
  for (model::ModelRecipe& r : recipes_)
    if (!rounds_to_int8(r.compute)) r.compute = Compute::int8_per_token;
}

void RecipeBook::rotate() {
  for (model::ModelRecipe& r : recipes_)
    if (!r.rotation) r = rotated(r.name, r);
}

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t substituted = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substituted});
    }
  }
  return row.back();
}

Result<const model::ModelRecipe*> RecipeBook::find(std::string_view name) const {
  std::vector<std::pair<std::size_t, std::string_view>> near;
  for (const model::ModelRecipe& r : recipes_) {
    if (r.name == name) return &r;
    const bool part = !name.empty() && (r.name.find(name) != std::string::npos);
    near.emplace_back(part ? 0 : edit_distance(name, r.name), r.name);
  }
  std::stable_sort(near.begin(), near.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::string message = "there is no recipe '" + std::string(name) + "'; near it:";
  for (std::size_t i = 0; i < std::min<std::size_t>(near.size(), 3); ++i)
    message += (i ? ", " : " ") + std::string(near[i].second);
  return Error{ErrorCode::invalid_argument, message + " (--list shows all)"};
}

RecipeBook standard_recipes() {
  RecipeBook book;
  add_superfloat_recipes(book);
  add_integer_recipes(book);
  add_other_format_recipes(book);
  add_gptq_recipes(book);
  add_low_bit_gptq_recipes(book);
  const RecipeBook widths = width_recipes();
  for (const char* name : {"gptq-best-int4-g64-e5m3", "gptq-best-int3-g64-e5m3"}) book.add(**widths.find(name));
  add_awq_recipes(book);
  add_w8a8_recipes(book);
  return book;
}

RecipeBook more_recipes() {
  RecipeBook book;
  add_more_awq_recipes(book);
  add_more_w8a8_recipes(book);
  return book;
}

RecipeBook width_recipes() {
  RecipeBook book;
  add_low_widths(book);
  add_middle_widths(book);
  add_high_widths(book);
  return book;
}

}  // namespace tool
