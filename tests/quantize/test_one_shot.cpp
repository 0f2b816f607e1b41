#include <cmath>
#include <string>
#include <vector>

#include <anybit/algorithm/compiled_methods.hpp>
#include <anybit/algorithm/gptq.hpp>
#include <anybit/algorithm/ldlq.hpp>
#include <anybit/evaluate/model.hpp>
#include <anybit/exec/thread_pool.hpp>
#include <anybit/format/formats.hpp>
#include <anybit/quantize/one_shot.hpp>
#include <anybit/transform/awq.hpp>
#include <anybit/transform/smooth_quant.hpp>

#include "model/random_decoder.hpp"
#include "model/random_ids.hpp"
#include "support/catch.hpp"

using namespace anybit;
using namespace anybit::model;
using namespace anybit::nn;
using test_support::calibrated;
using test_support::ids;
using test_support::random_decoder;

namespace {

/// Largest difference of logits, with the embedding kept in floats so that only the linears differ.
float logit_difference(const Decoder& a, Decoder b) {
  b.token_embedding() = a.token_embedding();
  if (a.has_head()) b.head() = a.output_head();
  KvCache ca(cache_shape(a.config), 40), cb(cache_shape(a.config), 40);
  const Matrix x = forward(a, ids(40, 99), ca).value(), y = forward(b, ids(40, 99), cb).value();
  float worst = 0;
  for (Index i = 0; i < x.extents().size(); ++i) worst = std::max(worst, std::abs(x.data()[i] - y.data()[i]));
  return worst;
}

using Fine = Nearest<Superfloat<16>, PerGroup<16>, ScaleF32>;

}  // namespace

TEST_CASE("scales of inputs are folded into norms and upstream rows: 16-bit weights give the float model's logits") {
  for (const Index kv_heads : {Index{4}, Index{2}}) {  // 4: v feeds o row by row; 2: each row of v feeds two inputs of o
    const Decoder d = random_decoder(kv_heads);
    const ModelStats stats = calibrated(d, Needs::hessian | Needs::samples);
    const PackedEmbedding embedding = pack_embedding(d).value();
    for (const ModelRecipe& recipe :
         {model_recipe("plain", Fine{}), model_recipe("smooth", SmoothQuant{.alpha = 0.8f} | Fine{}),
          model_recipe("awq", Awq{} | Nearest<Superfloat<16>, PerGroup<16>, ScaleF32>{}),
          model_recipe("both", SmoothQuant{} | Awq{} | Fine{}), model_recipe("searched", SmoothQuantSearch{} | Fine{})}) {
      INFO(recipe.name << " " << kv_heads);
      const QuantizedModel q = quantize_model(d, stats, recipe, embedding).value();
      CHECK(logit_difference(d, q.decoder) < 0.02f);
      REQUIRE(q.layers.size() == 14);
      bool scaled = false;
      for (const QuantizedLayer& layer : q.layers) {
        scaled |= !layer.input_scale.empty();
        if (recipe.name != "awq") continue;
        if (layer.name.find("attn_output") != std::string::npos) CHECK(layer.input_scale.size() == 32);
        if (layer.name.find("attn_v") != std::string::npos)
          CHECK(layer.output_scale.size() == static_cast<std::size_t>(8 * kv_heads));
      }
      CHECK(scaled == (recipe.name != "plain"));
      ModelStats inputs(d, Needs::samples, 16);
      REQUIRE(inputs.accumulate(d, ids(48, 5), {}).ok());
      for (const double e : evaluate::layer_errors(d, q, inputs, {})) CHECK(e < 2e-3);
    }
  }
}

TEST_CASE("a report says which weights int8 products find unprepared, and why") {
  const Decoder d = random_decoder(4);
  const PackedEmbedding embedding = pack_embedding(d).value();
  const auto remarked = [&](const ModelRecipe& recipe) {
    const QuantizedModel q = quantize_model(d, calibrated(d, Needs::none), recipe, embedding).value();
    std::size_t n = 0;
    for (const QuantizedLayer& layer : q.layers)
      for (const std::string& remark : layer.report.remarks)
        if (remark.find("slow: the format's levels are no multiples of a step") != std::string::npos) ++n;
    return n;
  };
  CHECK(remarked(model_recipe("nf4", Nearest<Nf4, PerGroup<16>>{}, Compute::int8_per_token)) == 14);
  CHECK(remarked(model_recipe("nf4 in float", Nearest<Nf4, PerGroup<16>>{})) == 0);
  CHECK(remarked(model_recipe("int8", Nearest<SInt<8>, PerGroup<16>>{}, Compute::int8_per_token)) == 0);
  CHECK(remarked(model_recipe("trellis", NearestTrellis<Trellis<6, 2, ByteSum>>{}, Compute::int8_per_token)) == 0);
}

TEST_CASE("smoothing leaves o and down alone") {
  const Decoder d = random_decoder(4);
  const QuantizedModel q =
      quantize_model(d, calibrated(d, Needs::abs_max), model_recipe("smooth", SmoothQuant{} | Fine{}), pack_embedding(d).value())
          .value();
  for (const QuantizedLayer& layer : q.layers) {
    const bool normed = layer.name.find("attn_output") == std::string::npos && layer.name.find("ffn_down") == std::string::npos;
    CHECK(layer.input_scale.empty() != normed);
    CHECK(layer.output_scale.empty());
  }
}

TEST_CASE("the output head takes floats unless asked otherwise, and may have a recipe of its own") {
  using Coarse = Scheme<SInt<4>, PerGroup<16>, ScaleF16>;
  for (const bool own_head : {false, true}) {
    const Decoder d = random_decoder(2, own_head);
    const ModelStats stats = calibrated(d, Needs::none);
    const ModelRecipe recipe = model_recipe("w8a8", Nearest<presets::Int8PerRow>{}, Compute::int8_per_token);
    Decoder q = quantize_model(d, stats, recipe, pack_embedding(d).value()).value().decoder;
    CHECK(q.has_head() == own_head);
    CHECK(q.output_head().compute() == Compute::f32);
    QuantizeModelOptions options;
    options.head_compute = Compute::int8_per_token;
    CHECK(quantize_model(d, stats, recipe, pack_embedding(d).value(), options).value().decoder.output_head().compute() ==
          Compute::int8_per_token);

    const ModelRecipe coarse = model_recipe("int4", Nearest<Coarse>{});
    q = quantize_model(d, stats, recipe, pack_embedding(d, coarse).value()).value().decoder;
    REQUIRE(q.has_head());
    CHECK(q.head().packed()->scheme_name() == Coarse::name.view());
    CHECK(q.head().compute() == Compute::f32);
    CHECK(q.token_embedding().packed()->scheme_name() == EmbeddingScheme::name.view());
    CHECK(check(q).ok());
    const Matrix w = dequantize(pack(quantize_nearest<Coarse>(d.output_head().dense()->view()).value()));
    std::vector<float> row(static_cast<std::size_t>(w.cols()));
    q.head().read_row(3, row);
    CHECK(std::equal(row.begin(), row.end(), w.view().row(3).begin()));
  }
  const Decoder d = random_decoder(2);
  const auto calibrated_head = pack_embedding(d, model_recipe("my-gptq", Gptq<SInt<4>>{}));
  REQUIRE_FALSE(calibrated_head.ok());
  CHECK(calibrated_head.error().message.find("recipe my-gptq, which learns from calibration") != std::string::npos);
}

TEST_CASE("the quantized model is the same for any number of threads") {
  const Decoder d = random_decoder(2, true);
  const ModelStats stats = calibrated(d, Needs::hessian);
  const ModelRecipe recipe = model_recipe("gptq", Gptq<Superfloat<4>, PerGroup<24>>{});
  const PackedEmbedding embedding = pack_embedding(d).value();
  const QuantizedModel one = quantize_model(d, stats, recipe, embedding).value();
  CHECK(one.decoder.output_head().packed() != nullptr);
  for (const Index threads : {2, 3}) {
    ThreadPool pool(threads);
    ModelStats again(d, Needs::hessian);
    for (unsigned w = 0; w < 4; ++w) REQUIRE(again.accumulate(d, ids(48, w), pool).ok());
    QuantizeModelOptions options;
    options.executor = pool;
    Index told = 0;
    options.progress = [&](Index done, Index total) {
      told = done;
      CHECK(total == 4);
    };
    const QuantizedModel many = quantize_model(d, again, recipe, embedding, options).value();
    CHECK(told == 4);
    REQUIRE(many.layers.size() == one.layers.size());
    std::vector<const AnyPacked*> a, b;
    for_each_linear(one.decoder, [&](const std::string&, const Linear& l) { a.push_back(l.packed()); });
    for_each_linear(many.decoder, [&](const std::string&, const Linear& l) { b.push_back(l.packed()); });
    for (std::size_t i = 0; i < a.size(); ++i) {
      const auto x = a[i]->bytes().bytes(), y = b[i]->bytes().bytes();
      CHECK(std::equal(x.begin(), x.end(), y.begin(), y.end()));
    }
  }
}

TEST_CASE("evaluation of a model against itself, and layer errors against the definition") {
  const Decoder d = random_decoder(2);
  const auto windows = evaluate::llama_cpp_windows(ids(100, 3), 25).value();
  CHECK(windows.count() == 4);
  ModelStats inputs(d, Needs::samples, 32);
  const auto reference = evaluate::reference_logits(d, windows, {}, &inputs).value();
  CHECK(reference.positions() == 4 * 12);
  const auto itself = evaluate::compare(reference, d, windows, {}).value();
  REQUIRE(itself.size() == 48);
  for (const auto& t : itself) {
    CHECK(std::abs(t.kl) < 1e-12);
    CHECK(t.same_top);
    CHECK(t.nll == t.nll_reference);
  }
  // By hand, window 2, second scored position: position 13 predicts token 14.
  KvCache cache(cache_shape(d.config), 25);
  const Matrix all = forward(d, windows.window(2), cache).value();
  CHECK(reference.nll()[2 * 12 + 1] ==
        Approx(evaluate::negative_log_likelihood(all.view().row(13), windows.window(2)[14])).epsilon(1e-5));

  const QuantizedModel q = quantize_model(d, calibrated(d, Needs::none), model_recipe("int3", Nearest<SInt<3>, PerGroup<32>>{}),
                                          pack_embedding(d).value())
                               .value();
  double kl = 0;
  const auto quantized = evaluate::compare(reference, q.decoder, windows, {}).value();
  for (const auto& t : quantized) kl += t.kl;
  CHECK(kl > 0.01);
  const std::vector<double> errors = evaluate::layer_errors(d, q, inputs, {});
  for (std::size_t i = 0; i < q.layers.size(); ++i)
    if (q.layers[i].name == "blk.1.ffn_up.weight") {
      const Matrix& w = *d.linear(1, "ffn_up").dense();
      Matrix back(w.rows(), w.cols());
      for (Index r = 0; r < w.rows(); ++r)
        q.decoder.linear(1, "ffn_up").read_row(r, {back.data() + r * w.cols(), static_cast<std::size_t>(w.cols())});
      CHECK(errors[i] ==
            Approx(evaluate::output_error(w.view(), back.view(), inputs.at(d.site(1, "ffn_gate"), Needs::samples).samples()))
                .epsilon(1e-4));
    }
}

TEST_CASE("a model that cannot be quantized as asked says which layer and recipe") {
  const Decoder d = random_decoder(2);
  const PackedEmbedding embedding = pack_embedding(d).value();
  const auto nothing_seen = quantize_model(d, ModelStats(d, Needs::hessian), model_recipe("my-gptq", Gptq<SInt<4>>{}), embedding);
  REQUIRE_FALSE(nothing_seen.ok());
  CHECK(nothing_seen.error().message.find("recipe my-gptq: blk.0.attn_output.weight") != std::string::npos);
}

TEST_CASE("siblings of one plan with different recipes: each gets its own, and transforms that were left out are told") {
  const Decoder d = random_decoder(4);
  const ModelStats stats = calibrated(d, Needs::abs_max);
  const PackedEmbedding embedding = pack_embedding(d).value();
  const ModelRecipe fine = model_recipe("fine", Fine{}), coarse = model_recipe("coarse", Nearest<SInt<3>, PerGroup<16>>{}),
                    smooth = model_recipe("smooth", SmoothQuant{} | Fine{});
  ModelPlan plan = uniform_plan(smooth, d);
  plan.name = "mixed";
  REQUIRE(plan.linears.size() == 14);
  plan.linears[1] = &coarse;  // k of block 0
  plan.linears[13] = &fine;   // down of block 1
  const QuantizedModel q = quantize_model(d, stats, plan, embedding).value();
  std::size_t told = 0;
  for (const QuantizedLayer& layer : q.layers) {
    const bool beside_k = place(layer.site) == 0 && layer.sibling != 1;
    INFO(layer.name);
    CHECK(layer.report.as_requested() != beside_k);
    told += layer.report.fallbacks.size();
    CHECK(layer.input_scale.empty() == (place(layer.site) == 0 || place(layer.site) % 2 == 1));
  }
  CHECK(told == 2);
  const Matrix k =
      dequantize(pack(quantize_nearest<Scheme<SInt<3>, PerGroup<16>, ScaleF16>>(d.linear(0, "attn_k").dense()->view()).value()));
  std::vector<float> row(32);
  q.decoder.linear(0, "attn_k").read_row(5, row);
  CHECK(std::equal(row.begin(), row.end(), k.view().row(5).begin()));
  CHECK(q.decoder.values(0, "attn_norm") == d.values(0, "attn_norm"));
  CHECK(q.decoder.values(1, "attn_norm") != d.values(1, "attn_norm"));

  QuantizeModelOptions strict;
  strict.strict = true;
  const auto refused = quantize_model(d, stats, plan, embedding, strict);
  REQUIRE_FALSE(refused.ok());
  CHECK(refused.error().message.find("recipe smooth: blk.0.attn_q.weight and its siblings") == 0);

  const ModelRecipe turned = rotated("turned", fine);
  plan.linears[0] = &turned;
  CHECK(quantize_model(d, stats, plan, embedding)
            .error()
            .message.find("recipes turned and coarse are for models that are "
                          "rotated differently") != std::string::npos);
  plan.linears.pop_back();
  CHECK(quantize_model(d, stats, plan, embedding).error().message.find("plan mixed has 13 recipes, the model 14 linears") == 0);
}

TEST_CASE("statistics of two texts merged are those of one pass over both") {
  const Decoder d = random_decoder(2);
  const Needs needs = Needs::hessian | Needs::sequences;
  ModelStats both(d, needs, Stats::default_sample_cap, Needs::abs_max), first = both, second = both;
  for (const unsigned seed : {1u, 2u, 3u}) {
    const std::vector<TokenId> text = ids(static_cast<Index>(5 + 7 * seed), seed);
    REQUIRE(both.accumulate(d, text, {}).ok());
    REQUIRE((seed < 3 ? first : second).accumulate(d, text, {}).ok());
  }
  REQUIRE(first.merge(second).ok());
  CHECK(first.tokens() == both.tokens());
  for (std::size_t i = 0; i < both.sites(); ++i) {
    const SiteId site = static_cast<SiteId>(i);
    const Stats &merged = first.at(site, Needs::hessian), &whole = both.at(site, Needs::hessian);
    CHECK(std::equal(merged.abs_max().begin(), merged.abs_max().end(), whole.abs_max().begin()));
    const Matrix h = merged.hessian(), g = whole.hessian();
    const float largest = static_cast<float>(whole.largest_hessian_diagonal());
    for (Index k = 0; k < g.extents().size(); ++k) CHECK(std::abs(h.data()[k] - g.data()[k]) <= 1e-5f * largest);
    REQUIRE(first.sequences(site).size() == both.sequences(site).size());
  }
  CHECK(first.head()->tokens() == both.head()->tokens());
}
