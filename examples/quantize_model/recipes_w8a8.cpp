#include <anybit/algorithm/compiled_methods.hpp>
#include <anybit/algorithm/nearest.hpp>
#include <anybit/scheme/presets.hpp>
#include <anybit/transform/smooth_quant.hpp>

#include "recipe_book.hpp"

namespace tool {

using namespace anybit;
using model::model_recipe;

void add_w8a8_recipes(RecipeBook& book) {
  book.add(model_recipe("naive-w8a8", Nearest<presets::Int8PerRow>{}, Compute::int8_per_token));
  book.add(model_recipe("smoothquant-w8a8", SmoothQuant{} | Nearest<presets::Int8PerRow>{}, Compute::int8_per_token));
  book.add(
      model_recipe("smoothquant-search-w8a8", SmoothQuantSearch{} | Nearest<presets::Int8PerRow>{}, Compute::int8_per_token));
}

}  // namespace tool
