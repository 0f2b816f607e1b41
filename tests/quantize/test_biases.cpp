// Linears with biases (Qwen2) through everything that changes weights: packing, folded scales, rotation, files of blocks,
// containers.

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include <anybit/algorithm/compiled_methods.hpp>
#include <anybit/algorithm/nearest.hpp>
#include <anybit/format/superfloat.hpp>
#include <anybit/io/anybit_file.hpp>
#include <anybit/model/arch/architectures.hpp>
#include <anybit/model/arch/qwen2.hpp>
#include <anybit/model/container.hpp>
#include <anybit/model/rotate.hpp>
#include <anybit/quantize/block_by_block.hpp>
#include <anybit/transform/awq.hpp>
#include <anybit/transform/smooth_quant.hpp>

#include "model/letters.hpp"
#include "model/random_decoder.hpp"
#include "model/random_ids.hpp"
#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

using namespace anybit;
using namespace anybit::model;
using test_support::ids;

namespace {

/// The random llama with biases.
Decoder biased_decoder(Index kv_heads) {
  const Decoder llama = test_support::random_decoder(kv_heads);
  Decoder d = make_decoder(qwen2_architecture, llama.config);
  d.weights = llama.weights;
  for (Index i = 0; i < 2; ++i)
    for (const char* const name : {"attn_q", "attn_k", "attn_v"}) {
      nn::Linear& l = d.linear(i, name);
      std::vector<float> bias;
      for (Index r = 0; r < l.extents().rows; ++r) bias.push_back(0.3f * static_cast<float>((7 * r + i) % 11 - 5));
      l.set_bias(bias);
    }
  REQUIRE(check(d).ok());
  return d;
}

float difference(const Matrix& a, const Matrix& b) {
  float worst = 0;
  for (Index i = 0; i < a.extents().size(); ++i) worst = std::max(worst, std::abs(a.data()[i] - b.data()[i]));
  return worst;
}
Matrix logits(const Decoder& d) { return test_support::logits_of(d, ids(40, 99)); }

using Fine = Nearest<Superfloat<16>, PerGroup<16>, ScaleF32>;

}  // namespace

TEST_CASE("biases change the model, and stay through packing and scales that are folded into the linear before") {
  for (const Index kv_heads : {Index{4}, Index{2}}) {
    const Decoder d = biased_decoder(kv_heads);
    const Matrix exact = logits(d);
    CHECK(difference(exact, logits(test_support::random_decoder(kv_heads))) > 0.1f);
    for (const ModelRecipe& recipe : {model_recipe("fine", Fine{}), model_recipe("awq", Awq{.clip = false} | Fine{}),
                                      model_recipe("smooth", SmoothQuant{.alpha = 0.8f} | Fine{})}) {
      CAPTURE(kv_heads, recipe.name);
      const ModelStats stats = test_support::calibrated(d, recipe.needs);
      Decoder q = quantize_model(d, stats, recipe, pack_embedding(d).value()).value().decoder;
      q.token_embedding() = d.token_embedding();
      CHECK(difference(exact, logits(q)) < 0.02f);
      const bool folded = q.linear(0, "attn_v").bias() != d.linear(0, "attn_v").bias();
      CHECK(folded == (recipe.name == "awq"));
      CHECK(q.linear(0, "attn_q").bias() == d.linear(0, "attn_q").bias());
    }
  }
}

TEST_CASE("rotations turn the biases of what they turn") {
  const Decoder d = biased_decoder(2);
  for (const RotationOptions& o : {RotationOptions{}, RotationOptions{.keep_tied = false, .attn_output = true}}) {
    const Decoder r = rotate(d, o).value();
    CHECK(difference(logits(d), logits(r)) < 2e-4f);
    CHECK(r.linear(1, "attn_v").bias() != d.linear(1, "attn_v").bias());
  }
}

TEST_CASE("files of blocks and containers hold biases") {
  const Decoder d = biased_decoder(4);
  const std::vector<std::vector<TokenId>> tokens{ids(48, 1), ids(48, 2)};
  const std::vector<std::span<const TokenId>> windows{tokens.begin(), tokens.end()};
  const ModelRecipe recipe = model_recipe("awq", Awq{.clip = false} | Nearest<SInt<8>, PerGroup<16>>{});
  const test_support::TemporaryFolder folder;
  LayerWiseOptions options;
  options.state = folder / "state";
  const PackedEmbedding embedding = pack_embedding(d).value();
  const auto whole = quantize_layer_wise(d, uniform_plan(recipe, d), windows, embedding, options).value();
  const auto resumed = quantize_layer_wise(d, uniform_plan(recipe, d), windows, embedding, options).value();
  CHECK(resumed.blocks_taken == 2);
  const Matrix before = logits(whole.quantized.decoder);
  CHECK(difference(before, logits(resumed.quantized.decoder)) == 0);

  const Model m{"biased", whole.quantized.decoder, test_support::letters()};
  REQUIRE(save_model(folder / "model", m));
  SchemeRegistry schemes;
  schemes.add<Scheme<SInt<8>, PerGroup<16>, ScaleF16>>();
  schemes.add<EmbeddingScheme>();
  const auto file = io::AnybitFile::open(folder / "model").value();
  const auto again = model_from_container(file, schemes);
  INFO((again ? std::string() : again.error().message));
  REQUIRE(again);
  CHECK(again->decoder.blueprint->architecture == &qwen2_architecture);
  CHECK(again->decoder.config == d.config);
  CHECK(difference(before, logits(again->decoder)) == 0);
}
