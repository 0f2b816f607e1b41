// The sites of every architecture: what shares an input, and that a scale folded into its producer leaves the model as it was.

#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include <anybit/algorithm/compiled_methods.hpp>
#include <anybit/algorithm/nearest.hpp>
#include <anybit/format/superfloat.hpp>
#include <anybit/io/anybit_file.hpp>
#include <anybit/model/container.hpp>
#include <anybit/model/load.hpp>
#include <anybit/quantize/one_shot.hpp>
#include <anybit/transform/awq.hpp>

#include "model/random_ids.hpp"
#include "support/catch.hpp"
#include "support/largest_difference.hpp"
#include "support/temporary_folder.hpp"
#include "support/test_data.hpp"

using namespace anybit;
using namespace anybit::model;

namespace {

constexpr const char* architecture_folders[] = {"llama",   "mistral",   "qwen2",    "qwen3",     "gemma",      "gemma2",
                                                "gemma3",  "phi3",      "gpt2",     "opt",       "opt_350m",   "gpt_neox",
                                                "gptj",    "phi2",      "palm",     "falcon_7b", "falcon_40b", "falcon_rw",
                                                "mixtral", "qwen2_moe", "qwen3_moe"};

Matrix logits_of_tokens(const Decoder& d) {
  std::vector<TokenId> ids;
  for (int i = 0; i < 20; ++i) ids.push_back(static_cast<TokenId>((7 * i + 3) % d.config.vocabulary));
  nn::KvCache cache(cache_shape(d.config), 20);
  return forward(d, ids, cache).value();
}
double largest(const Matrix& m) {
  double out = 0;
  for (Index i = 0; i < m.extents().size(); ++i) out = std::max(out, std::fabs(static_cast<double>(m.data()[i])));
  return out;
}

/// Random scales of a site's input, equal where inputs are tied.
std::vector<float> random_scales(const SiblingGroup& g, Index inputs, std::mt19937& random) {
  std::uniform_real_distribution<float> uniform(0.5f, 2.0f);
  std::vector<float> by_row(static_cast<std::size_t>(inputs)), out;
  for (float& s : by_row) s = uniform(random);
  const std::vector<Index> tied = tied_inputs(g);
  for (Index j = 0; j < inputs; ++j)
    out.push_back(by_row[static_cast<std::size_t>(tied.empty() ? j : tied[static_cast<std::size_t>(j)])]);
  return out;
}

/// Folds a scale into the producer of every site that has one; how many there were.
int fold_everywhere(Decoder& d) {
  std::mt19937 random(3);
  int folded = 0;
  for (std::size_t i = 0; i < d.blueprint->sites.size(); ++i) {
    const SiblingGroup g = sibling_group(d, static_cast<SiteId>(i));
    if (!g.norm_gain && !g.upstream) continue;
    const std::vector<float> scale = random_scales(g, d.blueprint->sites[i].inputs, random);
    for (const NamedLinear& l : g.linears) scale_columns(*l.linear, scale);
    for (nn::Linear* const l : g.float_readers) scale_columns(*l, scale);
    for (const SiteId e : g.experts)
      for (const NamedLinear& l : sibling_group(d, e).linears) scale_columns(*l.linear, scale);
    if (g.norm_gain) {
      g.fold_into_norm(scale);
    } else {
      const std::vector<float> divisor = upstream_divisor(g, scale);
      Matrix w(g.upstream->dense()->view());
      fold_rows(divisor, w.view());
      std::vector<float> bias = g.upstream->bias();
      for (std::size_t r = 0; r < bias.size(); ++r) bias[r] /= divisor[r];
      *g.upstream = g.upstream->with_weights(nn::Linear(std::move(w)));
      g.upstream->set_bias(std::move(bias));
    }
    ++folded;
  }
  return folded;
}

std::string sites_text(const Decoder& d) {
  std::string out;
  for (const SiteId id : d.blueprint->sites_of(1)) {
    const SiteSpec& s = (*d.blueprint)[id];
    out += out.empty() ? "" : "; ";
    for (const WeightId r : s.readers) {
      const std::string& name = (*d.blueprint)[r].name;
      out += (r == s.readers.front() ? "" : " ") + name.substr(6, name.size() - 13);
    }
    if (s.producer.kind == Producer::Kind::none) continue;
    const std::string& from = (*d.blueprint)[s.producer.weight].name;
    out += " < " + from.substr(6, from.size() - 13) + (s.producer.bias ? "+" : "");
  }
  return out;
}

using Fine16 = Nearest<Superfloat<16>, PerGroup<16>, ScaleF32>;

}  // namespace

TEST_CASE("sites of architectures: who reads together and which producer takes a scale") {
  ANYBIT_TEST_DATA_OR_SKIP(vectors, "vectors/arch");
  const auto sites = [&](const char* name) { return sites_text(load_decoder(vectors + "/" + name).value()); };
  CHECK(sites("llama") ==
        "attn_q attn_k attn_v < attn_norm; attn_output < attn_v; ffn_gate ffn_up < ffn_norm; ffn_down < ffn_up");
  CHECK(sites("palm") == "attn_q attn_k attn_v ffn_gate ffn_up < attn_norm; attn_output < attn_v; ffn_down < ffn_up");
  CHECK(sites("gptj") == "attn_q attn_k attn_v ffn_up < attn_norm+; attn_output < attn_v; ffn_down");
  CHECK(sites("gpt2") == "attn_q attn_k attn_v < attn_norm+; attn_output < attn_v; ffn_up < ffn_norm+; ffn_down");
  CHECK(sites("opt") == "attn_q attn_k attn_v < attn_norm+; attn_output < attn_v; ffn_up < ffn_norm+; ffn_down < ffn_up");
  CHECK(sites("opt_350m") == "attn_q attn_k attn_v; attn_output < attn_v; ffn_up; ffn_down < ffn_up");
  CHECK(sites("falcon_40b") == sites("gpt2"));
  const std::string attention = "attn_q attn_k attn_v < attn_norm; attn_output < attn_v; ";
  std::string experts, downs;
  for (int e = 0; e < 6; ++e) {
    const std::string k = "." + std::to_string(e);
    experts += "ffn_gate" + k + " ffn_up" + k + " < ffn_norm; ";
    downs += "; ffn_down" + k + " < ffn_up" + k;
  }
  CHECK(sites("qwen2_moe") == attention + "ffn_gate_shexp ffn_up_shexp < ffn_norm; " + experts.substr(0, experts.size() - 2) +
                                  downs + "; ffn_down_shexp < ffn_up_shexp");
  CHECK(sites("qwen3_moe") == sites("llama"));  // block 1 is dense
  CHECK(sites("mixtral").starts_with(attention + " < ffn_norm; ffn_gate.0 ffn_up.0 < ffn_norm; "));
}

TEST_CASE("sites of architectures: folded scales leave the logits as they were") {
  ANYBIT_TEST_DATA_OR_SKIP(vectors, "vectors/arch");
  for (const char* const name : architecture_folders) {
    CAPTURE(name);
    Decoder d = load_decoder(vectors + "/" + name).value();
    const Matrix before = logits_of_tokens(d);
    CHECK(fold_everywhere(d) >= 2 * static_cast<int>(d.config.blocks));
    CHECK(test_support::largest_difference(before.view(), logits_of_tokens(d).view()) < 1e-5 * std::max(1.0, largest(before)));
  }
}

TEST_CASE("sites of architectures: models quantize and their containers read back") {
  ANYBIT_TEST_DATA_OR_SKIP(vectors, "vectors/arch");
  const test_support::TemporaryFolder folder;
  SchemeRegistry schemes;
  schemes.add<Fine16::scheme>();
  schemes.add<EmbeddingScheme>();
  const ModelRecipe recipe = model_recipe("awq", Awq{.clip = false} | Fine16{});
  for (const char* const name : architecture_folders) {
    CAPTURE(name);
    const Decoder d = load_decoder(vectors + "/" + name).value();
    const Matrix exact = logits_of_tokens(d);
    ModelStats stats(d, recipe.needs);
    std::vector<TokenId> ids;
    for (int i = 0; i < 32; ++i) ids.push_back(static_cast<TokenId>((11 * i + 5) % d.config.vocabulary));
    REQUIRE(stats.accumulate(d, ids, {}));
    auto q = quantize_model(d, stats, recipe, pack_embedding(d).value());
    INFO((q ? std::string() : q.error().message));
    REQUIRE(q);
    const PackedEmbedding packed = pack_embedding(d).value();
    Decoder fine = q->decoder;
    fine.token_embedding() = d.token_embedding();
    if (fine.has_head() || d.has_head()) fine.head() = d.output_head();
    CHECK(test_support::largest_difference(exact.view(), logits_of_tokens(fine).view()) < 2e-3 * std::max(1.0, largest(exact)));

    Vocabulary v;
    v.kind = TokenizerKind::byte_bpe;
    for (Index i = 0; i < d.config.vocabulary; ++i) {
      v.tokens.push_back("t" + std::to_string(i));
      v.kinds.push_back(TokenKind::normal);
    }
    REQUIRE(save_model(folder / name, Model{name, q->decoder, Tokenizer::make(std::move(v)).value()}));
    const auto again = model_from_container(io::AnybitFile::open(folder / name).value(), schemes);
    INFO((again ? std::string() : again.error().message));
    REQUIRE(again);
    CHECK(again->decoder.config == d.config);
    CHECK(test_support::largest_difference(logits_of_tokens(q->decoder).view(), logits_of_tokens(again->decoder).view()) == 0);
  }
}
