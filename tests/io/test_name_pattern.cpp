#include <anybit/io/detail/name_pattern.hpp>

#include <string>

#include "support/catch.hpp"

using anybit::io::detail::NamePattern;

namespace {

bool matches(const std::string& pattern, const std::string& name) {
  INFO(pattern);
  const auto p = NamePattern::compile(pattern);
  REQUIRE(p.ok());
  return p->matches_start(name);
}

}  // namespace

TEST_CASE("name patterns match from the start, as Python's re.match") {
  const std::string name = "model.layers.10.self_attn.q_proj";
  for (const char* yes : {"",
                          ".*",
                          "model",
                          R"(model\.layers\.\d+\.)",
                          R"(.*layers\.10\..*q_proj)",
                          ".*(q|k|v)_proj$",
                          "(?:x|model).l",
                          R"(.*\.(?:[0-9]|1[0-9])\.self)",
                          "[a-m]odel",
                          "[^x]odel",
                          "m.{3}l",
                          R"(model\.layers\.1{1,2}0)",
                          "mo?x?del",
                          "^model",
                          "(a*)*model",
                          "(m|mo|mod)(del|el|l)",
                          R"(\w+\.\w+\.\d{2}\.)",
                          "model|lm_head",
                          "x?|y",
                          "mo{0,}d"})
    CHECK(matches(yes, name));
  for (const char* no :
       {"odel", "model$", R"(model\.layers\.1\.)", ".*up_proj", "[n-z]", "[^m]", "m.{4}l", "lm_head|x", "mo{2}d", "$"})
    CHECK_FALSE(matches(no, name));
  CHECK(matches("a+?b*c", "aaac"));
  CHECK(matches("(ab|a)(bc|c)?$", "abc"));
  CHECK(matches("(a|b|cd)*e", "abcdcdae"));
  CHECK(matches("a*|b", "c"));
  CHECK(matches("(a*|b)c", "bc"));
  CHECK(matches("(a?b|c*d)+e", "abccdde"));
}

TEST_CASE("name patterns take linear time, and say what they do not know") {
  const std::string many(5000, 'a');
  CHECK_FALSE(matches("(a*)*(a*)*(a|aa)*b", many));
  for (const char* bad :
       {"(", ")", "a)", "[", "[b-a]", "*", "a**", "a{", "a{2", "a{3,2}", "(?!x)", "(?<n>x)", R"(\b)", "\\", R"((a)\1)"}) {
    INFO(bad);
    const auto p = NamePattern::compile(bad);
    REQUIRE(!p.ok());
    CHECK(p.error().message.find("pattern '") == 0);
  }
  CHECK(!NamePattern::compile("((a{99}){99}){99}").ok());
  CHECK(!NamePattern::compile(std::string(100, '(')).ok());
}
