#include <anybit/algorithm/compiled_methods.hpp>
#include <anybit/algorithm/nearest.hpp>
#include <anybit/scheme/presets.hpp>
#include <anybit/transform/smooth_quant.hpp>

#include "recipe_book.hpp"

namespace tool {

using namespace anybit;
using model::model_recipe;

void add_w8a8_recipes(RecipeBook& book) {
  const Nearest<presets::Int8PerRow> nearest;
  book.add(model_recipe("naive-w8a8", nearest, Compute::int8_per_token));
  book.add(model_recipe("smoothquant-w8a8", SmoothQuant{} | nearest, Compute::int8_per_token));
  book.add(model_recipe("smoothquant-search-w8a8", SmoothQuantSearch{} | nearest, Compute::int8_per_token));
}

void add_more_w8a8_recipes(RecipeBook& book) {
  const Nearest<presets::Int8PerRow> nearest;
  const SmoothQuant llama{.alpha = 0.85f};  // what its authors use for Llama 2 and 3
  const SmoothQuantSearch search{.static_activations = true};
  book.add(model_recipe("smoothquant-85-w8a8", llama | nearest, Compute::int8_per_token));
  book.add(model_recipe("naive-w8a8-static", nearest, Compute::int8_static));
  book.add(model_recipe("smoothquant-85-w8a8-static", llama | nearest, Compute::int8_static));
  book.add(model_recipe("smoothquant-search-w8a8-static", search | nearest, Compute::int8_static));
}

}  // namespace tool
