#pragma once
// llama.cpp's mixes as data: which type each tensor of a GGUF file gets. Q4_K_M, for example, is Q4_K with more bits for the
// values and the down projection of some blocks.

#include <anybit/core/macros_begin.hpp>

#include <array>
#include <charconv>
#include <optional>
#include <string>
#include <string_view>

#include <anybit/core/result.hpp>
#include <anybit/core/types.hpp>
#include <anybit/io/detail/text.hpp>
#include <anybit/io/dtype.hpp>

namespace anybit::io {
inline namespace ANYBIT_CODE {

/// The blocks that a rule is for; n blocks, counted from i = 0. Divisions are those of integers.
enum class MixBlocks : std::uint8_t {
  all,
  first_two,
  first_four,
  first_sixteenth,  ///< i < n / 16
  first_eighth,     ///< i < n / 8
  more_bits,        ///< the first and last eighth and every third between them
  grouped_queries,  ///< all, where at least 4 query heads share a key-value head
};

/// A type for a tensor of some blocks, "attn_v" for "blk.N.attn_v.weight". The first rule that fits wins.
struct MixRule {
  std::string_view tensor, type;
  MixBlocks blocks = MixBlocks::all;
};

struct GgufMix {
  std::string_view name, type;
  unsigned file_type;  ///< general.file_type
  std::array<MixRule, 5> rules{};
  /// Of the head, or of an embedding that is the head as well; the type of the mix where empty.
  std::string_view head = "Q6_K";
};

inline constexpr std::array gguf_mixes = [] {
  using enum MixBlocks;
  return std::array{
      GgufMix{"F32", "F32", 0, {}, {}},
      GgufMix{"F16", "F16", 1, {}, {}},
      GgufMix{"BF16", "BF16", 32, {}, {}},
      GgufMix{"Q8_0", "Q8_0", 7, {}, {}},
      GgufMix{"Q4_0", "Q4_0", 2},
      GgufMix{"Q4_1", "Q4_1", 3},
      GgufMix{"Q5_0", "Q5_0", 8},
      GgufMix{"Q5_1", "Q5_1", 9},
      GgufMix{"Q2_K",
              "Q2_K",
              10,
              {{{"attn_v", "Q4_K", grouped_queries}, {"attn_v", "Q3_K"}, {"ffn_down", "Q3_K"}, {"attn_output", "Q3_K"}}}},
      GgufMix{"Q3_K_S", "Q3_K", 11},
      GgufMix{"Q3_K_M",
              "Q3_K",
              12,
              {{{"attn_v", "Q5_K", first_two},
                {"attn_v", "Q4_K"},
                {"ffn_down", "Q5_K", first_sixteenth},
                {"ffn_down", "Q4_K"},
                {"attn_output", "Q4_K"}}}},
      GgufMix{"Q3_K_L", "Q3_K", 13, {{{"attn_v", "Q5_K"}, {"ffn_down", "Q5_K"}, {"attn_output", "Q5_K"}, {"attn_qkv", "Q4_K"}}}},
      GgufMix{"Q4_K_S", "Q4_K", 14, {{{"attn_v", "Q5_K", first_four}, {"ffn_down", "Q5_K", first_eighth}}}},
      GgufMix{"Q4_K_M", "Q4_K", 15, {{{"attn_v", "Q6_K", more_bits}, {"ffn_down", "Q6_K", more_bits}, {"attn_qkv", "Q5_K"}}}},
      GgufMix{"Q5_K_S", "Q5_K", 16},
      GgufMix{"Q5_K_M", "Q5_K", 17, {{{"attn_v", "Q6_K", more_bits}, {"ffn_down", "Q6_K", more_bits}, {"attn_qkv", "Q6_K"}}}},
      GgufMix{"Q6_K", "Q6_K", 18},
      GgufMix{"IQ4_NL", "IQ4_NL", 25, {{{"attn_v", "Q5_K", grouped_queries}, {"ffn_down", "Q5_K", first_eighth}}}},
      GgufMix{"IQ4_XS", "IQ4_XS", 30, {{{"attn_v", "Q5_K", grouped_queries}, {"ffn_down", "Q5_K", first_eighth}}}},
      GgufMix{"TQ1_0", "TQ1_0", 36, {{{"token_embd", "Q4_K"}}}},
      GgufMix{"TQ2_0", "TQ2_0", 37, {{{"token_embd", "Q4_K"}}}},
      GgufMix{"MXFP4", "MXFP4", 38, {}, "Q8_0"},
      GgufMix{"NVFP4", "NVFP4", 39, {}, "Q8_0"},
  };
}();

/// Null if there is none of that name.
constexpr const GgufMix* find_gguf_mix(std::string_view name) {
  for (const GgufMix& m : gguf_mixes)
    if (m.name == name) return &m;
  return nullptr;
}
/// The mix that a file is called by whose weights have this type mostly, as llama.cpp guesses it: the middle one of several. Null
/// if no mix is of that type.
constexpr const GgufMix* mostly(std::string_view type) {
  const GgufMix* found = nullptr;
  for (const GgufMix& m : gguf_mixes)
    if (m.type == type && (!found || m.name.ends_with("_M"))) found = &m;
  return found;
}
/// "F32, F16, ..", for messages.
inline std::string gguf_mix_names() {
  std::string all;
  for (const GgufMix& m : gguf_mixes) all.append(all.empty() ? "" : ", ").append(m.name);
  return all;
}

/// The facts about a model that rules ask for.
struct MixFacts {
  Index blocks = 0;
  Index queries_per_key = 1;
  Index experts = 0;
  bool tied = false;  ///< the embedding is the head
};

namespace detail {

constexpr bool is_in(MixBlocks blocks, Index i, Index n, Index queries_per_key) {
  switch (blocks) {
    case MixBlocks::all: return true;
    case MixBlocks::first_two: return i < 2;
    case MixBlocks::first_four: return i < 4;
    case MixBlocks::first_sixteenth: return i < n / 16;
    case MixBlocks::first_eighth: return i < n / 8;
    case MixBlocks::more_bits: return i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2;
    case MixBlocks::grouped_queries: return queries_per_key >= 4;
  }
  return false;
}

/// What rows take that no block of `type` divides, as llama.cpp has it; blocks of 32 in place of 256.
constexpr std::string_view type_for_short_rows(std::string_view type) {
  if (type == "IQ4_XS") return "IQ4_NL";
  if (type == "Q4_K") return "Q5_0";
  if (type == "Q5_K") return "Q5_1";
  if (type == "Q6_K") return "Q8_0";
  return "Q4_0";  // Q2_K, Q3_K, TQ1_0, TQ2_0, NVFP4
}

}  // namespace detail

/// A type that a mix gives a tensor. `asked` differs where no block of that type divides the rows.
struct MixedType {
  std::string_view type, asked;
};

/// Nothing where mixes leave a tensor as it is: vectors, norms, routers, positions, biases.
inline std::optional<MixedType> mixed_type(const GgufMix& mix, std::string_view name, std::size_t dimensions, Index cols,
                                           const MixFacts& model) {
  if (dimensions < 2 || !name.ends_with(".weight") || name.find("_norm") != name.npos || name.find("ffn_gate_inp") != name.npos ||
      name.find("position_embd") != name.npos || name.find("token_types") != name.npos || name.find("attn_rel_b") != name.npos ||
      name.find("ssm_conv1d") != name.npos)
    return std::nullopt;
  Index block = -1;
  std::string_view tensor = name.substr(0, name.size() - 7);
  if (const std::size_t blk = tensor.find("blk."); blk != tensor.npos && (blk == 0 || tensor[blk - 1] == '.')) {
    tensor.remove_prefix(blk + 4);
    const auto [end, error] = std::from_chars(tensor.data(), tensor.data() + tensor.size(), block);
    if (error != std::errc() || end == tensor.data() + tensor.size() || *end != '.') return std::nullopt;
    tensor.remove_prefix(static_cast<std::size_t>(end - tensor.data()) + 1);
  }
  if (tensor.ends_with("_exps")) tensor.remove_suffix(5);
  std::string_view type = mix.type;
  const bool quantizes = find_dtype(type)->block_values > 1;
  if (const bool head = name == "output.weight" || (model.tied && name == "token_embd.weight"); head && !mix.head.empty()) {
    const bool fits = cols % find_dtype(type)->block_values == 0 && cols % find_dtype(mix.head)->block_values == 0;
    type = fits ? mix.head : "Q8_0";
  } else {
    for (const MixRule& rule : mix.rules)
      if (rule.tensor == tensor && detail::is_in(rule.blocks, block, model.blocks, model.queries_per_key)) {
        type = rule.type;
        break;
      }
    // Of eight experts the attention is small: llama.cpp spares it.
    if (quantizes && model.experts == 8) {
      if (tensor == "attn_v" || tensor == "attn_k") type = "Q8_0";
      if (tensor == "attn_output" &&
          (mix.type == "Q2_K" || mix.type == "Q3_K" || mix.type == "Q4_K" || mix.type.starts_with("IQ4")))
        type = mix.name == "Q3_K_L" ? type : "Q5_K";
    }
  }
  MixedType out{type, type};
  if (cols % find_dtype(out.type)->block_values != 0 && find_dtype(out.type)->block_values > 32)
    out.type = detail::type_for_short_rows(out.type);
  if (cols % find_dtype(out.type)->block_values != 0) out.type = "F16";
  return out;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::io

#include <anybit/core/macros_end.hpp>
