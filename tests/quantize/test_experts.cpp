// Quantization of mixtures of experts: one scale for all that read a mixture's input, statistics for each expert alone.

#include <cmath>
#include <string>
#include <vector>

#include <anybit/algorithm/compiled_methods.hpp>
#include <anybit/algorithm/gptq.hpp>
#include <anybit/evaluate/model.hpp>
#include <anybit/evaluate/routing.hpp>
#include <anybit/exec/thread_pool.hpp>
#include <anybit/format/formats.hpp>
#include <anybit/model/container.hpp>
#include <anybit/model/rotate.hpp>
#include <anybit/quantize/block_by_block.hpp>
#include <anybit/quantize/calibration_check.hpp>
#include <anybit/quantize/forecast.hpp>
#include <anybit/transform/awq.hpp>
#include <anybit/transform/smooth_quant.hpp>

#include "model/random_decoder.hpp"
#include "model/random_experts.hpp"
#include "model/random_ids.hpp"
#include "quantize/model_bytes.hpp"
#include "support/catch.hpp"
#include "support/largest_difference.hpp"
#include "support/same_bits.hpp"
#include "support/temporary_folder.hpp"

using namespace anybit;
using namespace anybit::model;

namespace experts_tests {

using test_support::calibrated;
using test_support::dealt;
using test_support::ids;
using test_support::logits_of;
using test_support::random_experts;

using Fine16 = Nearest<Superfloat<16>, PerGroup<16>, ScaleF32>;

QuantizedModel quantized(const Decoder& d, const ModelRecipe& recipe, Needs needs, const QuantizeModelOptions& options = {}) {
  auto q = quantize_model(d, calibrated(d, needs | recipe.needs), recipe, pack_embedding(d).value(), options);
  INFO((q ? std::string() : q.error().message));
  REQUIRE(q.ok());
  return *std::move(q);
}

/// With embedding and head in floats, so that only the linears of blocks differ.
Decoder with_float_ends(Decoder q, const Decoder& d) {
  q.token_embedding() = d.token_embedding();
  if (d.has_head()) q.head() = d.output_head();
  return q;
}
double off(const Decoder& a, const Decoder& b) {
  const Matrix x = logits_of(a, ids(40, 99)), y = logits_of(b, ids(40, 99));
  double sum = 0;
  for (Index i = 0; i < x.extents().size(); ++i) {
    const double d = static_cast<double>(x.data()[i]) - static_cast<double>(y.data()[i]);
    sum += d * d;
  }
  return std::sqrt(sum / static_cast<double>(x.extents().size()));
}
double worst(const Decoder& a, const Decoder& b) {
  return test_support::largest_difference(logits_of(a, ids(40, 99)).view(), logits_of(b, ids(40, 99)).view());
}

bool same_weights(const nn::Linear& a, const nn::Linear& b) {
  std::vector<float> x(static_cast<std::size_t>(a.extents().cols)), y = x;
  for (Index r = 0; r < a.extents().rows; ++r) {
    a.read_row(r, x), b.read_row(r, y);
    if (x != y) return false;
  }
  return true;
}
bool of_expert(const QuantizedLayer& layer, const Decoder& d) { return (*d.blueprint)[layer.site].routed; }

}  // namespace experts_tests

using namespace experts_tests;

TEST_CASE("experts: a dense model dealt to eight experts gives the same logits and the same errors when it is quantized") {
  const Decoder dense = test_support::random_decoder(2), d = dealt(dense, 8);  // 56 hidden units: 7 for each
  CHECK(worst(dense, d) < 1e-5);
  // Groups of 7 so that the groups of down are those of the dense model. (AWQ scales each expert's down by itself, and so finds
  // other scales than for the dense one.)
  for (const ModelRecipe& recipe :
       {model_recipe("nearest", Nearest<SInt<4>, PerGroup<7>>{}), model_recipe("gptq", Gptq<SInt<4>, PerGroup<7>>{}),
        model_recipe("gptq, fine", Gptq<SInt<6>, PerGroup<7>>{})}) {
    const double of_dense = off(with_float_ends(quantized(dense, recipe, Needs::hessian).decoder, dense), dense);
    const double of_experts = off(with_float_ends(quantized(d, recipe, Needs::hessian).decoder, d), d);
    CAPTURE(recipe.name, of_dense, of_experts);
    CHECK(of_dense > 0.001);
    CHECK(of_experts == Approx(of_dense).epsilon(0.05));
  }
}

TEST_CASE("experts: scales are folded into norm and router and experts, so that 16 bits give the float model's logits") {
  for (const Index shared : {Index{20}, Index{0}}) {
    const Decoder d = random_experts(shared);
    for (const ModelRecipe& recipe :
         {model_recipe("plain", Fine16{}), model_recipe("smooth", SmoothQuant{.alpha = 0.8f} | Fine16{}),
          model_recipe("awq", Awq{} | Fine16{}), model_recipe("block output", Awq{.block_output = true} | Fine16{}),
          model_recipe("both", SmoothQuant{} | Awq{} | Fine16{})}) {
      CAPTURE(recipe.name, shared);
      const QuantizedModel q = quantized(d, recipe, Needs::hessian | Needs::samples);
      CHECK(worst(d, with_float_ends(q.decoder, d)) < 0.02);
      // q k v o in three blocks; gate up down in one; of six experts in two; of the shared ones.
      REQUIRE(q.layers.size() == (shared > 0 ? 57u : 51u));
      bool scaled = false;
      for (const QuantizedLayer& layer : q.layers) {
        if (layer.name.find("ffn_gate.") == std::string::npos) continue;
        scaled |= !layer.input_scale.empty();
      }
      CHECK(scaled == (recipe.name != "plain"));
      for (Index i : {Index{0}, Index{2}}) {
        CHECK(q.decoder.linear(i, "ffn_gate_inp").dense() != nullptr);
        CHECK(q.decoder.linear(i, "ffn_up.5").packed() != nullptr);
        if (shared > 0) CHECK(q.decoder.linear(i, "ffn_gate_inp_shexp").dense() != nullptr);
      }
      ModelStats inputs(d, Needs::samples, 16);
      REQUIRE(inputs.accumulate(d, ids(48, 5), {}).ok());
      for (const double e : evaluate::layer_errors(d, q, inputs, {})) CHECK(e < 2e-3);
    }
  }
}

TEST_CASE("experts: one that saw too few tokens is rounded to nearest and reported") {
  const Decoder d = random_experts();
  const ModelRecipe gptq = model_recipe("gptq", Gptq<SInt<3>, PerGroup<8>>{}),
                    nearest = model_recipe("nearest", Nearest<SInt<3>, PerGroup<8>>{});
  const QuantizedModel rounded = quantized(d, nearest, Needs::hessian);
  for (const float share : {0.0f, 2.0f}) {  // every expert is reached; none is
    CAPTURE(share);
    const QuantizedModel q = quantized(d, gptq, Needs::hessian, {.expert_share = share});
    std::size_t same = 0, experts = 0;
    for (const QuantizedLayer& layer : q.layers) {
      if (!of_expert(layer, d)) {
        CHECK(layer.report.as_requested());
        continue;
      }
      ++experts;
      const WeightId id = d.weight(layer.name);
      if (same_weights(q.decoder[id].linear, rounded.decoder[id].linear)) ++same;
      CHECK(layer.report.as_requested() == (share == 0));
      const std::string said = share == 0 ? layer.report.remarks.back() : layer.report.fallbacks.back();
      CHECK(said.find("the expert saw ") == 0);
      CHECK(said.find(" of 192 calibration tokens") != std::string::npos);
      CHECK((said.find("rounded to nearest") != std::string::npos) == (share > 0));
    }
    CHECK(experts == 36);
    if (share > 0) CHECK(same == experts);
    if (share == 0) CHECK(same < experts / 2);
  }
  // Rounding to nearest learns nothing of an expert, and the scale of its input comes from all tokens.
  const QuantizedModel smooth =
      quantized(d, model_recipe("smooth", SmoothQuant{} | Fine16{}), Needs::abs_max, {.expert_share = 2});
  for (const QuantizedLayer& layer : smooth.layers) CHECK(layer.report.as_requested());
  const auto strict =
      quantize_model(d, calibrated(d, gptq.needs), gptq, pack_embedding(d).value(), {.strict = true, .expert_share = 2});
  REQUIRE_FALSE(strict);
  CHECK(strict.error().code == ErrorCode::degraded);
  CHECK(strict.error().message.find("the expert saw ") != std::string::npos);
}

TEST_CASE("experts: without a single token an expert still has a scale for activations in 8 bits") {
  Decoder d = random_experts();
  // The router of the first block never names expert 3: its logit is the lowest whatever comes in.
  Matrix router(d.linear(0, "ffn_gate_inp").dense()->view());
  for (Index c = 0; c < router.cols(); ++c) {
    for (Index e = 0; e < 6; ++e) router(e, c) = e == 3 ? 0.0f : router(e, c);
  }
  d.linear(0, "ffn_gate_inp") = nn::Linear(std::move(router));
  d.values(0, "ffn_norm").assign(32, 0.0f);  // all logits are 0: experts 0 and 1 get every token
  const ModelRecipe recipe = model_recipe("smooth", SmoothQuant{} | Gptq<SInt<8>, PerGroup<16>>{}, Compute::int8_static);
  const QuantizedModel q = quantized(d, recipe, Needs::hessian | Needs::abs_max);
  for (const char* const name : {"ffn_gate.3", "ffn_up.3", "ffn_down.3"})
    CHECK(q.decoder.linear(0, name).activations().scale() > 0);
  std::size_t fallbacks = 0;
  for (const QuantizedLayer& layer : q.layers)
    for (const std::string& f : layer.report.fallbacks)
      if (f.starts_with("the expert saw 0 of 192")) ++fallbacks;
  CHECK(fallbacks == 12);  // gate, up and down of four experts
  const auto lines = warnings(check_sites(*d.blueprint, calibrated(d, Needs::hessian)));
  bool warned = false;
  for (const std::string& line : lines)
    warned |= line.find("inputs of experts saw fewer calibration tokens") != std::string::npos;
  CHECK(warned);
}

TEST_CASE("experts: recipes that differ among experts leave transforms out and say so") {
  const Decoder d = random_experts();
  const ModelRecipe a = model_recipe("awq a", Awq{} | Fine16{}), b = model_recipe("awq b", Awq{} | Fine16{});
  ModelPlan plan = uniform_plan(a, d);
  for (std::size_t i = 0; i < plan.linears.size(); ++i)
    if ((*d.blueprint)[d.blueprint->linears[i]].name.find("ffn_up.2") != std::string::npos) plan.linears[i] = &b;
  const QuantizedModel q = quantize_model(d, calibrated(d, a.needs), plan, pack_embedding(d).value()).value();
  CHECK(worst(d, with_float_ends(q.decoder, d)) < 0.02);
  for (const QuantizedLayer& layer : q.layers)
    if (layer.name.find("blk.0.ffn_gate.") == 0) {
      CHECK(layer.input_scale.empty());
      REQUIRE(layer.report.fallbacks.size() == 1);
      CHECK(layer.report.fallbacks[0].find("other linears of the mixture have other recipes") == 0);
    }
}

TEST_CASE("experts: a quantized mixture is saved and opened to the same bits") {
  const Decoder d = random_experts();
  const ModelRecipe recipe = model_recipe("awq", Awq{} | Nearest<SInt<4>, PerGroup<16>>{});
  const Decoder q = quantized(d, recipe, recipe.needs).decoder;
  const test_support::TemporaryFolder folder;
  const std::string path = folder / "experts.anybit";
  Vocabulary v;
  for (int i = 0; i < 61; ++i) v.tokens.push_back("t" + std::to_string(i)), v.kinds.push_back(TokenKind::normal);
  v.kind = TokenizerKind::byte_bpe;
  auto tokenizer = Tokenizer::make(std::move(v));
  INFO((tokenizer ? std::string() : tokenizer.error().message));
  REQUIRE(tokenizer);
  REQUIRE(save_model(path, {"experts", q, *tokenizer}).ok());
  SchemeRegistry schemes;
  schemes.add<Scheme<SInt<4>, PerGroup<16>>>(), schemes.add<EmbeddingScheme>();
  const auto file = io::AnybitFile::open(path);
  REQUIRE(file);
  const auto opened = model_from_container(*file, schemes);
  INFO((opened ? std::string() : opened.error().message));
  REQUIRE(opened);
  CHECK(opened->decoder.config == q.config);
  CHECK(test_support::same_bits(logits_of(opened->decoder, ids(40, 99)), logits_of(q, ids(40, 99))));

  const test_support::TemporaryFolder state;
  const std::vector<TokenId> text = ids(48, 1);
  const std::span<const TokenId> windows[] = {text};
  const auto told = forecast({"experts", d, *tokenizer}, uniform_plan(recipe, d), windows, pack_embedding(d).value(), {});
  INFO((told ? std::string() : told.error().message));
  REQUIRE(told);
  CHECK(told->file_bytes > 0);
}

TEST_CASE("experts: block by block, interrupted or not and stage by stage") {
  const Decoder d = random_experts();
  const std::vector<std::vector<TokenId>> texts{ids(48, 1), ids(48, 2), ids(31, 3)};
  const std::vector<std::span<const TokenId>> windows{texts.begin(), texts.end()};
  const PackedEmbedding embedding = pack_embedding(d).value();
  const auto made = [&](const ModelRecipe& recipe, const LayerWiseOptions& options) {
    auto done = quantize_layer_wise(d, uniform_plan(recipe, d), windows, embedding, options);
    INFO((done ? std::string() : done.error().message));
    REQUIRE(done.ok());
    return *std::move(done);
  };
  const ModelRecipe awq = model_recipe("awq", Awq{} | Gptq<SInt<4>, PerGroup<16>>{});
  const test_support::TemporaryFolder state;
  const LayerWiseModel once = made(awq, {}), kept = made(awq, {.state = state / "blocks"}),
                       again = made(awq, {.state = state / "blocks"});
  CHECK(again.blocks_taken == 3);
  CHECK(test_support::bytes_of(once.quantized.decoder) == test_support::bytes_of(kept.quantized.decoder));
  CHECK(test_support::bytes_of(once.quantized.decoder) == test_support::bytes_of(again.quantized.decoder));
  CHECK(again.quantized.layers.size() == 57);
  ThreadPool pool(3);
  CHECK(test_support::bytes_of(made(awq, {.executor = pool}).quantized.decoder) ==
        test_support::bytes_of(once.quantized.decoder));

  const ModelRecipe smooth = model_recipe("smooth", SmoothQuant{} | Fine16{});
  const LayerWiseModel staged = made(smooth, {.true_sequential = true});
  CHECK(worst(d, with_float_ends(staged.quantized.decoder, d)) < 0.02);
  Index routed = 0;
  for (const SiteCheck& c : staged.checks)
    if (c.routed && c.name.find("block 0, ffn_gate.") == 0) routed += c.tokens;
  CHECK(routed == 2 * (48 + 48 + 31));

  Gptq<SInt<4>, PerGroup<16>> drift;
  drift.drift = 0.5f;
  const LayerWiseModel drifted = made(model_recipe("drift", drift), {});
  std::size_t said = 0;
  for (const QuantizedLayer& layer : drifted.quantized.layers)
    for (const std::string& f : layer.report.fallbacks)
      if (f.starts_with("experts see other tokens")) ++said;
  CHECK(said == 36);
}

TEST_CASE("experts: rotated, the logits stay, and where no rotation fits it is refused") {
  const Decoder d = random_experts();
  const auto refused = rotate(d, {});
  REQUIRE_FALSE(refused);
  CHECK(refused.error().message.find("switch it off by RotationOptions::ffn_down") != std::string::npos);
  const auto r = rotate(d, {.ffn_down = false});
  INFO((r ? std::string() : r.error().message));
  REQUIRE(r);
  CHECK(worst(d, *r) < 2e-4);
}

TEST_CASE("routing agreement: a model with itself and with what few bits make of it") {
  const Decoder d = random_experts();
  const evaluate::Windows windows{24, 0, [] {
                                    std::vector<std::int32_t> tokens;
                                    for (unsigned w = 0; w < 3; ++w)
                                      for (const TokenId id : ids(24, w)) tokens.push_back(id);
                                    return tokens;
                                  }()};
  const auto itself = evaluate::routing_agreement(d, d, windows).value();
  REQUIRE(itself.size() == 3);
  CHECK(itself[0].choices == 72);
  CHECK(itself[1].choices == 0);
  CHECK(evaluate::total(itself).choices == 144);
  CHECK(evaluate::total(itself).share() == 1);
  CHECK(evaluate::total(itself).overlap() == 1);
  CHECK(evaluate::total(itself).first_same == 1);
  double before = 1;
  for (const ModelRecipe& recipe :
       {model_recipe("8", Nearest<SInt<8>, PerGroup<16>>{}), model_recipe("2", Nearest<SInt<2>, PerGroup<16>>{})}) {
    const auto agreement =
        evaluate::total(evaluate::routing_agreement(d, quantized(d, recipe, Needs::none).decoder, windows).value());
    CHECK(agreement.share() < before);
    CHECK(agreement.overlap() >= agreement.share());
    before = agreement.share();
  }
  CHECK_FALSE(evaluate::routing_agreement(test_support::random_decoder(2), test_support::random_decoder(2), windows));
}
