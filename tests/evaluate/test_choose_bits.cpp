#include <cmath>
#include <string>
#include <vector>

#include <anybit/algorithm/gptq.hpp>
#include <anybit/evaluate/choose_bits.hpp>
#include <anybit/evaluate/sensitivity.hpp>
#include <anybit/evaluate/widths_svg.hpp>
#include <anybit/exec/thread_pool.hpp>
#include <anybit/format/integer.hpp>
#include <anybit/quantize/one_shot.hpp>

#include "model/random_decoder.hpp"
#include "model/random_ids.hpp"
#include "support/catch.hpp"

using namespace anybit;
using namespace anybit::model;
using namespace anybit::nn;
using test_support::ids;
using test_support::random_decoder;

namespace {

ModelStats calibrated(const Decoder& d) { return test_support::calibrated(d, ModelStats(d, Needs::hessian, 16, Needs::hessian)); }

const std::vector<ModelRecipe>& widths() {
  static const std::vector<ModelRecipe> all{model_recipe("int2", Gptq<SInt<2>, PerGroup<16>>{}),
                                            model_recipe("int4", Gptq<SInt<4>, PerGroup<16>>{})};
  return all;
}

double mean_kl(const evaluate::ReferenceLogits& reference, const Decoder& d, const evaluate::Windows& windows) {
  return evaluate::kl_statistics(evaluate::compare(reference, d, windows, {}).value()).kl.value;
}

}  // namespace

TEST_CASE("the sensitivity of a linear is the KL of the model in which it alone is quantized, for any number of threads") {
  const Decoder d = random_decoder(2);
  const QuantizedModel q = quantize_model(d, calibrated(d), widths()[0], pack_embedding(d).value()).value();
  const evaluate::Windows windows{20, 3, ids(60, 9)};
  const std::vector<double> kl = evaluate::sensitivities(d, q.decoder, windows, {}).value();
  REQUIRE(kl.size() == 14);
  const auto reference = evaluate::reference_logits(d, windows, {}).value();
  Decoder one = d;
  one.linear(0, "attn_v") = q.decoder.linear(0, "attn_v");
  CHECK(kl[2] == Approx(mean_kl(reference, one, windows)).epsilon(1e-6));
  one = d;
  one.linear(1, "ffn_down") = q.decoder.linear(1, "ffn_down");
  CHECK(kl[13] == Approx(mean_kl(reference, one, windows)).epsilon(1e-6));
  for (const double value : kl) CHECK(value > 0);
  ThreadPool pool(3);
  CHECK(evaluate::sensitivities(d, q.decoder, windows, pool).value() == kl);
  CHECK_FALSE(evaluate::sensitivities(d, q.decoder, {20, 3, {}}, {}).ok());
}

TEST_CASE("errors of all blocks are those of the quantized model; of some, they follow the nearest measured block") {
  const Decoder d = random_decoder(2);
  const ModelStats stats = calibrated(d);
  const QuantizedModel q = quantize_model(d, stats, widths()[1], pack_embedding(d).value()).value();
  const std::vector<double> all = evaluate::linear_errors(q);
  REQUIRE(all.size() == 14);
  ThreadPool pool(2);
  CHECK(evaluate::recipe_errors(d, stats, widths()[1], 1, pool).value() == all);
  for (const QuantizedLayer& l : q.layers)
    if (l.name == "blk.1.ffn_up.weight") CHECK(all[12] == *l.report.output_error);

  std::vector<double> like(14, 1.0);
  like[7] = 3;
  const std::vector<double> first = evaluate::recipe_errors(d, stats, widths()[1], 2).value();
  const std::vector<double> some = evaluate::spread_errors(*d.blueprint, first, like, 2);
  REQUIRE(first.size() == 7);
  REQUIRE(some.size() == 14);
  for (std::size_t i = 0; i < 7; ++i) CHECK(some[i] == all[i]);
  CHECK(some[7] == Approx(3 * all[0]));
  CHECK(some[9] == Approx(all[2]));
  CHECK(evaluate::spread_errors(*d.blueprint, all, like, 1) == all);
}

TEST_CASE("a plan of least expected KL within the bytes quantizes and holds what it says") {
  for (const bool own_head : {false, true}) {
    const Decoder d = random_decoder(2, own_head);
    const ModelStats stats = calibrated(d);
    evaluate::BitCosts costs;
    for (const ModelRecipe& r : widths()) {
      costs.recipes.push_back(&r);
      costs.errors.push_back(evaluate::recipe_errors(d, stats, r).value());
    }
    costs.probe_errors = costs.errors[0];
    costs.probe_kl.assign(14, 0.01);
    costs.probe_kl[5] = 10;  // gate... up of block 0 matters most by far
    costs.embedding_recipes = {nullptr};
    costs.embedding_kl = {0.001};
    if (!own_head) costs.embedding_recipes.push_back(&widths()[1]), costs.embedding_kl.push_back(0.002);

    const ModelPlan all_low = uniform_plan(widths()[0], d);
    Index low = evaluate::outside_bytes(d, own_head ? nullptr : &widths()[1]);
    std::vector<Extents> shapes;
    Decoder copy = d;
    for (const SiblingGroup& g : sibling_groups(copy))
      for (const NamedLinear& l : g.linears) shapes.push_back(l.linear->extents()), low += bytes(widths()[0], shapes.back());
    const Index step = bytes(widths()[1], shapes[5]) - bytes(widths()[0], shapes[5]);
    const auto choice = evaluate::choose_bits(d, costs, low + step, "one better").value();
    CHECK(choice.plan.linears[5] == &widths()[1]);
    CHECK(std::count(choice.plan.linears.begin(), choice.plan.linears.end(), &widths()[1]) == 1);
    CHECK(choice.bytes == low + step);
    CHECK(choice.weights == evaluate::quantized_weights(d));

    const PackedEmbedding embedding = pack_embedding(d, choice.plan, stats.head()).value();
    const Decoder q = quantize_model(d, stats, choice.plan, embedding).value().decoder;
    Index held = 0;
    for_each_linear(q, [&](const std::string&, const Linear& l) { held += l.payload_bytes(); });
    CHECK(held == choice.bytes);
    CHECK(q.has_head() == own_head);

    const auto below = evaluate::choose_bits(d, costs, low - 1, "none");
    REQUIRE_FALSE(below.ok());
    CHECK(below.error().message.find("cannot be had: the candidates go from") != std::string::npos);
    CHECK(below.error().message.find("(" + std::to_string(low) + ")") != std::string::npos);
    const std::string svg = evaluate::widths_svg(choice.plan, d, "a <model>");
    CHECK(svg.find("a &lt;model&gt;") != std::string::npos);
    CHECK((svg.find(">output<") != std::string::npos) == own_head);
  }
}

TEST_CASE("no candidates, and recipes that rewrite siblings together, are errors") {
  const Decoder d = random_decoder(2);
  evaluate::BitCosts none;
  CHECK(evaluate::choose_bits(d, none, 1000, "none").error().message.find("no candidates") != std::string::npos);
  ModelRecipe together = widths()[0];
  together.transforms = true;
  CHECK(evaluate::recipe_errors(d, calibrated(d), together).error().message.find("recipe int2 rewrites siblings") == 0);
}

TEST_CASE("a tied embedding learns from what enters the head; a table that nothing multiplies cannot") {
  const Decoder tied = random_decoder(2), untied = random_decoder(2, true);
  const ModelStats stats = calibrated(tied);
  ModelPlan plan;
  plan.embedding = &widths()[1];
  const PackedEmbedding mine = pack_embedding(tied, plan, stats.head()).value();
  CHECK_FALSE(mine.head);
  // The Hessian is that of the hidden states.
  Stats hidden(32, Needs::hessian);
  for (unsigned w = 0; w < 4; ++w) {
    KvCache cache(cache_shape(tied.config), 48);
    REQUIRE(hidden.accumulate(hidden_states(tied, ids(48, w), cache).value().view()).ok());
  }
  const auto expected = Gptq<SInt<4>, PerGroup<16>>{}.quantize(tied.token_embedding().dense()->view(), hidden).value();
  const PackedBytes& got = mine.embedding.bytes();
  const auto packed = pack(expected.matrix);
  CHECK(std::equal(got.codes().begin(), got.codes().end(), packed.bytes().codes().begin(), packed.bytes().codes().end()));
  CHECK(mine.embedding_report.output_error.has_value());

  CHECK(pack_embedding(tied, plan).error().message.find("the token embedding cannot take recipe int4") == 0);
  CHECK(pack_embedding(untied, plan, stats.head()).error().message.find("the token embedding cannot take recipe int4") == 0);
  plan.embedding = nullptr, plan.head = &widths()[1];
  CHECK(pack_embedding(untied, plan, stats.head()).value().head.has_value());
  CHECK(pack_embedding(tied, plan, stats.head()).value().head.has_value());
}

TEST_CASE("sensitivities: their text is two short windows spread over the calibration text, within the context") {
  std::vector<model::TokenId> ids;
  for (int i = 0; i < 1001; ++i) ids.push_back(i);
  const evaluate::Windows w = evaluate::sensitivity_text(ids, 4096);
  CHECK(w.length == 256);
  CHECK(w.count() == 2);
  CHECK(w.first_scored == 8);
  CHECK(w.window(0).front() == 0);
  CHECK(w.window(1).front() == 500);
  CHECK(evaluate::sensitivity_text(ids, 10).length == 10);
  CHECK(evaluate::sensitivity_text(ids, 10).first_scored == 2);
  const evaluate::Windows one = evaluate::sensitivity_text(std::span(ids).first(300), 4096);
  CHECK(one.count() == 1);
  CHECK(evaluate::sensitivity_text(std::span(ids).first(1), 4096).length == 1);
}
