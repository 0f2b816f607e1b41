#include <anybit/io/gguf_mix.hpp>

#include <map>
#include <string>

#include <anybit/io/ggml_encoders.hpp>

#include "support/catch.hpp"

using namespace anybit;
using io::find_gguf_mix, io::mixed_type, io::MixFacts;

namespace {

/// The type of a tensor of 2 extents, or "-" where mixes leave it.
std::string type(std::string_view mix, const std::string& name, const MixFacts& facts, Index cols = 256) {
  const auto t = mixed_type(*find_gguf_mix(mix), name, 2, cols, facts);
  return t ? std::string(t->type) : "-";
}

/// One letter a block: the bits of the type of a tensor.
std::string by_block(std::string_view mix, const std::string& tensor, const MixFacts& facts) {
  std::string out;
  for (Index i = 0; i < facts.blocks; ++i) out += type(mix, "blk." + std::to_string(i) + "." + tensor + ".weight", facts)[1];
  return out;
}

}  // namespace

TEST_CASE("GGUF mixes: more bits for some blocks as llama.cpp gives them") {
  const MixFacts f{.blocks = 32, .queries_per_key = 1};
  // The first and the last eighth, and every third between.
  CHECK(by_block("Q4_K_M", "attn_v", f) == "66664464464464464464464464466666");
  CHECK(by_block("Q4_K_M", "ffn_down", f) == by_block("Q4_K_M", "attn_v", f));
  CHECK(by_block("Q4_K_M", "attn_q", f) == std::string(32, '4'));
  CHECK(by_block("Q5_K_M", "ffn_down", f) == "66665565565565565565565565566666");
  CHECK(by_block("Q4_K_S", "attn_v", f) == "5555" + std::string(28, '4'));
  CHECK(by_block("Q4_K_S", "ffn_down", f) == "5555" + std::string(28, '4'));
  CHECK(by_block("Q3_K_M", "attn_v", f) == "55" + std::string(30, '4'));
  CHECK(by_block("Q3_K_M", "ffn_down", f) == "55" + std::string(30, '4'));
  CHECK(by_block("Q3_K_M", "attn_output", f) == std::string(32, '4'));
  CHECK(by_block("Q3_K_M", "ffn_up", f) == std::string(32, '3'));
  CHECK(by_block("Q2_K", "attn_v", f) == std::string(32, '3'));
  CHECK(by_block("Q2_K", "attn_v", {.blocks = 32, .queries_per_key = 4}) == std::string(32, '4'));
  CHECK(by_block("Q2_K", "ffn_down", f) == std::string(32, '3'));
  CHECK(type("IQ4_XS", "blk.3.ffn_down.weight", f) == "Q5_K");
  CHECK(type("IQ4_XS", "blk.4.ffn_down.weight", f) == "IQ4_XS");
  CHECK(type("IQ4_XS", "blk.9.attn_v.weight", {.blocks = 32, .queries_per_key = 8}) == "Q5_K");
  CHECK(type("Q6_K", "blk.9.attn_qkv.weight", f) == "Q6_K");
  CHECK(type("Q5_K_M", "blk.9.attn_qkv.weight", f) == "Q6_K");
}

TEST_CASE("GGUF mixes: heads and tied embeddings, and what stays as it is") {
  const MixFacts apart{.blocks = 4}, tied{.blocks = 4, .tied = true};
  for (const char* mix : {"Q2_K", "Q3_K_M", "Q4_K_M", "Q4_0", "IQ4_XS", "TQ2_0"}) {
    CHECK(type(mix, "output.weight", apart) == "Q6_K");
    CHECK(type(mix, "token_embd.weight", tied) == "Q6_K");
    CHECK(type(mix, "token_embd.weight", tied, 576) == "Q8_0");
  }
  CHECK(type("Q4_K_M", "token_embd.weight", apart) == "Q4_K");
  CHECK(type("TQ1_0", "token_embd.weight", apart) == "Q4_K");
  CHECK(type("F16", "output.weight", apart) == "F16");
  CHECK(type("Q8_0", "output.weight", apart) == "Q8_0");
  for (const char* name : {"blk.0.attn_norm.weight", "output_norm.weight", "position_embd.weight", "blk.0.ffn_gate_inp.weight",
                           "token_types.weight", "dec.blk.0.attn_rel_b.weight", "blk.0.attn_q.bias", "rope_freqs"})
    CHECK(type("Q4_K_M", name, apart) == "-");
  CHECK(!mixed_type(*find_gguf_mix("Q4_K_M"), "blk.0.attn_q.weight", 1, 256, apart));
}

TEST_CASE("GGUF mixes: rows that no block divides take the type that llama.cpp takes") {
  const MixFacts f{.blocks = 4};
  const std::map<std::string, std::string> short_rows{
      {"Q2_K", "Q4_0"},  {"Q3_K_S", "Q4_0"}, {"Q4_K_S", "Q5_0"}, {"Q5_K_S", "Q5_1"}, {"Q6_K", "Q8_0"}, {"IQ4_XS", "IQ4_NL"},
      {"TQ1_0", "Q4_0"}, {"TQ2_0", "Q4_0"},  {"Q4_0", "Q4_0"},   {"MXFP4", "MXFP4"}, {"F16", "F16"}};
  for (const auto& [mix, instead] : short_rows) {
    CAPTURE(mix);
    const auto t = mixed_type(*find_gguf_mix(mix), "blk.2.ffn_up.weight", 2, 288, f);
    REQUIRE(t);
    CHECK(t->type == instead);
    CHECK((t->asked == t->type) == (find_gguf_mix(mix)->type == instead));
    CHECK(type(mix, "blk.2.ffn_up.weight", f, 40) == "F16");
  }
}

TEST_CASE("GGUF mixes: experts count as the tensor that they are, and spare the attention of eight") {
  const MixFacts f{.blocks = 32, .experts = 8};
  CHECK(type("Q4_K_M", "blk.0.ffn_down_exps.weight", f) == "Q6_K");
  CHECK(type("Q4_K_M", "blk.5.ffn_gate_exps.weight", f) == "Q4_K");
  CHECK(type("Q4_K_M", "blk.5.attn_k.weight", f) == "Q8_0");
  CHECK(type("Q3_K_M", "blk.5.attn_output.weight", f) == "Q5_K");
}

TEST_CASE("GGUF mixes: every type of a mix can be written") {
  for (const io::GgufMix& m : io::gguf_mixes) {
    CAPTURE(m.name);
    CHECK(io::find_ggml_encoder(m.type));
    CHECK((m.head.empty() || io::find_ggml_encoder(m.head)));
    for (const io::MixRule& r : m.rules) CHECK((r.tensor.empty() || io::find_ggml_encoder(r.type)));
  }
  CHECK(!find_gguf_mix("Q4_K"));
}

TEST_CASE("GGUF mixes: a file of mostly one type is called by the mix that llama.cpp would guess") {
  for (const auto& [type, id] : std::map<std::string, unsigned>{{"F32", 0},
                                                                {"F16", 1},
                                                                {"BF16", 32},
                                                                {"Q4_0", 2},
                                                                {"Q4_1", 3},
                                                                {"Q5_0", 8},
                                                                {"Q5_1", 9},
                                                                {"Q8_0", 7},
                                                                {"Q2_K", 10},
                                                                {"Q3_K", 12},
                                                                {"Q4_K", 15},
                                                                {"Q5_K", 17},
                                                                {"Q6_K", 18},
                                                                {"IQ4_NL", 25},
                                                                {"IQ4_XS", 30}}) {
    CAPTURE(type);
    REQUIRE(io::mostly(type));
    CHECK(io::mostly(type)->file_type == id);
  }
  CHECK(io::mostly("Q8_1") == nullptr);
}
