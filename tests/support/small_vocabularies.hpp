#pragma once
// One small vocabulary of every kind of file, for tests of the readers and as seeds of their fuzzer.

#include <bit>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace test_support {

/// The bytes of messages of protocol buffers.
class ProtobufWriter {
 public:
  ProtobufWriter& number(unsigned tag, std::uint64_t value) { return varint(tag << 3).varint(value); }
  ProtobufWriter& real(unsigned tag, float value) {
    varint(tag << 3 | 5);
    for (int i = 0; i < 4; ++i) bytes_ += static_cast<char>(std::bit_cast<std::uint32_t>(value) >> (8 * i));
    return *this;
  }
  ProtobufWriter& text(unsigned tag, std::string_view value) {
    varint(tag << 3 | 2).varint(value.size());
    bytes_ += value;
    return *this;
  }
  const std::string& bytes() const { return bytes_; }

 private:
  ProtobufWriter& varint(std::uint64_t value) {
    for (; value >= 128; value >>= 7) bytes_ += static_cast<char>(value | 128u);
    bytes_ += static_cast<char>(value);
    return *this;
  }
  std::string bytes_;
};

/// SentencePiece: <unk>, <s>, </s>, <0x00> to <0xFF>, then U+2581, a, b, ab, U+2581 a, and the user-defined [X]. `type`: 1
/// unigram, 2 BPE.
inline std::string sentencepiece_model(unsigned type) {
  ProtobufWriter model;
  const auto piece = [&](std::string_view text, float score, unsigned kind) {
    model.text(1, ProtobufWriter().text(1, text).real(2, score).number(3, kind).bytes());
  };
  piece("<unk>", 0, 2), piece("<s>", 0, 3), piece("</s>", 0, 3);
  constexpr std::string_view hex = "0123456789ABCDEF";
  for (std::size_t b = 0; b < 256; ++b) piece(std::string("<0x") + hex[b >> 4] + hex[b & 15] + ">", 0, 6);
  piece("\xE2\x96\x81", -3, 1), piece("a", -4, 1), piece("b", -5, 1), piece("ab", -2, 1),
      piece(
          "\xE2\x96\x81"
          "a",
          -1, 1),
      piece("[X]", 0, 4);
  model.text(2, ProtobufWriter().number(3, type).number(40, 0).number(41, 1).number(42, 2).bytes());
  model.text(3, ProtobufWriter().text(1, "identity").number(3, 1).number(4, 0).bytes());
  return model.bytes();
}

/// tiktoken: the bytes a, b, c and the space, then ab, abc and " a".
inline std::string tiktoken_ranks() { return "YQ== 0\nYg== 1\nYw== 2\nIA== 3\nYWI= 4\nYWJj 5\nIGE= 6\n"; }

/// tekken.json with three special tokens in front of the tokens of tiktoken_ranks(), of which it leaves out the last.
inline std::string tekken_json() {
  std::string out =
      R"({"config": {"pattern": "[^\\s]+|\\s+", "num_vocab_tokens": 7, "default_vocab_size": 9, "default_num_special_tokens": 3, "version": "v3"}, "vocab": [)";
  const char* const tokens[] = {"YQ==", "Yg==", "Yw==", "IA==", "YWI=", "YWJj", "IGE="};
  for (int i = 0; i < 7; ++i)
    out += (i ? ", " : "") + std::string(R"({"rank": )") + std::to_string(i) + R"(, "token_bytes": ")" + tokens[i] +
           R"(", "token_str": null})";
  return out +
         R"(], "special_tokens": [{"rank": 0, "token_str": "<unk>", "is_control": true}, {"rank": 1, "token_str": "<s>"}]})";
}

/// tokenizer.json: byte-level BPE of a, b, the space and ab, with the special <|end|> and the added word <w>.
inline std::string byte_level_json() {
  return R"({"version": "1.0", "truncation": {"max_length": 8}, "padding": null,
 "added_tokens": [{"id": 4, "content": "<|end|>", "single_word": false, "lstrip": false, "rstrip": true, "normalized": false, "special": true},
  {"id": 5, "content": "<w>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": false}],
 "normalizer": {"type": "NFC"},
 "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": "\\s?\\p{L}+"}, "behavior": "Isolated", "invert": false},
  {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}]},
 "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<|end|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
  "pair": [], "special_tokens": {"<|end|>": {"id": "<|end|>", "ids": [4], "tokens": ["<|end|>"]}}},
 "decoder": {"type": "ByteLevel"},
 "model": {"type": "BPE", "dropout": null, "unk_token": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
  "vocab": {"a": 0, "b": 1, "\u0120": 2, "ab": 3}, "merges": ["a b"]}})";
}

/// tokenizer.json of SentencePiece's kind, BPE or Unigram.
inline std::string metaspace_json(bool unigram) {
  const std::string head =
      R"({"added_tokens": [{"id": 0, "content": "<unk>", "special": true, "normalized": false}], "normalizer": null,
 "pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": false}, "model": )";
  if (unigram)
    return head +
           R"({"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["\u2581", -3.0], ["a", -4.0], ["b", -5.0], ["\u2581a", -1.5], ["ab", -2.0]]}})";
  return head +
         R"({"type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true, "vocab": {"<unk>": 0, "\u2581": 1, "a": 2, "b": 3,
 "\u2581a": 4, "ab": 5, "<0xC3>": 6, "<0xA9>": 7}, "merges": [["a", "b"], ["\u2581", "a"]]}})";
}

/// tokenizer.json of BERT's kind.
inline std::string word_piece_json() {
  return R"({"added_tokens": [{"id": 0, "content": "[UNK]", "special": true}, {"id": 1, "content": "[CLS]", "special": true}],
 "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true},
 "pre_tokenizer": {"type": "BertPreTokenizer"}, "post_processor": {"type": "BertProcessing", "sep": ["[UNK]", 0], "cls": ["[CLS]", 1]},
 "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
  "vocab": {"[UNK]": 0, "[CLS]": 1, "un": 2, "##aff": 3, "##able": 4, ",": 5}}})";
}

}  // namespace test_support
