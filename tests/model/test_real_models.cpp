// The models that others computed with: SmolLM2-135M against goldens of transformers, stories260K against a naive forward.

#include <algorithm>
#include <cmath>
#include <fstream>

#include <nlohmann/json.hpp>

#include <anybit/exec/thread_pool.hpp>
#include <anybit/io/safetensors.hpp>
#include <anybit/model/load.hpp>

#include "model/naive_decoder.hpp"
#include "support/catch.hpp"
#include "support/largest_difference.hpp"
#include "support/real_model.hpp"
#include "support/test_data.hpp"

using namespace anybit;
using namespace anybit::model;
using namespace anybit::nn;

namespace {

/// log softmax(row)[target] in double.
double log_probability(std::span<const float> row, TokenId target) {
  const double top = static_cast<double>(*std::max_element(row.begin(), row.end()));
  double sum = 0;
  for (const float v : row) sum += std::exp(static_cast<double>(v) - top);
  return static_cast<double>(row[static_cast<std::size_t>(target)]) - top - std::log(sum);
}

/// Without optimization Eigen is a hundred times slower, and these models would take many minutes.
constexpr bool optimized =
#if defined(__OPTIMIZE__)
    true;
#else
    false;
#endif

TokenId best(std::span<const float> row) { return static_cast<TokenId>(std::max_element(row.begin(), row.end()) - row.begin()); }

const Model& smollm2(const std::string& path) {
  static const Result<Model> loaded = load_model(path);
  INFO((loaded ? "" : loaded.error().message));
  REQUIRE(loaded);
  return *loaded;
}

}  // namespace

TEST_CASE("SmolLM2: logits, log-probabilities and inputs of linears") {
  ANYBIT_TEST_DATA_OR_SKIP(golden_path, "vectors/model.safetensors");
  ANYBIT_REAL_MODEL_OR_SKIP(path);
  ANYBIT_HAVE_OR_SKIP(optimized, "an unoptimized build is too slow for SmolLM2");
  const Model& m = smollm2(path);
  CHECK(m.decoder.config.rope_base == 100000.0f);
  const auto golden = io::SafetensorsFile::open(golden_path);
  REQUIRE(golden);
  ThreadPool pool;

  for (const std::string text : {"s24", "s65"}) {
    CAPTURE(text);
    const auto ids = *golden->read<std::int32_t>(text + ".ids");
    const auto argmax = *golden->read<std::int32_t>(text + ".argmax");
    const Matrix last4 = *golden->read_f32(text + ".logits_last4"), next = *golden->read_f32(text + ".logprob_next");
    const auto n = static_cast<Index>(ids.size());
    KvCache cache(cache_shape(m.decoder.config), n);
    const auto logits = forward(m.decoder, ids, cache, {.executor = pool});
    REQUIRE(logits);
    CHECK(test_support::largest_difference(logits->view().row_range(n - 4, n), last4.view()) < 2e-3);
    for (Index t = 0; t < n; ++t) {
      CHECK(best(logits->view().row(t)) == argmax[static_cast<std::size_t>(t)]);
      if (t + 1 < n)
        CHECK(std::abs(log_probability(logits->view().row(t), ids[static_cast<std::size_t>(t) + 1]) -
                       static_cast<double>(next(0, t))) < 2e-3);
    }

    if (text != "s24") continue;
    cache.clear();  // the same token by token
    for (Index t = 0; t < n; ++t) {
      const auto one = forward(m.decoder, std::span(ids).subspan(static_cast<std::size_t>(t), 1), cache, {.executor = pool});
      REQUIRE(one);
      if (t >= n - 4) CHECK(test_support::largest_difference(one->view(), last4.view().row_range(t - n + 4, t - n + 5)) < 2e-3);
    }
  }

  const auto ids = *golden->read<std::int32_t>("hidden.ids");
  KvCache cache(cache_shape(m.decoder.config), static_cast<Index>(ids.size()));
  int seen = 0;
  const auto compare_with = [&](const char* name) {
    return [&, name](MutableMatrix x, TokenRange) {
      CHECK(test_support::largest_difference(x, golden->read_f32(name)->view()) < 1e-4);
      ++seen;
    };
  };
  const Tap taps[] = {{0, Point::attn_in, compare_with("hidden.blk0.q_proj")},
                      {5, Point::mlp_hidden, compare_with("hidden.blk5.down_proj")}};
  REQUIRE(hidden_states(m.decoder, ids, cache, {.executor = pool, .taps = taps}));
  CHECK(seen == 2);
}

TEST_CASE("SmolLM2: the negative log-likelihoods of two windows of WikiText-2") {
  ANYBIT_TEST_DATA_OR_SKIP(golden_path, "vectors/model.safetensors");
  ANYBIT_REAL_MODEL_OR_SKIP(path);
  ANYBIT_HAVE_OR_SKIP(optimized, "an unoptimized build is too slow for SmolLM2");
  const Model& m = smollm2(path);
  const auto golden = io::SafetensorsFile::open(golden_path);
  REQUIRE(golden);
  const auto ids = *golden->read<std::int32_t>("ppl.w512.ids");
  const Matrix nll = *golden->read_f32("ppl.w512.nll");
  ThreadPool pool;
  KvCache cache(cache_shape(m.decoder.config), 512);
  for (const std::size_t window : {std::size_t{0}, std::size_t{13}}) {
    cache.clear();
    const auto tokens = std::span(ids).subspan(window * 512, 512);
    const auto logits = forward(m.decoder, tokens, cache, {.executor = pool});
    REQUIRE(logits);
    double mean = 0, expected = 0;
    for (Index t = 0; t < 511; ++t) {
      const double is = -log_probability(logits->view().row(t), tokens[static_cast<std::size_t>(t) + 1]);
      const auto should = static_cast<double>(nll(static_cast<Index>(window), t));
      CHECK(std::abs(is - should) < 5e-3);
      mean += is / 511, expected += should / 511;
    }
    CHECK(mean == Approx(expected).epsilon(1e-4));
  }
}

TEST_CASE("stories260K agrees with a naive forward and tells a story") {
  ANYBIT_TEST_DATA_OR_SKIP(path, "data/stories260K.bin");
  const auto m = load_model(path);  // finds tok512.bin beside it
  REQUIRE(m);
  const std::vector<TokenId> three{1, 403, 407};
  KvCache cache(cache_shape(m->decoder.config), m->decoder.config.context);
  const auto logits = forward(m->decoder, three, cache);
  REQUIRE(logits);
  const auto truth = test_support::naive_forward(m->decoder, three);
  for (Index t = 0; t < 3; ++t)
    for (Index j = 0; j < 512; ++j)
      CHECK(std::abs(static_cast<double>((*logits)(t, j)) - truth[static_cast<std::size_t>(t)][static_cast<std::size_t>(j)]) <
            1e-4);

  auto ids = *m->tokenizer.encode("Once upon a time");
  ids.insert(ids.begin(), *m->tokenizer.vocabulary().bos);
  cache.clear();
  auto step = forward(m->decoder, ids, cache, {.last_only = true});
  for (int i = 0; i < 60; ++i) {
    const TokenId next[] = {best(step->view().row(0))};
    ids.push_back(next[0]);
    step = forward(m->decoder, next, cache);
    REQUIRE(step);
  }
  const std::string story = *m->tokenizer.decode(std::span(ids).subspan(1));
  CHECK(story.starts_with("Once upon a time, there was a little girl named Lily. She loved to play"));
}
