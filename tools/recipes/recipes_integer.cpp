#include <anybit/algorithm/compiled_methods.hpp>
#include <anybit/algorithm/nearest.hpp>
#include <anybit/scheme/presets.hpp>

#include "recipe_book.hpp"

namespace tool {

using namespace anybit;
using model::model_recipe;

void add_integer_recipes(RecipeBook& book) {
  book.add(model_recipe("nearest-int8-g128", Nearest<presets::Int<8>>{}));
  book.add(model_recipe("nearest-int4-g128", Nearest<presets::AsymmetricInt<4>>{}));
  book.add(model_recipe("nearest-int3-g128", Nearest<presets::AsymmetricInt<3>>{}));
  book.add(
      model_recipe("nearest-int2-g128", Nearest<presets::AsymmetricInt<2>>{.search = Search::mse, .shrink = low_bit_search}));
}

}  // namespace tool
