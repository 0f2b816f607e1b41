// Coverage-guided fuzzing of the readers of vocabularies, by hand (seeded mutations in tests/model/tokenizer run with every
// test):
//   clang++ -std=c++20 -O1 -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -Iinclude -Itests
//           tests/fuzz/fuzz_tokenizers.cpp -o fuzz_tokenizers && ./fuzz_tokenizers -max_total_time=300 -max_len=8192 CORPUS
// The first byte of an input chooses the reader, a NUL ends the text that is encoded, the rest is the file. An empty corpus
// grows from small good files.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <anybit/model/tokenizer/files.hpp>
#include <anybit/model/tokenizer/rules_text.hpp>

#include "fuzz/seeded_mutator.hpp"
#include "support/small_vocabularies.hpp"

namespace {

using namespace anybit;

/// Whatever the vocabulary, a text that it can encode comes back unless it is normalized, every id is in range, and the rules
/// survive being written.
void use(const Result<model::Tokenizer>& t, std::string_view text) {
  if (!t) {
    if (t.error().message.find('\n') != std::string::npos) std::abort();
    return;
  }
  for (const auto specials : {model::Specials::as_text, model::Specials::parsed})
    if (const auto ids = t->encode(text, specials)) {
      const auto back = t->decode(*ids);
      if (!back || (t->lossless() && *back != text)) std::abort();
    }
  const std::string rules = rules_text(t->vocabulary());
  model::Vocabulary v;
  if (!rules.empty() && (!read_rules(rules, v) || rules_text(v) != rules)) std::abort();
}

const std::vector<std::string>& seeds() {
  static const std::vector<std::string> all = [] {
    std::vector<std::string> out;
    const auto add = [&](char reader, const std::string& file) {
      out.push_back(std::string(1, reader) + "ab a\xC3\xA9 [X]<w>, un affable" + '\0' + file);
    };
    add(0, test_support::sentencepiece_model(1)), add(0, test_support::sentencepiece_model(2));
    add(1, test_support::tiktoken_ranks()), add(2, test_support::tekken_json());
    add(3, test_support::byte_level_json()), add(3, test_support::metaspace_json(false));
    add(3, test_support::metaspace_json(true)), add(3, test_support::word_piece_json());
    add(4, R"(\p{Lu}?[^\s\p{N}]+(?i:'s|'t)?|\s+(?!\S)|[\u4e00-\u9fa5a-z]{1,3}+|$)");
    add(5,
        R"({"normalizer": [["replace", "a", "b"]], "cuts": [["\\s+", "removed", true]], "names": [[1, 3]], "flags": ["whole_words"]})");
    add(6, std::string("\x08\0\0\0\0\x04\0\0\xFF\x01\0\0x\0", 14));
    return out;
  }();
  return all;
}

}  // namespace

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t most, unsigned random) {
  return mutate_from_seeds(seeds(), data, size, most, random);
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view all(reinterpret_cast<const char*>(data) + 1, size - 1);
  const std::string_view text = all.substr(0, std::min(all.find('\0'), std::size_t{256}));
  const std::string_view file = all.substr(std::min(text.size() + 1, all.size()));
  const auto bytes = std::as_bytes(std::span(file));
  switch (data[0] % 7) {
    case 0: use(model::tokenizer_from_sentencepiece(bytes, "fuzz"), text); break;
    case 1: use(model::tokenizer_from_tiktoken(bytes, "fuzz", "llama-bpe"), text); break;
    case 2:
      static_cast<void>(model::is_tekken(bytes));
      use(model::tokenizer_from_tekken(bytes, "fuzz"), text);
      break;
    case 3: use(model::tokenizer_from_huggingface(bytes, "fuzz"), text); break;
    case 4:
      if (const auto s = model::WordSplitter::make({{std::string(file)}})) {
        std::string joined;
        if (s->split(text, [&](std::string_view w) { joined += w; }) && joined != text) std::abort();
      }
      break;
    case 5: {
      model::Vocabulary v;
      if (read_rules(file, v)) {
        model::Vocabulary again;
        if (const std::string rules = rules_text(v); !rules.empty() && (!read_rules(rules, again) || rules_text(again) != rules))
          std::abort();
        if (const auto n = model::Normalizer::make(v.normalizer)) static_cast<void>(n->apply(text));
      }
      break;
    }
    default:
      if (const auto map = model::Charsmap::make(file)) static_cast<void>(map->apply(text));
      break;
  }
  return 0;
}
