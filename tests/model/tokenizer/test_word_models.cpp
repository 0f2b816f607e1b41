// The models inside a word that are no byte pair encoding, merges of characters, caches and cuts.

#include <map>
#include <string>
#include <vector>

#include <anybit/model/tokenizer/files.hpp>
#include <anybit/model/tokenizer/rules_text.hpp>

#include "support/catch.hpp"

using namespace anybit;
using namespace anybit::model;

namespace {

using WordIds = std::vector<TokenId>;

void add_token(Vocabulary& v, std::string token, float score = 0, TokenKind kind = TokenKind::normal) {
  v.tokens.push_back(std::move(token)), v.scores.push_back(score), v.kinds.push_back(kind);
}

/// The best sum over all segmentations, by trying them all. A character without a token of its own costs 10 below the lowest.
double best_score(const Vocabulary& v, std::string_view word) {
  if (word.empty()) return 0;
  double lowest = 0, best = -1e300;
  bool single = false;
  for (std::size_t i = 0; i < v.tokens.size(); ++i) lowest = std::min(lowest, static_cast<double>(v.scores[i]));
  for (std::size_t i = 0; i < v.tokens.size(); ++i)
    if (v.kinds[i] == TokenKind::normal && word.starts_with(v.tokens[i])) {
      single = single || v.tokens[i].size() == 1;
      best = std::max(best, static_cast<double>(v.scores[i]) + best_score(v, word.substr(v.tokens[i].size())));
    }
  return single ? best : std::max(best, lowest - 10 + best_score(v, word.substr(1)));
}

}  // namespace

TEST_CASE("unigram: no other segmentation has a higher score, and unknown characters in a row are one token") {
  Vocabulary v;
  v.kind = TokenizerKind::unigram;
  v.fuse_unknown = true;
  add_token(v, "<unk>", 0, TokenKind::unknown);
  v.unknown = 0;
  for (const auto& [token, score] :
       std::map<std::string, float>{{"a", -3.f}, {"b", -3.5f}, {"ab", -4.f}, {"aba", -6.5f}, {"ba", -4.25f}, {"bb", -9.f}})
    add_token(v, token, score);
  const auto t = Tokenizer::make(v);
  REQUIRE(t);
  for (int n = 0; n < 729; ++n) {
    std::string word;
    for (int k = n, i = 0; i < 6; ++i, k /= 3) word += "abc"[k % 3];
    CAPTURE(word);
    const auto ids = t->encode(word);
    REQUIRE(ids);
    double score = 0;
    std::string joined;
    for (std::size_t i = 0; i < ids->size(); ++i) {
      const auto id = static_cast<std::size_t>((*ids)[i]);
      CHECK_FALSE((id == 0 && i > 0 && (*ids)[i - 1] == 0));
      score += id == 0 ? 0 : static_cast<double>(v.scores[id]);
      if (id != 0) joined += v.tokens[id];
    }
    double unknown = 0;
    for (const char c : word) unknown += c == 'c' ? -19.0 : 0.0;
    CHECK(score + unknown == Approx(best_score(v, word)));
    std::erase(word, 'c');
    CHECK(joined == word);
  }
  CHECK(*t->encode("cc\u00E9") == WordIds{0});
  CHECK_FALSE(t->lossless());
}

TEST_CASE("WordPiece: the longest beginning, then continuations, or unknown as a whole") {
  Vocabulary v;
  v.kind = TokenizerKind::word_piece;
  model::detail::add_bert_normalizer(v.normalizer, true, true, true, true);
  model::detail::add_bert_cuts(v);
  add_token(v, "[UNK]", 0, TokenKind::control);
  v.unknown = 0;
  for (const char* piece : {" un", " aff", "aff", "able", " unaff", "a", " ,", " caf", "e"}) add_token(v, piece);
  v.longest_word = 9;
  const auto t = Tokenizer::make(v);
  REQUIRE(t);
  CHECK(*t->encode("Unaffable,\n  aff") == WordIds{5, 4, 7, 2});
  CHECK(*t->encode("unaffx unaffa") == WordIds{0, 5, 6});
  CHECK(*t->encode("caf\u00C9") == WordIds{8, 9});
  CHECK(*t->encode("unaffableaff") == WordIds{0});  // longer than 9 characters
  CHECK(*t->decode(WordIds{5, 4, 7, 2}) == "unaffable , aff");
}

TEST_CASE("merges of characters, with bytes for what has no token") {
  Vocabulary v;
  v.kind = TokenizerKind::merge_bpe;
  v.add_space_prefix = true;
  for (int b = 0; b < 256; ++b) add_token(v, std::string(1, static_cast<char>(b)), 0, TokenKind::byte);
  for (const char* token : {" ", "a", "b", "\u00E9", "ab", " a", " ab", "\u00E9a"}) add_token(v, token);
  const TokenId first = 256;
  v.merges = {{first + 1, first + 2}, {first, first + 1}, {first, first + 4}, {first + 3, first + 1}};
  const auto t = Tokenizer::make(v);
  REQUIRE(t);
  CHECK(*t->encode("ab a") == WordIds{first + 6, first + 5});
  CHECK(*t->encode("\u00E9ab\u4E2D") == WordIds{first, first + 3, first + 4, 0xE4, 0xB8, 0xAD});
  CHECK(*t->encode("\xFF") == WordIds{first, 0xFF});
  for (const std::string text : {"", " ", "  a", "b\xFF", "\u00E9a ab"}) CHECK(*t->decode(*t->encode(text)) == text);
  CHECK(t->lossless());

  v.unknown = first;  // never needed: every byte has a token
  CHECK(Tokenizer::make(v)->lossless());
}

TEST_CASE("long texts have the ids of their words: the cache, and cuts in front of spaces, change nothing") {
  Vocabulary v;
  v.kind = TokenizerKind::score_bpe;
  for (int b = 0; b < 256; ++b) add_token(v, std::string(1, static_cast<char>(b)), 0, TokenKind::byte);
  for (const char* token : {" ", "a", "b", "  ", " a", "ab", " ab", "ba", "abab"})
    add_token(v, token, -1.0f - static_cast<float>(v.tokens.size() % 5));
  for (const bool inner_space : {false, true}) {
    if (inner_space) add_token(v, "b a", -0.5f), add_token(v, "a ", -0.25f), add_token(v, "a b", -0.1f);
    const auto t = Tokenizer::make(v);
    REQUIRE(t);
    std::uint32_t random = 7;
    std::string text;
    for (int i = 0; i < 3000; ++i) text += " ab\n"[(random = random * 1664525u + 1013904223u) >> 30];
    // Merging by definition: the pair of the highest score, its first occurrence first.
    std::vector<std::string> pieces;
    for (const char c : text) pieces.emplace_back(1, c);
    std::map<std::string, std::size_t> normal;
    for (std::size_t i = 256; i < v.tokens.size(); ++i) normal.emplace(v.tokens[i], i);
    for (;;) {
      std::size_t best = pieces.size();
      float score = -1e30f;
      for (std::size_t i = 0; i + 1 < pieces.size(); ++i)
        if (const auto found = normal.find(pieces[i] + pieces[i + 1]); found != normal.end() && v.scores[found->second] > score)
          best = i, score = v.scores[found->second];
      if (best == pieces.size()) break;
      pieces[best] += pieces[best + 1];
      pieces.erase(pieces.begin() + static_cast<std::ptrdiff_t>(best) + 1);
    }
    WordIds expected;
    for (const std::string& p : pieces)
      expected.push_back(static_cast<TokenId>(normal.contains(p) ? normal.at(p) : static_cast<unsigned char>(p[0])));
    CHECK(*t->encode(text) == expected);
  }
}

TEST_CASE("a cache that is full starts again") {
  WordCache cache;
  for (TokenId i = 0; i < 200000; ++i) {
    const std::string word = "w" + std::to_string(i);
    REQUIRE_FALSE(cache.find(word));
    const TokenId ids[] = {i, -i};
    cache.add(word, ids);
    const auto found = cache.find(word);
    REQUIRE(found);
    REQUIRE((*found)[1] == -i);
  }
  CHECK_FALSE(cache.find("w0"));
  CHECK(cache.find("w199999"));
}

TEST_CASE("cuts by the fate of a match") {
  const auto cut = [](CutStep step, std::string_view text) {
    const auto s = WordSplitter::make({step});
    REQUIRE(s);
    std::string out;
    s->split(text, [&](std::string_view w) { out += (out.empty() ? "" : "|") + std::string(w); });
    return out;
  };
  using B = CutStep::Behavior;
  // Hugging Face's own examples of these behaviors.
  CHECK(cut({"-", B::removed}, "the-final--countdown") == "the|final|countdown");
  CHECK(cut({"-", B::isolated}, "the-final--countdown") == "the|-|final|-|-|countdown");
  CHECK(cut({"-", B::merged_with_previous}, "the-final--countdown") == "the-|final-|-|countdown");
  CHECK(cut({"-", B::merged_with_next}, "the-final--countdown") == "the|-final|-|-countdown");
  CHECK(cut({"-", B::contiguous}, "the-final--countdown") == "the|-|final|--|countdown");
  CHECK(cut({"[a-z]+", B::removed, true}, "the-final--countdown") == "the|final|countdown");
  CHECK(cut({"-", B::removed}, "--").empty());
  CHECK(cut({"-", B::merged_with_next}, "-") == "-");
  CHECK(cut({"-", B::merged_with_previous}, "-a-") == "-|a-");
}

TEST_CASE("rules come back from their text") {
  Vocabulary v;
  CHECK(rules_text(v).empty());
  v.normalizer = {{NormalizerStep::Kind::charsmap, std::string("\0\xFF\"a", 4)},
                  {NormalizerStep::Kind::replace, "\u2581", " \n\\"}};
  v.cuts = {{R"(\s+"x)", CutStep::Behavior::removed}, {"a", CutStep::Behavior::contiguous, true}};
  v.name_rules = {{7, true, false, true, false}, {9, false, true, false, true}};
  v.prefix = SpacePrefix::every_part;
  v.longest_word = 12;
  v.whole_words = v.fuse_unknown = true;
  Vocabulary back;
  const std::string text = rules_text(v);
  const auto read = read_rules(text, back);
  INFO((read ? "" : read.error().message));
  REQUIRE(read);
  CHECK(rules_text(back) == text);
  CHECK(back.normalizer == v.normalizer);
  CHECK(back.cuts == v.cuts);
  CHECK(back.name_rules[1].normalized);
  CHECK(back.prefix == SpacePrefix::every_part);
  for (const char* bad :
       {"", "{", R"({"x": 1})", R"({"normalizer": [["nfq", "", ""]]})", R"({"normalizer": [["nfc", ""]]})",
        R"({"normalizer": [["charsmap", "!", ""]]})", R"({"cuts": [["a", "isolated", false, 1]]})",
        R"({"names": [[4294967296, 0]]})", R"({"names": [[1, 16]]})", R"({"prefix": "end"})", R"({"flags": ["no"]})",
        R"({"longest_word": 99999999})", "{\"cuts\": [[\"\xFF\", \"isolated\", false]]}"}) {
    CAPTURE(bad);
    CHECK_FALSE(read_rules(bad, back));
  }
}
