#include "examples.hpp"

#include <algorithm>
#include <limits>
#include <string_view>
#include <utility>

#include <nlohmann/json.hpp>

#include "shared/text.hpp"

namespace tool {

using namespace anybit;
using nlohmann::json;

namespace {

/// The text of a member; null where it is none.
const std::string* text_of(const json& object, const char* key) {
  const auto found = object.find(key);
  return found == object.end() ? nullptr : found->get_ptr<const std::string*>();
}

std::optional<train::Role> role_of(std::string_view name) {
  if (name == "system") return train::Role::system;
  if (name == "user" || name == "human" || name == "prompter") return train::Role::user;
  if (name == "assistant" || name == "gpt" || name == "model") return train::Role::assistant;
  return std::nullopt;
}

/// A list of turns with the members `role` and `text` by these names; empty with a reason in `why` where it is none.
std::vector<train::Turn> turns_of(const json& list, const char* role_key, const char* text_key, std::string& why) {
  std::vector<train::Turn> out;
  for (const json& turn : list) {
    const std::string *const role = turn.is_object() ? text_of(turn, role_key) : nullptr, *const text =
                                                                                              turn.is_object()
                                                                                                  ? text_of(turn, text_key)
                                                                                                  : nullptr;
    const auto known = role ? role_of(*role) : std::nullopt;
    if (!known || !text)
      return why = role && !known ? "the role '" + *role + "' is none of system, user and assistant"
                                  : std::string("a turn has no text in '") + role_key + "' and '" + text_key + "'",
             std::vector<train::Turn>();
    out.push_back({*known, *text});
  }
  if (out.empty()) why = "the conversation is empty";
  return out;
}

/// One line of the file.
std::vector<train::Turn> conversation_of(const json& line, std::string& why) {
  if (!line.is_object()) return why = "is no JSON object", std::vector<train::Turn>();
  if (const auto turns = line.find("turns"); turns != line.end() && turns->is_array())
    return turns_of(*turns, "role", "text", why);
  if (const auto messages = line.find("messages"); messages != line.end() && messages->is_array())
    return turns_of(*messages, "role", "content", why);
  if (const auto messages = line.find("conversations"); messages != line.end() && messages->is_array())
    return turns_of(*messages, "from", "value", why);
  if (const std::string *const task = text_of(line, "instruction"), *const answer = text_of(line, "output"); task && answer) {
    const std::string* const input = text_of(line, "input");
    return {{train::Role::user, input && !input->empty() ? *task + "\n\n" + *input : *task}, {train::Role::assistant, *answer}};
  }
  const std::string* answer = text_of(line, "completion");
  if (!answer) answer = text_of(line, "response");
  if (const std::string* const prompt = text_of(line, "prompt"); prompt && answer)
    return {{train::Role::user, *prompt}, {train::Role::assistant, *answer}};
  why = "has neither turns, messages, conversations, instruction and output, nor prompt and completion";
  return {};
}

}  // namespace

std::vector<train::Example> Examples::views() const {
  std::vector<train::Example> out;
  for (const train::MaskedExample& e : all) out.push_back(e.view());
  return out;
}

Result<Examples> read_id_lists(const std::string& path) {
  ANYBIT_TRY(const std::string text, read_text(path));
  const auto bad = [&](const std::string& why) {
    return Error{ErrorCode::corrupt_data, path + ": " + why + ": give a list of lists of ids, [[1, 2, 3], [4, 5]]"};
  };
  const auto lists = json::parse(text, nullptr, false);
  if (!lists.is_array()) return bad(lists.is_discarded() ? "is not JSON" : "is not a list");
  if (lists.empty()) return bad("holds no example");
  Examples out;
  for (std::size_t i = 0; i < lists.size(); ++i) {
    const std::string which = "example " + std::to_string(i);
    if (!lists[i].is_array()) return bad(which + " is no list of ids");
    std::vector<model::TokenId>& ids = out.all.emplace_back().ids;
    for (const auto& id : lists[i]) {
      const auto value = id.is_number_integer() ? id.get<std::int64_t>() : std::int64_t{-1};
      if (value < 0 || value > std::numeric_limits<model::TokenId>::max()) return bad(which + " has the id " + id.dump());
      ids.push_back(static_cast<model::TokenId>(value));
    }
  }
  return out;
}

Result<Examples> read_plain_text(const std::string& path, const model::Model& m, Index context) {
  ANYBIT_TRY(const std::string text, read_text(path));
  auto encoded = m.tokenizer.encode(text);
  if (!encoded) return in_context(encoded.error(), path);
  const Index length = std::min(context, m.decoder.config.context), tokens = static_cast<Index>(encoded->size());
  if (tokens < length)
    return {ErrorCode::insufficient_data, path + ": holds " + std::to_string(tokens) + " tokens, fewer than one example of " +
                                              std::to_string(length) + ": give a longer text or a smaller --context"};
  Examples out;
  for (Index i = 0; i < tokens / length; ++i)
    out.all.push_back({{encoded->begin() + i * length, encoded->begin() + (i + 1) * length}, {}});
  if (tokens % length > 0)
    out.remarks.push_back(path + ": the last " + std::to_string(tokens % length) + " of " + std::to_string(tokens) +
                          " tokens fill no example of " + std::to_string(length) + " and are not used");
  return out;
}

Result<Examples> read_conversations(const std::string& path, const model::Model& m, const train::ChatTemplate& chat,
                                    Index context) {
  ANYBIT_TRY(const std::string text, read_text(path));
  const Index length = std::min(context, m.decoder.config.context);
  Examples out;
  Index left_out = 0, number = 0;
  std::string last_reason;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view line(text.data() + at, end - at);
    at = end + 1, ++number;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string where = path + ": line " + std::to_string(number) + ": ";
    const auto parsed = json::parse(line, nullptr, false);
    std::string why;
    const std::vector<train::Turn> turns =
        parsed.is_discarded() ? (why = "is not JSON", std::vector<train::Turn>()) : conversation_of(parsed, why);
    if (turns.empty()) return {ErrorCode::corrupt_data, where + why + ": give one conversation per line"};
    auto example = train::encode_conversation(m.tokenizer, turns, chat, length);
    if (example) {
      out.all.push_back(*std::move(example));
    } else if (example.error().code == ErrorCode::insufficient_data) {
      ++left_out, last_reason = where + example.error().message;
    } else {
      return in_context(example.error(), where.substr(0, where.size() - 2));
    }
  }
  if (out.all.empty())
    return {ErrorCode::insufficient_data,
            last_reason.empty() ? path + ": holds no conversation: give one per line" : last_reason};
  if (left_out > 0)
    out.remarks.push_back(std::to_string(left_out) + " of " + std::to_string(left_out + static_cast<Index>(out.all.size())) +
                          " conversations are left out, the last of them: " + last_reason);
  return out;
}

}  // namespace tool
