#include <anybit/algorithm/compiled_methods.hpp>
#include <anybit/algorithm/nearest.hpp>
#include <anybit/scheme/presets.hpp>

#include "recipe_book.hpp"

namespace tool {

using namespace anybit;
using model::model_recipe;

void add_superfloat_recipes(RecipeBook& book) {
  book.add(model_recipe("published-superfloat8", Nearest<presets::PublishedSuperfloat8>{}));
  book.add(model_recipe("nearest-sf8-g128", Nearest<presets::ScaledSuperfloat<8>>{}));
  book.add(model_recipe("nearest-sf6-g128", Nearest<presets::ScaledSuperfloat<6>>{}));
  book.add(model_recipe("nearest-sf5-g128", Nearest<presets::ScaledSuperfloat<5>>{}));
  book.add(model_recipe("nearest-sf4-g128", Nearest<presets::ScaledSuperfloat<4>>{}));
  book.add(model_recipe("nearest-sf3-g128", Nearest<presets::ScaledSuperfloat<3>>{}));
}

}  // namespace tool
