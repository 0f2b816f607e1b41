#include "examples.hpp"

#include <algorithm>
#include <limits>
#include <utility>

#include <nlohmann/json.hpp>

#include "shared/conversations.hpp"
#include "shared/text.hpp"

namespace tool {

using namespace anybit;
using nlohmann::json;

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

Result<Examples> learn_conversations(const std::string& path, const model::Model& m, const model::ChatTemplate& chat,
                                     Index context) {
  ANYBIT_TRY(const std::vector<Conversation> conversations, read_conversations(path));
  const Index length = std::min(context, m.decoder.config.context);
  Examples out;
  Index left_out = 0;
  std::string last_reason;
  for (const Conversation& c : conversations) {
    const std::string where = path + ": line " + std::to_string(c.line) + ": ";
    auto example = train::encode_conversation(m.tokenizer, c.turns, chat, length);
    if (example) {
      out.all.push_back(*std::move(example));
    } else if (example.error().code == ErrorCode::insufficient_data) {
      ++left_out, last_reason = where + example.error().message;
    } else {
      return in_context(example.error(), where.substr(0, where.size() - 2));
    }
  }
  if (out.all.empty()) return {ErrorCode::insufficient_data, last_reason};
  if (left_out > 0)
    out.remarks.push_back(std::to_string(left_out) + " of " + std::to_string(left_out + static_cast<Index>(out.all.size())) +
                          " conversations are left out, the last of them: " + last_reason);
  return out;
}

}  // namespace tool
