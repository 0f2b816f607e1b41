// Vocabularies written as GGUF and read again.

#include <anybit/model/tokenizer/to_gguf.hpp>

#include <string>
#include <vector>

#include "support/catch.hpp"

using namespace anybit;
using namespace anybit::model;

namespace to_gguf {
namespace {

/// Kinds from letters: n(ormal), c(ontrol), d (user-defined), b(yte), u(nknown), x (unused).
Vocabulary vocabulary(TokenizerKind kind, std::vector<std::string> tokens, std::string_view kinds) {
  Vocabulary v;
  v.kind = kind;
  v.pre = kind == TokenizerKind::byte_bpe ? "smollm" : "";
  v.tokens = std::move(tokens);
  for (const char k : kinds)
    v.kinds.push_back(k == 'n'   ? TokenKind::normal
                      : k == 'c' ? TokenKind::control
                      : k == 'd' ? TokenKind::user_defined
                      : k == 'b' ? TokenKind::byte
                      : k == 'u' ? TokenKind::unknown
                                 : TokenKind::unused);
  return v;
}

/// Every byte as a token of its own.
std::vector<std::string> all_bytes() {
  std::vector<std::string> out;
  for (int b = 0; b < 256; ++b) out.emplace_back(1, static_cast<char>(b));
  return out;
}

/// What a reader of the written file has.
Vocabulary read_back(const Vocabulary& v) {
  const auto t = Tokenizer::make(v);
  INFO((t ? std::string() : t.error().message));
  REQUIRE(t.ok());
  io::GgufWriter w;
  const Status written = write_tokenizer(w, *t);
  INFO((written ? std::string() : written.error().message));
  REQUIRE(written.ok());
  const std::string bytes = w.bytes();
  const auto file = io::GgufFile::parse(std::as_bytes(std::span(bytes.data(), bytes.size())), "written");
  REQUIRE(file.ok());
  const auto back = tokenizer_from_gguf(*file);
  REQUIRE(back.ok());
  return back->vocabulary();
}

void check_same(const Vocabulary& a, const Vocabulary& b) {
  CHECK(a.kind == b.kind);
  CHECK(a.tokens == b.tokens);
  CHECK(a.kinds == b.kinds);
  CHECK(a.scores == b.scores);
  CHECK(a.bos == b.bos);
  CHECK(a.eos == b.eos);
  CHECK(a.unknown == b.unknown);
  CHECK(a.add_bos == b.add_bos);
  CHECK(a.add_space_prefix == b.add_space_prefix);
  REQUIRE(a.merges.size() == b.merges.size());
  for (std::size_t i = 0; i < a.merges.size(); ++i) {
    CHECK(a.merges[i].left == b.merges[i].left);
    CHECK(a.merges[i].right == b.merges[i].right);
  }
}

/// SentencePiece's: <unk>, <s>, the bytes, then letters and a word.
Vocabulary sentencepiece(TokenizerKind kind) {
  std::vector<std::string> tokens{"<unk>", "<s>"};
  for (const std::string& byte : all_bytes()) tokens.push_back(byte);
  for (const char* t : {" ", "a", "b", "ab", " ab", "<mask>"}) tokens.emplace_back(t);
  Vocabulary v = vocabulary(kind, std::move(tokens), "uc" + std::string(256, 'b') + "nnnnnd");
  v.unknown = 0, v.bos = 1, v.add_bos = true, v.add_space_prefix = true;
  v.normalizer.push_back({NormalizerStep::Kind::replace, std::string(model::detail::escaped_space), " "});
  return v;
}

}  // namespace
}  // namespace to_gguf

using namespace to_gguf;

TEST_CASE("tokenizer to GGUF: byte-level BPE with every byte, control and added tokens") {
  std::vector<std::string> tokens = all_bytes();
  for (const char* t : {"ab", " ab", "\xC3\xA9", "<|end|>", "<user>", "[PAD261]"}) tokens.emplace_back(t);
  Vocabulary v = vocabulary(TokenizerKind::byte_bpe, std::move(tokens), std::string(259, 'n') + "cdx");
  v.merges = {{'a', 'b'}, {' ', 256}, {0xC3, 0xA9}};
  v.bos = v.eos = 259;
  check_same(read_back(v), v);
  CHECK(read_back(v).pre == "smollm");
  v.pre = "gpt-neox";  // as GGUF calls the same rules
  CHECK(read_back(v).pre == "mpt");
}

TEST_CASE("tokenizer to GGUF: SentencePiece by scores, by merges and as unigram") {
  Vocabulary scores = sentencepiece(TokenizerKind::score_bpe);
  scores.scores.assign(scores.tokens.size(), 0);
  scores.scores[261] = -1, scores.scores[262] = -2;
  check_same(read_back(scores), scores);

  // Ranks of merges become scores that merge the same.
  Vocabulary merges = sentencepiece(TokenizerKind::merge_bpe);
  merges.merges = {{259, 260}, {258, 261}};
  const Vocabulary back = read_back(merges);
  CHECK(back.kind == TokenizerKind::score_bpe);
  CHECK(back.tokens == merges.tokens);
  CHECK(back.scores[261] > back.scores[262]);

  Vocabulary unigram = sentencepiece(TokenizerKind::unigram);
  unigram.fuse_unknown = true;
  unigram.scores.assign(unigram.tokens.size(), -5);
  unigram.scores[262] = -1;
  check_same(read_back(unigram), unigram);
}

TEST_CASE("tokenizer to GGUF: WordPiece") {
  Vocabulary v = vocabulary(TokenizerKind::word_piece, {"[UNK]", "[CLS]", " a", "b", " def", " ,"}, "ucnnnn");
  model::detail::add_bert_normalizer(v.normalizer, true, true, true, true);
  model::detail::add_bert_cuts(v);
  v.unknown = 0, v.bos = 1;
  const Vocabulary back = read_back(v);
  CHECK(back.tokens == v.tokens);
  CHECK(back.kind == v.kind);
  CHECK(back.unknown == v.unknown);
}

TEST_CASE("tokenizer to GGUF: what GGUF has no name for is refused") {
  const auto refused = [](const Vocabulary& v, std::string_view part) {
    const auto t = Tokenizer::make(v);
    REQUIRE(t.ok());
    io::GgufWriter w;
    const Status written = write_tokenizer(w, *t);
    REQUIRE(!written.ok());
    INFO(written.error().message);
    CHECK(written.error().message.find(part) != std::string::npos);
    CHECK(w.pair_count == 0);
  };
  Vocabulary rules = vocabulary(TokenizerKind::byte_bpe, all_bytes(), std::string(256, 'n'));
  rules.pre.clear(), rules.cuts = {{"[a-z]+"}};
  refused(rules, "by rules that have no name in GGUF");
  // A normalizer that no key of GGUF says.
  Vocabulary lower = sentencepiece(TokenizerKind::score_bpe);
  lower.scores.assign(lower.tokens.size(), 0);
  lower.normalizer.push_back({NormalizerStep::Kind::lowercase});
  refused(lower, "would cut the text 'Hello, world!");
}
