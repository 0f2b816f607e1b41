#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include <anybit/algorithm/compiled_methods.hpp>
#include <anybit/algorithm/gptq.hpp>
#include <anybit/exec/thread_pool.hpp>
#include <anybit/format/formats.hpp>
#include <anybit/model/layer_wise.hpp>
#include <anybit/transform/awq.hpp>

#include "model/random_decoder.hpp"
#include "support/catch.hpp"

using namespace anybit;
using namespace anybit::model;
using test_support::random_decoder;

namespace {

std::vector<TokenId> ids(Index n, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<TokenId> out(static_cast<std::size_t>(n));
  for (TokenId& id : out) id = static_cast<TokenId>(random() % 61);
  return out;
}

/// Windows of unequal length.
struct Text {
  std::vector<std::vector<TokenId>> tokens{ids(48, 1), ids(48, 2), ids(31, 3), ids(48, 4)};
  std::vector<std::span<const TokenId>> windows{tokens.begin(), tokens.end()};
};

std::vector<std::byte> bytes_of(const Decoder& d) {
  std::vector<std::byte> all;
  const auto append = [&](std::span<const std::byte> b) { all.insert(all.end(), b.begin(), b.end()); };
  for_each_linear(d, [&](const std::string&, const Linear& l) { append(l.packed()->bytes().bytes()); });
  for (const Block& b : d.blocks) append(std::as_bytes(std::span(b.attn_norm))), append(std::as_bytes(std::span(b.ffn_norm)));
  return all;
}

using Int4 = Gptq<SInt<4>, PerGroup<16>>;

ModelRecipe gptq_recipe(float drift = 0) {
  Int4 g;
  g.drift = drift;
  return model_recipe("gptq", g);
}
ModelRecipe awq_recipe() { return model_recipe("awq", Awq{} | Nearest<SInt<4>, PerGroup<16>>{}); }

LayerWiseModel made(const Decoder& d, const ModelRecipe& recipe, const LayerWiseOptions& options = {}) {
  const Text text;
  auto done = quantize_layer_wise(d, uniform_plan(recipe, d.config), text.windows, pack_embedding(d).value(), options);
  INFO((done ? std::string() : done.error().message));
  REQUIRE(done.ok());
  return *std::move(done);
}

}  // namespace

TEST_CASE("each block is calibrated on what the quantized blocks before it give") {
  const Decoder d = random_decoder(2);
  const Text text;
  const ModelRecipe recipe = gptq_recipe();
  const LayerWiseModel done = made(d, recipe);
  CHECK(done.tokens == 175);
  CHECK(done.quantized.layers.size() == 14);
  // By hand: the second block's statistics from the model whose first block is quantized and whose second is not.
  Decoder half = d;
  half.token_embedding = done.quantized.decoder.token_embedding;
  half.blocks[0] = done.quantized.decoder.blocks[0];
  ModelStats stats(half, recipe.needs);
  for (const auto& window : text.windows) REQUIRE(stats.accumulate(half, window, {}).ok());
  const Matrix& w = *d.blocks[1].down.dense();
  const auto q = Int4{}.quantize(w.view(), stats.at(1, Site::ffn_down, Needs::hessian));
  REQUIRE(q.ok());
  const Matrix expected = dequantize(q->matrix);
  std::vector<float> row(56);
  Index equal = 0;
  for (Index r = 0; r < 32; ++r) {
    done.quantized.decoder.blocks[1].down.read_row(r, row);
    for (Index j = 0; j < 56; ++j) equal += row[static_cast<std::size_t>(j)] == expected(r, j);
  }
  CHECK(equal == 32 * 56);
  // The first block saw the packed embedding, not the float one; both blocks differ from what the float model's statistics give.
  ModelStats float_stats(d, recipe.needs);
  for (const auto& window : text.windows) REQUIRE(float_stats.accumulate(d, window, {}).ok());
  const QuantizedModel apart = quantize_model(d, float_stats, recipe, pack_embedding(d).value()).value();
  CHECK(bytes_of(apart.decoder) != bytes_of(done.quantized.decoder));
}

TEST_CASE("true-sequential: o sees what quantized q, k and v give; recipes that fold into linears are refused") {
  const Decoder d = random_decoder(2);
  const Text text;
  LayerWiseOptions options;
  options.true_sequential = true;
  const LayerWiseModel done = made(d, gptq_recipe(), options);
  Decoder partly = d;
  const Decoder& q = done.quantized.decoder;
  partly.token_embedding = q.token_embedding;
  partly.blocks[0] = q.blocks[0];
  partly.blocks[1].q = q.blocks[1].q, partly.blocks[1].k = q.blocks[1].k, partly.blocks[1].v = q.blocks[1].v;
  ModelStats stats(partly, Needs::hessian);
  for (const auto& window : text.windows) REQUIRE(stats.accumulate(partly, window, {}).ok());
  const Matrix expected =
      dequantize(Int4{}.quantize(d.blocks[1].o.dense()->view(), stats.at(1, Site::attn_output, Needs::hessian)).value().matrix);
  std::vector<float> row(32);
  for (Index r = 0; r < 32; ++r) {
    q.blocks[1].o.read_row(r, row);
    CHECK(std::equal(row.begin(), row.end(), expected.view().row(r).begin()));
  }
  const ModelRecipe awq = awq_recipe();
  const auto folded = quantize_layer_wise(d, uniform_plan(awq, d.config), text.windows, pack_embedding(d).value(), options);
  REQUIRE_FALSE(folded.ok());
  CHECK(folded.error().message.find("recipe awq folds scales into linears") == 0);
}
