#include <anybit/algorithm/compiled_methods.hpp>
#include <anybit/algorithm/gptq.hpp>
#include <anybit/scheme/presets.hpp>

#include "recipe_book.hpp"

namespace tool {

using namespace anybit;
using model::model_recipe;

void add_gptq_recipes(RecipeBook& book) {
  book.add(model_recipe("gptq-int4-g128", Gptq<presets::AsymmetricInt<4>>{}));
  book.add(model_recipe("gptq-best-int4-g128", Gptq<presets::AsymmetricInt<4>>::best()));
  book.add(model_recipe("gptq-sf4-g128", Gptq<presets::ScaledSuperfloat<4>>{}));
  book.add(model_recipe("gptq-best-sf4-g128", Gptq<presets::ScaledSuperfloat<4>>::best()));
}

}  // namespace tool
