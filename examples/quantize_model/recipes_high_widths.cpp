#include <anybit/algorithm/compiled_methods.hpp>
#include <anybit/algorithm/gptq.hpp>
#include <anybit/format/integer.hpp>

#include "recipe_book.hpp"

namespace tool {

using namespace anybit;
using model::model_recipe;

void add_high_widths(RecipeBook& book) {
  book.add(model_recipe("gptq-best-int5-g32", Gptq<UInt<5>, PerGroup<32>>::best()));
  book.add(model_recipe("gptq-best-int6-g128", Gptq<UInt<6>, PerGroup<128>>::best()));
  book.add(model_recipe("gptq-best-int8-g128", Gptq<UInt<8>, PerGroup<128>>::best()));
}

}  // namespace tool
