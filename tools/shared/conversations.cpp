#include "conversations.hpp"

#include <algorithm>
#include <filesystem>
#include <optional>
#include <string_view>
#include <utility>

#include <nlohmann/json.hpp>

#include <anybit/io/gguf.hpp>
#include <anybit/io/mapped_file.hpp>

#include "text.hpp"

namespace tool {

using namespace anybit;

namespace {

/// The text of a member; null where it is none.
const std::string* text_of(const nlohmann::json& object, const char* key) {
  const auto found = object.find(key);
  return found == object.end() ? nullptr : found->get_ptr<const std::string*>();
}

std::optional<model::ChatRole> role_of(std::string_view name) {
  if (name == "system") return model::ChatRole::system;
  if (name == "user" || name == "human" || name == "prompter") return model::ChatRole::user;
  if (name == "assistant" || name == "gpt" || name == "model") return model::ChatRole::assistant;
  return std::nullopt;
}

/// A list of turns with the members `role` and `text` by these names, or of strings, which are the user's, as MT-Bench has them;
/// empty with a reason in `why` where it is none.
std::vector<model::Turn> turns_of(const nlohmann::json& list, const char* role_key, const char* text_key, std::string& why) {
  std::vector<model::Turn> out;
  for (const nlohmann::json& turn : list) {
    if (turn.is_string()) {
      out.push_back({model::ChatRole::user, turn.get<std::string>()});
      continue;
    }
    const std::string* const role = turn.is_object() ? text_of(turn, role_key) : nullptr;
    const std::string* const text = turn.is_object() ? text_of(turn, text_key) : nullptr;
    const auto known = role ? role_of(*role) : std::nullopt;
    if (!known || !text)
      return why = role && !known ? "the role '" + *role + "' is none of system, user and assistant"
                                  : std::string("a turn has no text in '") + role_key + "' and '" + text_key + "'",
             std::vector<model::Turn>();
    out.push_back({*known, *text});
  }
  if (out.empty()) why = "the conversation is empty";
  return out;
}

/// One line of the file.
std::vector<model::Turn> conversation_of(const nlohmann::json& line, std::string& why) {
  if (!line.is_object()) return why = "is no JSON object", std::vector<model::Turn>();
  if (const auto turns = line.find("turns"); turns != line.end() && turns->is_array())
    return turns_of(*turns, "role", "text", why);
  if (const auto messages = line.find("messages"); messages != line.end() && messages->is_array())
    return turns_of(*messages, "role", "content", why);
  if (const auto messages = line.find("conversations"); messages != line.end() && messages->is_array())
    return turns_of(*messages, "from", "value", why);
  if (const std::string *const task = text_of(line, "instruction"), *const answer = text_of(line, "output"); task && answer) {
    const std::string* const input = text_of(line, "input");
    return {{model::ChatRole::user, *task, input ? *input : std::string()}, {model::ChatRole::assistant, *answer}};
  }
  const std::string* answer = text_of(line, "completion");
  if (!answer) answer = text_of(line, "response");
  if (const std::string* const prompt = text_of(line, "prompt"); prompt && answer)
    return {{model::ChatRole::user, *prompt}, {model::ChatRole::assistant, *answer}};
  why = "has neither turns, messages, conversations, instruction and output, nor prompt and completion";
  return {};
}

/// The text of a line that holds one whole: HumanEval's problem with its solution, or the usual names of a text.
std::optional<std::string> document_of(const nlohmann::json& line) {
  if (!line.is_object()) return std::nullopt;
  const std::string *const prompt = text_of(line, "prompt"), *const solution = text_of(line, "canonical_solution");
  if (prompt && solution) return *prompt + *solution;
  for (const char* const name : {"text", "content", "code"})
    if (const std::string* const found = text_of(line, name)) return *found;
  return std::nullopt;
}

/// Calls `use(parsed or null, line number)` for each line that is not blank.
template <class Use>
Status for_each_line(const std::string& text, Use use) {
  for (const TextLine& line : lines_of(text))
    ANYBIT_TRY_STATUS(use(nlohmann::json::parse(line.text, nullptr, false), line.number));
  return Ok{};
}

/// Whether the first line that is not blank is a JSON object.
bool has_json_lines(const std::string& text) {
  const std::size_t first = text.find_first_not_of(" \t\r\n");
  if (first == std::string::npos || text[first] != '{') return false;
  return nlohmann::json::parse(std::string_view(text).substr(first, text.find('\n', first) - first), nullptr, false).is_object();
}

Error bad_line(const std::string& path, Index number, const std::string& why) {
  return {ErrorCode::corrupt_data, path + ": line " + std::to_string(number) + ": " + why + ": give one conversation per line"};
}

}  // namespace

Result<std::vector<Conversation>> read_conversations(const std::string& path) {
  ANYBIT_TRY(const std::string text, read_text(path));
  std::vector<Conversation> out;
  ANYBIT_TRY_STATUS(for_each_line(text, [&](const nlohmann::json& line, Index number) -> Status {
    std::string why = "is not JSON";
    std::vector<model::Turn> turns;
    if (!line.is_discarded()) turns = conversation_of(line, why);
    if (turns.empty()) return bad_line(path, number, why);
    out.push_back({std::move(turns), number});
    return Ok{};
  }));
  if (out.empty()) return Error{ErrorCode::insufficient_data, path + ": holds no conversation: give one per line"};
  return out;
}

Result<std::vector<model::TokenId>> domain_tokens(const std::string& text, const std::string& name,
                                                  const model::Tokenizer& tokenizer, const ChatChoice& chat,
                                                  model::Specials specials) {
  if (!name.ends_with(".jsonl") && !has_json_lines(text)) {
    auto encoded = tokenizer.encode(text, specials);
    return encoded ? std::move(encoded) : in_context(encoded.error(), name);
  }
  std::vector<model::TokenId> out;
  const model::ChatTemplate* form = nullptr;
  ANYBIT_TRY_STATUS(for_each_line(text, [&](const nlohmann::json& line, Index number) -> Status {
    const std::string where = name + ": line " + std::to_string(number);
    std::string why = "is not JSON";
    std::vector<model::Turn> turns;
    Result<std::vector<model::TokenId>> ids = std::vector<model::TokenId>();
    if (const auto document = document_of(line)) {
      ids = tokenizer.encode(*document, specials);
    } else {
      if (!line.is_discarded()) turns = conversation_of(line, why);
      if (turns.empty()) return bad_line(name, number, why);
      if (!form) {
        ANYBIT_TRY(form, find_template(chat, tokenizer));
      }
      auto encoded = model::encode_chat(tokenizer, turns, *form);
      if (!encoded) return in_context(encoded.error(), where);
      ids = std::move(encoded->ids);
    }
    if (!ids) return in_context(ids.error(), where);
    out.insert(out.end(), ids->begin(), ids->end());
    return Ok{};
  }));
  return out;
}

std::vector<std::string> chat_template_names() {
  std::vector<std::string> out;
  for (const model::ChatTemplate& t : model::chat_templates) out.emplace_back(t.name);
  return out;
}

std::string chat_template_text(const std::string& path) {
  std::error_code ignored;
  if (!std::filesystem::is_directory(path, ignored)) {
    const auto file = io::GgufFile::open(path);
    const auto text = file ? file->get_string("tokenizer.chat_template") : Result<std::string>(file.error());
    return text ? *text : std::string();
  }
  if (const auto own = io::MappedFile::open(path + "/chat_template.jinja"))
    return {reinterpret_cast<const char*>(own->bytes().data()), own->bytes().size()};
  const auto file = io::MappedFile::open(path + "/tokenizer_config.json");
  if (!file) return {};
  const auto* text = reinterpret_cast<const char*>(file->bytes().data());
  const auto config = nlohmann::json::parse(text, text + file->bytes().size(), nullptr, false);
  if (!config.is_object() || !config.contains("chat_template")) return {};
  const auto& value = config["chat_template"];
  if (value.is_string()) return value.get<std::string>();
  if (value.is_array())
    for (const auto& one : value)
      if (one.is_object() && one.value("name", "") == "default" && one.contains("template") && one["template"].is_string())
        return one["template"].get<std::string>();
  return {};
}

Result<const model::ChatTemplate*> find_template(const ChatChoice& choice, const model::Tokenizer& tokenizer) {
  const auto error = [](const std::string& what) {
    std::string known;
    for (const std::string& name : chat_template_names()) known += (known.empty() ? "" : ", ") + name;
    return Error{ErrorCode::unsupported, what + ": give --template one of " + known};
  };
  if (!choice.name.empty()) {
    if (const auto* const named = model::find_chat_template(choice.name)) return named;
    return error("there is no template '" + choice.name + "'");
  }
  const std::string own = chat_template_text(choice.model);
  if (own.empty()) return &model::chat_template_for(tokenizer);
  if (const auto* const recognized = model::recognized_chat_template(own)) return recognized;
  return error(choice.model + ": its chat template is none of those that are known");
}

}  // namespace tool
