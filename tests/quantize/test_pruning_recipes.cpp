// Pruning algorithms as recipes for the linears of a model.

#include <anybit/algorithm/compiled_methods.hpp>
#include <anybit/algorithm/nearest.hpp>
#include <anybit/format/integer.hpp>
#include <anybit/prune/sparse_gptq.hpp>
#include <anybit/quantize/any_recipe.hpp>
#include <anybit/scheme/two_of_four.hpp>

#include "algorithm/random_layers.hpp"
#include "support/catch.hpp"

using namespace anybit;
using namespace test_layers;

TEST_CASE("a model's linears may be 2:4 sparse, and a recipe that does not prune them is told so") {
  using Sparse = Scheme<SInt<4>, PerGroup<128>, ScaleF16, TwoOfFour<>>;
  const Matrix a = random_matrix(6, 128, 1, 0.1f), b = random_matrix(10, 128, 2, 0.1f), x = correlated(200, 128, 3);
  const ConstMatrix both[] = {a.view(), b.view()};
  Stats stats(128, Needs::hessian);
  REQUIRE(stats.accumulate(x.view()).ok());

  const auto recipe = model::model_recipe("sparse", SparseGptq<Sparse>{.pruner = {.sparsity = Sparsity::n_of_m(2, 4)}});
  CHECK(recipe.scheme->name == "int4/g128/f16/2of4");
  CHECK(recipe.description == "sparsegptq(2:4, damp=0.01)");
  CHECK(recipe.bits_per_weight({64, 128}) == 2.875);
  for (const model::Upstream upstream : {model::Upstream::norm, model::Upstream::nothing}) {
    const auto result = recipe.quantize(upstream, both, stats, {});
    REQUIRE(result.ok());
    REQUIRE(result->packed.size() == 2);
    CHECK(result->packed[1].bits_per_weight() == 2.875);
    CHECK(result->reports[0].as_requested());
    std::vector<float> row(128);
    for (Index r = 0; r < 10; ++r) {
      result->packed[1].dequantize_row(r, row);
      for (std::size_t c = 0; c < 128; c += 4) CHECK(std::count(row.begin() + Index(c), row.begin() + Index(c) + 4, 0.0f) >= 2);
    }
  }

  const auto dense = model::model_recipe("dense", Nearest<Sparse>{}).quantize(model::Upstream::nothing, both, stats, {});
  REQUIRE(!dense.ok());
  CHECK(dense.error().code == ErrorCode::invalid_argument);
  CHECK(dense.error().message.find("layout 2of4 has no place for one more weight other than 0") != std::string::npos);
}
