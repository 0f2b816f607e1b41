#include <anybit/algorithm/compiled_methods.hpp>
#include <anybit/algorithm/gptq.hpp>
#include <anybit/scheme/presets.hpp>

#include "recipe_book.hpp"

namespace tool {

using namespace anybit;
using model::model_recipe;

void add_high_widths(RecipeBook& book) {
  book.add(model_recipe("gptq-best-int5-g128", Gptq<presets::AsymmetricInt<5>>::best()));
  book.add(model_recipe("gptq-best-int6-g128", Gptq<presets::AsymmetricInt<6>>::best()));
  book.add(model_recipe("gptq-best-int8-g128", Gptq<presets::AsymmetricInt<8>>::best()));
}

}  // namespace tool
