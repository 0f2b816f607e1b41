#include <anybit/algorithm/compiled_methods.hpp>
#include <anybit/algorithm/gptq.hpp>
#include <anybit/algorithm/nearest.hpp>
#include <anybit/scheme/presets.hpp>
#include <anybit/transform/awq.hpp>

#include "recipe_book.hpp"

namespace tool {

using namespace anybit;
using model::model_recipe;

void add_awq_recipes(RecipeBook& book) {
  book.add(model_recipe("awq-int4-g128", Awq{} | Nearest<presets::AsymmetricInt<4>>{}));
  book.add(model_recipe("awq-gptq-sf4-g128", Awq{.scaling = AwqScaling::both} | Gptq<presets::ScaledSuperfloat<4>>{}));
}

void add_more_awq_recipes(RecipeBook& book) {
  const Awq by_block{.block_output = true};
  book.add(model_recipe("awq-block-int4-g128", by_block | Nearest<presets::AsymmetricInt<4>>{}));
  book.add(model_recipe("awq-int3-g128", Awq{} | Nearest<presets::AsymmetricInt<3>>{}));
  book.add(model_recipe("awq-block-int3-g128", by_block | Nearest<presets::AsymmetricInt<3>>{}));
}

}  // namespace tool
