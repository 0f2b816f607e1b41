// Published vocabularies on texts whose ids the original libraries gave.

#include <cstdlib>
#include <filesystem>
#include <optional>

#include <nlohmann/json.hpp>

#include <anybit/model/tokenizer/files.hpp>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"
#include "support/test_data.hpp"

using namespace anybit;
using namespace anybit::model;

namespace {

/// The file of a vocabulary in $ANYBIT_TEST_VOCABULARIES or ~/.cache/anybit/vocabularies, under its own name or with the first 16
/// digits of its SHA-256 and a hyphen in front.
std::optional<std::string> published_vocabulary(const nlohmann::json& golden) {
  namespace fs = std::filesystem;
  const char* const folder = std::getenv("ANYBIT_TEST_VOCABULARIES");
  const char* const home = std::getenv("HOME");
  const fs::path at = folder ? fs::path(folder) : fs::path(home ? home : ".") / ".cache" / "anybit" / "vocabularies";
  const std::string file = fs::path(golden.at("file").get<std::string>()).filename().string();
  std::error_code ignored;
  for (const std::string& name : {golden.at("sha256").get<std::string>().substr(0, 16) + "-" + file, file})
    if (fs::exists(at / name, ignored)) return (at / name).string();
  return std::nullopt;
}

}  // namespace

TEST_CASE("published vocabularies on texts whose ids the original libraries gave") {
  ANYBIT_TEST_DATA_OR_SKIP(texts_path, "vectors/tokenizers/texts.json");
  const std::filesystem::path folder = std::filesystem::path(texts_path).parent_path();
  const auto texts = nlohmann::json::parse(test_support::read_file(texts_path)).get<std::vector<std::string>>();
  int absent = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string name = entry.path().stem().string();
    if (name == "texts") continue;
    CAPTURE(name);
    const auto golden = nlohmann::json::parse(test_support::read_file(entry.path().string()));
    const auto path = published_vocabulary(golden);
    if (!path) {
      ++absent;
      continue;
    }
    const auto t = open_tokenizer(*path);
    INFO((t ? "" : t.error().message));
    REQUIRE(t);
    for (std::size_t i = 0; i < texts.size(); ++i) {
      CAPTURE(texts[i]);
      const auto ids = t->encode(texts[i]);
      REQUIRE(ids);
      if (t->lossless()) CHECK(*t->decode(*ids) == texts[i]);
      const auto without_nfc = golden.value("llama_cpp", nlohmann::json::object()).value(std::to_string(i), nlohmann::json());
      CHECK((*ids == golden.at("ids").at(i).get<std::vector<TokenId>>() ||
             (without_nfc.is_array() && *ids == without_nfc.get<std::vector<TokenId>>())));
    }
  }
  if (absent != 0)
    WARN("skipped " << absent << " vocabularies that are not in $ANYBIT_TEST_VOCABULARIES or ~/.cache/anybit/vocabularies");
}
