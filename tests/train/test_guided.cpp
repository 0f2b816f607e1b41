// GuidedQuant on models: gradients from the tape, recipes on groups of rows, what is refused.

#include <limits>
#include <string>
#include <vector>

#include <anybit/algorithm/gptq.hpp>
#include <anybit/algorithm/ldlq.hpp>
#include <anybit/algorithm/learned.hpp>
#include <anybit/exec/thread_pool.hpp>
#include <anybit/format/formats.hpp>
#include <anybit/quantize/one_shot.hpp>
#include <anybit/reference/guided_hessian.hpp>
#include <anybit/train/guided.hpp>
#include <anybit/transform/awq.hpp>

#include "model/random_decoder.hpp"
#include "model/random_ids.hpp"
#include "quantize/model_bytes.hpp"
#include "support/catch.hpp"
#include "train/small_decoder.hpp"

using namespace anybit;
using namespace anybit::model;
using test_support::bytes_of;
using test_support::calibrated;
using test_support::ids;
using test_support::random_decoder;
using train::Example;

namespace ref = anybit::reference;

namespace {

/// The texts of calibrated().
struct GuidedText {
  std::vector<std::vector<TokenId>> tokens{ids(48, 0), ids(48, 1), ids(48, 2), ids(48, 3)};
  std::vector<Example> examples;
  GuidedText() {
    for (const auto& t : tokens) examples.push_back({t});
  }
};

GuidedHessians found(const Decoder& d, Index groups, ExecutorRef executor = {}) {
  const GuidedText text;
  auto h = train::guided_hessians(d, text.examples, {.groups = groups, .executor = executor});
  INFO((h ? std::string() : h.error().message));
  REQUIRE(h.ok());
  return *std::move(h);
}

/// As if every gradient were 2: four times the plain Hessians.
GuidedHessians constant(const Decoder& d, Index groups) {
  GuidedHessians out = GuidedHessians::make(d, groups).value();
  for (unsigned w = 0; w < 4; ++w) {
    const auto text = ids(48, w);
    nn::KvCache cache(cache_shape(d.config), 48);
    const std::vector<Tap> taps = site_taps(*d.blueprint, [&](SiteId site, ConstMatrix x) {
      for (const WeightId id : (*d.blueprint)[site].readers) {
        Matrix dy(x.rows, (*d.blueprint)[id].shape.rows);
        std::fill_n(dy.data(), dy.extents().size(), 2.0f);
        REQUIRE(out.find(id)->accumulate(x, dy.view()).ok());
      }
    });
    REQUIRE(hidden_states(d, text, cache, {{}, taps}).ok());
  }
  return out;
}

QuantizedModel quantized(const Decoder& d, const ModelStats& stats, const ModelRecipe& recipe, const GuidedHessians* guided,
                         ExecutorRef executor = {}) {
  QuantizeModelOptions options;
  options.guided = guided, options.executor = executor;
  auto q = quantize_model(d, stats, recipe, pack_embedding(d).value(), options);
  INFO((q ? std::string() : q.error().message));
  REQUIRE(q.ok());
  return *std::move(q);
}

/// sum over groups of tr(E_k H_k E_k^T), E the error of the weights: what guidance minimizes.
double guided_error(const Decoder& d, const Decoder& q, const GuidedHessians& guides) {
  double sum = 0;
  for (const WeightId id : d.blueprint->linears) {
    const GuidedHessian& g = guides[id];
    std::vector<float> row(static_cast<std::size_t>(g.extents().cols));
    for (Index k = 0; k < g.groups(); ++k) {
      const Matrix h = g.at(k).hessian();
      for (Index r = g.begin(k); r < g.end(k); ++r) {
        q[id].linear.read_row(r, row);
        for (std::size_t j = 0; j < row.size(); ++j) row[j] -= (*d[id].linear.dense())(r, static_cast<Index>(j));
        for (Index i = 0; i < h.rows(); ++i)
          for (Index j = 0; j < h.cols(); ++j)
            sum += static_cast<double>(row[static_cast<std::size_t>(i)]) * static_cast<double>(h(i, j)) *
                   static_cast<double>(row[static_cast<std::size_t>(j)]);
      }
    }
  }
  return sum;
}

}  // namespace

TEST_CASE("guided: inputs and gradients that the tape tells give the gradients of the weights, and the twin's Hessians") {
  DecoderForm parallel = train_tests::qwen2_form();
  parallel.order = BlockOrder::parallel;
  for (const Decoder& d :
       {train_tests::small_llama(), train_tests::small_decoder(qwen2_architecture, false, 6, train_tests::qwen2_form()),
        train_tests::small_decoder(qwen2_architecture, false, 6, parallel)}) {
    const auto text = ids(13, 8, 11), other = ids(6, 9, 11);
    const Example batch[] = {{text}, {other}};
    train::Gradients told(d.weights.size()), want = train::make_gradients(d, train::all_weights);
    REQUIRE(train::loss_and_gradients(d, batch, want).ok());
    std::vector<std::pair<Matrix, Matrix>> seen(d.weights.size());
    train::LossOptions options;
    options.on_linear = [&](WeightId id, ConstMatrix x, ConstMatrix dy) { seen[place(id)] = {Matrix(x), Matrix(dy)}; };
    REQUIRE(train::loss_and_gradients(d, batch, told, options).ok());
    for (const WeightId id : d.blueprint->linears) {
      CAPTURE((*d.blueprint)[id].name);
      const auto& [x, dy] = seen[place(id)];
      Matrix product((*d.blueprint)[id].shape.rows, (*d.blueprint)[id].shape.cols);
      train::backward::add_weight_gradient(dy.view(), x.view(), product.view(), {});
      CHECK(test_support::same_bits(product, want[place(id)].linear.weight));
    }

    // One example at a time with the loss summed: 12 predictions, whose mean the first call differentiated.
    options.divisor = 1;
    REQUIRE(train::loss_and_gradients(d, std::span(batch, 1), told, options).ok());
    const GuidedHessians h = train::guided_hessians(d, std::span(batch, 1), {.groups = 2}).value();
    for (const WeightId id : d.blueprint->linears) {
      const auto& [x, dy] = seen[place(id)];
      const auto twin = ref::guided_hessians(ref::matrix_of(x), ref::matrix_of(dy), 2);
      for (Index k = 0; k < 2; ++k)
        CHECK(train_tests::off(h[id].at(k).hessian().data(), twin[static_cast<std::size_t>(k)].values) < 1e-5);
    }
  }
}

TEST_CASE("guided: Hessians up to a factor give the same bytes for any number of groups, for every recipe that reads them") {
  const Decoder d = random_decoder(2);
  const ModelStats stats = calibrated(d, Needs::hessian | Needs::samples);
  const GuidedHessians one = constant(d, 1), four = constant(d, 4);
  for (const ModelRecipe& recipe :
       {model_recipe("gptq", Gptq<UInt<2>, PerGroup<16>>::best()), model_recipe("rows", Gptq<SInt<4>, PerRow, ScaleF32>{}),
        model_recipe("awq", Awq{} | Gptq<UInt<3>, PerGroup<16>>{}), model_recipe("wide", Gptq<Superfloat<11>, PerGroup<32>>{}),
        model_recipe("learned", Learned<UInt<2>, PerGroup<16>>{.iterations = 20})}) {
    CAPTURE(recipe.name);
    const QuantizedModel plain = quantized(d, stats, recipe, nullptr), by_one = quantized(d, stats, recipe, &one),
                         by_four = quantized(d, stats, recipe, &four);
    CHECK(bytes_of(by_one.decoder) == bytes_of(plain.decoder));
    CHECK(bytes_of(by_four.decoder) == bytes_of(plain.decoder));
    for (std::size_t i = 0; i < plain.layers.size(); ++i) {
      CHECK(by_four.layers[i].report.weight_error == Approx(plain.layers[i].report.weight_error));
      CHECK(by_four.layers[i].report.bits_per_weight == plain.layers[i].report.bits_per_weight);
      CHECK(by_four.layers[i].input_scale == plain.layers[i].input_scale);
    }
  }
  const ModelRecipe trellis = model_recipe("ldlq", Ldlq<Trellis<8, 2, ByteSum>>{});
  CHECK(bytes_of(quantized(d, stats, trellis, &one).decoder) == bytes_of(quantized(d, stats, trellis, nullptr).decoder));
}

TEST_CASE(
    "guided: gradients change the choice, for less of the error that they weigh; the same bytes for any number of threads") {
  const Decoder d = random_decoder(2);
  const ModelStats stats = calibrated(d, Needs::hessian);
  ThreadPool three(3);
  const GuidedHessians one = found(d, 1), four = found(d, 4), threaded = found(d, 4, three);
  const ModelRecipe recipe = model_recipe("gptq", Gptq<UInt<2>, PerGroup<16>>::best());
  const QuantizedModel plain = quantized(d, stats, recipe, nullptr);
  const QuantizedModel by_one = quantized(d, stats, recipe, &one), by_four = quantized(d, stats, recipe, &four);
  CHECK(guided_error(d, by_one.decoder, one) < 0.95 * guided_error(d, plain.decoder, one));
  CHECK(guided_error(d, by_four.decoder, four) < 0.95 * guided_error(d, plain.decoder, four));
  CHECK(guided_error(d, by_four.decoder, four) < guided_error(d, by_one.decoder, four));
  CHECK(bytes_of(quantized(d, stats, recipe, &threaded, three).decoder) == bytes_of(by_four.decoder));
}

TEST_CASE("guided: outputs without gradients take the plain Hessian, and the report says so") {
  const Decoder d = random_decoder(2);
  const ModelStats stats = calibrated(d, Needs::hessian);
  const GuidedHessians nothing = GuidedHessians::make(d, 2).value();
  const ModelRecipe recipe = model_recipe("gptq", Gptq<UInt<4>, PerGroup<16>>{});
  const QuantizedModel q = quantized(d, stats, recipe, &nothing);
  CHECK(bytes_of(q.decoder) == bytes_of(quantized(d, stats, recipe, nullptr).decoder));
  CHECK(q.layers.front().report.fallbacks ==
        std::vector<std::string>{"rows 0 to 15: no token has a gradient there: the plain Hessian was used",
                                 "rows 16 to 31: no token has a gradient there: the plain Hessian was used"});
}

TEST_CASE("guided: what is refused") {
  Decoder d = random_decoder(2);
  const GuidedText text;
  CHECK(train::guided_hessians(d, text.examples, {.groups = 17}).error().message ==
        "blk.0.attn_k.weight: guided: 17 groups of 16 outputs; give 1 to 16");
  CHECK(train::guided_hessians(d, {}, {}).error().message == "guided: no examples: give at least one");
  const auto refused = [&](const ModelRecipe& recipe, Index groups) {
    const GuidedHessians h = GuidedHessians::make(d, groups).value();
    QuantizeModelOptions options;
    options.guided = &h;
    const auto q = quantize_model(d, ModelStats(d, recipe.needs), recipe, pack_embedding(d).value(), options);
    REQUIRE(!q.ok());
    return q.error().message;
  };
  CHECK(refused(model_recipe("nearest", Nearest<UInt<4>, PerGroup<16>>{}), 1) ==
        "guided: recipe nearest reads no Hessian, which is all that gradients change: give gptq, ldlq or learned");
  CHECK(
      refused(model_recipe("act", Gptq<UInt<4>, PerGroup<16>>{.act_order = true}), 2) ==
      "guided: recipe act cannot have 2 groups of rows: it stores one order of columns per matrix: leave out act_order; or give 1 "
      "group");
  CHECK(refused(model_recipe("ldlq", Ldlq<Trellis<8, 2, ByteSum>>{}), 2) ==
        "guided: recipe ldlq cannot have 2 groups of rows: its weights have no codes of their own; or give 1 group");
  CHECK(refused(model_recipe("double", Gptq<Nf4, PerGroup<16>, DoubleQuant<256>>{}), 2).find("the scales of a matrix jointly") !=
        std::string::npos);
  CHECK(refused(model_recipe("tensor", Gptq<SInt<4>, PerTensor, ScaleF32>{}), 2).find("one scale per matrix") !=
        std::string::npos);

  d.values(1, "ffn_norm")[3] = std::numeric_limits<float>::infinity();
  const auto overflown = train::guided_hessians(d, text.examples, {.groups = 1});
  REQUIRE(!overflown.ok());
  CHECK(overflown.error().message.find("blk.") != std::string::npos);
  CHECK(overflown.error().message.find("the model overflows on this text") != std::string::npos);
}
