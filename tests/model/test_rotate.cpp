#include <anybit/io/anybit_file.hpp>
#include <anybit/model/arch/architectures.hpp>
#include <anybit/model/container.hpp>
#include <anybit/model/rotate.hpp>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <functional>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include <anybit/algorithm/compiled_methods.hpp>
#include <anybit/algorithm/gptq.hpp>
#include <anybit/evaluate/model.hpp>
#include <anybit/exec/thread_pool.hpp>
#include <anybit/format/formats.hpp>
#include <anybit/model/load.hpp>
#include <anybit/quantize/one_shot.hpp>
#include <anybit/transform/awq.hpp>
#include <anybit/transform/smooth_quant.hpp>

#include "model/letters.hpp"
#include "model/naive_decoder.hpp"
#include "model/random_decoder.hpp"
#include "model/random_ids.hpp"
#include "support/catch.hpp"
#include "support/real_model.hpp"
#include "support/same_bits.hpp"
#include "support/temporary_folder.hpp"

using namespace anybit;
using namespace anybit::model;
using namespace anybit::nn;
using test_support::calibrated;
using test_support::ids;
using test_support::logits_of;
using test_support::random_decoder;
using test_support::read_file;
using test_support::same_bits;

namespace {

float worst_difference(const Matrix& a, const Matrix& b) {
  REQUIRE(a.extents() == b.extents());
  float worst = 0;
  for (Index i = 0; i < a.extents().size(); ++i) worst = std::max(worst, std::abs(a.data()[i] - b.data()[i]));
  return worst;
}

std::vector<RotationOptions> all_options() {
  std::vector<RotationOptions> out;
  for (unsigned bits = 0; bits < 32; ++bits)
    out.push_back({.seed = bits,
                   .residual = (bits & 1) != 0,
                   .keep_tied = (bits & 2) != 0,
                   .values = (bits & 4) != 0,
                   .attn_output = (bits & 8) != 0,
                   .ffn_down = (bits & 16) != 0});
  return out;
}

using Fine = Nearest<Superfloat<16>, PerGroup<16>, ScaleF32>;

}  // namespace

TEST_CASE("rotated models give the logits of the naive forward of what they were made from") {
  for (const Index kv_heads : {Index{4}, Index{2}, Index{1}})
    for (const bool own_head : {false, true}) {
      const Decoder d = random_decoder(kv_heads, own_head);
      const auto tokens = ids(20, 1);
      const auto truth = test_support::naive_forward(d, tokens);
      for (const RotationOptions& o : all_options()) {
        CAPTURE(kv_heads, own_head, describe(o), o.keep_tied);
        const Decoder r = rotate(d, o).value();
        REQUIRE(check(r).ok());
        const Matrix logits = logits_of(r, tokens);
        double worst = 0;
        for (Index t = 0; t < logits.rows(); ++t)
          for (Index j = 0; j < logits.cols(); ++j)
            worst = std::max(worst, std::abs(static_cast<double>(logits(t, j)) -
                                             truth[static_cast<std::size_t>(t)][static_cast<std::size_t>(j)]));
        CHECK(worst < 1e-4);

        const bool online_ends = o.residual && o.keep_tied && !own_head;
        CHECK(r.online.residual.has_value() == online_ends);
        CHECK(r.online.attn_output.has_value() == o.attn_output);
        CHECK(r.online.ffn_down.has_value() == o.ffn_down);
        CHECK(r.has_head() == (own_head || (o.residual && !online_ends)));
        CHECK((r.rotation == o));
        for (const float g : r.values(1, "ffn_norm"))
          if (o.residual && g != 1) FAIL("a gain is " << g);
        if (!o.residual) CHECK(r.output_norm() == d.output_norm());
        if (online_ends) {
          CHECK(r.output_norm() == d.output_norm());
          CHECK(r.token_embedding().dense() == d.token_embedding().dense());  // shared
        }
      }
    }
}

TEST_CASE("what the linears read is the rotated input of before") {
  const Decoder d = random_decoder(2);
  const RotationOptions o{.attn_output = true};
  const Decoder r = rotate(d, o).value();
  const auto inputs = [](const Decoder& of, Point wanted) {
    Matrix found;
    KvCache cache(cache_shape(of.config), 20);
    const Tap tap{1, wanted, [&](MutableMatrix x, TokenRange) { found = Matrix(x); }};
    REQUIRE(hidden_states(of, ids(20, 1), cache, {.taps = {&tap, 1}}).ok());
    return found;
  };
  Matrix down = inputs(d, Point::mlp_hidden);
  Hadamard::make(56, o.seed + 3).value().forward(down.view());
  CHECK(worst_difference(down, inputs(r, Point::mlp_hidden)) < 1e-4f);

  // Heads first, by the transpose, then across them.
  Matrix mixed = inputs(d, Point::head_out);
  const Hadamard heads = Hadamard::make(8, o.seed + 1).value();
  for (Index first = 0; first < 32; first += 8) heads.inverse(mixed.view().col_range(first, first + 8));
  Hadamard::make(32, o.seed + 2).value().forward(mixed.view());
  CHECK(worst_difference(mixed, inputs(r, Point::head_out)) < 1e-4f);

  // The norm's gain is gone: x / rms, rotated.
  Matrix normed = inputs(d, Point::mlp_in);
  for (Index t = 0; t < normed.rows(); ++t)
    for (Index j = 0; j < normed.cols(); ++j) normed(t, j) /= d.values(1, "ffn_norm")[static_cast<std::size_t>(j)];
  Hadamard::make(32, o.seed).value().forward(normed.view());
  CHECK(worst_difference(normed, inputs(r, Point::mlp_in)) < 1e-4f);
}

TEST_CASE("a KV cache that rotates too goes with rotated values, and does not undo them") {
  const Decoder d = random_decoder(2);
  const Matrix truth = logits_of(d, ids(40, 2));
  for (const std::uint64_t seed : {std::uint64_t{0}, std::uint64_t{1}}) {
    const Decoder r = rotate(d, {.seed = seed}).value();
    CHECK(worst_difference(truth, logits_of(r, ids(40, 2), {.bits = 32, .residual = 32, .hadamard = true})) < 1e-4f);
  }
  // An outlier in one channel of the values is spread behind both rotations.
  const Hadamard values = Hadamard::make(8, 2).value(), cache = Hadamard::make(8).value();
  std::vector<float> v{0, 0, 8, 0, 0, 0, 0, 0};
  values.inverse(v);
  cache.forward(v);
  CHECK(*std::max_element(v.begin(), v.end()) < 7.5f);
}

TEST_CASE("recipes for rotated models, through to 16-bit weights and int8 activations") {
  for (const Index kv_heads : {Index{4}, Index{2}})
    for (const bool own_head : {false, true}) {
      const Decoder d = random_decoder(kv_heads, own_head);
      for (const RotationOptions& o :
           {RotationOptions{}, RotationOptions{.keep_tied = false, .attn_output = true}, RotationOptions{.ffn_down = false}}) {
        Decoder r = rotate(d, o).value();
        const ModelStats stats = calibrated(r, Needs::hessian | Needs::samples);
        const PackedEmbedding embedding = pack_embedding(r).value();
        for (const ModelRecipe& plain :
             {model_recipe("plain", Fine{}), model_recipe("smooth", SmoothQuant{.alpha = 0.8f} | Fine{}),
              model_recipe("awq", Awq{} | Fine{}), model_recipe("gptq", Gptq<Superfloat<16>, PerGroup<16>, ScaleF32>{})}) {
          const ModelRecipe recipe = rotated("rotated-" + plain.name, plain, o);
          INFO(recipe.name << " " << recipe.description << kv_heads);
          CHECK(recipe.description == describe(o) + " | " + plain.description);
          const QuantizedModel q = quantize_model(r, stats, recipe, embedding).value();
          Decoder exact_ends = q.decoder;
          exact_ends.token_embedding() = r.token_embedding();
          if (r.has_head()) exact_ends.head() = r.head();
          CHECK(worst_difference(logits_of(d, ids(40, 9)), logits_of(exact_ends, ids(40, 9))) < 0.02f);
          ModelStats inputs(r, Needs::samples, 16);
          REQUIRE(inputs.accumulate(r, ids(48, 5), {}).ok());
          for (const double e : evaluate::layer_errors(r, q, inputs, {})) CHECK(e < 2e-3);
        }
      }
    }
}

TEST_CASE("a rotation in between is not passed by scales") {
  Decoder d = rotate(random_decoder(4), {.attn_output = true}).value();
  for (const SiblingGroup& g : sibling_groups(d)) {
    const bool normed = g.producer.kind == Producer::Kind::norm;
    CHECK((g.norm_gain != nullptr) == normed);
    CHECK(g.upstream == nullptr);
  }
  Decoder fused = rotate(random_decoder(4), {.ffn_down = false}).value();
  for (const SiblingGroup& g : sibling_groups(fused)) CHECK((g.upstream != nullptr) == (g.norm_gain == nullptr));
}

TEST_CASE("a recipe for a rotated model refuses another") {
  const Decoder d = random_decoder(2), r = rotate(d).value();
  const ModelRecipe recipe = rotated("rotated-fine", model_recipe("fine", Fine{}));
  const auto tried = [&](const Decoder& source, const ModelRecipe& with) {
    const auto q = quantize_model(source, calibrated(source, Needs::none), with, pack_embedding(source).value());
    return q ? std::string() : q.error().message;
  };
  CHECK(tried(r, recipe).empty());
  CHECK(tried(r, model_recipe("fine", Fine{})).empty());
  CHECK(tried(d, recipe).find("recipe rotated-fine is for a rotated model: give what rotate(") == 0);
  CHECK(tried(rotate(d, {.seed = 2}).value(), recipe).find("for a rotated model") != std::string::npos);
}

TEST_CASE("what cannot be rotated is an error that says which part and what to do") {
  const auto message = [](const Decoder& d, const RotationOptions& o = {}) {
    const auto r = rotate(d, o);
    return r ? std::string() : r.error().message;
  };
  Decoder d = random_decoder(2);
  CHECK(message(rotate(d).value()) == "rotate: the model is rotated already; give the one that it was made from");
  Decoder half = d;
  half.linear(1, "ffn_gate") = Linear(AnyPacked(pack(Fine{}.quantize(d.linear(1, "ffn_gate").dense()->view()).value().matrix)));
  CHECK(message(half).find("rotate: blk.1.ffn_gate.weight is quantized already") == 0);

  DecoderConfig config = d.config;
  config.hidden = 50;
  Decoder odd = make_decoder(llama_architecture, config);
  odd.weights = d.weights;
  for (Index i = 0; i < 2; ++i) {
    odd.linear(i, "ffn_gate") = odd.linear(i, "ffn_up") = Linear(Matrix(50, 32));
    odd.linear(i, "ffn_down") = Linear(Matrix(32, 50));
  }
  CHECK(message(odd) ==
        "rotate: the input of down (switch it off by RotationOptions::ffn_down): hadamard: there is no matrix of order 50; "
        "nearest to it are 48 and 52");
  CHECK(message(odd, {.ffn_down = false}).empty());
}

TEST_CASE("rotation is the same for any number of threads") {
  const Decoder d = random_decoder(2, true);
  const Decoder one = rotate(d).value();
  ThreadPool pool(3);
  const Decoder many = rotate(d, {}, pool).value();
  std::vector<const Matrix*> a, b;
  for_each_linear(one, [&](const std::string&, const Linear& l) { a.push_back(l.dense()); });
  for_each_linear(many, [&](const std::string&, const Linear& l) { b.push_back(l.dense()); });
  for (std::size_t i = 0; i < a.size(); ++i) CHECK(same_bits(*a[i], *b[i]));
}

TEST_CASE("a saved model carries its rotations; one that contradicts itself is an error") {
  const test_support::TemporaryFolder folder;
  SchemeRegistry schemes;
  schemes.add<Fine::scheme>();
  schemes.add<EmbeddingScheme>();
  for (const RotationOptions& o : all_options()) {
    CAPTURE(describe(o));
    const Decoder r = rotate(random_decoder(2), o).value();
    const Decoder q =
        quantize_model(r, calibrated(r, Needs::none), model_recipe("fine", Fine{}), pack_embedding(r).value()).value().decoder;
    for (const Decoder& saved : {r, q}) {
      REQUIRE(save_model(folder / "m", {"m", saved, test_support::letters()}).ok());
      const auto back = load_model(folder / "m", {.schemes = schemes});
      INFO((back ? "" : back.error().message));
      REQUIRE(back);
      CHECK(same_bits(logits_of(back->decoder, ids(30, 3)), logits_of(saved, ids(30, 3))));
      const auto file = io::AnybitFile::open(folder / "m");
      CHECK(file->metadata().at("general.architecture") == (saved.online.any() ? "llama-rotated" : "llama"));
    }
  }

  const Decoder r = rotate(random_decoder(2)).value();
  REQUIRE(save_model(folder / "good", {"m", r, test_support::letters()}).ok());
  const std::string good = read_file(folder / "good");
  const auto with = [&](std::vector<std::pair<std::string, std::string>> changes) {  // of equal length, so that offsets stay
    std::string changed = good;
    for (const auto& [from, to] : changes) {
      REQUIRE(from.size() == to.size());
      const auto at = changed.find(from);
      REQUIRE(at != std::string::npos);
      changed.replace(at, from.size(), to);
    }
    std::ofstream(folder / "changed", std::ios::binary) << changed;
    const auto loaded = load_model(folder / "changed");
    return loaded ? std::string("no error") : loaded.error().message;
  };
  CHECK(with({}) == "no error");
  CHECK(with({{"\"rotation.residual\":\"1\"", "\"rotation.residual\":\"x\""}}).find("rotation.residual is 'x'") !=
        std::string::npos);
  CHECK(with({{"\"rotation.ffn_down\"", "\"rotatiom.ffn_down\""}}).find("no metadata key 'rotation.ffn_down'") !=
        std::string::npos);
  CHECK(with({{"\"general.architecture\":\"llama-rotated\"", "\"general.architecture\":\"llama\"        "}})
            .find("is for models of the architecture 'llama-rotated'") != std::string::npos);
}

TEST_CASE("SmolLM2 rotated gives its own logits") {
  ANYBIT_REAL_MODEL_OR_SKIP(path);
#if !defined(__OPTIMIZE__)
  ANYBIT_HAVE_OR_SKIP(false, "an unoptimized build is too slow for SmolLM2");
#endif
  const Model m = load_model(path).value();
  ThreadPool pool;
  const auto tokens = ids(40, 4, 49152);
  const auto run = [&](const Decoder& d) {
    KvCache cache(cache_shape(d.config), 40);
    return forward(d, tokens, cache, {.executor = pool}).value();
  };
  const Matrix before = run(m.decoder);
  float largest = 0;
  for (Index i = 0; i < before.extents().size(); ++i) largest = std::max(largest, std::abs(before.data()[i]));
  for (const RotationOptions& o : {RotationOptions{}, RotationOptions{.keep_tied = false, .attn_output = true}}) {
    const float worst = worst_difference(before, run(rotate(m.decoder, o, pool).value()));
    CAPTURE(worst, largest, describe(o));
    CHECK(worst < 1e-3f * largest);
  }
}
