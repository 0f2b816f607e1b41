#include <anybit/algorithm/compiled_methods.hpp>
#include <anybit/algorithm/gptq.hpp>
#include <anybit/format/integer.hpp>

#include "recipe_book.hpp"

namespace tool {

using namespace anybit;
using model::model_recipe;

void add_middle_widths(RecipeBook& book) {
  book.add(model_recipe("gptq-best-int4-g128", Gptq<UInt<4>, PerGroup<128>>::best()));
  book.add(model_recipe("gptq-best-int4-g32", Gptq<UInt<4>, PerGroup<32>>::best()));
  book.add(model_recipe("gptq-best-int5-g128", Gptq<UInt<5>, PerGroup<128>>::best()));
}

}  // namespace tool
