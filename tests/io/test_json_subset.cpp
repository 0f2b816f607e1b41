#include <anybit/io/detail/json_subset.hpp>

#include <string>
#include <vector>

#include "support/catch.hpp"

using namespace anybit;
using io::detail::JsonReader;

namespace {

Result<std::string> string_of(std::string_view text) { return JsonReader(text).string(); }
Result<std::uint64_t> integer_of(std::string_view text) { return JsonReader(text).unsigned_integer(); }
bool skips(std::string_view text) {
  JsonReader json(text);
  return json.skip_value().ok() && json.end().ok();
}

}  // namespace

TEST_CASE("JSON subset: strings: escapes become UTF-8") {
  CHECK(*string_of(R"("a\"b\\c\/d\b\f\n\r\t")") == "a\"b\\c/d\b\f\n\r\t");
  CHECK(*string_of(R"("\u0041\u00e9\u20AC\uD83D\uDE00")") == "A\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80");
  CHECK(*string_of(R"("\u0000")") == std::string(1, '\0'));
  CHECK(*string_of("  \"\"") == "");
  for (const char* bad : {"\"", "\"a", "\"\\", "\"\\x\"", "\"\\u12\"", "\"\\u12g4\"", "\"\\uD800\"", "\"\\uD800\\n\"",
                          "\"\\uD800\\u0041\"", "\"\\uDC00\"", "\"a\nb\"", "a", "", "'a'"})
    CHECK(!string_of(bad).ok());
}

TEST_CASE("JSON subset: only non-negative integers are numbers") {
  CHECK(*integer_of("0") == 0);
  CHECK(*integer_of(" 18446744073709551615") == 18446744073709551615u);
  for (const char* bad :
       {"18446744073709551616", "99999999999999999999999", "-1", "01", "1.0", "1e3", "1E3", "", "+1", "x", "\"1\"", "."})
    CHECK(!integer_of(bad).ok());
}

TEST_CASE("JSON subset: numbers, true and false") {
  const auto number = [](std::string_view text) { return JsonReader(text).number(); };
  CHECK(*number("0") == 0);
  CHECK(*number(" -0.5") == -0.5);
  CHECK(*number("1e-05") == 1e-5);
  CHECK(*number("12.25E+2") == 1225);
  CHECK(*number("1e-999") == 0);  // the nearest double
  CHECK(*number("9007199254740993") == 9007199254740992.0);
  for (const char* bad :
       {"", "-", "01", "-01", "1.", ".5", "1e", "1e+", "+1", "NaN", "Infinity", "-Infinity", "1e999", "x", "\"1\""}) {
    INFO(bad);
    CHECK(!number(bad).ok());
  }
  CHECK(*JsonReader(" true").boolean());
  CHECK(!*JsonReader("false").boolean());
  CHECK(!JsonReader("1").boolean().ok());
  for (const char* bad : {"[1.2.3]", "[1e5e]", "[tru]", "[-x]", "[NaN]", "[truefalse]"}) CHECK(!skips(bad));
}

TEST_CASE("JSON subset: objects and arrays") {
  std::vector<std::string> seen;
  JsonReader json(R"( { "b" : [1, 2], "a":{} , "c":"x" } )");
  const auto done = json.object([&](std::string key) -> Status {
    seen.push_back(std::move(key));
    return json.skip_value();
  });
  CHECK(done.ok());
  CHECK(json.end().ok());
  CHECK(seen == std::vector<std::string>{"b", "a", "c"});

  for (const char* good : {"{}", "[]", "[[],[[]]]", "{\"a\":true,\"b\":[null,false,-1.5e+3]}", "\"x\"", " 7 "})
    CHECK(skips(good));
  for (const char* bad : {"{", "[", "{]", "[1,]", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{\"a\":1 \"b\":2}", "{a:1}", "{\"a\":1}{",
                          "[1 2]", "nul", "-", "", "{\"a\":1,\"a\":2}", "{\"a\":1,\"\\u0061\":2}", "]", ":"}) {
    INFO(bad);
    CHECK(!skips(bad));
  }
}

TEST_CASE("JSON subset: depth is bounded, and errors say where") {
  CHECK(skips(std::string(32, '[') + std::string(32, ']')));
  CHECK(!skips(std::string(33, '[') + std::string(33, ']')));
  CHECK(!skips(std::string(1000000, '[')));
  const auto bad = integer_of("   -1");
  CHECK(bad.error().message == "JSON at byte 3: a non-negative integer must stand here");
}

TEST_CASE("JSON subset: UTF-8 is checked") {
  using io::detail::is_utf8;
  for (const char* good : {"", "a", "\xC3\xA9", "\xE2\x82\xAC", "\xF0\x9F\x98\x80", "\xF4\x8F\xBF\xBF", "\xED\x9F\xBF"})
    CHECK(is_utf8(good));
  for (const char* bad : {"\x80", "\xC3", "\xC0\x80", "\xC1\xBF", "\xE0\x9F\xBF", "\xED\xA0\x80", "\xF0\x8F\xBF\xBF",
                          "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF", "\xE2\x82", "\xE2\x28\xA1", "a\xC3"})
    CHECK(!is_utf8(bad));
}

TEST_CASE("JSON subset: what is quoted reads back") {
  std::string all;
  for (int c = 0; c < 128; ++c) all += static_cast<char>(c);
  all += "\xC3\xA9\xF0\x9F\x98\x80";
  CHECK(*string_of(io::detail::json_quoted(all)) == all);
}
