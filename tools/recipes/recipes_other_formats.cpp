#include <anybit/algorithm/compiled_methods.hpp>
#include <anybit/algorithm/nearest.hpp>
#include <anybit/scheme/presets.hpp>

#include "recipe_book.hpp"

namespace tool {

using namespace anybit;
using model::model_recipe;

void add_other_format_recipes(RecipeBook& book) {
  book.add(model_recipe("nearest-nf4-g64-dq", Nearest<presets::Nf4DoubleQuant>{}));
  book.add(model_recipe("nearest-mxfp4", Nearest<presets::Mxfp4>{}));
  book.add(model_recipe("nearest-ternary-g128", Nearest<presets::TernaryGroup128>{}));
}

}  // namespace tool
