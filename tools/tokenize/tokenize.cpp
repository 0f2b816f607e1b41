// Texts to token ids and back, in JSON: a window for comparisons with other implementations.

#include "tokenize.hpp"

#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <anybit/model/tokenizer/files.hpp>

#include "shared/outputs.hpp"
#include "shared/parse.hpp"
#include "shared/text.hpp"

namespace tool {

using namespace anybit;
using nlohmann::json;

namespace {

/// The whole of `text`, which must be one JSON value. (nlohmann throws only where it is asked to.)
Result<json> parse_json(const std::string& text, const std::string& path) {
  json parsed = json::parse(text, nullptr, false);
  if (parsed.is_discarded()) return Error{ErrorCode::corrupt_data, path + ": is no JSON"};
  return parsed;
}

Error wrong_item(const std::string& path, std::size_t i, const char* wanted) {
  return {ErrorCode::corrupt_data, path + ": item " + std::to_string(i) + " is not " + wanted};
}

Result<json> encode_all(const model::Tokenizer& t, const json& texts, const std::string& path, model::Specials specials) {
  json out = json::array();
  for (std::size_t i = 0; i < texts.size(); ++i) {
    if (!texts[i].is_string()) return wrong_item(path, i, "a string; --json takes a list of texts");
    const auto ids = t.encode(texts[i].get_ref<const std::string&>(), specials);
    if (!ids) return in_context(ids.error(), path + ": text " + std::to_string(i));
    out.push_back(*ids);
  }
  return out;
}

Result<json> decode_all(const model::Tokenizer& t, const json& lists, const std::string& path) {
  json out = json::array();
  for (std::size_t i = 0; i < lists.size(); ++i) {
    if (!lists[i].is_array()) return wrong_item(path, i, "a list; with --decode, --json takes a list of lists of ids");
    std::vector<model::TokenId> ids;
    for (const json& id : lists[i]) {
      if (!id.is_number_integer() || id.get<std::int64_t>() < 0 || id.get<std::int64_t>() >= t.size())
        return wrong_item(path, i, ("a list of ids below " + std::to_string(t.size())).c_str());
      ids.push_back(id.get<model::TokenId>());
    }
    const auto text = t.decode(ids);
    if (!text) return in_context(text.error(), path + ": list " + std::to_string(i));
    out.push_back(*text);
  }
  return out;
}

int tokenize(int argc, const char* const* argv) {
  std::string vocabulary, in, pre;
  bool decode = false, specials = false;
  CLI::App app("Prints the token ids of texts as JSON: a list of ids for each text, without bos or eos.", "anybit tokenize");
  app.add_option("VOCABULARY", vocabulary,
                 "A GGUF model, tokenizer.json, tekken.json, SentencePiece's tokenizer.model, tiktoken's ranks, llama2.c's "
                 "tokenizer.bin, or a folder with one of these")
      ->required();
  app.add_option("--json", in, "The texts: a JSON list of strings")->type_name("FILE")->required();
  app.add_option("--pre", pre,
                 "How a text is cut into words, where a file of ranks is none of those that are known by their size")
      ->type_name("NAME");
  auto* const back = app.add_flag("--decode", decode, "The inverse: FILE has a list of lists of ids, and texts are printed");
  app.add_flag("--specials", specials, "Names of control tokens in a text become these tokens; default: they are text")
      ->excludes(back);
  if (const auto end = parse(app, argc, argv, "anybit tokenize model.gguf --json texts.json")) return *end;

  const auto run = [&]() -> Result<json> {
    ANYBIT_TRY(const model::Tokenizer t, model::open_tokenizer(vocabulary, pre));
    ANYBIT_TRY(const std::string text, read_text(in));
    ANYBIT_TRY(const json input, parse_json(text, in));
    if (!input.is_array()) return Error{ErrorCode::corrupt_data, in + ": is no JSON list"};
    if (decode) return decode_all(t, input, in);
    return encode_all(t, input, in, specials ? model::Specials::parsed : model::Specials::as_text);
  };
  const auto out = run();
  if (!out) return fail("tokenize", bad_input, out.error());
  const auto written = write_text("-", out->dump(-1, ' ', false, json::error_handler_t::replace) + "\n");
  return written ? success : fail("tokenize", cannot_write, written.error());
}

}  // namespace

int run_tokenize(int argc, const char* const* argv) {
  return run_command([&] { return tokenize(argc, argv); });
}

}  // namespace tool
