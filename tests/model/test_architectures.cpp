// Every architecture against the answers of its reference implementation, from Hugging Face folders: logits, residual streams and
// inputs of linears, prompt at once and token by token.

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <string>
#include <vector>

#include <anybit/io/hf_folder.hpp>
#include <anybit/io/safetensors.hpp>
#include <anybit/model/arch/architectures.hpp>
#include <anybit/model/load.hpp>
#include <anybit/model/run.hpp>

#include "support/catch.hpp"
#include "support/largest_difference.hpp"
#include "support/temporary_folder.hpp"
#include "support/test_data.hpp"

using namespace anybit;
using namespace anybit::model;
using namespace anybit::nn;

namespace {

struct GoldenCase {
  const char* folder;
  const Architecture* architecture;
  /// Tokens of p2 up to which single steps agree with the whole: frequencies change with the length behind it.
  Index stepwise = 1000;
};
const std::vector<GoldenCase> golden_cases{{"llama", &llama_architecture},
                                           {"llama3", &llama_architecture},
                                           {"rope_linear", &llama_architecture},
                                           {"rope_yarn", &llama_architecture},
                                           {"rope_dynamic", &llama_architecture, 0},
                                           {"mistral", &llama_architecture},
                                           {"qwen2", &qwen2_architecture},
                                           {"qwen3", &qwen3_architecture},
                                           {"gemma", &gemma_architecture},
                                           {"gemma2", &gemma2_architecture},
                                           {"gemma3", &gemma3_architecture},
                                           {"phi3", &phi3_architecture, 0},
                                           {"gpt2", &gpt2_architecture},
                                           {"opt", &opt_architecture},
                                           {"opt_350m", &opt_architecture},
                                           {"gpt_neox", &gpt_neox_architecture},
                                           {"gptj", &gptj_architecture},
                                           {"phi2", &phi2_architecture},
                                           {"falcon_7b", &falcon_architecture},
                                           {"falcon_40b", &falcon_architecture},
                                           {"falcon_rw", &falcon_architecture},
                                           {"palm", &palm_architecture},
                                           {"mixtral", &llama_architecture},
                                           {"qwen2_moe", &qwen2_moe_architecture},
                                           {"qwen3_moe", &qwen3_moe_architecture}};

/// The golden values are as large as 50, and agree to 1e-4 of the largest or to 1e-4.
void check_close(ConstMatrix got, const Matrix& want) {
  double largest = 1;
  for (Index i = 0; i < want.extents().size(); ++i) largest = std::max(largest, std::fabs(static_cast<double>(want.data()[i])));
  REQUIRE(got.extents() == want.extents());
  CHECK(test_support::largest_difference(got, want.view()) < 1e-4 * largest);
}

/// The experts of every token as a set, and the weight of each.
void check_choice(const ExpertForm& form, ConstMatrix logits, const io::SafetensorsFile& golden, const std::string& name) {
  const auto experts = golden.read<std::int32_t>(name + ".experts").value();
  const Matrix weights = golden.read_f32(name + ".weights").value();
  Routing routing;
  routing.choose(logits, form.used, form.weights);
  for (Index t = 0; t < logits.rows; ++t) {
    std::map<Index, float> want, got;
    for (Index i = 0; i < form.used; ++i) {
      const auto at = static_cast<std::size_t>(i);
      want[experts[static_cast<std::size_t>(t * form.used) + at]] = weights(t, i);
      got[routing.experts(t)[at]] = routing.weights(t)[at];
    }
    REQUIRE(got.size() == want.size());
    for (const auto& [expert, weight] : want) {
      CAPTURE(t, expert);
      REQUIRE(got.contains(expert));
      CHECK(got[expert] == Approx(weight).epsilon(1e-4));
    }
  }
}

/// Checks `d` against golden.safetensors of `folder`.
void check_golden(const Decoder& d, const std::string& folder, Index stepwise) {
  const auto golden = io::SafetensorsFile::open(folder + "/golden.safetensors").value();
  int inputs = 0;
  for (const std::string prompt : {"p0", "p1", "p2"}) {
    CAPTURE(prompt);
    const auto ids = golden.read<std::int32_t>(prompt + ".ids").value();
    const auto tokens = static_cast<Index>(ids.size());
    const Matrix logits = golden.read_f32(prompt + ".logits").value();
    std::vector<Tap> taps;
    std::size_t seen = 0;
    const auto compare = [&](Index block, Point point, const std::string& name) {
      if (!golden.find(name)) return false;
      taps.push_back({block, point, [&, name](MutableMatrix x, TokenRange positions) {
                        CAPTURE(name);
                        check_close(x, golden.read_f32(name).value());
                        CHECK(positions.end - positions.begin == tokens);
                        ++seen;
                      }});
      return true;
    };
    compare(Tap::every_block, Point::embedding, prompt + ".h.0");
    for (Index i = 0; i < d.config.blocks; ++i) compare(i, Point::residual, prompt + ".h." + std::to_string(i + 1));
    compare(Tap::every_block, Point::final_norm, prompt + ".h.norm");
    for (const SiteSpec& site : d.blueprint->sites)
      if (!site.float_readers.empty())
        inputs += compare(site.block, site.point, prompt + ".in.model.layers." + std::to_string(site.block) + ".mlp");
    for (Index i = 0; i < d.config.blocks; ++i) {
      const std::string router = prompt + ".router." + std::to_string(i);
      CHECK(d.config.form.experts.in(i) == (golden.find(router + ".logits") != nullptr));
      if (!d.config.form.experts.in(i)) continue;
      compare(i, Point::router, router + ".logits");
      taps.push_back({i, Point::router, [&, router](MutableMatrix x, TokenRange) {
                        check_choice(d.config.form.experts, x, golden, router);
                        ++seen;
                      }});
    }
    for (const SiteSpec& site : d.blueprint->sites)
      for (const WeightId reader : site.readers) {
        const std::string name = hugging_face_name(*d.blueprint->architecture, d.config, (*d.blueprint)[reader].name);
        inputs += compare(site.block, site.point, prompt + ".in." + name.substr(0, name.size() - 7));
      }

    KvCache cache(cache_shape(d.config), tokens);
    const auto whole = forward(d, ids, cache, {.taps = taps});
    REQUIRE(whole);
    CHECK(seen == taps.size());
    CHECK(seen >= 1);
    check_close(whole->view(), logits);
    if (prompt == "p2" && stepwise == 0) continue;
    cache.clear();
    Matrix single(tokens, logits.cols());
    for (Index t = 0; t < tokens; ++t) {
      const auto one = forward(d, std::span(ids).subspan(static_cast<std::size_t>(t), 1), cache);
      REQUIRE(one);
      std::copy_n(one->data(), one->cols(), single.data() + t * single.cols());
    }
    check_close(single.view(), logits);
  }
  CHECK(inputs >= 3);
}

}  // namespace

TEST_CASE("architectures: golden logits and residual streams and inputs of linears") {
  ANYBIT_TEST_DATA_OR_SKIP(vectors, "vectors/arch");
  for (const GoldenCase& g : golden_cases) {
    CAPTURE(g.folder);
    const std::string folder = vectors + "/" + g.folder;
    const auto d = load_decoder(folder);
    INFO((d ? std::string() : d.error().message));
    REQUIRE(d);
    CHECK(d->blueprint->architecture == g.architecture);
    CHECK(check(*d).ok());
    check_golden(*d, folder, g.stepwise);
  }
}

TEST_CASE("architectures: config.json as transformers 5 writes it gives the same configuration") {
  ANYBIT_TEST_DATA_OR_SKIP(vectors, "vectors/arch");
  const test_support::TemporaryFolder copy;
  for (const GoldenCase& g : golden_cases) {
    CAPTURE(g.folder);
    const std::filesystem::path folder = vectors + "/" + g.folder;
    if (!std::filesystem::exists(folder / "config_v5.json")) continue;  // PaLM is not in transformers
    for (const auto& file : std::filesystem::directory_iterator(folder))
      if (file.path().filename().string().starts_with("model")) {
        const std::filesystem::path to = copy / file.path().filename().string();
        std::filesystem::remove(to);
        std::filesystem::create_symlink(std::filesystem::absolute(file.path()), to);
      }
    std::ofstream(copy / "config.json", std::ios::binary) << std::ifstream(folder / "config_v5.json").rdbuf();
    const auto published = load_decoder(folder.string()), written = load_decoder(copy / "");
    INFO((written ? std::string() : written.error().message));
    REQUIRE(written);
    CHECK(written->config == published->config);
    for (const auto& file : std::filesystem::directory_iterator(copy / "")) std::filesystem::remove(file.path());
  }
}

TEST_CASE("architectures: folders that do not fit their configuration are refused") {
  ANYBIT_TEST_DATA_OR_SKIP(vectors, "vectors/arch");
  const test_support::TemporaryFolder copy;
  const auto refused = [&](const std::string& name, const std::string& from, const std::string& to, const std::string& part) {
    CAPTURE(from, to);
    std::string config =
        std::string(std::istreambuf_iterator<char>(std::ifstream(vectors + "/" + name + "/config.json").rdbuf()), {});
    const std::size_t at = config.find(from);
    REQUIRE(at != std::string::npos);
    std::ofstream(copy / "config.json") << config.replace(at, from.size(), to);
    const std::filesystem::path weights = copy / "model.safetensors";
    std::filesystem::remove(weights);
    std::filesystem::create_symlink(std::filesystem::absolute(vectors + "/" + name + "/model.safetensors"), weights);
    const auto d = load_decoder(copy / "");
    REQUIRE_FALSE(d);
    INFO(d.error().message);
    CHECK(d.error().message.find(part) != std::string::npos);
    CHECK(d.error().message.find('\n') == std::string::npos);
    CHECK(d.error().message.starts_with(std::filesystem::path(copy / "").parent_path().string()));
  };
  refused("llama", "\"llama\"", "\"gpt5\"", "model_type is 'gpt5': anybit runs 'llama', 'mistral'");
  refused("llama", "\"llama\"", "\"gpt5\"", "(nearest in name: 'gpt2')");
  refused("llama", "\"intermediate_size\": 60", "\"intermediate_size\": 64",
          "tensor model.layers.0.mlp.gate_proj.weight is 60 x 48, the configuration needs 64 x 48");
  refused("llama", "\"hidden_size\": 48", "\"hidden_size\": -1", "hidden_size is -1, not 1 to");
  refused("llama", "\"hidden_size\": 48,", "", "hidden_size is absent");
  refused("llama", "\"silu\"", "\"mish\"", "hidden_act is 'mish': anybit computes silu");
  refused("llama", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1", "'model.layers.1.input_layernorm.weight' is no part");
  refused("llama", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3", "no tensor 'model.layers.2.input_layernorm.weight'");
  refused("llama", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 2000000000", "blocks, but the file only");
  refused("llama", "\"attention_bias\": false", "\"attention_bias\": true", "no tensor 'model.layers.0.self_attn.q_proj.bias'");
  refused("llama", "\"mlp_bias\": false", "\"mlp_bias\": false, \"logit_scale\": 0.5",
          "logit_scale is 0.5: anybit runs llama only");
  refused("llama3", "\"rope_type\": \"llama3\"", "\"rope_type\": \"new\"", "rope_scaling.rope_type is 'new': anybit knows");
  refused("llama3", "\"factor\": 8.0", "\"factor\": -8", "rope_scaling.factor is -8, not a number above 0");
  refused("llama3", "\"tie_word_embeddings\": true", "\"tie_word_embeddings\": false", "there is no tensor 'lm_head.weight'");
  refused("phi3", "\"num_key_value_heads\": 2", "\"num_key_value_heads\": 1",
          "tensor model.layers.0.self_attn.qkv_proj.weight is 96 x 48, the configuration needs 48 x 48");
  refused("falcon_40b", "\"num_kv_heads\": 3", "\"num_kv_heads\": 4", "head count 6 is no multiple");
  refused("gemma3", "\"num_hidden_layers\": 4", "\"num_hidden_layers\": 2000000000", "windows are given for 65536 of 2000000000");
  refused("llama3", "\"head_dim\": 12", "\"head_dim\": 2000000000", "head_dim is 2e+09, which gives heads that are too wide");
  refused("mixtral", "\"num_local_experts\": 4", "\"num_local_experts\": 3",
          "tensor model.layers.0.block_sparse_moe.gate.weight is 4 x 32, the configuration needs 3 x 32");
  refused("mixtral", "\"num_local_experts\": 4", "\"num_local_experts\": 4000",
          "has 4000 experts in each of 2 blocks, but the file only");
  refused("mixtral", "\"num_local_experts\": 4", "\"num_local_experts\": 40000", "the number of experts is 40000, not 0 to 4096");
  refused("mixtral", "\"num_local_experts\": 4,", "", "num_local_experts is absent");
  refused("mixtral", "\"num_experts_per_tok\": 2", "\"num_experts_per_tok\": 5", "5 experts are used per token, not 1 to the 4");
  refused("mixtral", "\"num_experts_per_tok\": 2", "\"num_experts_per_tok\": 0", "num_experts_per_tok is 0, not 1 to");
  refused("qwen2_moe", "\"num_experts\": 6", "\"num_experts\": 0", "no tensor 'model.layers.0.mlp.gate_proj.weight'");
  refused("qwen2_moe", "\"moe_intermediate_size\": 24", "\"moe_intermediate_size\": 25",
          "tensor model.layers.0.mlp.experts.0.gate_proj.weight is 24 x 32, the configuration needs 25 x 32");
  refused("qwen2_moe", "\"shared_expert_intermediate_size\": 40", "\"shared_expert_intermediate_size\": 41",
          "tensor model.layers.0.mlp.shared_expert.gate_proj.weight is 40 x 32, the configuration needs 41 x 32");
  refused("qwen3_moe", "\"mlp_only_layers\": [\n  1\n ]", "\"mlp_only_layers\": [0]",
          "no tensor 'model.layers.0.mlp.gate_proj.weight'");
  refused("qwen3_moe", "\"decoder_sparse_step\": 1", "\"decoder_sparse_step\": -1", "decoder_sparse_step is -1, not 1 to");
  refused("llama", "\"mlp_bias\": false", "\"mlp_bias\": false, \"num_local_experts\": 4",
          "num_local_experts is 4: anybit runs llama only");
  refused("gpt2", "\"n_inner\": 88", "\"n_inner\": 80", "tensor h.0.mlp.c_fc.weight is 88 x 48, the configuration needs 80 x 48");
  refused("gpt2", "\"n_positions\": 48", "\"n_positions\": 47", "tensor wpe.weight is 48 x 48");
}

TEST_CASE("architectures: a folder with its tokenizer loads whole and block by block") {
  ANYBIT_TEST_DATA_OR_SKIP(folder, "vectors/checkpoints/gptq_v1_b4_g32_sym");
  const auto whole = load_model(folder);
  INFO((whole ? std::string() : whole.error().message));
  REQUIRE(whole);
  CHECK(whole->name == "gptq_v1_b4_g32_sym");
  CHECK(whole->tokenizer.size() == whole->decoder.config.vocabulary);
  const auto later = open_blocks(folder);
  REQUIRE(later);
  CHECK(later->model.decoder.linear(1, "attn_q").extents().size() == 0);
  for (Index i = 0; i < whole->decoder.config.blocks; ++i) {
    const auto block = later->load_block(i);
    REQUIRE(block);
    REQUIRE(block->size() == whole->decoder.block(i).size());
    for (std::size_t w = 0; w < block->size(); ++w) {
      const Weight &a = (*block)[w], &b = whole->decoder.block(i)[w];
      CHECK(a.values == b.values);
      REQUIRE(a.linear.extents() == b.linear.extents());
      if (a.linear.dense()) CHECK(test_support::largest_difference(a.linear.dense()->view(), b.linear.dense()->view()) == 0);
    }
  }
}

TEST_CASE("architectures: taps of experts say how many tokens entered each, and what they write is computed with") {
  ANYBIT_TEST_DATA_OR_SKIP(folder, "vectors/arch/qwen2_moe");
  const Decoder d = load_decoder(folder).value();
  const ExpertForm& form = d.config.form.experts;
  std::vector<TokenId> ids;
  for (int i = 0; i < 23; ++i) ids.push_back(static_cast<TokenId>(7 * i % d.config.vocabulary));
  Index entered = 0, hidden = 0, calls = 0;
  std::vector<Index> by_expert(static_cast<std::size_t>(form.count));
  std::vector<Tap> taps{{1, Point::expert_in,
                         [&](MutableMatrix x, TokenRange positions) {
                           CHECK(x.cols == d.config.dim);
                           CHECK(positions.end - positions.begin == 23);
                           entered += x.rows, ++calls;
                         }},
                        {1, Point::expert_hidden, [&](MutableMatrix x, TokenRange) {
                           CHECK(x.cols == form.hidden);
                           hidden += x.rows;
                         }}};
  for (Index e = 0; e < form.count; ++e)
    taps.push_back(
        {1, Point::expert_in, [&, e](MutableMatrix x, TokenRange) { by_expert[static_cast<std::size_t>(e)] += x.rows; }, e});
  KvCache cache(cache_shape(d.config), 23);
  const Matrix plain = forward(d, ids, cache).value();
  cache.clear();
  const Matrix tapped = forward(d, ids, cache, {.taps = taps}).value();
  CHECK(test_support::largest_difference(plain.view(), tapped.view()) == 0);
  CHECK(entered == 23 * form.used);
  CHECK(hidden == entered);
  CHECK(calls == form.count);
  Index sum = 0;
  for (const Index n : by_expert) sum += n;
  CHECK(sum == entered);

  // A router that is overridden by a tap sends every token to the last experts.
  std::vector<Index> routed(static_cast<std::size_t>(form.count));
  std::vector<Tap> override{{Tap::every_block, Point::router, [&](MutableMatrix z, TokenRange) {
                               for (Index t = 0; t < z.rows; ++t)
                                 for (Index e = 0; e < z.cols; ++e) z(t, e) = static_cast<float>(e);
                             }}};
  for (Index e = 0; e < form.count; ++e)
    override.push_back(
        {0, Point::expert_in, [&, e](MutableMatrix x, TokenRange) { routed[static_cast<std::size_t>(e)] = x.rows; }, e});
  cache.clear();
  const Matrix other = forward(d, ids, cache, {.taps = override}).value();
  CHECK(routed == std::vector<Index>{0, 0, 0, 23, 23, 23});
  CHECK(test_support::largest_difference(plain.view(), other.view()) > 0.01);

  const std::vector<Tap> none{{0, Point::expert_in, [](MutableMatrix, TokenRange) {}, form.count}};
  cache.clear();
  const auto refused = forward(d, ids, cache, {.taps = none});
  REQUIRE_FALSE(refused);
  CHECK(refused.error().message == "forward: a tap is in expert 6, the model has 6, counted from 0");
}
