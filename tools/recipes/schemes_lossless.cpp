#include <anybit/algorithm/lossless.hpp>

#include "catalog.hpp"

namespace tool {

namespace {

anybit::model::ModelRecipe make_lossless(const RecipeText& r) {
  if (std::holds_alternative<ExactOptions>(r.algorithm)) return anybit::model::model_recipe(r.text, anybit::Exact{}, r.compute);
  return anybit::model::model_recipe(r.text, anybit::NearestBf16{}, r.compute);
}

}  // namespace

void add_lossless(Catalog& to) {
  to.add_compiled<anybit::LosslessBf16>({std::string(anybit::LosslessBf16::name), with_exact, &make_lossless});
}

}  // namespace tool
