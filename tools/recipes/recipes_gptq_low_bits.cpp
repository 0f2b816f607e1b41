#include <anybit/algorithm/compiled_methods.hpp>
#include <anybit/algorithm/gptq.hpp>
#include <anybit/scheme/presets.hpp>

#include "recipe_book.hpp"

namespace tool {

using namespace anybit;
using model::model_recipe;

void add_low_bit_gptq_recipes(RecipeBook& book) {
  book.add(model_recipe("gptq-int3-g128", Gptq<presets::AsymmetricInt<3>>{}));
  book.add(model_recipe("gptq-best-int3-g128", Gptq<presets::AsymmetricInt<3>>::best()));
  book.add(model_recipe("gptq-int2-g128", Gptq<presets::AsymmetricInt<2>>{.search = Search::mse, .shrink = low_bit_search}));
  book.add(model_recipe("gptq-best-int2-g128", Gptq<presets::AsymmetricInt<2>>::best()));
}

}  // namespace tool
