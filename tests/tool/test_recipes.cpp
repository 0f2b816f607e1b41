// Recipes as text: what parses, what does not and where, and that every description of the library reads back.

#ifdef ANYBIT_PROGRAM

#include <anybit/algorithm/ldlq.hpp>
#include <anybit/algorithm/learned.hpp>
#include <anybit/algorithm/nearest.hpp>
#include <anybit/prune/pruned_nearest.hpp>
#include <anybit/prune/sparse_gptq.hpp>
#include <anybit/scheme/presets.hpp>

#include <algorithm>
#include <fstream>
#include <set>
#include <string>

#include "program.hpp"
#include "recipes/catalog.hpp"
#include "recipes/recipe_book.hpp"
#include "support/catch.hpp"
#include "support/source_dir.hpp"

using namespace anybit;
using presets::AsymmetricInt;

namespace {

std::string description_of(const std::string& text) {
  tool::RecipeBook book;
  const auto r = book.find(text);
  INFO((r ? "" : r.error().message));
  REQUIRE(r.ok());
  CHECK((*r)->name == text);
  return (*r)->description;
}

std::string error_of(const std::string& text) {
  tool::RecipeBook book;
  const auto r = book.find(text);
  return r ? "no error" : r.error().message;
}

/// The text and the mark below character `at` of it, from 1.
bool marks(const std::string& message, const std::string& text, std::size_t at) {
  return message.starts_with("recipe, character " + std::to_string(at) + ": ") &&
         message.ends_with("\n  " + text + "\n  " + std::string(at - 1, ' ') + "^");
}

}  // namespace

TEST_CASE("a recipe as files record it, and shorter ways to write it") {
  CHECK(description_of("awq | gptq(damp=0.01) uint4/g128/f16") == "awq | gptq(damp=0.01)");
  CHECK(description_of("awq|gptq  uint4/g128/f16/bits") == "awq | gptq(damp=0.01)");
  CHECK(description_of("gptq(best) uint4/g64/e5m3") == Gptq<AsymmetricInt<4>>::best().describe());
  CHECK(description_of("blocks_learned(batch=2) | rotated | gptq uint2/g128/f16") ==
        "blocks_learned(iterations=200, batch=2) | rotated(residual, values, ffn_down, seed=1) | gptq(damp=0.01)");
  CHECK(description_of("awq | learned uint3/g128/f16") == "awq | learned(iterations=200)");
  CHECK(description_of("nearest() ternary/g128/f16/base3") == "nearest");
  CHECK(description_of("rotated | nearest int8/row/f32") == "rotated(residual, values, ffn_down, seed=1) | nearest");
  CHECK(description_of("ldlq trellis16k2/quantiles/row/f16") == "ldlq(damp=0.025)");
  CHECK(description_of("exact lossless_bf16") == "exact");
  CHECK(description_of("rotated | nearest() lossless_bf16") == "rotated(residual, values, ffn_down, seed=1) | nearest");
  CHECK(description_of("rotated | nearest trellis12k5/bytepairs/row/f16") ==
        "rotated(residual, values, ffn_down, seed=1) | nearest");
  tool::RecipeBook book;
  const auto r = book.find("smooth_quant(alpha=0.85) | nearest int8/row/f32 int8_static");
  REQUIRE(r.ok());
  CHECK((*r)->compute == Compute::int8_static);
  CHECK((*r)->scheme->name == "int8/row/f32/bits");
}

TEST_CASE("the recipes that the page of the program shows are recipes of this program") {
  std::ifstream page(test_support::source_dir() + std::string("/docs/program.md"));
  std::string line;
  int found = 0;
  for (bool below = false; std::getline(page, line);) {
    below = below || line == "## Recipes";
    if (!below || !line.starts_with("    ") || contains(line, " = ")) continue;
    CAPTURE(line);
    CHECK(error_of(line.substr(4)) == "no error");
    ++found;
  }
  CHECK(found >= 9);
}

TEST_CASE("every description reads back as the same options") {
  using S = AsymmetricInt<4>;
  using Pruned = presets::Int<4>;
  const std::string asymmetric = " uint4/g128/f16/bits", symmetric = " int4/g128/f16/bits";
  const Gptq<S> odd{.damp = 0.03f,
                    .block = 64,
                    .dead_diagonal = 1,
                    .act_order = true,
                    .static_groups = true,
                    .range = Range::symmetric,
                    .search = Search::least_squares,
                    .shrink = {0.5f, 7, 2.4f},
                    .group_aware = false,
                    .fresh_grids = true,
                    .weighted = false,
                    .refine = 3,
                    .drift = 0.25f};
  const Awq awq{.ratios = 10,
                .scaling = AwqScaling::duo,
                .clip = true,
                .clip_steps = 5,
                .for_algorithm = false,
                .block_output = true,
                .block_loss = {}};
  const Sparsity n_of_m = Sparsity::n_of_m(2, 4);
  const std::string texts[] = {
      Nearest<S>{}.describe() + asymmetric,
      Nearest<S>{.search = Search::mse, .shrink = {0.8f, 20, 2}}.describe() + asymmetric,
      Nearest<S>{.range = Range::min_max, .search = Search::least_squares, .weighted = true}.describe() + asymmetric,
      Nearest<S>{.search = Search::neuqi, .shrink = {0.5f, 20, 2.4f}, .weighted = true}.describe() + asymmetric,
      Gptq<S>{.search = Search::neuqi, .weighted = true}.describe() + asymmetric,
      Nearest<S>{.search = Search::half_quadratic, .half_quadratic = {0.5f, 3, 1.5f, 9}}.describe() + asymmetric,
      odd.describe() + asymmetric,
      Learned<S>{.iterations = 7, .rate = 0.25f, .ends_rate = 0.5f, .learn_ends = false, .drift = 1, .search = Search::mse}
              .describe() +
          asymmetric,
      (awq | Learned<S>{.from_gptq = true}).describe() + asymmetric,
      Gptq<S>::best().describe() + asymmetric,
      (awq | odd).describe() + asymmetric,
      (Awq{.scaling = AwqScaling::both, .clip = false} | Nearest<S>{}).describe() + asymmetric,
      (SmoothQuant{.alpha = 0.123456f} | Nearest<presets::Int8PerRow>{}).describe() + " int8/row/f32/bits",
      (SmoothQuantSearch{.steps = 4, .tokens = 9, .static_activations = true} | Nearest<presets::Int8PerRow>{}).describe() +
          " int8/row/f32/bits",
      model::describe(model::RotationOptions{.seed = 7, .residual = false, .attn_output = true}) + " | nearest" + symmetric,
      SparseGptq<Pruned>{.pruner = {.sparsity = {0.25}, .damp = 0.5f}, .search = Search::mse, .pruned_grids = true}.describe() +
          symmetric,
      PrunedNearest<Wanda, Pruned>{.pruner = {.sparsity = {0.4}, .compare = Compare::row_share}}.describe() + symmetric,
      PrunedNearest<Magnitude, Pruned>{.pruner = {.sparsity = n_of_m}, .search = Search::mse}.describe() + symmetric,
      PrunedNearest<SparseGpt, Pruned>{}.describe() + symmetric,
      Ldlq<Trellis<12, 2, ByteSum>>{}.describe() + " trellis12k2/bytesum/row/f16",
      Ldlq<Trellis<12, 2, ByteSum>>{.damp = 0.5f, .gain = 1.25f, .exact = true, .weighted = false, .refine_scales = false}
              .describe() +
          " trellis12k2/bytesum/row/f16",
      NearestTrellis<Trellis<12, 2, ByteSum>>{.gain = 0.75f, .exact = true}.describe() + " trellis12k2/bytesum/row/f16",
  };
  for (const std::string& text : texts) {
    INFO(text);
    CHECK(description_of(text) == text.substr(0, text.rfind(' ')));
  }
}

TEST_CASE("every preset is such a text: its description and scheme make the same recipe again") {
  const tool::RecipeBook book = tool::named_recipes();
  std::set<std::string> names;
  for (const model::ModelRecipe& r : book.all()) {
    names.insert(r.name);
    INFO(r.name);
    CHECK(description_of(r.description + " " + std::string(r.scheme->name)) == r.description);
  }
  CHECK(names.size() == book.all().size());
  CHECK(book.all().front().name == "published-superfloat8");
}

TEST_CASE("a text that is no recipe: the place, and what could stand there") {
  const struct {
    std::string text;
    std::size_t at;
    std::string says;
  } cases[] = {
      {"awk | gptq uint4/g128/f16", 1, "those are blocks_learned, rotated, smooth_quant, awq"},
      {"awq | gtpq uint4/g128/f16", 7, "those are exact, nearest, gptq, learned, ldlq, sparsegptq"},
      {"awq uint4/g128/f16", 1, "is a transform: a bar and an algorithm must follow"},
      {"gptq(dump=0.01) uint4/g128/f16", 6, "no option 'dump'; it has best, damp=N"},
      {"gptq(damp=much) uint4/g128/f16", 11, "damp needs a number"},
      {"gptq(block=1.5) uint4/g128/f16", 12, "block needs an integer"},
      {"gptq(damp=0.01 uint4/g128/f16", 30, "a comma or a closing parenthesis"},
      {"gptq(search(norm=2, stops=3)) uint4/g128/f16", 21, "search has no option 'stops'"},
      {"gptq(damp=) uint4/g128/f16", 11, "the value of damp"},
      {"awq | ", 7, "here must stand a transform"},
      {"gptq(damp=0.01)", 16, "here must stand a scheme"},
      {"gptq uint9/g128/f16", 6, "no scheme uint9/g128/f16; for gptq it has "},
      {"gptq int8/g128/f16", 1, "no gptq for int8/g128/f16/bits; it has it for "},
      {"smooth_quant | gptq uint4/g128/f16", 1, "does not combine smooth_quant | gptq"},
      {"awq | wanda(50%) then nearest int4/g128/f16", 1, "does not combine awq | pruning"},
      {"awq | ldlq trellis12k2/bytesum/row/f16", 1, "does not combine awq | ldlq"},
      {"ldlq uint4/g128/f16", 1, "no ldlq for uint4/g128/f16/bits; it has it for trellis12k1/quantiles/row/f16, "},
      {"gptq trellis12k2/bytesum/row/f16", 1, "no gptq for trellis12k2/bytesum/row/f16; it has it for "},
      {"ldlq(block=4) trellis12k2/bytesum/row/f16", 6, "ldlq has no option 'block'; it has damp=N, unweighted"},
      {"nearest(search) trellis12k2/bytesum/row/f16", 1, "nearest of trellis codes has the options gain=N and exact alone"},
      {"nearest(exact) uint4/g128/f16", 1, "gain=N and exact are for trellis codes"},
      {"exact uint4/g128/f16", 1, "no exact for uint4/g128/f16/bits; it has it for lossless_bf16"},
      {"exact(damp=1) lossless_bf16", 7, "exact has no option 'damp' and no others"},
      {"awq | exact lossless_bf16", 1, "does not combine awq | exact"},
      {"nearest(search) lossless_bf16", 1, "nearest of lossless_bf16 has no options"},
      {"gptq lossless_bf16", 1, "no gptq for lossless_bf16; it has it for "},
      {"wanda(50%) int4/g128/f16", 12, "'then nearest'"},
      {"wanda(half) then nearest int4/g128/f16", 7, "it has 50%"},
      {"wanda(50%) then gptq int4/g128/f16", 17, "only nearest"},
      {"awq | smooth_quant | nearest uint4/g128/f16", 7, "one transform beside rotated"},
      {"awq | rotated | nearest uint4/g128/f16", 7, "before all others"},
      {"nearest uint4/g128/f16 int9", 24, "f32, int8_per_token"},
      {"nearest uint4/g128/f16 f32 f32", 28, "here the recipe can end"},
      {"", 0, "there is no recipe ''"},
      {"gtpq-int4-g128", 0, "near it: gptq"},
  };
  for (const auto& c : cases) {
    std::string message = error_of(c.text);
    if (c.at == 0) {
      tool::RecipeBook book = tool::named_recipes();
      message = book.find(c.text).error().message;
    }
    INFO(c.text << "\n" << message);
    CHECK(contains(message, c.says));
    if (c.at > 0) CHECK(marks(message, c.text, c.at));
  }
}

TEST_CASE("what is compiled is a scheme once each, and names for files") {
  std::set<std::string> names;
  for (const tool::CompiledScheme& s : tool::catalog().schemes()) names.insert(s.name);
  CHECK(names.size() == tool::catalog().schemes().size());
  // Schemes of checkpoints are opened too, and made by no recipe.
  const std::vector<std::string> opened = tool::catalog().registry().names();
  CHECK(std::set<std::string>(opened.begin(), opened.end()).size() == opened.size());
  for (const std::string& name : names) CHECK(std::count(opened.begin(), opened.end(), name) == 1);
  for_each_type(Presets{}, [&]<class S>() { CHECK(names.contains(std::string(S::name.view()))); });
  CHECK(tool::file_name("awq(duo or not) | gptq(damp=0.01) uint4/g128/f16") == "awq-duo-or-not-gptq-damp-0.01-uint4-g128-f16");
  CHECK(tool::file_name("gptq-int4-g128") == "gptq-int4-g128");
}

#endif
