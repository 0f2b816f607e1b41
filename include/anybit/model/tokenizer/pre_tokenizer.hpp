#pragma once
// The ways in which published models normalize a text and cut it into the words inside which byte-level BPE merges, by name.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <anybit/model/tokenizer/vocabulary.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

/// One way to cut a text, under all names that GGUF's `tokenizer.ggml.pre` has for it. Patterns are applied one after the other
/// to the pieces that are there so far; a match becomes a piece, and so does the text between two matches.
struct PreTokenizer {
  std::string_view names;  ///< a space between two
  std::array<std::string_view, 6> patterns;
  bool whole_words = false;  ///< a word that is a token is that token, whatever its merges would give
  bool adds_bos = false;     ///< where a file does not say whether
  bool nfc = false;          ///< the text is composed first; llama.cpp leaves that out

  std::vector<NormalizerStep> normalizer() const {
    return nfc ? std::vector<NormalizerStep>{{NormalizerStep::Kind::nfc}} : std::vector<NormalizerStep>{};
  }
  std::vector<CutStep> cuts() const {
    std::vector<CutStep> out;
    for (const std::string_view p : patterns)
      if (!p.empty()) out.push_back({std::string(p)});
    return out;
  }
};

namespace detail {

inline constexpr std::string_view gpt2_pattern = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
inline constexpr std::string_view llama3_pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
inline constexpr std::string_view qwen2_pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
inline constexpr std::string_view cjk_pattern = R"([\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+)";

}  // namespace detail

/// The patterns are those of the models' own tokenizer.json.
inline constexpr PreTokenizer pre_tokenizers[] = {
    {"gpt-2 phi-2 jais gigachat mellum modern-bert roberta-bpe jina-es jina-de jina-v1-en jina-v2-es jina-v2-de "
     "jina-v2-code a.x-4.0 exaone4 trillion granite-docling",
     {detail::gpt2_pattern}},
    {"olmo mpt gpt-neox", {detail::gpt2_pattern}, false, false, true},
    {"smollm starcoder refact codeshell exaone minerva-7b", {R"(\p{N})", detail::gpt2_pattern}},
    {"command-r", {R"(\p{N})", detail::gpt2_pattern}, false, false, true},
    {"llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral lfm2 midm-2.0", {detail::llama3_pattern}, true, true},
    {"glm4", {detail::llama3_pattern}, true},
    {"dbrx smaug-bpe chatglm-bpe", {detail::llama3_pattern}},
    {"qwen2", {detail::qwen2_pattern}, false, false, true},
    {"deepseek-r1-qwen stablelm2 megrez hunyuan grok-2 solar-open", {detail::qwen2_pattern}},
    {"qwen35",
     {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
     false,
     false,
     true},
    {"falcon", {R"([\p{P}$+<=>^~|`]+)", detail::gpt2_pattern, R"([0-9][0-9][0-9])"}},
    {"deepseek-coder", {R"([\r\n])", R"(\s?\p{L}+)", R"(\s?\p{P}+)", detail::cjk_pattern, R"(\p{N})"}},
    {"deepseek-llm",
     {R"([\r\n])", R"(\s?[\p{Lu}\p{Ll}\p{Lt}]+)", R"(\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+)",
      R"(\s+$)", detail::cjk_pattern, R"(\p{N})"}},
    {"deepseek-v3 hunyuan-dense joyai-llm",
     {R"(\p{N}{1,3})", R"([\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+)",
      R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"}},
    {"tekken",
     {R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
     true,
     true},
    {"gpt-4o llama4 kanana2",
     {R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)"}},
};

/// By any of its names; null if there is none.
inline const PreTokenizer* find_pre_tokenizer(std::string_view name) {
  for (const PreTokenizer& p : pre_tokenizers)
    for (std::string_view rest = p.names; !rest.empty();) {
      const std::size_t space = std::min(rest.find(' '), rest.size());
      if (rest.substr(0, space) == name) return &p;
      rest.remove_prefix(std::min(space + 1, rest.size()));
    }
  return nullptr;
}

/// Gives a byte_bpe vocabulary these rules: by name where a published model has them, otherwise in full.
inline void set_rules(Vocabulary& v, std::vector<NormalizerStep> normalizer, std::vector<CutStep> cuts) {
  v.pre.clear();
  for (const PreTokenizer& p : pre_tokenizers)
    if (v.pre.empty() && p.normalizer() == normalizer && p.cuts() == cuts && p.whole_words == v.whole_words)
      v.pre = p.names.substr(0, p.names.find(' '));
  if (!v.pre.empty()) return;
  v.normalizer = std::move(normalizer);
  v.cuts = std::move(cuts);
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
