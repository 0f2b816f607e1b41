#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#if defined(__unix__)
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

#include <anybit/algorithm/compiled_methods.hpp>
#include <anybit/algorithm/gptq.hpp>
#include <anybit/algorithm/ldlq.hpp>
#include <anybit/exec/thread_pool.hpp>
#include <anybit/format/formats.hpp>
#include <anybit/quantize/block_by_block.hpp>
#include <anybit/transform/awq.hpp>

#include "model/random_decoder.hpp"
#include "model/random_ids.hpp"
#include "quantize/model_bytes.hpp"
#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

using namespace anybit;
using namespace anybit::model;
using namespace anybit::nn;
using test_support::bytes_of;
using test_support::ids;
using test_support::random_decoder;
using test_support::read_file;

namespace {

/// Windows of unequal length.
struct Text {
  std::vector<std::vector<TokenId>> tokens{ids(48, 1), ids(48, 2), ids(31, 3), ids(48, 4)};
  std::vector<std::span<const TokenId>> windows{tokens.begin(), tokens.end()};
};

using Int4 = Gptq<SInt<4>, PerGroup<16>>;

ModelRecipe gptq_recipe(float drift = 0) {
  Int4 g;
  g.drift = drift;
  return model_recipe("gptq", g);
}
ModelRecipe ldlq_recipe() { return model_recipe("ldlq", Ldlq<Trellis<6, 2, ByteSum>>{}); }
ModelRecipe awq_recipe() { return model_recipe("awq", Awq{} | Nearest<SInt<4>, PerGroup<16>>{}); }

LayerWiseModel made(const Decoder& d, const ModelRecipe& recipe, const LayerWiseOptions& options = {}) {
  const Text text;
  auto done = quantize_layer_wise(d, uniform_plan(recipe, d), text.windows, pack_embedding(d).value(), options);
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
  half.token_embedding() = done.quantized.decoder.token_embedding();
  half.set_block(0, done.quantized.decoder.block(0));
  ModelStats stats(half, recipe.needs);
  for (const auto& window : text.windows) REQUIRE(stats.accumulate(half, window, {}).ok());
  const Matrix& w = *d.linear(1, "ffn_down").dense();
  const auto q = Int4{}.quantize(w.view(), stats.at(d.site(1, "ffn_down"), Needs::hessian));
  REQUIRE(q.ok());
  const Matrix expected = dequantize(q->matrix);
  std::vector<float> row(56);
  Index equal = 0;
  for (Index r = 0; r < 32; ++r) {
    done.quantized.decoder.linear(1, "ffn_down").read_row(r, row);
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
  partly.token_embedding() = q.token_embedding();
  partly.set_block(0, q.block(0));
  partly.linear(1, "attn_q") = q.linear(1, "attn_q"), partly.linear(1, "attn_k") = q.linear(1, "attn_k"),
                   partly.linear(1, "attn_v") = q.linear(1, "attn_v");
  ModelStats stats(partly, Needs::hessian);
  for (const auto& window : text.windows) REQUIRE(stats.accumulate(partly, window, {}).ok());
  const Matrix expected =
      dequantize(Int4{}
                     .quantize(d.linear(1, "attn_output").dense()->view(), stats.at(d.site(1, "attn_output"), Needs::hessian))
                     .value()
                     .matrix);
  std::vector<float> row(32);
  for (Index r = 0; r < 32; ++r) {
    q.linear(1, "attn_output").read_row(r, row);
    CHECK(std::equal(row.begin(), row.end(), expected.view().row(r).begin()));
  }
  const ModelRecipe awq = awq_recipe();
  const auto folded = quantize_layer_wise(d, uniform_plan(awq, d), text.windows, pack_embedding(d).value(), options);
  REQUIRE_FALSE(folded.ok());
  CHECK(folded.error().message.find("recipe awq folds scales into linears") == 0);
}

TEST_CASE("drift: statistics are of both models' activations, token by token") {
  const Decoder d = random_decoder(2);
  const Text text;
  for (const bool true_sequential : {false, true}) {
    LayerWiseOptions options;
    options.true_sequential = true_sequential;
    const LayerWiseModel done = made(d, gptq_recipe(0.5f), options);
    // By hand: what enters the second block's `down`, in the float model and in the one that is quantized before it.
    Decoder partly = d;
    partly.token_embedding() = done.quantized.decoder.token_embedding();
    partly.set_block(0, done.quantized.decoder.block(0));
    if (true_sequential) {
      partly.set_block(1, done.quantized.decoder.block(1));
      partly.linear(1, "ffn_down") = d.linear(1, "ffn_down");
    }
    Stats stats(56, Needs::hessian | Needs::input_drift);
    for (const auto& window : text.windows) {
      Matrix x[2];
      const Decoder* models[] = {&partly, &d};
      for (std::size_t m = 0; m < 2; ++m) {
        KvCache cache(cache_shape(d.config), 48);
        const Tap tap{1, Point::mlp_hidden, [&](MutableMatrix in, TokenRange) { x[m] = Matrix(in); }};
        REQUIRE(hidden_states(*models[m], window, cache, {.taps = {&tap, 1}}).ok());
      }
      REQUIRE(stats.accumulate(x[0].view(), x[1].view()).ok());
    }
    Int4 g;
    g.drift = 0.5f;
    const Matrix expected = dequantize(g.quantize(d.linear(1, "ffn_down").dense()->view(), stats).value().matrix);
    std::vector<float> row(56);
    for (Index r = 0; r < 32; ++r) {
      done.quantized.decoder.linear(1, "ffn_down").read_row(r, row);
      CHECK(std::equal(row.begin(), row.end(), expected.view().row(r).begin()));
    }
    CHECK(bytes_of(done.quantized.decoder) != bytes_of(made(d, gptq_recipe(), options).quantized.decoder));
  }
}

TEST_CASE("transforms that fold scales work in sequence: 16-bit weights give the float model's logits") {
  const Decoder d = random_decoder(4);
  const Text text;
  const ModelRecipe recipe = model_recipe("awq", Awq{} | Nearest<Superfloat<16>, PerGroup<16>, ScaleF32>{});
  Decoder q = made(d, recipe).quantized.decoder;
  q.token_embedding() = d.token_embedding();
  KvCache a(cache_shape(d.config), 48), b(cache_shape(d.config), 48);
  const Matrix x = forward(d, text.tokens[0], a).value(), y = forward(q, text.tokens[0], b).value();
  float worst = 0;
  for (Index i = 0; i < x.extents().size(); ++i) worst = std::max(worst, std::abs(x.data()[i] - y.data()[i]));
  CHECK(worst < 0.02f);
  CHECK(q.values(1, "ffn_norm") != d.values(1, "ffn_norm"));
}

namespace {

/// A folder of its own, empty.
std::string fresh_folder(const std::string& name) {
  const auto path = std::filesystem::temp_directory_path() / ("anybit_layer_wise_" + name);
  std::filesystem::remove_all(path);
  return path.string();
}

void write_bytes(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

}  // namespace

TEST_CASE("an interrupted run goes on to the same bytes and reports, with any number of threads") {
  const Decoder d = random_decoder(4);
  const Text text;
  const PackedEmbedding embedding = pack_embedding(d).value();
  const std::string folder = fresh_folder("resume");
  for (const ModelRecipe& recipe : {gptq_recipe(), gptq_recipe(0.25f), awq_recipe(), ldlq_recipe()}) {
    const ModelPlan plan = uniform_plan(recipe, d);
    const LayerWiseModel whole = made(d, recipe);
    CHECK(whole.blocks_taken == 0);
    Index calls = 0;
    LayerWiseOptions options;
    options.progress = [&](const LayerWiseProgress&) { return ++calls > 0; };
    made(d, recipe, options);
    const Index all = calls;
    CHECK(all > 10);
    // Stopped at every step at which it can be.
    for (Index stop = 1; stop <= all; ++stop) {
      std::filesystem::remove_all(folder);
      ThreadPool pool(1 + stop % 3);
      options.executor = pool;
      options.state = folder;
      calls = 0;
      Index at_block = 0;
      options.progress = [&](const LayerWiseProgress& p) {
        at_block = p.block;
        CHECK(p.blocks == 2);
        return ++calls < stop;
      };
      const auto stopped = quantize_layer_wise(d, plan, text.windows, embedding, options);
      REQUIRE_FALSE(stopped.ok());
      CHECK(stopped.error().code == ErrorCode::cancelled);
      ThreadPool other(1 + (stop + 1) % 3);
      options.executor = other;
      options.progress = {};
      const auto resumed = quantize_layer_wise(d, plan, text.windows, embedding, options).value();
      CHECK(resumed.blocks_taken >= at_block);
      CHECK(bytes_of(resumed.quantized.decoder) == bytes_of(whole.quantized.decoder));
      REQUIRE(resumed.quantized.layers.size() == whole.quantized.layers.size());
      for (std::size_t i = 0; i < whole.quantized.layers.size(); ++i) {
        const QuantizedLayer &a = resumed.quantized.layers[i], &b = whole.quantized.layers[i];
        CHECK((a.name == b.name && a.site == b.site && a.sibling == b.sibling));
        CHECK((a.input_scale == b.input_scale && a.output_scale == b.output_scale));
        CHECK((a.report.requested == b.report.requested && a.report.done == b.report.done));
        CHECK((a.report.remarks == b.report.remarks && a.report.fallbacks == b.report.fallbacks));
        CHECK((a.report.weight_error == b.report.weight_error && a.report.output_error == b.report.output_error));
        CHECK(a.report.bits_per_weight == b.report.bits_per_weight);
      }
    }
  }
  std::filesystem::remove_all(folder);
}

#if defined(__unix__)
TEST_CASE("a run that is killed at any moment, also while it writes, goes on to the same bytes") {
  const Decoder d = random_decoder(2);
  const Text text;
  const PackedEmbedding embedding = pack_embedding(d).value();
  const ModelRecipe recipe = gptq_recipe(0.25f);
  const ModelPlan plan = uniform_plan(recipe, d);
  const std::vector<std::byte> expected = bytes_of(made(d, recipe).quantized.decoder);
  const std::string folder = fresh_folder("killed");
  LayerWiseOptions options;
  options.state = folder;
  for (unsigned attempt = 0; attempt < 24; ++attempt) {
    if (attempt % 6 == 0) std::filesystem::remove_all(folder);
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      static_cast<void>(quantize_layer_wise(d, plan, text.windows, embedding, options));
      _exit(0);
    }
    usleep(2000 * (attempt % 6) + 500 * (attempt / 6));
    kill(child, SIGKILL);
    REQUIRE(waitpid(child, nullptr, 0) == child);
    if (attempt % 6 != 5) continue;
    CHECK(bytes_of(quantize_layer_wise(d, plan, text.windows, embedding, options).value().quantized.decoder) == expected);
  }
  std::filesystem::remove_all(folder);
}
#endif

TEST_CASE("the state of another run is refused with what differs; a damaged one never crashes") {
  const Decoder d = random_decoder(2);
  const Text text;
  const PackedEmbedding embedding = pack_embedding(d).value();
  const std::string folder = fresh_folder("refused");
  LayerWiseOptions options;
  options.state = folder;
  const ModelRecipe recipe = gptq_recipe(), drifting = gptq_recipe(0.25f);
  const ModelPlan plan = uniform_plan(recipe, d);
  const auto whole = quantize_layer_wise(d, plan, text.windows, embedding, options).value();
  CHECK(quantize_layer_wise(d, plan, text.windows, embedding, options).value().blocks_taken == 2);
  const auto refused = [&](const Decoder& model, const ModelPlan& p, std::span<const std::span<const TokenId>> windows,
                           const LayerWiseOptions& o, const std::string& what) {
    const auto done = quantize_layer_wise(model, p, windows, embedding, o);
    REQUIRE_FALSE(done.ok());
    INFO(done.error().message);
    CHECK(done.error().message.find("block-0.safetensors: was made with another " + what) != std::string::npos);
  };
  refused(d, plan, std::span(text.windows).first(3), options, "calibration text");
  refused(d, uniform_plan(drifting, d), text.windows, options, "recipe");
  LayerWiseOptions ordered = options;
  ordered.true_sequential = true;
  refused(d, plan, text.windows, ordered, "recipe");
  Decoder moved = d;
  Matrix w(*d.linear(1, "ffn_up").dense());
  w(3, 4) += 1e-6f;
  moved.linear(1, "ffn_up") = Linear(std::move(w));
  refused(moved, plan, text.windows, options, "model");

  const std::string path = folder + "/block-1.safetensors", good = read_file(path);
  REQUIRE(good.size() > 2000);
  const auto damaged = [&](const std::string& bytes) {
    write_bytes(path, bytes);
    const auto done = quantize_layer_wise(d, plan, text.windows, embedding, options);
    if (done) return false;
    CHECK(done.error().message.find("block-1.safetensors") != std::string::npos);
    if (done.error().message.find("was made with another") == std::string::npos)
      CHECK(done.error().message.ends_with(": the file is damaged, remove it and the block is made again"));
    CHECK(done.error().message.find("fetch it again") == std::string::npos);
    return true;
  };
  for (std::size_t length : {std::size_t{0}, std::size_t{7}, std::size_t{8}, std::size_t{100}, good.size() / 2, good.size() - 1})
    CHECK(damaged(good.substr(0, length)));
  std::mt19937 random(5);
  for (int i = 0; i < 60; ++i) {
    std::string bytes = good;
    char& hit = bytes[random() % bytes.size()];
    hit = static_cast<char>(hit ^ (1 << random() % 8));
    // What a flip leaves unharmed (spaces, zeros that fill up) must give the same model.
    if (!damaged(bytes)) {
      const auto again = quantize_layer_wise(d, plan, text.windows, embedding, options).value();
      const bool same = bytes_of(again.quantized.decoder) == bytes_of(whole.quantized.decoder);
      CHECK(same);
    }
  }
  write_bytes(path, good);
  CHECK(quantize_layer_wise(d, plan, text.windows, embedding, options).ok());
  std::filesystem::remove_all(folder);
}

TEST_CASE("a source whose blocks are read when they are wanted gives the same model") {
  const Decoder d = random_decoder(2);
  const Text text;
  const ModelRecipe recipe = gptq_recipe(0.25f);
  Decoder hollow = d;
  for (Index i = 0; i < 2; ++i)
    for (Weight& w : hollow.block(i)) w = {};
  Index read = 0;
  LayerWiseOptions options;
  options.load_block = [&](Index i) -> Result<BlockWeights> {
    ++read;
    return d.copy_block(i);
  };
  const PackedEmbedding embedding = pack_embedding(d).value();
  const ModelPlan plan = uniform_plan(recipe, d);
  const auto done = quantize_layer_wise(hollow, plan, text.windows, embedding, options).value();
  CHECK(read == 2);
  CHECK(bytes_of(done.quantized.decoder) == bytes_of(made(d, recipe).quantized.decoder));
  // The fingerprint is that of the whole model.
  options.state = fresh_folder("hollow");
  REQUIRE(quantize_layer_wise(hollow, plan, text.windows, embedding, options).ok());
  options.load_block = {};
  CHECK(quantize_layer_wise(d, plan, text.windows, embedding, options).value().blocks_taken == 2);
  std::filesystem::remove_all(options.state);
  options.state.clear();
  options.load_block = [](Index) -> Result<BlockWeights> { return Error{ErrorCode::io, "block 0 cannot be read"}; };
  CHECK(quantize_layer_wise(hollow, plan, text.windows, embedding, options).error().message == "block 0 cannot be read");
}

TEST_CASE("wrong windows are errors that say which") {
  const Decoder d = random_decoder(2);
  const PackedEmbedding embedding = pack_embedding(d).value();
  const ModelRecipe recipe = gptq_recipe();
  const ModelPlan plan = uniform_plan(recipe, d);
  const auto message = [&](std::span<const std::span<const TokenId>> windows) {
    return quantize_layer_wise(d, plan, windows, embedding).error().message;
  };
  CHECK(message({}).find("no windows of calibration tokens") != std::string::npos);
  const std::vector<TokenId> some = ids(5, 1), bad{3, 61};
  const std::span<const TokenId> with_empty[] = {some, {}}, with_bad[] = {some, bad};
  CHECK(message(with_empty).find("calibration window 1 is empty") == 0);
  CHECK(message(with_bad).find("calibration window 1: ") == 0);
  CHECK(message(with_bad).find("token 1 has the id 61") != std::string::npos);
}

TEST_CASE("guardrails: the rank of what was seen, too few tokens, text that repeats itself") {
  std::mt19937 random(3);
  std::normal_distribution<double> normal;
  const auto rank = [&](Index n, Index tokens, double scale) {
    std::vector<double> x(static_cast<std::size_t>(n * tokens)), h(static_cast<std::size_t>(n * n), 0);
    for (double& v : x) v = normal(random);
    for (Index i = 0; i < n; ++i)
      for (Index j = 0; j < n; ++j)
        for (Index t = 0; t < tokens; ++t)
          h[static_cast<std::size_t>(i * n + j)] += x[static_cast<std::size_t>(t * n + i)] *
                                                    x[static_cast<std::size_t>(t * n + j)] * (i == 0 ? scale : 1) *
                                                    (j == 0 ? scale : 1);
    return calibrate::effective_rank({h.data(), n, n});
  };
  CHECK(rank(40, 1, 1) == Approx(1));
  CHECK(rank(40, 4000, 1e4) == Approx(40.0 / (1 + 39.0 / 4000)).epsilon(0.02));
  CHECK(rank(40, 10, 1) == Approx(40.0 / (1 + 39.0 / 10)).epsilon(0.15));
  const std::vector<double> zero(9, 0.0);
  CHECK(calibrate::effective_rank({zero.data(), 3, 3}) == 0);

  const Decoder d = random_decoder(2);
  const LayerWiseModel done = made(d, gptq_recipe());
  CHECK(done.checks.size() == 8);
  CHECK(warnings(done.checks).empty());
  const std::vector<TokenId> few = ids(20, 1);
  const std::span<const TokenId> windows[] = {few};
  const ModelRecipe recipe = gptq_recipe();
  const auto little = quantize_layer_wise(d, uniform_plan(recipe, d), windows, pack_embedding(d).value()).value();
  const auto lines = warnings(little.checks);
  REQUIRE(lines.size() == 1);
  CHECK(lines[0].find("Only 20 calibration tokens for 56 inputs (block 0, ffn_down)") == 0);

  SiteCheck narrow{d.site(1, "ffn_gate"), "block 3, ffn_gate", 4000, 500, 2, 1.2};
  const auto two = warnings({&narrow, 1});
  REQUIRE(two.size() == 2);
  CHECK(two[0].find("block 3, ffn_gate, whose 500 inputs vary in less than 2 directions") != std::string::npos);
  CHECK(two[1].find("block 3, ffn_gate: 2 of 500") != std::string::npos);
}
