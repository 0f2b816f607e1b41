#include <anybit/algorithm/compiled_methods.hpp>
#include <anybit/algorithm/gptq.hpp>
#include <anybit/scheme/mixed_widths.hpp>

#include "recipe_book.hpp"

namespace tool {

using namespace anybit;
using model::model_recipe;

void add_low_widths(RecipeBook& book) {
  book.add(model_recipe("gptq-best-int2-g32-e5m3", Gptq<presets::ByteScaledInt<2, 32>>::best()));
  book.add(model_recipe("gptq-best-int3-g64-e5m3", Gptq<presets::ByteScaledInt<3, 64>>::best()));
  book.add(model_recipe("gptq-best-int3-g32-e5m3", Gptq<presets::ByteScaledInt<3, 32>>::best()));
}

}  // namespace tool
