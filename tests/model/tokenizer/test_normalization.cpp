// Unicode normalization and the rules that change a text before it is cut.

#include <cstring>
#include <string>
#include <vector>

#include <anybit/model/tokenizer/normalizer.hpp>

#include "support/catch.hpp"

using namespace anybit;
using namespace anybit::model;

TEST_CASE("NFC and NFD: decompositions, order of marks, compositions and their exclusions") {
  struct Case {
    const char *text, *nfc, *nfd;
  };
  for (const auto& [text, nfc, nfd] : {
           Case{"", "", ""},
           Case{"plain", "plain", "plain"},
           Case{"e\u0301", "\u00E9", "e\u0301"},
           Case{"\u00E9", "\u00E9", "e\u0301"},
           Case{"\u212B", "\u00C5", "A\u030A"},                      // the sign of the angstrom, which is no character of its own
           Case{"q\u0307\u0323", "q\u0323\u0307", "q\u0323\u0307"},  // marks below stand before marks above
           Case{"\u1E9B\u0323", "\u1E9B\u0323", "\u017F\u0323\u0307"},  // blocked by the mark between
           Case{"\u0958", "\u0915\u093C", "\u0915\u093C"},              // excluded from composition
           Case{"\uAC00\u11A8", "\uAC01", "\u1100\u1161\u11A8"},        // Hangul
           Case{"\u1100\u1161", "\uAC00", "\u1100\u1161"},
           Case{"\u1100\u1100\u1161", "\u1100\uAC00", "\u1100\u1100\u1161"},
           Case{"\u0301a", "\u0301a", "\u0301a"},              // nothing in front to compose with
           Case{"a\xFF\u0301", "a\xFF\u0301", "a\xFF\u0301"},  // nor over a byte that is not UTF-8
           Case{"\U0002F800", "\u4E3D", "\u4E3D"},
       }) {
    CAPTURE(text);
    CHECK(to_nfc(text) == nfc);
    CHECK(to_nfd(text) == nfd);
    CHECK(to_nfc(to_nfd(text)) == nfc);
  }
  CHECK(to_lowercase("A\u00C9\u0130\u03A3\U00010400z\xFF") == "a\u00E9i\u0307\u03C3\U00010428z\xFF");
  CHECK(without(category_set("Mn"), to_nfd("\u00E9\u1E9B\u0323\u094B")) == "e\u017F\u094B");
  CHECK(without(category_set("M"), "e\u0301\u094B") == "e");
}

TEST_CASE("steps of a normalizer") {
  using Kind = NormalizerStep::Kind;
  const auto apply = [](std::vector<NormalizerStep> steps, std::string_view text) {
    const auto n = Normalizer::make(std::move(steps));
    INFO((n ? "" : n.error().message));
    REQUIRE(n);
    return n->apply(text).value();
  };
  CHECK(apply({}, "a") == "a");
  CHECK(apply({{Kind::replace, "ab", "c"}, {Kind::replace, "c", "dd"}}, "abxabab") == "ddxdddd");
  CHECK(apply({{Kind::replace_pattern, R"(\s+)", " "}}, "a \n b\tc") == "a b c");
  CHECK(apply({{Kind::prepend, {}, "x"}}, "a") == "xa");
  CHECK(apply({{Kind::prepend, {}, "x"}}, "").empty());
  CHECK(apply({{Kind::collapse_spaces}}, "  a  b c ") == "a b c");
  CHECK(apply({{Kind::collapse_spaces}}, "   ").empty());
  CHECK(apply({{Kind::strip_left}}, "\u00A0\n a ") == "a ");
  CHECK(apply({{Kind::strip_right}}, " a \u3000\n") == " a");
  CHECK(apply({{Kind::strip_right}}, "\u3000\n").empty());
  CHECK(apply({{Kind::clean}}, std::string_view("a\0\x01\tb\u200Bc\uFFFD\u00A0d\x0C", 17)) == "a bc d");
  CHECK(apply({{Kind::space_ideographs}}, "a\u4E2Db\uAC00") == "a \u4E2D b\uAC00");
  CHECK_FALSE(Normalizer::make({{Kind::replace, "", "x"}}));
  CHECK_FALSE(Normalizer::make({{Kind::replace_pattern, "(", "x"}}));
  CHECK_FALSE(Normalizer::make({{Kind::charsmap, "abc"}}));
}

TEST_CASE("a charsmap: the longest entry counts, and a damaged one does no harm") {
  // A double array by hand: the entries "a" -> "x" and "ab" -> "" (the replacements "x\0" and "\0").
  const auto unit = [](unsigned label, bool leaf, std::uint32_t offset) { return offset << 10 | (leaf ? 256u : 0u) | label; };
  std::vector<std::uint32_t> units(512, 0xFFu | 0x80000000u);
  units[0] = unit(0, false, 1);  // children at 1 ^ label
  const std::uint32_t a = 1 ^ 'a', b_base = 256, a_unit = a;
  units[a] = unit('a', true, a_unit ^ b_base);  // its value and its children at 256 ^ label
  units[b_base] = 0x80000000u | 0;              // "a": offset 0
  const std::uint32_t b = b_base ^ 'b';
  units[b] = unit('b', true, b ^ 480);
  units[480] = 0x80000000u | 1;  // "ab": offset 1, the empty string
  std::string binary(4, '\0');
  const auto bytes = static_cast<std::uint32_t>(4 * units.size());
  std::memcpy(binary.data(), &bytes, 4);
  binary.append(reinterpret_cast<const char*>(units.data()), bytes).append("x\0", 2);
  const auto map = Charsmap::make(binary);
  REQUIRE(map);
  CHECK(map->apply("a") == "x");
  CHECK(map->apply("cabaac\u00E9\xFF") == "cxxc\u00E9\xFF");
  CHECK(map->apply("").empty());

  for (std::size_t cut = 0; cut < 4; ++cut) CHECK_FALSE(Charsmap::make(binary.substr(0, cut)));
  CHECK_FALSE(Charsmap::make(binary.substr(0, binary.size() - 1)));  // its last replacement does not end
  std::uint32_t random = 5;
  for (int round = 0; round < 2000; ++round) {
    std::string damaged = binary;
    for (int i = 0; i < 8; ++i) {
      random = random * 1664525u + 1013904223u;
      damaged[4 + (random >> 8) % (damaged.size() - 5)] = static_cast<char>(random);
    }
    if (const auto m = Charsmap::make(damaged)) static_cast<void>(m->apply("ababcaab"));
  }
}
