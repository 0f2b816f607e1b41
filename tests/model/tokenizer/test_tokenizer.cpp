#include <fstream>
#include <iterator>
#include <map>
#include <memory>

#include <nlohmann/json.hpp>

#include <anybit/model/tokenizer/files.hpp>

#include "support/catch.hpp"
#include "support/gguf_writer.hpp"
#include "support/real_model.hpp"
#include "support/temporary_folder.hpp"
#include "support/test_data.hpp"

using namespace anybit;
using namespace anybit::model;
using test_support::read_file;

namespace {

std::vector<std::string> words(std::string_view text, std::string_view pre = "gpt-2") {
  std::vector<std::string> out;
  const PreTokenizer* const rule = find_pre_tokenizer(pre);
  REQUIRE(rule);
  const auto splitter = WordSplitter::make(rule->cuts());
  INFO((splitter ? "" : splitter.error().message));
  REQUIRE(splitter);
  splitter->split(text, [&](std::string_view w) { out.emplace_back(w); });
  return out;
}

using Words = std::vector<std::string>;
using Ids = std::vector<TokenId>;

/// All 256 bytes, then the given merges of bytes; ids 256 onwards. Two special tokens at the end.
Vocabulary small_byte_vocabulary(const std::vector<std::pair<std::string, std::string>>& merges) {
  Vocabulary v;
  std::map<std::string, TokenId> ids;
  const auto add = [&](const std::string& s) { ids.emplace(s, static_cast<TokenId>(v.tokens.size())), v.tokens.push_back(s); };
  for (int b = 0; b < 256; ++b) add(std::string(1, static_cast<char>(b)));
  for (const auto& [left, right] : merges) {
    add(left + right);
    v.merges.push_back({ids.at(left), ids.at(right)});
  }
  v.kinds.assign(v.tokens.size(), TokenKind::normal);
  v.tokens.push_back("<end>");
  v.tokens.push_back("<end>>");
  v.kinds.resize(v.tokens.size(), TokenKind::control);
  return v;
}

/// Byte pair encoding as it is defined: merge the best pair, its first occurrence first, until there is none.
Ids naive_bpe(const Vocabulary& v, std::string_view word) {
  Ids ids;
  for (const char c : word) ids.push_back(static_cast<unsigned char>(c));
  for (;;) {
    std::size_t best = v.merges.size(), where = 0;
    for (std::size_t i = 0; i + 1 < ids.size(); ++i)
      for (std::size_t m = 0; m < best; ++m)
        if (v.merges[m].left == ids[i] && v.merges[m].right == ids[i + 1]) best = m, where = i;
    if (best == v.merges.size()) return ids;
    ids[where] = static_cast<TokenId>(256 + best);
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(where) + 1);
  }
}

}  // namespace

TEST_CASE("character classes of Unicode") {
  const auto is = [](char32_t c, std::string_view name) { return contains(category_set(name), category(c)); };
  CHECK(category(U'a') == Category::Ll);
  CHECK(category(U'Z') == Category::Lu);
  CHECK(category(U'[') == Category::Ps);
  CHECK(category(U'@') == Category::Po);
  CHECK(category(U'$') == Category::Sc);
  CHECK(category(U'0') == Category::Nd);
  CHECK(category(U'\u00B2') == Category::No);  // superscript two
  CHECK(category(U'\u2163') == Category::Nl);  // roman four
  CHECK(category(U'\u0660') == Category::Nd);  // Arabic-Indic zero
  CHECK(category(U'\u0100') == Category::Lu);  // letters that alternate
  CHECK(category(U'\u0101') == Category::Ll);
  CHECK(category(U'\u0148') == Category::Ll);
  CHECK(category(U'\u0149') == Category::Ll);
  CHECK(category(U'\u01C5') == Category::Lt);
  CHECK(category(U'\u02B0') == Category::Lm);
  CHECK(category(U'\u4E2D') == Category::Lo);
  CHECK(category(U'\U0001F600') == Category::So);
  CHECK(category(U'\u0301') == Category::Mn);
  CHECK(category(U'\u200B') == Category::Cf);  // zero width space is no space
  CHECK(category(0x10FFFF) == Category::Cn);
  CHECK(category(0x323AF + 0x10000) == Category::Cn);
  CHECK(category(0x7FFFFFFF) == Category::Cn);
  for (const char32_t c : {U'\t', U'\r', U' ', U'\u00A0', U'\u2028', U'\u3000'}) CHECK(contains(white_space_set, category(c)));
  CHECK(is(U'\t', "C"));
  CHECK(is(U'\t', "Cc"));
  CHECK_FALSE(is(U'\x01', "Z"));
  CHECK(is(U'\u01C5', "L"));
  CHECK(category_set("X") == 0);
  CHECK(category_set("Lx") == 0);
}

TEST_CASE("decode_utf8 takes well-formed sequences only") {
  const auto one = [](std::string_view s) { return decode_utf8(s); };
  CHECK(one("\xF0\x9F\x98\x80").code_point == 0x1F600);
  CHECK(one("\xF0\x9F\x98\x80").bytes == 4);
  CHECK(one("\xED\x9F\xBF").code_point == 0xD7FF);
  CHECK(one("\xF4\x8F\xBF\xBF").code_point == 0x10FFFF);
  for (const std::string_view bad :
       {"\x80", "\xC0\x80", "\xC1\xBF", "\xE0\x9F\xBF", "\xED\xA0\x80", "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80",
        "\xF5\x80\x80\x80", "\xFF", "\xC3", "\xE2\x82", "\xF0\x9F\x98", "\xC3\x41", "\xE2\x41\x80"}) {
    CHECK_FALSE(one(bad).valid);
    CHECK(one(bad).bytes == 1);
  }
}

TEST_CASE("the GPT-2 pattern") {
  CHECK(words("Hello world!") == Words{"Hello", " world", "!"});
  CHECK(words("we'll've 'S don't") == Words{"we", "'ll", "'ve", " '", "S", " don", "'t"});
  CHECK(words("a  b") == Words{"a", " ", " b"});
  CHECK(words("a   ") == Words{"a", "   "});
  CHECK(words("a \n\tb") == Words{"a", " \n", "\t", "b"});
  CHECK(words(" ") == Words{" "});
  CHECK(words("") == Words{});
  CHECK(words("'") == Words{"'"});
  CHECK(words("x1y 23!?") == Words{"x", "1", "y", " 23", "!?"});
  CHECK(words("\xC3\xA9t\xC3\xA9 \xE4\xB8\xAD") == Words{"\xC3\xA9t\xC3\xA9", " \xE4\xB8\xAD"});
  CHECK(words("a\xC2\xA0\xC2\xA0z") == Words{"a", "\xC2\xA0", "\xC2\xA0", "z"});
  CHECK(words("a\xFF\xC3 b") == Words{"a", "\xFF\xC3", " b"});
}

TEST_CASE("SmolLM splits numerals off first") {
  const auto smol = [](std::string_view s) { return words(s, "smollm"); };
  CHECK(smol("x 123") == Words{"x", " ", "1", "2", "3"});
  CHECK(smol("  7  y") == Words{"  ", "7", " ", " y"});
  CHECK(smol("m\xC2\xB2n") == Words{"m", "\xC2\xB2", "n"});
  CHECK(smol("42") == Words{"4", "2"});
}

TEST_CASE("pre-tokenizers cut as the published patterns do in oniguruma") {
  // What the package `tokenizers` makes of one text, pieces apart by `.
  struct Case {
    const char *name, *pieces;
  };
  for (
      const auto& [name, pieces] : {
          // clang-format off
           Case{"gpt-2", "I`'ll` SAY`'`S` '`tis` don`'`T` x`1`y` 1234567\u00BD\u2163`  \n\n \t` end`...`\r`\n`/`x`_`y`=\"`z`\"` u`\u0308`ber` \u00C7aVa` \u01C5o\u02B0A` \u4E2D\u6587`\uFF0C\u3002`\u30FC\u304C` \u0661\u0662` \U0001F44D\U0001F3FD`\u00A0` .\u0301`x` '`\u017F\u0E01`\u0E38`  "},
      {"smollm", "I`'ll` SAY`'`S` '`tis` don`'`T` x`1`y` `1`2`3`4`5`6`7`\u00BD`\u2163`  \n\n \t` end`...`\r`\n`/`x`_`y`=\"`z`\"` u`\u0308`ber` \u00C7aVa` \u01C5o\u02B0A` \u4E2D\u6587`\uFF0C\u3002`\u30FC\u304C` `\u0661`\u0662` \U0001F44D\U0001F3FD`\u00A0` .\u0301`x` '`\u017F\u0E01`\u0E38`  "},
      {"llama-bpe", "I`'ll` SAY`'S` '`tis` don`'T` x`1`y` `123`456`7\u00BD\u2163`  \n\n` \t` end`...\r\n`/x`_y`=\"`z`\"` u`\u0308ber` \u00C7aVa` \u01C5o\u02B0A` \u4E2D\u6587`\uFF0C\u3002`\u30FC\u304C` `\u0661\u0662` \U0001F44D\U0001F3FD`\u00A0` .\u0301`x` '`\u017F\u0E01`\u0E38`  "},
      {"qwen2", "I`'ll` SAY`'S` '`tis` don`'T` x`1`y` `1`2`3`4`5`6`7`\u00BD`\u2163`  \n\n` \t` end`...\r\n`/x`_y`=\"`z`\"` u`\u0308ber` \u00C7aVa` \u01C5o\u02B0A` \u4E2D\u6587`\uFF0C\u3002`\u30FC\u304C` `\u0661`\u0662` \U0001F44D\U0001F3FD`\u00A0` .\u0301`x` '`\u017F\u0E01`\u0E38`  "},
      {"qwen35", "I`'ll` SAY`'S` '`tis` don`'T` x`1`y` `1`2`3`4`5`6`7`\u00BD`\u2163`  \n\n` \t` end`...\r\n`/x`_y`=\"`z`\"` u\u0308ber` \u00C7aVa` \u01C5o\u02B0A` \u4E2D\u6587`\uFF0C\u3002`\u30FC\u304C` `\u0661`\u0662` \U0001F44D\U0001F3FD`\u00A0` .`\u0301x` '`\u017F\u0E01\u0E38`  "},
      {"falcon", "I`'`ll` SAY`'`S` `'`tis` don`'`T` x`1`y` `123`456`7\u00BD\u2163`  \n\n \t` end`...`\r\n`/`x`_`y`=\"`z`\"` u`\u0308`ber` \u00C7aVa` \u01C5o\u02B0A` \u4E2D\u6587`\uFF0C\u3002`\u30FC\u304C` \u0661\u0662` \U0001F44D\U0001F3FD`\u00A0 `.`\u0301`x` `'`\u017F\u0E01`\u0E38`  "},
      {"deepseek-coder", "I`'`ll` SAY`'`S` '`tis` don`'`T` x`1`y` `1`2`3`4`5`6`7`\u00BD`\u2163`  `\n`\n` \t` end`...`\r`\n`/`x`_`y`=`\"`z`\"` u`\u0308`ber` \u00C7aVa` \u01C5o\u02B0A` `\u4E2D\u6587`\uFF0C`\u3002`\u30FC\u304C` `\u0661`\u0662` \U0001F44D\U0001F3FD\u00A0` .`\u0301`x` '`\u017F`\u0E01`\u0E38`  "},
      {"deepseek-llm", "I`'`ll` SAY`'`S` '`tis` don`'`T` x`1`y` `1`2`3`4`5`6`7`\u00BD`\u2163`  `\n`\n` \t` end`...`\r`\n`/`x`_`y`=\"`z`\"` u`\u0308`ber` \u00C7`aVa` \u01C5`o`\u02B0`A` `\u4E2D\u6587`\uFF0C`\u3002`\u30FC\u304C` `\u0661`\u0662` \U0001F44D\U0001F3FD`\u00A0` .`\u0301`x` '`\u017F`\u0E01\u0E38`  "},
      {"deepseek-v3", "I`'ll` SAY`'S` '`tis` don`'T` x`1`y` `123`456`7\u00BD\u2163`  \n\n` \t` end`...\r\n`/x`_y`=\"`z`\"` u\u0308ber` \u00C7aVa` \u01C5o\u02B0A` `\u4E2D\u6587`\uFF0C\u3002`\u30FC\u304C` `\u0661\u0662` \U0001F44D\U0001F3FD`\u00A0` .`\u0301x` '`\u017F\u0E01\u0E38`  "},
      {"tekken", "I`'ll` SAY`'S` '`tis` don`'T` x`1`y` `1`2`3`4`5`6`7`\u00BD`\u2163`  \n\n` \t` end`...\r\n/`x`_y`=\"`z`\"` u\u0308ber` \u00C7a`Va` \u01C5o\u02B0`A` \u4E2D\u6587`\uFF0C\u3002`\u30FC\u304C` `\u0661`\u0662` \U0001F44D\U0001F3FD`\u00A0` .\u0301`x` '`\u017F\u0E01\u0E38`  "},
      {"gpt-4o", "I'll` SAY'S` '`tis` don'T` x`1`y` `123`456`7\u00BD\u2163`  \n\n` \t` end`...\r\n/`x`_y`=\"`z`\"` u\u0308ber` \u00C7a`Va` \u01C5o\u02B0`A` \u4E2D\u6587`\uFF0C\u3002`\u30FC\u304C` `\u0661\u0662` \U0001F44D\U0001F3FD`\u00A0` .\u0301`x` '`\u017F\u0E01\u0E38`  "},
          // clang-format on
      }) {
    CAPTURE(name);
    std::string text, joined;
    for (const char* c = pieces; *c != 0; ++c)
      if (*c != '`') text += *c;
    for (const std::string& w : words(text, name)) joined += (joined.empty() ? "" : "`") + w;
    CHECK(joined == pieces);
  }
  CHECK(words("x'\u017Fy", "llama-bpe") == Words{"x", "'\u017F", "y"});  // the long s is an s without regard to case
  CHECK(words("a's", "qwen2") == Words{"a", "'s"});
  CHECK(words("\xC3\xA9\xFFz", "llama-bpe") == Words{"\xC3\xA9", "\xFFz"});
  CHECK(find_pre_tokenizer("llama3") == find_pre_tokenizer("llama-bpe"));
  CHECK(find_pre_tokenizer("llama") == nullptr);
  CHECK(find_pre_tokenizer("") == nullptr);
}

TEST_CASE("pre-tokenizers lose no byte and take no square time") {
  std::uint32_t random = 3;
  const auto next = [&](std::uint32_t n) { return random = random * 1664525u + 1013904223u, (random >> 8) % n; };
  for (const PreTokenizer& rule : pre_tokenizers) {
    const auto splitter = WordSplitter::make(rule.cuts());
    INFO(rule.names);
    REQUIRE(splitter);
    for (int round = 0; round < 200; ++round) {
      std::string text, joined;
      for (std::uint32_t i = next(40); i > 0; --i)
        text += next(3) == 0 ? "\n \t'sLl19./\xC3\xA9\xE3\x80"[next(16)] : static_cast<char>(next(256));
      bool empty = false;
      splitter->split(text, [&](std::string_view w) { joined += w, empty = empty || w.empty(); });
      CHECK(joined == text);
      CHECK_FALSE(empty);
    }
    for (const std::string_view unit : {" ", "a", "A", "\n", " \n", "1", "'", "\xE4\xB8\xAD", "\xCC\x81", "\xFF"}) {
      std::string text;
      while (text.size() < 200000) text += unit;
      text += "x";
      std::size_t bytes = 0;
      splitter->split(text, [&](std::string_view w) { bytes += w.size(); });
      CHECK(bytes == text.size());
    }
  }
}

TEST_CASE("patterns: what is matched, and what is no pattern that is known here") {
  const auto match = [](std::string_view pattern, std::string_view text) {
    const auto p = Pattern::compile(pattern);
    INFO((p ? "" : p.error().message));
    REQUIRE(p);
    std::vector<PatternChar> chars;
    for (std::size_t at = 0; at < text.size(); at += chars.back().bytes()) chars.emplace_back(decode_utf8(text.substr(at)));
    PatternEffort effort = PatternEffort::for_text(chars.size());
    const std::size_t end = p->match(chars.data(), 0, chars.size(), effort);
    return end == Pattern::none ? -1 : static_cast<int>(end);
  };
  CHECK(match("ab|a", "abc") == 2);
  CHECK(match("a|ab", "abc") == 1);   // the first alternative, not the longest
  CHECK(match("a*ab", "aaab") == 4);  // goes back
  CHECK(match("a*+ab", "aaab") == -1);
  CHECK(match("a{2,3}", "aaaa") == 3);
  CHECK(match("a{2}", "aaaa") == 2);
  CHECK(match("a{2,}", "a") == -1);
  CHECK(match("[^a-c]", "b") == -1);
  CHECK(match("[^a-c]", "\u4E2D") == 1);
  CHECK(match("[a\\-z]+", "a-z-b") == 4);
  CHECK(match("[-a]+", "-a-b") == 3);
  CHECK(match("\\S+", "ab c") == 2);
  CHECK(match("[\\S ]+", "ab c\t") == 4);
  CHECK(match("\\P{Lu}+", "abC") == 2);
  CHECK(match("(?i:ab)?c", "aBc") == 3);
  CHECK(match("(?i:ab)?c", "c") == 1);
  CHECK(match("a(?:b|bc)d", "abcd") == 4);  // goes back into a group
  CHECK(match("a(?=b)", "ab") == 1);
  CHECK(match("a(?!b)", "ab") == -1);
  CHECK(match("a$", "a") == 1);
  CHECK(match("a$", "ab") == -1);
  CHECK(match("\\u4e2d\\n", "\u4E2D\n") == 2);
  CHECK(match("", "a") == 0);
  for (const char* bad : {"(",
                          ")",
                          "a)",
                          "[",
                          "[a",
                          "*",
                          "a**",
                          "a{",
                          "a{2",
                          "a{3,2}",
                          "(a)*",
                          "(?<n>a)",
                          "\\p{Greek}",
                          "\\b",
                          "\\",
                          "^a",
                          ".",
                          "a+?",
                          "[b-a]",
                          "(?i:[a-z])",
                          "\\u12",
                          "\xFF",
                          "((((((((((a))))))))))",
                          "a{99999}"}) {
    CAPTURE(bad);
    const auto p = Pattern::compile(bad);
    REQUIRE_FALSE(p);
    CHECK(p.error().message.starts_with("pattern '"));
    CHECK(p.error().message.find(" at byte ") != std::string::npos);
  }
}

TEST_CASE("a pattern that is made to take long is an error in the end") {
  Vocabulary v = small_byte_vocabulary({});
  v.pre.clear();
  v.cuts = {{"a*a*a*a*a*a*a*a*b|x"}};
  const auto t = Tokenizer::make(v);
  REQUIRE(t);
  CHECK(t->encode("aaaaaaaab")->size() == 9);
  const auto endless = t->encode(std::string(5000, 'a'));
  REQUIRE_FALSE(endless);
  CHECK(endless.error().message.find("takes too long on a text of 5000 bytes") != std::string::npos);
  v.cuts = {{std::string(2000, 'a')}};
  CHECK(Tokenizer::make(v).error().message.find("more than 1024") != std::string::npos);
  v.cuts = {{std::string(70000, 'a')}};
  CHECK(Tokenizer::make(v).error().message.find("has 70000 bytes") != std::string::npos);
}

TEST_CASE("a word that is a token is that token where the pre-tokenizer says so") {
  Vocabulary v = small_byte_vocabulary({{"a", "b"}, {"b", "c"}});
  v.tokens.push_back("abc");  // no merge makes it
  v.kinds.push_back(TokenKind::normal);
  const TokenId ab = 256, abc = 260;
  CHECK(*Tokenizer::make(v)->encode("abc abc") == Ids{ab, 'c', ' ', ab, 'c'});
  v.pre = "llama-bpe";
  CHECK(*Tokenizer::make(v)->encode("abc abc") == Ids{abc, ' ', ab, 'c'});
  v.pre = "word\nlist";
  const auto unknown = Tokenizer::make(v);
  REQUIRE_FALSE(unknown);
  CHECK(unknown.error().message.find("the pre-tokenizer is 'word\\x0alist': use a model with one of: gpt-2 ") !=
        std::string::npos);
}

TEST_CASE("decode(encode(text)) is the text, for every text and kind of vocabulary") {
  std::uint32_t random = 11;
  const auto next = [&](std::uint32_t n) { return random = random * 1664525u + 1013904223u, (random >> 8) % n; };
  const std::vector<std::string> pieces{" ",
                                        "  ",
                                        "\n",
                                        "a",
                                        "b",
                                        "ab",
                                        "<code>",
                                        "</s>",
                                        "<s>",
                                        " x",
                                        "\xE2\x96\x81",
                                        "\xC3\xA9",
                                        "\xFF",
                                        "<0x41>",
                                        "\xF0\x9F\x98\x80",
                                        "1",
                                        "'s",
                                        std::string("\0", 1),
                                        "[PAD]",
                                        "<co",
                                        "de>"};
  const auto some = [&](std::uint32_t most) {
    std::string s;
    for (std::uint32_t i = next(most + 1); i > 0; --i) s += pieces[next(static_cast<std::uint32_t>(pieces.size()))];
    return s;
  };
  for (int round = 0; round < 300; ++round) {
    Vocabulary v;
    v.kind = next(2) == 0 ? TokenizerKind::byte_bpe : TokenizerKind::score_bpe;
    v.add_space_prefix = next(3) != 0 && v.kind == TokenizerKind::score_bpe;
    v.pre = next(2) == 0 ? "gpt-2" : "llama-bpe";
    const TokenKind single = v.kind == TokenizerKind::byte_bpe ? TokenKind::normal : TokenKind::byte;
    for (int b = 0; b < 256; ++b) v.tokens.push_back(std::string(1, static_cast<char>(b))), v.kinds.push_back(single);
    for (int i = 0; i < 12; ++i) {
      v.tokens.push_back(some(2));
      constexpr TokenKind kinds[] = {TokenKind::normal, TokenKind::normal, TokenKind::control, TokenKind::user_defined,
                                     TokenKind::unused};
      v.kinds.push_back(kinds[next(5)]);
    }
    v.scores.resize(v.tokens.size());
    for (float& s : v.scores) s = -static_cast<float>(next(5));
    const auto t = Tokenizer::make(v);
    REQUIRE(t);
    for (int i = 0; i < 40; ++i) {
      const std::string text = some(8);
      CAPTURE(round, text);
      for (const Specials specials : {Specials::as_text, Specials::parsed}) {
        const auto ids = t->encode(text, specials);
        REQUIRE(ids);
        CHECK(*t->decode(*ids) == text);
        if (specials == Specials::as_text)
          for (const TokenId id : *ids) CHECK(v.kinds[static_cast<std::size_t>(id)] != TokenKind::control);
      }
    }
  }
}

TEST_CASE("added words are part of a text: one space before it, none behind them") {
  Vocabulary v;
  v.kind = TokenizerKind::score_bpe;
  v.add_space_prefix = true;
  for (int b = 0; b < 256; ++b) v.tokens.push_back(std::string(1, static_cast<char>(b))), v.kinds.push_back(TokenKind::byte);
  v.tokens.push_back("<code>"), v.kinds.push_back(TokenKind::user_defined);
  v.tokens.push_back("</s>"), v.kinds.push_back(TokenKind::control);
  v.scores.resize(v.tokens.size());
  const auto t = Tokenizer::make(v);
  REQUIRE(t);
  const TokenId code = 256, end = 257;
  CHECK(*t->encode("<code>ab") == Ids{' ', code, 'a', 'b'});
  CHECK(*t->decode(Ids{' ', code, 'a', 'b'}) == "<code>ab");
  CHECK(*t->encode("</s>") == Ids{' ', '<', '/', 's', '>'});
  CHECK(*t->encode("a</s>b", Specials::parsed) == Ids{' ', 'a', end, ' ', 'b'});
  CHECK(*t->decode(Ids{' ', 'a', end, ' ', 'b'}) == "a</s>b");
}

TEST_CASE("byte-level merges agree with their definition") {
  const Vocabulary v = small_byte_vocabulary(
      {{"a", "b"}, {"b", "a"}, {"ab", "ab"}, {"a", "a"}, {"aa", "aa"}, {"c", "ab"}, {"abab", "b"}, {" ", "a"}});
  const auto t = Tokenizer::make(v);
  REQUIRE(t);
  std::uint32_t seed = 1;
  for (int round = 0; round < 400; ++round) {
    std::string word;
    const int length = round % 40;
    for (int i = 0; i < length; ++i) {
      seed = seed * 1664525u + 1013904223u;
      word += "abc"[(seed >> 24) % 3];
    }
    CAPTURE(word);
    const auto ids = t->encode(word);
    REQUIRE(ids);
    CHECK(*ids == naive_bpe(v, word));
    CHECK(*t->decode(*ids) == word);
  }
}

TEST_CASE("names of control tokens are text, unless they are asked for: then the longest first") {
  const auto t = Tokenizer::make(small_byte_vocabulary({{"e", "n"}}));
  REQUIRE(t);
  const TokenId end = 257, end2 = 258, en = 256;
  CHECK(*t->encode("<end>", Specials::parsed) == Ids{end});
  CHECK(*t->encode("a<end>><end>b", Specials::parsed) == Ids{'a', end2, end, 'b'});
  CHECK(*t->encode("<en<end>", Specials::parsed) == Ids{'<', en, end});
  CHECK(*t->encode("<end>") == Ids{'<', en, 'd', '>'});
  CHECK(t->decode(Ids{'a', end2}).value() == "a<end>>");
}

TEST_CASE("any bytes go round through a vocabulary that has all bytes, otherwise the place is named") {
  Vocabulary v = small_byte_vocabulary({{"\xC3", "\xA9"}});
  std::string all;
  for (int b = 255; b >= 0; --b) all += static_cast<char>(b);
  const auto full = Tokenizer::make(v);
  REQUIRE(full);
  CHECK(*full->decode(*full->encode(all)) == all);
  v.kinds[0xFF] = TokenKind::unused;
  v.kinds[6] = TokenKind::unused;
  const auto partial = Tokenizer::make(v);
  REQUIRE(partial);
  const auto bad = partial->encode("good <end> \xFF");
  REQUIRE_FALSE(bad);
  CHECK(bad.error().message ==
        "byte '\\xff' at offset 11 of the text is in no token and not UTF-8: remove the character or use another tokenizer");
  CHECK(partial->encode("\x06").error().message.find("offset 0") != std::string::npos);
  CHECK(partial->encode("").value().empty());
}

TEST_CASE("a long word without pauses is merged in reasonable time") {
  const auto t = Tokenizer::make(small_byte_vocabulary({{"a", "a"}, {"aa", "aa"}, {"aaaa", "aaaa"}}));
  REQUIRE(t);
  const auto ids = t->encode(std::string(300000, 'a'));  // quadratic merging would take minutes
  REQUIRE(ids);
  CHECK(ids->size() == 300000 / 8);
}

TEST_CASE("decode refuses ids of another vocabulary") {
  const auto t = Tokenizer::make(small_byte_vocabulary({}));
  CHECK_FALSE(t->decode(Ids{65, 258}));
  CHECK(t->decode(Ids{65, -1}).error().message.find("token 1 has the id -1") != std::string::npos);
}

TEST_CASE("contradictory vocabularies are errors") {
  const Vocabulary good = small_byte_vocabulary({{"a", "b"}});
  CHECK(Tokenizer::make(good));
  Vocabulary v = good;
  v.merges.push_back({5000, 0});
  CHECK_FALSE(Tokenizer::make(v));
  v = good;
  v.merges.push_back({'x', 'y'});
  CHECK(Tokenizer::make(v).error().message.find("'xy', which is no token") != std::string::npos);
  v = good;
  v.kinds.pop_back();
  CHECK_FALSE(Tokenizer::make(v));
  v = good;
  v.bos = 70000;
  CHECK_FALSE(Tokenizer::make(v));
  v = good;
  v.kind = TokenizerKind::score_bpe;
  CHECK_FALSE(Tokenizer::make(v));
  v.scores.assign(v.tokens.size(), 0.0f);
  CHECK(Tokenizer::make(v));
  v.scores[3] = std::nanf("");
  CHECK_FALSE(Tokenizer::make(v));
  CHECK_FALSE(Tokenizer::make(Vocabulary{}));
}

TEST_CASE("score-driven merges, byte fallback and the space in front") {
  Vocabulary v;
  v.kind = TokenizerKind::score_bpe;
  v.add_space_prefix = true;
  const auto add = [&](std::string token, TokenKind kind, float score) {
    v.tokens.push_back(std::move(token)), v.kinds.push_back(kind), v.scores.push_back(score);
  };
  add("<unk>", TokenKind::unknown, 0);
  for (int b = 0; b < 256; ++b) add(std::string(1, static_cast<char>(b)), TokenKind::byte, 0);
  const TokenId first = 257;
  for (const char* c : {" ", "a", "b", "c"}) add(c, TokenKind::normal, -100);
  add("ab", TokenKind::normal, -3);
  add("bc", TokenKind::normal, -2);
  add(" a", TokenKind::normal, -1);
  add("abc", TokenKind::normal, -4);
  const auto t = Tokenizer::make(v);
  REQUIRE(t);
  const TokenId b = first + 2, c = first + 3, ab = first + 4, bc = first + 5, space_a = first + 6, abc = first + 7;
  CHECK(*t->encode("a") == Ids{space_a});
  CHECK(*t->encode("abc") == Ids{space_a, bc});
  CHECK(*t->encode("bab") == Ids{first, b, ab});
  CHECK(*t->encode("cabc") == Ids{first, c, abc});  // bc first, then a + bc
  CHECK(*t->encode("\xC3\xA9") == Ids{first, 1 + 0xC3, 1 + 0xA9});
  CHECK(*t->encode("\xFF") == Ids{first, 1 + 0xFF});
  CHECK(t->encode("")->empty());
  for (const std::string text : {"abc", " abc", "", "\xC3\xA9 a", "  ", "\xFF\xC3"}) CHECK(*t->decode(*t->encode(text)) == text);

  v.kinds[1 + 0xFF] = TokenKind::unused;
  CHECK(Tokenizer::make(v)->encode("ab\xFF").error().message.find("'\\xff' at offset 2") != std::string::npos);
}

TEST_CASE("vocabularies of GGUF metadata") {
  const auto file = [](auto&& change) {
    auto writer = std::make_unique<test_support::GgufWriter>();
    change(*writer);
    return writer->bytes();
  };
  const auto open = [](const std::string& bytes) -> Result<Tokenizer> {
    ANYBIT_TRY(const io::GgufFile gguf, io::GgufFile::parse(std::as_bytes(std::span(bytes)), "t.gguf"));
    return tokenizer_from_gguf(gguf);
  };
  const std::vector<std::string> tokens{"<s>", "a", "\xC4\xA0",
                                        "\xC4\xA0"
                                        "a",
                                        "\xC3\x89"};  // U+0120 spells the space, U+00C9 the byte C9

  const auto good = open(file([&](auto& w) {
    w.add_metadata("tokenizer.ggml.model", "gpt2");
    w.add_metadata("tokenizer.ggml.pre", "gpt-2");
    w.add_metadata("tokenizer.ggml.tokens", tokens);
    w.add_metadata("tokenizer.ggml.token_type", std::vector<std::int32_t>{3, 1, 1, 1, 1});
    w.add_metadata("tokenizer.ggml.merges", std::vector<std::string>{"\xC4\xA0 a"});
    w.add_metadata("tokenizer.ggml.bos_token_id", std::uint32_t{0});
    w.add_metadata("tokenizer.ggml.add_bos_token", true);
  }));
  REQUIRE(good);
  CHECK(good->token(3) == " a");
  CHECK(good->token(4) == "\xC9");
  CHECK(*good->encode("a a<s>", Specials::parsed) == Ids{1, 3, 0});
  CHECK(good->vocabulary().add_bos);

  struct Bad {
    const char* key;
    std::string in_message;
  };
  const auto broken = [&](const char* which) {
    return open(file([&](auto& w) {
      const std::string_view key = which;
      w.add_metadata("tokenizer.ggml.model", key == "model" ? "rwkv" : "gpt2");
      if (key != "no pre") w.add_metadata("tokenizer.ggml.pre", key == "pre" ? "wordlist" : "gpt-2");
      if (key != "tokens") w.add_metadata("tokenizer.ggml.tokens", tokens);
      w.add_metadata("tokenizer.ggml.token_type", key == "types" ? std::vector<std::int32_t>{3, 1}
                                                                 : std::vector<std::int32_t>{3, 1, 1, 1, key == "type" ? 9 : 1});
      w.add_metadata("tokenizer.ggml.merges", std::vector<std::string>{key == "pair"    ? "a"
                                                                       : key == "merge" ? "a q"
                                                                       : key == "made"  ? "a a"
                                                                                        : "\xC4\xA0 a"});
      w.add_metadata("tokenizer.ggml.bos_token_id", std::uint32_t{key == "bos" ? 5u : 0u});
    }));
  };
  CHECK(broken("nothing"));
  for (const auto& [key, in_message] :
       {Bad{"model", "'rwkv'"}, Bad{"no pre", "'tokenizer.ggml.pre'"}, Bad{"pre", "'wordlist'"},
        Bad{"tokens", "tokenizer.ggml.tokens"}, Bad{"types", "2 entries for 5"}, Bad{"type", "type 9"},
        Bad{"pair", "'a' (number 0) is no pair"}, Bad{"merge", "joins what is no token"}, Bad{"made", "'aa', which is no token"},
        Bad{"bos", "is 5"}}) {
    CAPTURE(key);
    const auto r = broken(key);
    REQUIRE_FALSE(r);
    CHECK(r.error().message.find(in_message) != std::string::npos);
    CHECK(r.error().message.starts_with("t.gguf: "));
  }

  const auto scored = open(file([&](auto& w) {
    w.add_metadata("tokenizer.ggml.model", "llama");
    w.add_metadata("tokenizer.ggml.tokens", std::vector<std::string>{"<unk>", "<0x41>", "\xE2\x96\x81", "b",
                                                                     "\xE2\x96\x81"
                                                                     "b"});
    w.add_metadata("tokenizer.ggml.token_type", std::vector<std::int32_t>{2, 6, 1, 1, 1});
    w.add_metadata("tokenizer.ggml.scores", std::vector<float>{0, 0, -1, -1, -1});
  }));
  REQUIRE(scored);
  CHECK(*scored->encode("bA b") == Ids{4, 1, 4});
  CHECK(*scored->decode(Ids{4, 1, 4}) == "bA b");
}

TEST_CASE("a token outside the byte alphabet is in no text, and Llama 3 adds bos") {
  test_support::GgufWriter w;
  w.add_metadata("tokenizer.ggml.model", "gpt2");
  w.add_metadata("tokenizer.ggml.pre", "llama-bpe");
  // The bytes of U+200D in the alphabet merge to token 4; token 0 spells the character itself.
  w.add_metadata("tokenizer.ggml.tokens",
                 std::vector<std::string>{"\u200D", "\u00E2", "\u0122", "\u00E2\u0122", "\u00E2\u0122\u012F", "\u012F"});
  w.add_metadata("tokenizer.ggml.merges", std::vector<std::string>{"\u00E2 \u0122", "\u00E2\u0122 \u012F"});
  w.add_metadata("tokenizer.ggml.bos_token_id", std::uint32_t{1});
  const std::string bytes = w.bytes();
  const auto t = tokenizer_from_gguf(*io::GgufFile::parse(std::as_bytes(std::span(bytes)), "t.gguf"));
  INFO((t ? "" : t.error().message));
  REQUIRE(t);
  CHECK(*t->encode("\u200D") == Ids{4});
  CHECK(*t->decode(Ids{4, 0}) == "\u200D\u200D");
  CHECK(t->vocabulary().kinds[0] == TokenKind::unused);
  CHECK(t->vocabulary().add_bos);
}

TEST_CASE("SmolLM2's tokenizer on the golden texts") {
  ANYBIT_TEST_DATA_OR_SKIP(golden, "vectors/tokenizer.json");
  ANYBIT_REAL_MODEL_OR_SKIP(path);
  const auto gguf = io::GgufFile::open(path);
  REQUIRE(gguf);
  const auto t = tokenizer_from_gguf(*gguf);
  REQUIRE(t);
  const auto items = nlohmann::json::parse(read_file(golden)).at("items");
  CHECK(items.size() == 40);
  for (const auto& item : items) {
    const auto text = item.at("text").get<std::string>();
    CAPTURE(text);
    const auto parsed = t->encode(text, Specials::parsed), plain = t->encode(text);
    REQUIRE(parsed);
    REQUIRE(plain);
    CHECK(*parsed == item.at("ids").get<Ids>());
    CHECK(*plain == item.at("ids_specials_as_text").get<Ids>());
    CHECK(*t->decode(*parsed) == text);
    CHECK(*t->decode(*plain) == text);
  }
  CHECK(t->encode("a\xC0").error().message.find("offset 1") != std::string::npos);
}

TEST_CASE("SmolLM2's tokenizer on the whole of WikiText-2") {
  ANYBIT_TEST_DATA_OR_SKIP(text_path, "data/wikitext2-test.txt");
  ANYBIT_REAL_MODEL_OR_SKIP(path);
  const auto t = tokenizer_from_gguf(*io::GgufFile::open(path));
  REQUIRE(t);
  const std::string text = read_file(text_path);
  const auto ids = t->encode(text);
  REQUIRE(ids);
  CHECK(ids->size() == 304978);
  CHECK(*t->decode(*ids) == text);
}

TEST_CASE("llama2.c's tokenizer") {
  ANYBIT_TEST_DATA_OR_SKIP(path, "data/tok512.bin");
  const auto t = tokenizer_from_llama2c(path);
  REQUIRE(t);
  CHECK(t->size() == 512);
  // By hand from the scores: " t" merges before "he" and that before " the"; "Once" has no merges of its own here.
  const auto ids = t->encode("the");
  REQUIRE(ids);
  CHECK(ids->size() == 1);
  CHECK(t->token((*ids)[0]) == " the");
  for (const std::string text : {"Once upon a time, there was a little girl.", "\xF0\x9F\x98\x80 caf\xC3\xA9", " x", "\xFF"}) {
    const auto encoded = t->encode(text);
    REQUIRE(encoded);
    CHECK(*t->decode(*encoded) == text);
  }
  const std::string bytes = read_file(path);
  for (const std::size_t cut : {std::size_t{0}, std::size_t{3}, std::size_t{6}, std::size_t{13}, bytes.size() - 1})
    CHECK_FALSE(tokenizer_from_llama2c(std::as_bytes(std::span(bytes.data(), cut)), "cut"));
}

TEST_CASE("llama2.c's tokenizer merges as its definition says, on real text") {
  ANYBIT_TEST_DATA_OR_SKIP(path, "data/tok512.bin");
  ANYBIT_TEST_DATA_OR_SKIP(text_path, "data/wikitext2-test.txt");
  const auto t = tokenizer_from_llama2c(path);
  REQUIRE(t);
  const Vocabulary& v = t->vocabulary();
  const std::string text = read_file(text_path).substr(0, 4000);
  const auto find = [&](const std::string& s) {
    for (std::size_t i = 0; i < v.tokens.size(); ++i)
      if (v.kinds[i] == TokenKind::normal && v.tokens[i] == s) return static_cast<TokenId>(i);
    return TokenId{-1};
  };

  // Characters, or their bytes (tokens 3 to 258), then the pair of the highest score again and again.
  Ids ids{find(" ")};
  for (std::size_t at = 0; at < text.size();) {
    std::size_t end = at + 1;
    while (end < text.size() && (text[end] & 0xC0) == 0x80) ++end;
    if (const TokenId id = find(text.substr(at, end - at)); id >= 0) {
      ids.push_back(id);
    } else {
      for (std::size_t i = at; i < end; ++i) ids.push_back(3 + static_cast<unsigned char>(text[i]));
    }
    at = end;
  }
  std::map<std::pair<TokenId, TokenId>, TokenId> known;
  for (;;) {
    float best = -1e30f;
    std::size_t where = ids.size();
    TokenId merged = -1;
    for (std::size_t i = 0; i + 1 < ids.size(); ++i) {
      const auto a = static_cast<std::size_t>(ids[i]), b = static_cast<std::size_t>(ids[i + 1]);
      if (v.kinds[a] != TokenKind::normal || v.kinds[b] != TokenKind::normal) continue;
      const auto [entry, fresh] = known.try_emplace({ids[i], ids[i + 1]}, -1);
      if (fresh) entry->second = find(v.tokens[a] + v.tokens[b]);
      if (entry->second >= 0 && v.scores[static_cast<std::size_t>(entry->second)] > best)
        best = v.scores[static_cast<std::size_t>(entry->second)], where = i, merged = entry->second;
    }
    if (where == ids.size()) break;
    ids[where] = merged;
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(where) + 1);
  }
  const auto encoded = t->encode(text);
  REQUIRE(encoded);
  CHECK(*encoded == ids);
}
