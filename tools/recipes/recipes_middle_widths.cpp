#include <anybit/algorithm/compiled_methods.hpp>
#include <anybit/algorithm/gptq.hpp>
#include <anybit/scheme/mixed_widths.hpp>

#include "recipe_book.hpp"

namespace tool {

using namespace anybit;
using model::model_recipe;

void add_middle_widths(RecipeBook& book) {
  book.add(model_recipe("gptq-best-int4-g64-e5m3", Gptq<presets::ByteScaledInt<4, 64>>::best()));
  book.add(model_recipe("gptq-best-int4-g32-e5m3", Gptq<presets::ByteScaledInt<4, 32>>::best()));
  book.add(model_recipe("gptq-best-int5-g64-e5m3", Gptq<presets::ByteScaledInt<5, 64>>::best()));
}

}  // namespace tool
