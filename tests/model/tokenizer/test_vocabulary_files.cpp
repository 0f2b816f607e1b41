// The readers of vocabularies on small files of every kind, whole and damaged.

#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include <anybit/model/tokenizer/files.hpp>

#include "support/catch.hpp"
#include "support/small_vocabularies.hpp"
#include "support/temporary_folder.hpp"

using namespace anybit;
using namespace anybit::model;

namespace {

using FileIds = std::vector<TokenId>;

/// The tokenizer in a file of these bytes.
Result<Tokenizer> opened(const std::string& bytes, std::string_view pre = {}) {
  const test_support::TemporaryFolder folder;
  const std::string path = folder / "vocabulary";
  std::ofstream(path, std::ios::binary) << bytes;
  auto t = open_tokenizer(path, pre);
  if (!t) CHECK(t.error().message.starts_with(path + ": "));
  return t;
}

std::string with(std::string text, const std::string& from, const std::string& to) {
  const std::size_t at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

void check_error(const std::string& bytes, const std::string& in_message, std::string_view pre = {}) {
  CAPTURE(in_message);
  const auto t = opened(bytes, pre);
  REQUIRE_FALSE(t);
  INFO(t.error().message);
  CHECK(t.error().message.find(in_message) != std::string::npos);
  CHECK(t.error().message.find('\n') == std::string::npos);
}

}  // namespace

TEST_CASE("SentencePiece's tokenizer.model: BPE and unigram") {
  const TokenId space = 259, a = 260, b = 261, ab = 262, space_a = 263, x = 264;
  const auto bpe = opened(test_support::sentencepiece_model(2));
  INFO((bpe ? "" : bpe.error().message));
  REQUIRE(bpe);
  CHECK(*bpe->encode("ab a") == FileIds{space_a, b, space_a});
  CHECK(*bpe->encode("b[X]ab") == FileIds{space, b, x, ab});
  CHECK(*bpe->encode("\u00E9") == FileIds{space, 3 + 0xC3, 3 + 0xA9});
  CHECK(*bpe->encode("a\u2581"
                     "a") == *bpe->encode("a a"));
  CHECK(*bpe->encode("<s>a").value().begin() == space);
  CHECK(*bpe->encode("<s>a", Specials::parsed) == FileIds{1, space_a});
  CHECK(*bpe->decode(*bpe->encode("ab a\u00E9")) == "ab a\u00E9");
  CHECK(bpe->vocabulary().bos == 1);
  CHECK(bpe->vocabulary().eos == 2);
  CHECK(bpe->vocabulary().unknown == 0);
  CHECK(bpe->vocabulary().add_bos);

  const auto unigram = opened(test_support::sentencepiece_model(1));
  REQUIRE(unigram);
  CHECK(*unigram->encode("ab") == FileIds{space, ab});  // -3 - 2 against -1 - 5 and -3 - 4 - 5
  CHECK(*unigram->encode("aa") == FileIds{space_a, a});
  CHECK(*unigram->encode("\u00E9b") == FileIds{space, 3 + 0xC3, 3 + 0xA9, b});
  CHECK_FALSE(unigram->vocabulary().add_bos);

  const std::string good = test_support::sentencepiece_model(2);
  for (std::size_t cut = 2; cut < good.size(); cut += 7) static_cast<void>(opened(good.substr(0, cut)));
  check_error(good.substr(0, good.size() - 1), "bytes, but");
  using W = test_support::ProtobufWriter;
  const std::string one = W().text(1, W().text(1, "a").bytes()).bytes();
  check_error(one + W().text(2, W().number(3, 3).bytes()).bytes(), "model_type is 3; anybit knows");
  check_error(one + W().text(2, W().number(24, 1).bytes()).bytes(), "behind words");
  check_error(one + W().text(2, W().number(41, 7).bytes()).bytes(), "bos or eos is 7 of 1 pieces");
  check_error(one + W().text(1, W().text(1, "b").number(3, 9).bytes()).bytes(), "piece 1 has the type 9");
  check_error(one + W().text(1, W().text(1, "\xFF").bytes()).bytes(), "piece 1, '\\xff', is not UTF-8");
  check_error(one + W().text(1, W().text(1, "<0xZZ>").number(3, 6).bytes()).bytes(), "a byte by its type");
  check_error(one + W().text(3, W().text(2, "bad").bytes()).bytes(), "precompiled charsmap of 3 bytes");
  check_error(one + std::string("\x0A\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01", 11), "a field of 18446744073709551615 bytes");
  check_error(one + std::string("\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF", 11), "more than 64 bits");
  check_error(one + "\x0B", "unknown type 3");
  check_error(one + std::string("\x00\x00", 2), "a field has the number 0");
}

TEST_CASE("tiktoken's ranks") {
  const auto t = opened(test_support::tiktoken_ranks(), "gpt-2");
  INFO((t ? "" : t.error().message));
  REQUIRE(t);
  CHECK(*t->encode("abc ab a") == FileIds{5, 3, 4, 6});
  CHECK(*t->encode("cab") == FileIds{2, 4});
  CHECK(*t->decode(FileIds{5, 3, 4, 6}) == "abc ab a");
  CHECK(t->lossless());

  // Of joint tokens that are the same, the leftmost pair merges first, whatever its halves: "aaa" is a + aa and aa + a.
  const auto tied = opened("YQ== 0\nYWE= 1\nYWFh 2\n", "gpt-2");
  REQUIRE(tied);
  CHECK(*tied->encode("aaaa") == FileIds{1, 1});
  CHECK(*tied->encode("aaaaa") == FileIds{1, 2});

  const std::string good = test_support::tiktoken_ranks();
  check_error(good, "a tiktoken file of 7 tokens, which is none that anybit knows");
  check_error(good, "the pre-tokenizer is 'gpt-9'", "gpt-9");
  check_error(good + "YQ== 0\n", "line 8: the token of rank 0 comes twice", "gpt-2");
  check_error(good + "YQ== 8\n", "the tokens 0 and 8 are the same bytes, 'a'", "gpt-2");
  check_error(good + "ZA== 4000000\n", "line 8: the token of rank 4000000 is beyond the", "gpt-2");
  check_error(good + "ZA== -1\n", "line 8 is 'ZA== -1', not base64", "gpt-2");
  check_error(good + "ZA== 99999999999999999999\n", "not base64, a space and a rank", "gpt-2");
  check_error(good + "Z!== 8\n", "line 8 is", "gpt-2");
  check_error(good + "ZA==\n", "line 8 is 'ZA=='", "gpt-2");
  check_error(good + " 8\n", "line 8: the token of rank 8 has no bytes", "gpt-2");
  check_error(good + std::string(4000, 'A') + " 8\n", "has 3000 bytes, more than 1024", "gpt-2");
  CHECK(opened(good + "ZA== 9\n", "gpt-2")->vocabulary().kinds[8] == TokenKind::unused);  // a gap for special tokens
}

TEST_CASE("tekken.json") {
  const std::string good = test_support::tekken_json();
  const auto t = opened(good);
  INFO((t ? "" : t.error().message));
  REQUIRE(t);
  CHECK(t->size() == 9);
  CHECK(*t->encode("abc ab") == FileIds{8, 6, 7});
  CHECK(*t->encode("<s>", Specials::parsed) == FileIds{1});
  CHECK(t->token(2) == "<SPECIAL_2>");
  CHECK(t->vocabulary().bos == 1);
  check_error(with(good, "\"rank\": 1", "\"rank\": 0"), "the token of rank 0 comes twice");
  check_error(with(good, "\"rank\": 5", "\"rank\": 6"), "no token has the rank 5");
  check_error(with(good, "\"rank\": 6", "\"rank\": 700"), "a token has the rank 700 of 7");
  check_error(with(good, "default_vocab_size\": 9", "default_vocab_size\": 90"), "default_vocab_size is 90");
  check_error(with(good, "YWI=", "YWI"), "token_bytes 'YWI' is not base64");
  check_error(with(good, "[^\\\\s]+", "[^\\\\s"), "pattern '[^\\s|\\s+'");
  check_error(with(good, "\"pattern\"", "\"other\""), "no config.pattern");
  check_error(with(good, "{\"rank\": 1, \"token_str\": \"<s>\"}", "{\"rank\": 3, \"token_str\": \"<s>\"}"),
              "'<s>' has the rank 3 of 3");
  check_error(good + "x", "text follows");
  check_error(with(good, "<unk>", "<\xFFnk>"), "is not UTF-8");
}

TEST_CASE("tokenizer.json: byte-level BPE") {
  const std::string good = test_support::byte_level_json();
  const auto t = opened(good);
  INFO((t ? "" : t.error().message));
  REQUIRE(t);
  CHECK(*t->encode("ab a") == FileIds{3, 2, 0});
  CHECK(*t->encode("ab<w>b") == FileIds{3, 5, 1});
  CHECK(*t->encode("a<|end|>  b", Specials::parsed) == FileIds{0, 4, 1});  // which swallows the spaces behind it
  CHECK(t->encode("<|end|>").error().message.find("byte '<' at offset 0 of the normalized text") != std::string::npos);
  CHECK(t->vocabulary().bos == 4);
  CHECK(t->vocabulary().add_bos);
  CHECK_FALSE(t->lossless());
  CHECK(opened(with(good, "\"merges\": [\"a b\"]", "\"merges\": [[\"a\", \"b\"]]"))->encode("ab")->size() == 1);

  // A published pipeline gets its name, by which GGUF knows it.
  const auto named = opened(
      with(with(good, R"({"Regex": "\\s?\\p{L}+"})", R"({"Regex": "\\p{N}"})"), R"("use_regex": false)", R"("use_regex": true)"));
  INFO((named ? "" : named.error().message));
  REQUIRE(named);
  CHECK(named->vocabulary().pre == "command-r");
  CHECK(named->vocabulary().cuts.empty());

  check_error(with(good, "\"a\": 0", "\"a\": 1"), "tokens 'a' and 'b' have the id 1");
  check_error(with(good, "\"a\": 0", "\"b\": 0"), "key 'b' comes twice");
  check_error(with(good, "\"a\": 0", "\"a\": 99999999999"), "has the id 99999999999, not below");
  check_error(with(good, "\"a\": 0", "\"a\": -1"), "a non-negative integer");
  check_error(with(good, "\"a b\"", "\"a q\""), "merge 0, 'a' and 'q', joins what is no token");
  check_error(with(good, "\"a b\"", "\"ab\""), "merge 0 is no pair");
  check_error(with(good, "\"a b\"", "\"b a\""), "merge 0 makes 'ba', which is no token");
  check_error(with(good, "\"a b\"", "7"), "must stand here");
  check_error(with(good, "\"id\": 5", "\"id\": 3"), "tokens 'ab' and '<w>' have the id 3");
  check_error(with(good, "\"id\": 5", "\"id\": -5"), "added_tokens[1].id is -5");
  check_error(with(good, "\"id\": 5", "\"id\": 1e12"), "added_tokens[1].id is 1000000000000");
  check_error(with(good, "\"content\": \"<w>\"", "\"content\": 3"), "added_tokens[1].content is 3, not a string");
  check_error(with(good, "{\"type\": \"NFC\"}", "{\"type\": \"NFX\"}"), "normalizer.type is 'NFX'; anybit knows NFC");
  check_error(with(good, "{\"type\": \"NFC\"}", "3"), "normalizer.type is absent");
  check_error(with(good, "\"Split\"", "\"UnicodeScripts\""),
              "pre_tokenizer.pretokenizers[0].type is 'UnicodeScripts'; anybit knows");
  check_error(with(good, "\"Isolated\"", "\"Apart\""), "pretokenizers[0].behavior is 'Apart', not Isolated");
  check_error(with(good, R"(\\p{L}+)", R"(\\p{Greek}+)"), "an unknown property");
  check_error(with(good, "\"type\": \"BPE\"", "\"type\": \"WordLevel\""), "model.type is 'WordLevel'");
  check_error(with(good, "\"dropout\": null", "\"dropout\": 0.1"), "model.dropout");
  check_error(with(good, "\"dropout\": null", "\"end_of_word_suffix\": \"</w>\""), "end_of_word_suffix");
  check_error(with(good, "\"model\"", "\"modal\""), "it has no member 'model'");
  check_error(good.substr(0, good.size() - 1), "must stand here");
  check_error(with(good, "{\"type\": \"NFC\"}", std::string(100, '[')), "nested too deep");
  check_error(with(good, "<w>", "<\xC3>"), "is not UTF-8");
}

TEST_CASE("tokenizer.json: SentencePiece's and BERT's kinds") {
  const auto bpe = opened(test_support::metaspace_json(false));
  INFO((bpe ? "" : bpe.error().message));
  REQUIRE(bpe);
  CHECK(*bpe->encode("a ab b") == FileIds{4, 1, 5, 1, 3});
  CHECK(*bpe->encode(" a") == FileIds{4});  // there is a space already
  CHECK(*bpe->encode("\u00E9") == FileIds{1, 6, 7});
  CHECK(*bpe->encode("a<unk>a", Specials::parsed) == FileIds{4, 0, 2});  // a space at the start alone
  CHECK(*bpe->decode(FileIds{4, 1, 5, 1, 3}) == "a ab b");

  const auto unigram = opened(test_support::metaspace_json(true));
  REQUIRE(unigram);
  CHECK(*unigram->encode("ab") == FileIds{1, 5});
  CHECK(*unigram->encode("acc") == FileIds{4, 0});
  CHECK(unigram->vocabulary().kind == TokenizerKind::unigram);

  const auto bert = opened(test_support::word_piece_json());
  REQUIRE(bert);
  CHECK(*bert->encode("UnAFFable, un") == FileIds{2, 3, 4, 5, 2});
  CHECK(*bert->encode("unx") == FileIds{0});
  CHECK(*bert->decode(FileIds{2, 3, 4, 5, 2}) == "unaffable , un");
  CHECK(bert->vocabulary().bos == 1);

  check_error(with(test_support::metaspace_json(true), "\"unk_id\": 0", "\"unk_id\": 6"), "model.unk_id is 6 of 6 tokens");
  check_error(with(test_support::metaspace_json(true), "[\"a\", -4.0]", "[\"a\"]"), "not a string and a score");
  check_error(with(test_support::metaspace_json(true), "\"Unigram\"", "\"BPE\""),
              "model.vocab is not that of a model of the type BPE");
  check_error(with(test_support::metaspace_json(false), "\"first\"", "\"last\""), "pre_tokenizer.prepend_scheme is 'last'");
  check_error(with(test_support::metaspace_json(false), "\"unk_token\": \"<unk>\"", "\"unk_token\": \"<u>\""),
              "model.unk_token is '<u>'");
  check_error(with(test_support::word_piece_json(), "\"max_input_chars_per_word\": 100", "\"max_input_chars_per_word\": 9999999"),
              "max_input_chars_per_word is 9999999");
}

TEST_CASE("the tokenizer of a folder, with what its configuration adds") {
  const test_support::TemporaryFolder folder;
  const auto write = [&](const std::string& name, const std::string& text) {
    std::ofstream(folder / name, std::ios::binary) << text;
  };
  const std::string path = std::filesystem::path(folder / "x").parent_path().string();
  CHECK(open_tokenizer(path).error().message.find("no tokenizer.json, tokenizer.model or tekken.json") != std::string::npos);
  write("tokenizer.model", test_support::sentencepiece_model(2));
  write("tokenizer_config.json", R"({"add_bos_token": false, "bos_token": {"content": "<s>"}, "eos_token": "<|end|>",
    "added_tokens_decoder": {"1": {"content": "<s>", "special": true}, "265": {"content": "<|end|>", "special": true, "rstrip": true}}})");
  const auto t = open_tokenizer(path);
  INFO((t ? "" : t.error().message));
  REQUIRE(t);
  CHECK(t->size() == 266);
  CHECK_FALSE(t->vocabulary().add_bos);
  CHECK(t->vocabulary().eos == 265);
  CHECK(*t->encode("a<|end|> b", Specials::parsed) == FileIds{263, 265, 259, 261});
  write("tokenizer_config.json", R"({"added_tokens_decoder": {"x": {"content": "a"}}})");
  CHECK(open_tokenizer(path).error().message.find("added_tokens_decoder.x is") != std::string::npos);
  write("tokenizer_config.json", "{");
  CHECK(open_tokenizer(path).error().message.find("tokenizer_config.json: JSON at byte") != std::string::npos);
  write("tokenizer_config.json", R"({"eos_token": "<|end|>"})");
  write("tokenizer.json", test_support::byte_level_json());
  CHECK(open_tokenizer(path)->vocabulary().eos == 4);
}

TEST_CASE("damaged vocabularies of every kind are errors or work, and nothing else") {
  const std::vector<std::string> seeds{test_support::sentencepiece_model(1), test_support::sentencepiece_model(2),
                                       test_support::tekken_json(),          test_support::byte_level_json(),
                                       test_support::metaspace_json(false),  test_support::metaspace_json(true),
                                       test_support::word_piece_json(),      test_support::tiktoken_ranks()};
  std::uint32_t random = 1;
  const auto next = [&](std::size_t n) {
    return random = random * 1664525u + 1013904223u, (random >> 8) % static_cast<std::uint32_t>(n);
  };
  int good = 0;
  for (int round = 0; round < 4000; ++round) {
    std::string bytes = seeds[next(seeds.size())];
    for (std::uint32_t i = 1 + next(3); i > 0; --i) {
      const std::size_t at = next(bytes.size());
      if (const auto how = next(4); how == 0)
        bytes[at] = static_cast<char>(next(256));
      else if (how == 1)
        bytes.erase(at, 1 + next(8));
      else if (how == 2)
        bytes.insert(at, bytes.substr(next(bytes.size()), next(12)));
      else
        bytes[at] = "0129-\"{}[],:\\"[next(13)];
      if (bytes.empty()) bytes = "x";
    }
    const auto span = std::as_bytes(std::span(bytes));
    const auto t = bytes[0] == '\n'  ? tokenizer_from_sentencepiece(span, "m")
                   : bytes[0] != '{' ? tokenizer_from_tiktoken(span, "m", "gpt-2")
                   : is_tekken(span) ? tokenizer_from_tekken(span, "m")
                                     : tokenizer_from_huggingface(span, "m");
    if (!t) continue;
    ++good;
    for (const std::string_view text : {"ab a\u00E9 [X]<w>", "un affable<|end|>  \xFF"})
      for (const auto specials : {Specials::as_text, Specials::parsed})
        if (const auto ids = t->encode(text, specials)) {
          const auto back = t->decode(*ids);
          REQUIRE(back);
          if (t->lossless()) CHECK(*back == text);
        }
  }
  CHECK(good > 100);
}
