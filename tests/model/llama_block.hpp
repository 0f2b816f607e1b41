#pragma once
// The weights of one llama block by name, for tests that write the architecture out.

#include <cstddef>
#include <vector>

#include <anybit/model/arch/llama.hpp>

namespace test_support {

struct LlamaBlock {
  std::vector<float> attn_norm, ffn_norm;
  anybit::nn::Linear q, k, v, o, gate, up, down;
};

inline LlamaBlock llama_block(const anybit::model::Decoder& d, anybit::Index i) {
  const auto linear = [&](const char* name) { return d.linear(i, name); };
  return {d.values(i, "attn_norm"), d.values(i, "ffn_norm"), linear("attn_q"), linear("attn_k"),  linear("attn_v"),
          linear("attn_output"),    linear("ffn_gate"),      linear("ffn_up"), linear("ffn_down")};
}

inline void set_llama_block(anybit::model::Decoder& d, anybit::Index i, LlamaBlock b) {
  d.values(i, "attn_norm") = b.attn_norm, d.values(i, "ffn_norm") = b.ffn_norm;
  d.linear(i, "attn_q") = b.q, d.linear(i, "attn_k") = b.k, d.linear(i, "attn_v") = b.v, d.linear(i, "attn_output") = b.o;
  d.linear(i, "ffn_gate") = b.gate, d.linear(i, "ffn_up") = b.up, d.linear(i, "ffn_down") = b.down;
}

}  // namespace test_support
