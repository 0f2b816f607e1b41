// Quantization of models with encoders: sites of cross-attention, statistics of pairs, scales that are folded, weights that stay
// at 8 bits, block by block through both stacks.

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include <anybit/algorithm/compiled_methods.hpp>
#include <anybit/algorithm/gptq.hpp>
#include <anybit/algorithm/nearest.hpp>
#include <anybit/evaluate/paired.hpp>
#include <anybit/exec/thread_pool.hpp>
#include <anybit/format/formats.hpp>
#include <anybit/model/container.hpp>
#include <anybit/quantize/block_by_block.hpp>
#include <anybit/transform/awq.hpp>
#include <anybit/transform/smooth_quant.hpp>

#include "model/letters.hpp"
#include "model/random_encoders.hpp"
#include "model/random_ids.hpp"
#include "quantize/model_bytes.hpp"
#include "support/catch.hpp"
#include "support/largest_difference.hpp"
#include "support/temporary_folder.hpp"

using namespace anybit;
using namespace anybit::model;
using test_support::ids;
using test_support::largest_difference;

namespace {

/// Sources and texts of unequal lengths.
struct Pairs {
  std::vector<std::vector<TokenId>> sources{ids(44, 1), ids(30, 2), ids(44, 3), ids(51, 4)};
  std::vector<std::vector<TokenId>> texts{ids(32, 5), ids(32, 6), ids(19, 7), ids(32, 8)};
  std::vector<Matrix> features;
  std::vector<Source> as_sources;
  std::vector<std::span<const TokenId>> windows{texts.begin(), texts.end()};

  explicit Pairs(const Decoder& d) {
    const bool reads_features = d.config.encoder.front().form.feature_bins > 0;
    for (unsigned i = 0; i < 4; ++i) features.push_back(test_support::random_features(28, 10, 20 + i));
    for (std::size_t i = 0; i < 4; ++i)
      as_sources.push_back(reads_features ? Source{.features = features[i].view()} : Source{.ids = sources[i]});
  }
  Index source_positions(const Decoder& d) const {
    if (d.config.encoder.front().form.feature_bins > 0) return 4 * 14;
    return 44 + 30 + 44 + 51;
  }
};

Matrix logits_of_pair(const Decoder& d, const Pairs& p, std::size_t i) {
  Encoded encoded = encode(d, p.as_sources[i]).value();
  nn::KvCache cache(cache_shape(d.config), 32);
  return forward(d, p.texts[i], cache, {.encoded = &encoded}).value();
}

ModelStats paired_stats(const Decoder& d, const Pairs& p, Needs needs) {
  ModelStats stats(d, needs);
  for (std::size_t i = 0; i < 4; ++i) {
    const auto added = stats.accumulate(d, p.texts[i], {}, &p.as_sources[i]);
    INFO((added ? std::string() : added.error().message));
    REQUIRE(added);
  }
  return stats;
}

/// Of the states of the decoder, from those of `exact`.
double error_of_states(const Decoder& exact, const Decoder& other, const Pairs& p) {
  double sum = 0;
  for (std::size_t i = 0; i < 4; ++i) {
    const auto states = [&](const Decoder& d) {
      Encoded encoded = encode(d, p.as_sources[i]).value();
      nn::KvCache cache(cache_shape(d.config), 32);
      return hidden_states(d, p.texts[i], cache, {.encoded = &encoded}).value();
    };
    const Matrix a = states(exact), b = states(other);
    for (Index k = 0; k < a.extents().size(); ++k)
      sum += std::pow(static_cast<double>(a.data()[k]) - static_cast<double>(b.data()[k]), 2);
  }
  return sum;
}

std::vector<Decoder> encoder_decoders() {
  return {test_support::random_t5(true), test_support::random_t5(false), test_support::random_whisper()};
}

using Fine = Nearest<Superfloat<16>, PerGroup<16>, ScaleF32>;
ModelRecipe gptq_int4() { return model_recipe("gptq", Gptq<SInt<4>, PerGroup<16>>{}); }
ModelRecipe nearest_int4() { return model_recipe("nearest", Nearest<SInt<4>, PerGroup<16>>{}); }

}  // namespace

TEST_CASE("encoder-decoders: sites of both stacks and what takes their scales") {
  using Kind = Producer::Kind;
  for (const Decoder& d : encoder_decoders()) {
    CAPTURE(d.blueprint->architecture->name);
    const Blueprint& b = *d.blueprint;
    const Index first = d.config.encoder_blocks();
    const std::string mlp = d.config.form.gated ? "ffn_gate" : "ffn_up";
    const auto names = [&](Index block) {
      std::vector<std::string> out;
      for (const SiteId s : b.sites_of(block)) out.push_back(b[s].name);
      return out;
    };
    CHECK(names(0) == std::vector<std::string>{"attn_q", "attn_output", mlp, "ffn_down"});
    CHECK(names(first) == std::vector<std::string>{"attn_q", "attn_output", "cross_attn_q", "cross_attn_k", "cross_attn_output",
                                                   mlp, "ffn_down"});
    const auto producer = [&](const char* site) { return b[d.site(first, site)].producer; };
    CHECK(producer("cross_attn_q").kind == Kind::norm);
    CHECK(producer("cross_attn_q").weight == d.weight(first, "cross_attn_norm"));
    CHECK(producer("cross_attn_k").kind == Kind::none);  // one norm feeds those of all blocks
    CHECK(producer("cross_attn_output").weight == d.weight(first, "cross_attn_v"));
    // A scale passes through a gate's product and ReLU, and not through GELU alone.
    const bool passes = d.config.form.gated || d.config.form.activation == nn::Activation::relu;
    CHECK(producer("ffn_down").kind == (passes ? Kind::linear : Kind::none));
    CHECK(b[d.weight(first, "ffn_down")].least_bits == (d.blueprint->architecture == &t5_architecture ? 8 : 0));
    // What is no site stays as it is: convolutions, tables of positions and distances.
    for (const WeightId w : b.linears) CHECK(b[w].block != no_block);
  }
}

TEST_CASE("encoder-decoders: statistics of pairs count what each site reads") {
  for (const Decoder& d : encoder_decoders()) {
    const Pairs p(d);
    const ModelStats stats = paired_stats(d, p, Needs::hessian);
    const Index first = d.config.encoder_blocks();
    CHECK(stats.at(d.site(0, "attn_q"), Needs::hessian).tokens() == p.source_positions(d));
    CHECK(stats.at(d.site(first, "cross_attn_k"), Needs::hessian).tokens() == p.source_positions(d));
    CHECK(stats.at(d.site(first + 1, "cross_attn_q"), Needs::hessian).tokens() == 115);
    CHECK(stats.at(d.site(first + 1, "ffn_down"), Needs::hessian).tokens() == 115);
    ModelStats more(d, Needs::none);
    const auto added = more.accumulate(d, p.texts[0], {});
    REQUIRE(!added);
    CHECK(added.error().message.find("no source was given") != std::string::npos);
  }
}

TEST_CASE("encoder-decoders: scales that recipes fold leave the model as it was") {
  for (const Decoder& d : encoder_decoders()) {
    const Pairs p(d);
    for (const ModelRecipe& recipe : {model_recipe("fine", Fine{}), model_recipe("awq", Awq{.clip = false} | Fine{}),
                                      model_recipe("smooth", SmoothQuant{.alpha = 0.8f} | Fine{})}) {
      CAPTURE(d.blueprint->architecture->name, recipe.name);
      Decoder q = quantize_model(d, paired_stats(d, p, recipe.needs), recipe, pack_embedding(d).value()).value().decoder;
      q.token_embedding() = d.token_embedding();
      if (d.has_head()) q.head() = d.output_head();
      CHECK(largest_difference(logits_of_pair(d, p, 1).view(), logits_of_pair(q, p, 1).view()) < 0.03);
      const bool scaled = q.values(0, "attn_norm") != d.values(0, "attn_norm");
      CHECK(scaled == (recipe.name != "fine"));
    }
  }
}

TEST_CASE("encoder-decoders: T5's wo stays at 8 bits and says so") {
  const Decoder d = test_support::random_t5(true);
  const Pairs p(d);
  const ModelRecipe recipe = nearest_int4();
  const PackedEmbedding embedding = pack_embedding(d).value();
  const ModelStats stats = paired_stats(d, p, recipe.needs);
  const QuantizedModel q = quantize_model(d, stats, recipe, embedding).value();
  std::size_t kept = 0;
  for (const QuantizedLayer& l : q.layers) {
    CAPTURE(l.name);
    const bool wo = l.name.ends_with("ffn_down.weight");
    CHECK(l.report.as_requested() == !wo);
    if (!wo) continue;
    ++kept;
    CHECK(l.report.fallbacks.front().find("at least 8 bits") != std::string::npos);
    const nn::Linear& linear = q.decoder[*d.blueprint->find(l.name)].linear;
    CHECK(linear.packed()->scheme_name() == EmbeddingScheme::name.view());
  }
  CHECK(kept == 5);
  const auto strict = quantize_model(d, stats, recipe, embedding, {.strict = true});
  REQUIRE(!strict);
  CHECK(strict.error().message.find("strict mode") != std::string::npos);
  ModelPlan plan = uniform_plan(recipe, d);
  plan.guards = false;
  CHECK(quantize_model(d, stats, plan, embedding, {.strict = true}));
  const ModelRecipe eight = model_recipe("int8", Nearest<SInt<8>, PerGroup<16>>{});
  CHECK(quantize_model(d, stats, eight, embedding, {.strict = true}));
}

TEST_CASE("encoder-decoders: block by block goes through both stacks") {
  ThreadPool pool(3);
  for (const Decoder& d : encoder_decoders()) {
    CAPTURE(d.blueprint->architecture->name);
    const Pairs p(d);
    const PackedEmbedding embedding = pack_embedding(d).value();
    const test_support::TemporaryFolder folder;
    LayerWiseOptions options;
    options.sources = p.as_sources;
    // A recipe that learns nothing: the same as all at once.
    const ModelRecipe nearest = nearest_int4(), gptq = gptq_int4();
    const auto run = [&](const ModelRecipe& recipe, const LayerWiseOptions& o) {
      auto done = quantize_layer_wise(d, uniform_plan(recipe, d), p.windows, embedding, o);
      INFO((done ? std::string() : done.error().message));
      REQUIRE(done);
      return *std::move(done);
    };
    const LayerWiseModel plain = run(nearest, options);
    CHECK(test_support::bytes_of(plain.quantized.decoder) ==
          test_support::bytes_of(quantize_model(d, ModelStats(d, Needs::none), nearest, embedding).value().decoder));

    const LayerWiseModel learned = run(gptq, options);
    CHECK(learned.tokens == 115);
    const double gptq_error = error_of_states(d, learned.quantized.decoder, p),
                 error = error_of_states(d, plain.quantized.decoder, p);
    CAPTURE(gptq_error, error);
    CHECK(gptq_error < 0.9 * error);
    options.state = folder / "state", options.executor = pool;
    CHECK(test_support::bytes_of(run(gptq, options).quantized.decoder) == test_support::bytes_of(learned.quantized.decoder));
    const LayerWiseModel resumed = run(gptq, options);
    CHECK(resumed.blocks_taken == d.config.blocks);
    CHECK(test_support::bytes_of(resumed.quantized.decoder) == test_support::bytes_of(learned.quantized.decoder));
    options.state.clear(), options.true_sequential = true;
    CHECK(error_of_states(d, run(gptq, options).quantized.decoder, p) < error);
    Gptq<SInt<4>, PerGroup<16>> drifting;
    drifting.drift = 1;
    options.true_sequential = false;
    CHECK(error_of_states(d, run(model_recipe("drift", drifting), options).quantized.decoder, p) < error);

    options.sources = std::span<const Source>(p.as_sources).first(3);
    const auto short_of = quantize_layer_wise(d, uniform_plan(gptq, d), p.windows, embedding, options);
    REQUIRE(!short_of);
    CHECK(short_of.error().message.find("3 sources for 4 windows") != std::string::npos);
  }
}

TEST_CASE("encoders: BERT at once and block by block") {
  const Decoder d = test_support::random_bert();
  const std::vector<std::vector<TokenId>> tokens{ids(48, 1), ids(31, 2), ids(48, 3), ids(48, 4)};
  const std::vector<std::span<const TokenId>> windows{tokens.begin(), tokens.end()};
  const PackedEmbedding embedding = pack_embedding(d).value();
  CHECK(!embedding.head);
  const auto states = [&](const Decoder& m) {
    nn::KvCache cache(cache_shape(m.config), 48);
    return hidden_states(m, tokens[0], cache).value();
  };
  const auto error = [&](const Decoder& m) {
    const Matrix a = states(d), b = states(m);
    double sum = 0;
    for (Index i = 0; i < a.extents().size(); ++i)
      sum += std::pow(static_cast<double>(a.data()[i]) - static_cast<double>(b.data()[i]), 2);
    return sum;
  };
  const ModelRecipe gptq = gptq_int4(), nearest = nearest_int4(), awq = model_recipe("awq", Awq{.clip = false} | Fine{});
  const Decoder by_block = quantize_layer_wise(d, uniform_plan(gptq, d), windows, embedding).value().quantized.decoder;
  const auto at_once = [&](const ModelRecipe& recipe) {
    ModelStats stats(d, recipe.needs);
    for (const auto& w : windows) REQUIRE(stats.accumulate(d, w, {}));
    return quantize_model(d, stats, recipe, embedding).value().decoder;
  };
  const double plain = error(at_once(nearest));
  CHECK(error(by_block) < 0.9 * plain);
  CHECK(error(at_once(gptq)) < 0.9 * plain);
  Decoder scaled = at_once(awq);
  scaled.token_embedding() = d.token_embedding();
  CHECK(largest_difference(states(scaled).view(), states(d).view()) < 0.02);
  CHECK(scaled.values(0, "attn_norm") == d.values(0, "attn_norm"));  // the residual stream passes it as well

  ModelPlan plan = uniform_plan(nearest, d);
  plan.head = &nearest;
  const auto refused = quantize_model(d, ModelStats(d, Needs::none), plan, embedding);
  REQUIRE(!refused);
  CHECK(refused.error().message.find("has no head") != std::string::npos);
}

TEST_CASE("encoder-decoders: a quantized one comes back from its container and has the losses of its logits") {
  const Decoder d = test_support::random_t5(true);
  const Pairs p(d);
  const ModelRecipe recipe = nearest_int4();
  const Decoder q = quantize_model(d, ModelStats(d, Needs::none), recipe, pack_embedding(d).value()).value().decoder;
  const test_support::TemporaryFolder folder;
  REQUIRE(save_model(folder / "model", {"t5", q, test_support::letters()}));
  SchemeRegistry schemes;
  schemes.add<Scheme<SInt<4>, PerGroup<16>, ScaleF16>>();
  schemes.add<EmbeddingScheme>();
  const auto again = model_from_container(io::AnybitFile::open(folder / "model").value(), schemes);
  INFO((again ? std::string() : again.error().message));
  REQUIRE(again);
  const Matrix logits = logits_of_pair(again->decoder, p, 0);
  CHECK(largest_difference(logits.view(), logits_of_pair(q, p, 0).view()) == 0);

  const std::vector<evaluate::PairedText> pairs{{p.as_sources[0], p.texts[0]}, {p.as_sources[2], p.texts[2]}};
  const std::vector<double> losses = evaluate::losses(q, pairs).value();
  REQUIRE(losses.size() == 31 + 18);
  for (Index t = 0; t < 31; ++t) {
    double sum = 0;
    for (Index j = 0; j < 61; ++j) sum += std::exp(static_cast<double>(logits(t, j)));
    const auto target = p.texts[0][static_cast<std::size_t>(t + 1)];
    CHECK(losses[static_cast<std::size_t>(t)] == Approx(std::log(sum) - static_cast<double>(logits(t, target))).epsilon(1e-5));
  }
  const std::vector<evaluate::PairedText> empty{{p.as_sources[0], std::span<const TokenId>(p.texts[0]).first(1)}};
  const auto refused = evaluate::losses(q, empty);
  REQUIRE(!refused);
  CHECK(refused.error().message.find("pair 0") != std::string::npos);
}
