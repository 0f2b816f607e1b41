// Gradients of whole decoders: central differences in double, torch's gradients and AdamW steps, masks, micro-batches, adapters
// on packed weights, dropout, rotations, a teacher.

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include <anybit/core/finite.hpp>
#include <anybit/model/rotate.hpp>
#include <anybit/scheme/presets.hpp>
#include <anybit/tensor/pack_nearest.hpp>

#include "support/catch.hpp"
#include "train/small_decoder.hpp"

using namespace anybit;
using namespace train_tests;

namespace {

const std::vector<model::TokenId> first_ids{3, 7, 7, 0, 10, 2}, second_ids{5, 1, 9};
const std::vector<std::uint8_t> second_mask{1, 0, 1};

std::vector<train::Example> two_examples() { return {{first_ids, {}}, {second_ids, second_mask}}; }

train::Gradients gradients_of(const model::Decoder& d, std::span<const train::Example> batch, const train::Trained& trained,
                              const train::LossOptions& options = {}, double* mean = nullptr) {
  train::Gradients g = train::make_gradients(d, trained);
  const auto loss = train::loss_and_gradients(d, batch, g, options);
  REQUIRE(loss.ok());
  if (mean) *mean = loss->mean();
  return g;
}

/// The spans of `parameters` in one piece, gradients only.
std::vector<float> flat(model::Decoder d, train::Gradients g) {
  std::vector<float> out;
  for (const train::Parameter& p : train::parameters(d, g)) out.insert(out.end(), p.gradient.begin(), p.gradient.end());
  return out;
}

/// Central differences of the loss in floats, of a few values of every tensor. clang's sums leave 4.5e-4 in a slope.
void check_by_differences(model::Decoder d, std::span<const train::Example> batch, const train::Trained& trained,
                          const train::LossOptions& options) {
  train::Gradients g = gradients_of(d, batch, trained, options);
  const auto loss = [&] {
    train::Gradients none = train::make_gradients(d, [](std::string_view) { return false; });
    return train::loss_and_gradients(d, batch, none, options)->mean();
  };
#if defined(__clang__)
  constexpr double margin = 8e-4;
#else
  constexpr double margin = 4e-4;
#endif
  for (const train::Parameter& p : train::parameters(d, g))
    for (const std::size_t i : {std::size_t{0}, p.values.size() / 2, p.values.size() - 1}) {
      CAPTURE(p.name, i);
      const float here = p.values[i];
      p.values[i] = here + 2e-3f;
      const double above = loss();
      p.values[i] = here - 2e-3f;
      const double below = loss();
      p.values[i] = here;
      CHECK(static_cast<double>(p.gradient[i]) == Approx((above - below) / 4e-3).margin(margin).epsilon(0.01));
    }
}

void add_random_adapters(model::Decoder& d, Index rank) {
  unsigned seed = 500;
  for_each_linear(d, [&](std::string_view name, nn::Linear& w) {
    if (!name.starts_with("blk.")) return;
    w.set_adapter(std::make_shared<const nn::LowRank>(
        nn::LowRank{some(seed, rank, w.extents().cols, 0.4f), some(seed + 1, w.extents().rows, rank, 0.4f), 0.5f}));
    seed += 2;
  });
}

}  // namespace

TEST_CASE("loss: gradients of llama and Qwen2 against central differences in double") {
  for (const auto* architecture : {&model::llama_architecture, &model::qwen2_architecture})
    for (const bool own_head : {true, false}) {
      CAPTURE(architecture->name, own_head);
      const bool biased = architecture->name == "qwen2";
      model::Decoder d = small_decoder(*architecture, own_head, 6, biased ? qwen2_form() : model::DecoderForm());
      const auto batch = two_examples();
      double mean = 0;
      train::Gradients g = gradients_of(d, batch, train::all_weights, {}, &mean);
      ref::Decoder double_twin = twin(d);
      CHECK(mean == Approx(loss_of(double_twin, batch)).epsilon(1e-6));

      // Every tensor of the twin moves along with the model's name for it.
      const auto compare = [&](const std::string& name, std::vector<double>& values, bool tied = false) {
        CAPTURE(name);
        const auto all = train::parameters(d, g);
        const auto found = std::find_if(all.begin(), all.end(), [&](const train::Parameter& p) { return p.name == name; });
        REQUIRE(found != all.end());
        CHECK(off(found->gradient.data(), slopes(values, [&] {
                    if (tied) double_twin.head = double_twin.embedding;
                    return loss_of(double_twin, batch);
                  })) < 1e-4);
      };
      compare("token_embd.weight", double_twin.embedding.values, !own_head);
      if (own_head) compare("output.weight", double_twin.head.values);
      const auto vector = [&](const std::string& name, ref::Vector& v) {
        std::vector<double> moved(v.begin(), v.end());
        const auto all = train::parameters(d, g);
        const auto found = std::find_if(all.begin(), all.end(), [&](const train::Parameter& p) { return p.name == name; });
        REQUIRE(found != all.end());
        CAPTURE(name);
        CHECK(off(found->gradient.data(), slopes(moved, [&] {
                    std::copy(moved.begin(), moved.end(), v.begin());
                    return loss_of(double_twin, batch);
                  })) < 1e-4);
        std::copy(moved.begin(), moved.end(), v.begin());
      };
      vector("output_norm.weight", double_twin.output_norm);
      for (Index b = 0; b < 2; ++b) {
        ref::DecoderBlock& block = double_twin.blocks[static_cast<std::size_t>(b)];
        const std::string prefix = "blk." + std::to_string(b) + ".";
        vector(prefix + "attn_norm.weight", block.attn_norm), vector(prefix + "ffn_norm.weight", block.ffn_norm);
        compare(prefix + "attn_q.weight", block.q.values), compare(prefix + "attn_k.weight", block.k.values);
        compare(prefix + "attn_v.weight", block.v.values), compare(prefix + "attn_output.weight", block.o.values);
        compare(prefix + "ffn_gate.weight", block.gate.values), compare(prefix + "ffn_up.weight", block.up.values);
        compare(prefix + "ffn_down.weight", block.down.values);
        if (architecture->name != "qwen2") continue;
        vector(prefix + "attn_q.bias", block.q_bias), vector(prefix + "attn_v.bias", block.v_bias);
        vector(prefix + "attn_k.bias", block.k_bias);
      }
    }
}

TEST_CASE("loss: every form of decoder by central differences") {
  using model::BlockOrder;
  using model::HeadNorm;
  using model::NormKind;
  using model::Positions;
  model::DecoderForm opt, gpt, gemma, neox, falcon, palm, qwen3, bloom;
  opt.norm = NormKind::layer, opt.order = BlockOrder::post, opt.positions = Positions::learned, opt.position_offset = 2;
  opt.gated = false, opt.activation = nn::Activation::relu, opt.qkv_bias = opt.output_bias = opt.mlp_bias = true;
  opt.embedding_width = 5, opt.final_norm = false;
  gpt.norm = NormKind::layer, gpt.positions = Positions::learned, gpt.gated = false, gpt.activation = nn::Activation::gelu_tanh;
  gpt.scale_by_layer = true, gpt.head_bias = true;
  gemma.order = BlockOrder::sandwich, gemma.activation = nn::Activation::gelu_tanh, gemma.attention_cap = 1.5f;
  gemma.logit_cap = 2, gemma.attention_scale = 0.7f, gemma.window = 2, gemma.windowed = {1, 0}, gemma.embedding_scale = 2.5f;
  gemma.head_norm = HeadNorm::rms;
  neox.norm = NormKind::layer, neox.order = BlockOrder::parallel_two, neox.gated = false, neox.activation = nn::Activation::gelu;
  neox.mlp_bias = true;
  falcon.norm = NormKind::layer, falcon.order = BlockOrder::parallel, falcon.positions = Positions::alibi, falcon.gated = false;
  falcon.activation = nn::Activation::gelu, falcon.alibi_scale = 0.5f;
  palm.norm = NormKind::layer_gain, palm.order = BlockOrder::parallel;
  qwen3.head_norm = HeadNorm::rms;
  bloom.head_norm = HeadNorm::layer, bloom.norm = NormKind::layer, bloom.embedding_width = 4;
  model::DecoderForm mixtral, qwen2_moe, deepseek;
  mixtral.experts = {.count = 4, .used = 2, .hidden = 5, .weights = nn::RouterWeights::renormalized};
  qwen2_moe.experts = {.count = 3,
                       .used = 2,
                       .hidden = 7,
                       .weights = nn::RouterWeights::softmax,
                       .shared_hidden = 4,
                       .shared_gate = true,
                       .sparse = {0, 1}};
  qwen2_moe.order = BlockOrder::sandwich;
  deepseek.experts = {.count = 3, .used = 1, .hidden = 4, .weights = nn::RouterWeights::softmax, .shared_hidden = 6};
  deepseek.order = BlockOrder::parallel_two;
  for (const auto* form : {&opt, &gpt, &gemma, &neox, &falcon, &palm, &qwen3, &bloom, &mixtral, &qwen2_moe, &deepseek}) {
    CAPTURE(static_cast<int>(form->norm), static_cast<int>(form->order), static_cast<int>(form->positions));
    const model::Decoder d = small_decoder(model::llama_architecture, true, 6, *form);
    check_by_differences(d, two_examples(), train::all_weights, {});
    const auto batch = two_examples();
    const std::vector<float> whole = flat(d, gradients_of(d, batch, train::all_weights));
    ThreadPool pool(3);
    CHECK(flat(d, gradients_of(d, batch, train::all_weights, {.executor = pool, .recompute_blocks = false})) == whole);
    // The pass is that of model::forward.
    double mean = 0;
    gradients_of(d, batch, [](std::string_view) { return false; }, {}, &mean);
    double sum = 0;
    for (const train::Example& e : batch) {
      nn::KvCache cache(model::cache_shape(d.config), static_cast<Index>(e.ids.size()));
      const auto logits = model::forward(d, e.ids, cache);
      REQUIRE(logits.ok());
      for (Index t = 1; t < static_cast<Index>(e.ids.size()); ++t)
        if (e.counts(t)) {
          const ref::Vector z = ref::matrix_of(*logits).row(t - 1);
          sum += ref::log_sum_exp(z) - z[e.ids[static_cast<std::size_t>(t)]];
        }
    }
    CHECK(mean == Approx(sum / 6).epsilon(1e-5));
  }
}

TEST_CASE("loss: the same bits with threads and with kept activations; micro-batches add up to the batch") {
  model::Decoder d = small_decoder(model::qwen2_architecture, true, 6, qwen2_form());
  add_random_adapters(d, 2);
  const auto batch = two_examples();
  const auto every = [](std::string_view) { return true; };
  const std::vector<float> whole = flat(d, gradients_of(d, batch, every));
  ThreadPool pool(3);
  CHECK(flat(d, gradients_of(d, batch, every, {.executor = pool})) == whole);
  CHECK(flat(d, gradients_of(d, batch, every, {.recompute_blocks = false})) == whole);

  train::Gradients pieces = train::make_gradients(d, every);
  double sum = 0;
  for (const train::Example& e : batch) {
    const auto loss = train::loss_and_gradients(d, {&e, 1}, pieces, {.divisor = static_cast<double>(train::predictions(batch))});
    REQUIRE(loss.ok());
    sum += loss->sum;
  }
  double mean = 0;
  gradients_of(d, batch, every, {}, &mean);
  CHECK(sum / 6 == Approx(mean).epsilon(1e-6));  // 5 and 1 predictions
  CHECK(off(flat(d, pieces).data(), {whole.begin(), whole.end()}) < 1e-5);
}

TEST_CASE("loss: the pass is the one of the forward pass, with taps that write") {
  const model::Decoder d = small_decoder(model::qwen2_architecture, true, 6, qwen2_form());
  const std::vector<train::Example> one{{first_ids, {}}};
  std::vector<std::pair<model::Point, std::vector<float>>> seen[2];
  std::vector<model::Tap> taps[2];
  for (int i = 0; i < 2; ++i)
    for (const model::Point p :
         {model::Point::attn_in, model::Point::q, model::Point::k, model::Point::v, model::Point::head_out,
          model::Point::attn_out, model::Point::mlp_in, model::Point::mlp_hidden, model::Point::mlp_out, model::Point::residual})
      taps[i].push_back({model::Tap::every_block, p, [&seen, i, p](MutableMatrix m, model::TokenRange range) {
                           CHECK(range.end == 6);
                           m(1, 0) *= 1.5f;
                           std::vector<float> values;
                           for (Index t = 0; t < m.rows; ++t) values.insert(values.end(), m.row(t).begin(), m.row(t).end());
                           seen[i].emplace_back(p, std::move(values));
                         }});
  nn::KvCache cache(model::cache_shape(d.config), 6);
  REQUIRE(model::forward(d, first_ids, cache, {.taps = taps[0]}).ok());
  gradients_of(d, one, [](std::string_view) { return false; }, {.taps = taps[1]});  // nothing to go back for
  REQUIRE(seen[0].size() == seen[1].size());
  for (std::size_t i = 0; i < seen[0].size(); ++i) {
    CHECK(seen[0][i].first == seen[1][i].first);
    CHECK(off(seen[1][i].second.data(), {seen[0][i].second.begin(), seen[0][i].second.end()}) < 1e-6);
  }
}

TEST_CASE("loss: adapters on packed weights have the gradients that they have on the decoded weights") {
  model::Decoder packed = small_decoder(model::llama_architecture, true), floats = packed;
  for (std::size_t i = 0; i < packed.weights.size(); ++i) {
    nn::Linear& w = packed.weights[i].linear;
    if (!w.dense()) continue;
    w = w.with_weights(nn::Linear(AnyPacked(*pack_nearest<Scheme<Nf4, PerGroup<64>, DoubleQuant<256>>>(w.dense()->view()))));
    Matrix decoded(w.extents().rows, w.extents().cols);
    for (Index r = 0; r < decoded.rows(); ++r) w.read_row(r, decoded.view().row(r));
    floats.weights[i].linear = nn::Linear(std::move(decoded));
  }
  add_random_adapters(packed, 3), add_random_adapters(floats, 3);
  const auto batch = two_examples();
  const std::vector<float> want = flat(floats, gradients_of(floats, batch, train::is_adapter));
  CHECK(off(flat(packed, gradients_of(packed, batch, train::is_adapter)).data(), {want.begin(), want.end()}) < 1e-5);
  check_by_differences(floats, batch, train::is_adapter, {});
  CHECK(flat(packed, gradients_of(packed, batch, train::all_weights)).size() == 5 * 6);  // of packed weights only gains are left
}

TEST_CASE("loss: dropout of adapters has a mask that depends on seed and step alone") {
  model::Decoder d = small_decoder(model::llama_architecture, false);
  add_random_adapters(d, 2);
  const auto batch = two_examples();
  const train::LossOptions options{.dropout = {.rate = 0.3f, .seed = 4, .step = 2}};
  check_by_differences(d, batch, [](std::string_view) { return true; }, options);
  const auto at = [&](std::uint64_t seed, std::uint64_t step) {
    return flat(d, gradients_of(d, batch, train::is_adapter, {.dropout = {.rate = 0.3f, .seed = seed, .step = step}}));
  };
  CHECK(at(4, 2) == at(4, 2));
  CHECK(at(4, 2) != at(4, 3));
  CHECK(at(4, 2) != at(5, 2));
  CHECK(at(4, 2) != flat(d, gradients_of(d, batch, train::is_adapter)));
}

TEST_CASE("loss: gradients of a rotated decoder") {
  const auto d = rotate(small_decoder(model::llama_architecture, false, 8), {.attn_output = true, .ffn_down = false});
  REQUIRE(d.ok());
  REQUIRE(d->online.residual.has_value());
  REQUIRE(d->online.attn_output.has_value());
  check_by_differences(*d, two_examples(), train::all_weights, {});
}

TEST_CASE("loss: a teacher; the model itself teaches nothing") {
  const model::Decoder d = small_decoder(model::llama_architecture, true),
                       other = small_decoder(model::qwen2_architecture, false, 6, qwen2_form());
  const auto batch = two_examples();
  double mean = 1;
  for (const float x : flat(d, gradients_of(d, batch, train::all_weights, {.teacher = &d}, &mean))) REQUIRE(std::abs(x) < 1e-6f);
  CHECK(mean == Approx(0).margin(1e-6));
  check_by_differences(d, batch, train::all_weights, {.teacher = &other, .temperature = 2});
}

TEST_CASE("loss: a mask that leaves one prediction is the gradient of that one") {
  const model::Decoder d = small_decoder(model::llama_architecture, true);
  const std::vector<std::uint8_t> last{0, 0, 0, 0, 0, 1}, first{1, 1, 0, 0, 0, 0};
  const auto masked = [&](const std::vector<std::uint8_t>& mask) {
    const std::vector<train::Example> one{{first_ids, mask}};
    return flat(d, gradients_of(d, one, train::all_weights));
  };
  const std::vector<train::Example> two{{std::span(first_ids).first(2), {}}};
  const std::vector<float> want = flat(d, gradients_of(d, two, train::all_weights)), got = masked(first);
  CHECK(off(got.data(), {want.begin(), want.end()}) < 1e-5);  // what follows does not matter
  CHECK(masked(last) != got);
}

TEST_CASE("loss: refused examples, by number") {
  const model::Decoder d = small_decoder(model::llama_architecture, true);
  const auto message = [&](const train::Example& e, const train::LossOptions& o = {}) {
    train::Gradients g = train::make_gradients(d, train::all_weights);
    const std::vector<train::Example> batch{{first_ids, {}}, e};
    const auto loss = train::loss_and_gradients(d, batch, g, o);
    return loss ? std::string() : loss.error().message;
  };
  CHECK(message({std::span(first_ids).first(1), {}}) == "train: example 1 has 1 tokens: give at least two");
  const std::vector<model::TokenId> many(33), foreign{1, 11};
  CHECK(message({many, {}}) == "train: example 1 has 33 tokens, the model's context 32: cut it into shorter ones");
  CHECK(message({first_ids, second_mask}) == "train: example 1 has 6 tokens and a mask of 3: give one value per token");
  CHECK(message({foreign, {}}).find("example 1: forward: token 1 has the id 11") != std::string::npos);
  CHECK(message({first_ids, {}}, {.dropout = {.rate = 1}}) == "train: a dropout of 1 is not in [0, 1)");
  const std::vector<std::uint8_t> nothing{1, 0, 0};
  train::Gradients g = train::make_gradients(d, train::all_weights);
  const std::vector<train::Example> masked{{second_ids, nothing}};
  CHECK(train::loss_and_gradients(d, masked, g).error().message ==
        "train: none of 1 examples has a prediction that counts: check the masks");
  CHECK_FALSE(train::loss_and_gradients(d, {}, g).ok());
}

TEST_CASE("loss: a weight that is not finite gives a loss that is not") {
  model::Decoder d = small_decoder(model::llama_architecture, true);
  d.output_norm()[0] = std::numeric_limits<float>::quiet_NaN();
  train::Gradients g = train::make_gradients(d, train::all_weights);
  const auto batch = two_examples();
  const auto loss = train::loss_and_gradients(d, batch, g);
  REQUIRE(loss.ok());
  CHECK_FALSE(is_finite(loss->sum));
}

TEST_CASE("parameters: what another decoder shares is copied before it changes") {
  model::Decoder d = small_decoder(model::llama_architecture, true);
  add_random_adapters(d, 2);
  const model::Decoder before = d;
  train::Gradients g = train::make_gradients(d, [](std::string_view) { return true; });
  for (const train::Parameter& p : train::parameters(d, g)) p.values[0] = 77;
  CHECK((*before.linear(0, "attn_q").dense())(0, 0) != 77);
  CHECK(before.linear(0, "attn_q").adapter()->a(0, 0) != 77);
  CHECK((*d.linear(0, "attn_q").dense())(0, 0) == 77);
  CHECK(d.linear(1, "ffn_down").adapter()->b(0, 0) == 77);
  CHECK(d.output_norm()[0] == 77);
}
