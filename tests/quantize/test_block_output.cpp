// What attention and MLP make of changed weights, and AWQ choosing by it, against both written out in double.

#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include <anybit/algorithm/compiled_methods.hpp>
#include <anybit/algorithm/nearest.hpp>
#include <anybit/exec/thread_pool.hpp>
#include <anybit/format/integer.hpp>
#include <anybit/model/rotate.hpp>
#include <anybit/quantize/block_by_block.hpp>
#include <anybit/transform/awq.hpp>

#include "model/naive_decoder.hpp"
#include "model/random_decoder.hpp"
#include "model/random_ids.hpp"
#include "support/catch.hpp"

using namespace anybit;
using namespace anybit::model;
using namespace anybit::nn;
using test_support::ids;
using test_support::llama_block;
using test_support::LlamaBlock;
using test_support::random_decoder;

namespace {

double squared_distance(const reference::Matrix& a, const reference::Matrix& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.values.size(); ++i) sum += (a.values[i] - b.values[i]) * (a.values[i] - b.values[i]);
  return sum;
}

/// BlockOutput::error() by reference/: the mean square of what other weights of a site change in attention or MLP.
double naive_error(const Decoder& d, const LlamaBlock& b, const std::string& site, std::span<const Matrix> inputs,
                   const std::vector<Matrix>& weights) {
  const reference::Rope rope = test_support::rope_of(d.config);
  const reference::DecoderBlock exact = test_support::block_of(b);
  reference::DecoderBlock changed = exact;
  reference::Matrix* const attn[] = {&changed.q, &changed.k, &changed.v};
  reference::Matrix* const mlp[] = {&changed.gate, &changed.up};
  const bool attention = site == "attn_q";
  for (std::size_t i = 0; i < weights.size(); ++i) *(attention ? attn[i] : mlp[i]) = reference::matrix_of(weights[i]);
  double sum = 0;
  Index values = 0;
  for (const Matrix& input : inputs) {
    const reference::Matrix x = reference::matrix_of(input);
    sum += attention ? squared_distance(attention_half(exact, x, rope), attention_half(changed, x, rope))
                     : squared_distance(mlp_half(exact, x), mlp_half(changed, x));
    values += x.rows * d.config.dim;
  }
  return sum / static_cast<double>(values);
}

std::vector<ConstMatrix> views(const std::vector<Matrix>& all) {
  std::vector<ConstMatrix> out;
  for (const Matrix& m : all) out.push_back(m.view());
  return out;
}

std::vector<const Linear*> siblings(const LlamaBlock& b, const std::string& site) {
  if (std::string(site) == "attn_q") return {&b.q, &b.k, &b.v};
  return {&b.gate, &b.up};
}

/// Windows of several lengths.
ModelStats ragged_stats(const Decoder& d, Needs needs) {
  ModelStats stats(d, needs);
  for (const Index n : {40, 23, 31}) REQUIRE(stats.accumulate(d, ids(n, static_cast<unsigned>(n)), {}).ok());
  return stats;
}

Matrix unpacked(const Linear& l) {
  Matrix m(l.extents().rows, l.extents().cols);
  for (Index r = 0; r < m.rows(); ++r) l.read_row(r, m.view().row(r));
  return m;
}

using Int3 = Nearest<UInt<3>, PerGroup<16>>;
ModelRecipe by_block() { return model_recipe("block", Awq{.clip = false, .block_output = true} | Int3{}); }
ModelRecipe by_outputs() { return model_recipe("outputs", Awq{.clip = false} | Int3{}); }

}  // namespace

TEST_CASE("sequences: whole passes in order, up to the limit, at the two sites that want them") {
  const Decoder d = random_decoder(2);
  const ModelStats stats = ragged_stats(d, Needs::sequences);
  for (const char* const site : {"attn_q", "ffn_gate"}) {
    const auto s = stats.sequences(d.site(1, site));
    REQUIRE(s.size() == 3);
    CHECK(s[0].rows() == 40);
    CHECK(s[1].rows() == 23);
    test_support::NaiveInputs inputs;
    inputs.block = 1;
    test_support::naive_forward(d, ids(23, 23), &inputs);
    const auto& expected = std::string(site) == "attn_q" ? inputs.attn : inputs.ffn;
    for (Index t = 0; t < 23; ++t)
      for (Index j = 0; j < 32; ++j)
        CHECK(static_cast<double>(s[1](t, j)) ==
              Approx(expected[static_cast<std::size_t>(t)][static_cast<std::size_t>(j)]).margin(1e-4).epsilon(1e-4));
  }
  CHECK(stats.sequences(d.site(0, "attn_output")).empty());
  CHECK_FALSE(covers(stats.needs(), Needs::sequences));
  CHECK(ragged_stats(d, Needs::none).sequences(d.site(0, "attn_q")).empty());
  ModelStats many(d, Needs::sequences);
  for (unsigned w = 0; w < 30; ++w) REQUIRE(many.accumulate(d, ids(48, w), {}).ok());
  Index kept = 0;
  for (const Matrix& m : many.sequences(d.site(0, "attn_q"))) kept += m.rows();
  CHECK(kept == sequence_tokens);
}

TEST_CASE("BlockOutput: the error of attention and MLP, as the naive ones have it") {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  for (const Index kv_heads : {Index{4}, Index{2}, Index{1}}) {
    const Decoder d = random_decoder(kv_heads);
    const ModelStats stats = ragged_stats(d, Needs::sequences);
    for (const char* const site : {"attn_q", "ffn_gate"}) {
      CAPTURE(kv_heads, site);
      const LlamaBlock b = llama_block(d, 1);
      const auto inputs = stats.sequences(d.site(1, site));
      std::vector<Matrix> changed, same;
      for (const Linear* l : siblings(b, site)) {
        same.push_back(*l->dense()), changed.push_back(*l->dense());
        for (Index i = 0; i < changed.back().extents().size(); ++i) changed.back().data()[i] += 0.02f * normal(random);
      }
      BlockOutput output(d, d.block(1), d.site(1, site), inputs);
      const double error = output.error(views(changed));
      CHECK(error == Approx(naive_error(d, b, site, inputs, changed)).epsilon(1e-3));
      CHECK(error > 0);
      CHECK(output.error(views(same)) == 0);
      CHECK(output.error(views(changed)) == error);  // nothing is left of the call before
      ThreadPool pool(3);
      CHECK(BlockOutput(d, d.block(1), d.site(1, site), inputs, pool).error(views(changed)) == error);
    }
  }
}

TEST_CASE("BlockOutput: rotations in the forward pass are part of it") {
  const Decoder d = random_decoder(2);
  RotationOptions all;
  const Decoder r = rotate(d, all).value();
  REQUIRE(r.online.any());
  const ModelStats stats = ragged_stats(r, Needs::sequences);
  for (const char* const site : {"attn_q", "ffn_gate"}) {
    const auto inputs = stats.sequences(r.site(0, site));
    const LlamaBlock rotated_block = llama_block(r, 0);
    BlockOutput output(r, r.block(0), r.site(0, site), inputs);
    std::vector<Matrix> changed;
    for (const Linear* l : siblings(rotated_block, site)) {
      changed.push_back(*l->dense());
      for (Index i = 0; i < changed.back().extents().size(); i += 3) changed.back().data()[i] *= 1.1f;
    }
    // A rotation in front of o or down is a matrix times theirs.
    LlamaBlock plain = rotated_block;
    const auto undo = [](const std::optional<Hadamard>& rotation, Linear& l) {
      if (!rotation) return;
      Matrix w(l.dense()->view());
      rotation->inverse(w.view(), {});
      l = Linear(std::move(w));
    };
    undo(r.online.attn_output, plain.o), undo(r.online.ffn_down, plain.down);
    CHECK(output.error(views(changed)) == Approx(naive_error(r, plain, site, inputs, changed)).epsilon(1e-3));
  }
}

TEST_CASE("awq by block output: of all ratios the one whose attention and MLP are nearest, o and down as they stand by then") {
  Index other_choices = 0;
  for (const Index kv_heads : {Index{4}, Index{2}}) {
    const Decoder d = random_decoder(kv_heads);
    const ModelRecipe recipe = by_block();
    CHECK(recipe.description == "awq(block output, no clip) | nearest");
    CHECK(covers(recipe.needs, Needs::sequences));
    const ModelStats stats = ragged_stats(d, recipe.needs);
    const PackedEmbedding embedding = pack_embedding(d).value();
    const QuantizedModel q = quantize_model(d, stats, recipe, embedding).value();
    const QuantizedModel by_linears = quantize_model(d, stats, by_outputs(), embedding).value();
    ThreadPool pool(3);
    QuantizeModelOptions threads;
    threads.executor = pool;
    const QuantizedModel threaded = quantize_model(d, stats, recipe, embedding, threads).value();

    const auto scale_of = [](const QuantizedModel& m, const std::string& name, bool output) {
      for (const QuantizedLayer& l : m.layers)
        if (l.name == name) return output ? l.output_scale : l.input_scale;
      return std::vector<float>();
    };
    for (Index block = 0; block < 2; ++block)
      for (const char* const site : {"attn_q", "ffn_gate"}) {
        const bool attends = std::string(site) == "attn_q";
        const std::string blk = "blk." + std::to_string(block) + ".", first = blk + (attends ? "attn_q" : "ffn_gate") + ".weight",
                          folded = blk + (attends ? "attn_v" : "ffn_up") + ".weight";
        CAPTURE(kv_heads, first);
        // The half block as it stood: o or down packed, its scale folded into the rows of v or up.
        LlamaBlock b = llama_block(d, block);
        const LlamaBlock packed = llama_block(q.decoder, block);
        b.o = Linear(unpacked(packed.o)), b.down = Linear(unpacked(packed.down));
        Linear& upstream = attends ? b.v : b.up;
        Matrix rows(upstream.dense()->view());
        if (const auto s = scale_of(q, folded, true); !s.empty()) fold_rows(s, rows.view());
        upstream = Linear(std::move(rows));

        const auto chosen = scale_of(q, first, false);
        CHECK(chosen == scale_of(threaded, first, false));
        other_choices += chosen != scale_of(by_linears, first, false);
        double least = std::numeric_limits<double>::infinity(), mine = least;
        for (int k = 0; k < 20; ++k) {
          const auto s = awq::scale_for(stats.at(d.site(block, site), Needs::hessian).mean_abs(), static_cast<float>(k) / 20);
          std::vector<Matrix> weights;
          for (const Linear* l : siblings(b, site))
            weights.push_back(awq::rounded_under<Int3::scheme>(l->dense()->view(), s, awq::grid_of(Int3{})));
          const double e = naive_error(d, b, site, stats.sequences(d.site(block, site)), weights);
          least = std::min(least, e);
          if (s == chosen || (chosen.empty() && k == 0)) mine = e;
        }
        CHECK(mine <= least * 1.001);
      }
  }
  CHECK(other_choices > 0);
}

TEST_CASE("awq by block output in the layer-wise driver, and without what it needs") {
  const Decoder d = random_decoder(2);
  const std::vector<std::vector<TokenId>> tokens{ids(40, 1), ids(31, 2)};
  const std::vector<std::span<const TokenId>> windows{tokens.begin(), tokens.end()};
  const PackedEmbedding embedding = pack_embedding(d).value();
  const ModelRecipe recipe = by_block();
  const auto run = [&](ExecutorRef executor, const ModelRecipe& r) {
    LayerWiseOptions options;
    options.executor = executor;
    const auto done = quantize_layer_wise(d, uniform_plan(r, d), windows, embedding, options).value();
    std::vector<std::string> remarks;
    for (const QuantizedLayer& l : done.quantized.layers) remarks.push_back(l.report.remarks.front());
    KvCache cache(cache_shape(d.config), 20);
    const Matrix y = forward(done.quantized.decoder, ids(20, 9), cache).value();
    return std::pair(remarks, std::vector<float>(y.data(), y.data() + y.extents().size()));
  };
  ThreadPool pool(3);
  const auto serial = run({}, recipe);
  CHECK(serial == run(pool, recipe));
  CHECK(serial != run({}, by_outputs()));

  const auto lacking = quantize_model(d, ragged_stats(d, Awq::needs), recipe, embedding);
  REQUIRE_FALSE(lacking.ok());
  CHECK(lacking.error().message.find("recipe block: blk.") != std::string::npos);
  CHECK(lacking.error().message.find("make them with Needs::sequences") != std::string::npos);
}
