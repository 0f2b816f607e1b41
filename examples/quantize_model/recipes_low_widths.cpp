#include <anybit/algorithm/compiled_methods.hpp>
#include <anybit/algorithm/gptq.hpp>
#include <anybit/format/integer.hpp>

#include "recipe_book.hpp"

namespace tool {

using namespace anybit;
using model::model_recipe;

void add_low_widths(RecipeBook& book) {
  book.add(model_recipe("gptq-best-int2-g64", Gptq<UInt<2>, PerGroup<64>>::best()));
  book.add(model_recipe("gptq-best-int3-g128", Gptq<UInt<3>, PerGroup<128>>::best()));
  book.add(model_recipe("gptq-best-int3-g32", Gptq<UInt<3>, PerGroup<32>>::best()));
}

}  // namespace tool
