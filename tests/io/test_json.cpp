#include <anybit/io/json.hpp>

#include <string>
#include <vector>

#include "bad_bytes.hpp"
#include "support/catch.hpp"

using namespace anybit;
using io::JsonObject;
using io::JsonValue;

namespace {

const std::string config_text = R"({"model_type": "llama", "hidden_size": 48, "rms_norm_eps": 1e-05, "tie": true, "rope_scaling":
  {"type": "yarn", "factor": 4.0, "short_factor": [1, 1.5]}, "head_dim": null, "names": ["a", "b"], "mixed": [1, "x"], "half": 0.5})";

}  // namespace

TEST_CASE("JSON tree: typed lookups") {
  const auto value = io::parse_json(config_text);
  REQUIRE(value.ok());
  const JsonObject config(*value, "config.json");
  CHECK(config.keys().size() == 9);
  CHECK(config.keys()[1] == "hidden_size");
  CHECK(*config.text("model_type") == "llama");
  CHECK(*config.integer("hidden_size") == 48);
  CHECK(*config.number("rms_norm_eps") == 1e-5);
  CHECK(*config.boolean("tie"));
  CHECK(*config.texts("names") == std::vector<std::string>{"a", "b"});
  CHECK(!config.has("head_dim"));  // null is absent
  CHECK(!config.has("nothing"));
  const auto rope = config.object("rope_scaling");
  REQUIRE(rope.ok());
  CHECK(*rope->integer("factor") == 4);
  CHECK(*rope->numbers("short_factor") == std::vector<double>{1, 1.5});
  CHECK(!JsonObject().has("x"));
  CHECK(JsonObject().keys().empty());
}

TEST_CASE("JSON tree: errors name the file and the path of keys and the value and a remedy") {
  const auto value = io::parse_json(config_text);
  const JsonObject config(*value, "bad.file");
  bad_bytes::check_error(config.integer("model_type"), "bad.file: model_type is 'llama', not a whole number: ");
  bad_bytes::check_error(config.integer("half"), "half is 0.5, not a whole number");
  bad_bytes::check_error(config.text("rope_scaling"), "rope_scaling is an object with 3 keys, not a string");
  bad_bytes::check_error(config.object("rope_scaling")->number("type"), "rope_scaling.type is 'yarn', not a number");
  bad_bytes::check_error(config.boolean("names"), "names is an array of 2, not true or false");
  bad_bytes::check_error(config.numbers("mixed"), "mixed holds 'x', it must be an array of numbers");
  bad_bytes::check_error(config.number("head_dim"), "head_dim is absent, it must be a number");
  bad_bytes::check_error(config.object("tie"), "tie is true, not an object");
}

TEST_CASE("JSON tree: errors with keys of any bytes are one line") {
  const auto tree = io::parse_json("{\"a\\nb\": {\"\\u001b[2J\": 1}, \"" + std::string(90, 'k') + "\": 1}");
  REQUIRE(tree);
  const io::JsonObject object(*tree, "bad.file");
  bad_bytes::check_error(object.text("a\nb"), "bad.file: a\\x0ab is an object with 1 key");
  bad_bytes::check_error(object.object("a\nb")->text("\x1b[2J"), "a\\x0ab.\\x1b[2J is 1, not a string");
  bad_bytes::check_error(object.text(std::string(90, 'k')), std::string(80, 'k') + "... is 1, not a string");
}

TEST_CASE("JSON tree: damaged documents are refused") {
  for (const char* bad : {"", "{", "{\"a\":}", "{\"a\":1,\"a\":2}", "[1,]", "nul", "tru", "{} {}", "\xFF", "{\"a\":Infinity}"}) {
    INFO(bad);
    const auto r = io::parse_json(bad);
    REQUIRE(!r.ok());
    INFO(r.error().message);
    CHECK(bad_bytes::has_remedy(r.error().message));
  }
  CHECK(io::parse_json(std::string(31, '[') + "1" + std::string(31, ']')).ok());
  for (const char open : {'[', '{'}) CHECK(!io::parse_json(std::string(1000000, open)).ok());
  CHECK(!io::parse_json(std::string(33, '[') + std::string(33, ']')).ok());
  CHECK(!io::parse_json("\"" + std::string(io::json_limit, 'a') + "\"").ok());
  bad_bytes::every_prefix_is_refused(
      config_text, [](auto bytes) { return io::parse_json({reinterpret_cast<const char*>(bytes.data()), bytes.size()}).ok(); });
}
