// What rotation does to plain rounding and to GPTQ, with one scale a row of weights and, for A8, one a token of activations: a
// table of `anybit compare`, whose options all work:
//   rotation MODEL --evaluate FILE --calibrate FILE --recipe rtn-w4a8 --recipe rotated-rtn-w4a8
// uses: anybit_tool
// ctest: --list

#include <anybit/algorithm/gptq.hpp>
#include <anybit/algorithm/nearest.hpp>
#include <anybit/scheme/presets.hpp>

#include "compare/compare.hpp"

int main(int argc, char** argv) {
  using namespace anybit;
  using model::model_recipe, model::rotated;
  using Int4PerRow = Scheme<SInt<4>, PerRow, ScaleF32>;
  using Int8PerRow = presets::Int8PerRow;
  const model::ModelRecipe plain[] = {
      model_recipe("rtn-w4", Nearest<Int4PerRow>{}),
      model_recipe("gptq-w4", Gptq<Int4PerRow>{}),
      model_recipe("rtn-w8a8", Nearest<Int8PerRow>{}, Compute::int8_per_token),
      model_recipe("gptq-w8a8", Gptq<Int8PerRow>{}, Compute::int8_per_token),
      model_recipe("rtn-w4a8", Nearest<Int4PerRow>{}, Compute::int8_per_token),
      model_recipe("gptq-w4a8", Gptq<Int4PerRow>{}, Compute::int8_per_token),
  };
  tool::RecipeBook book;
  for (const model::ModelRecipe& r : plain) book.add(r);
  for (const model::ModelRecipe& r : plain) book.add(rotated("rotated-" + r.name, r));
  // Its parts, each for itself.
  for (const model::ModelRecipe& r : plain) book.add(rotated("residual-" + r.name, r, {.values = false, .ffn_down = false}));
  for (const model::ModelRecipe& r : plain) book.add(rotated("values-" + r.name, r, {.residual = false, .ffn_down = false}));
  for (const model::ModelRecipe& r : plain) book.add(rotated("down-" + r.name, r, {.residual = false, .values = false}));
  return tool::run_compare(book, argc, argv);
}
