#pragma once
// Conversations as examples of which only the assistant's tokens count: what a user or a system prompt says is read, not learned.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <anybit/io/detail/text.hpp>
#include <anybit/model/tokenizer/tokenizer.hpp>
#include <anybit/train/loss.hpp>

namespace anybit::train {
inline namespace ANYBIT_CODE {

enum class Role : std::uint8_t { system, user, assistant };

struct Turn {
  Role role = Role::user;
  std::string text{};
};

/// How turns are written down. Control tokens are named in `before` and `after` only, so a text cannot end its turn by naming
/// one.
struct ChatTemplate {
  struct Part {
    std::string_view before, after;
  };
  std::string_view name;
  Part system, user, assistant;
  std::string_view opening{};  ///< before the first turn
  bool ends_with_eos = false;  ///< the vocabulary's eos stands behind each turn of the assistant and counts

  const Part& of(Role r) const { return r == Role::system ? system : r == Role::user ? user : assistant; }
};

/// chatml: ChatML (Qwen, SmolLM2). alpaca: Stanford Alpaca's headings. plain: names of speakers, for any vocabulary.
inline constexpr ChatTemplate chat_templates[] = {
    {"chatml",
     {"<|im_start|>system\n", "<|im_end|>\n"},
     {"<|im_start|>user\n", "<|im_end|>\n"},
     {"<|im_start|>assistant\n", "<|im_end|>\n"}},
    {"alpaca", {"", "\n\n"}, {"### Instruction:\n", "\n\n"}, {"### Response:\n", "\n\n"}, {}, true},
    {"plain", {"", "\n"}, {"User: ", "\n"}, {"Assistant: ", "\n"}, {}, true},
};

inline const ChatTemplate* find_chat_template(std::string_view name) {
  const auto found = std::find_if(std::begin(chat_templates), std::end(chat_templates),
                                  [name](const ChatTemplate& t) { return t.name == name; });
  return found == std::end(chat_templates) ? nullptr : &*found;
}

/// ChatML where the vocabulary has its control tokens, else plain.
inline const ChatTemplate& chat_template_for(const model::Tokenizer& t) {
  const auto mark = t.encode("<|im_start|>", model::Specials::parsed);
  return *find_chat_template(mark && mark->size() == 1 && t.size() > 1 ? "chatml" : "plain");
}

/// An example that owns its ids and says which of them count.
struct MaskedExample {
  std::vector<TokenId> ids{};
  std::vector<std::uint8_t> counted{};

  Example view() const { return {ids, counted}; }
};

/// The turns through the template: counted are the assistant's texts and what ends them. At most `context` tokens: the rest is
/// cut off. An error where no token counts, or no turn does.
inline Result<MaskedExample> encode_conversation(const model::Tokenizer& tokenizer, std::span<const Turn> turns,
                                                 const ChatTemplate& chat, Index context) {
  using io::detail::text;
  if (std::none_of(turns.begin(), turns.end(), [](const Turn& t) { return t.role == Role::assistant && !t.text.empty(); }))
    return {ErrorCode::insufficient_data, "has no text of the assistant, from which alone is learned: add one"};
  MaskedExample out;
  const auto add = [&](std::string_view part, model::Specials specials, bool counts) -> Status {
    if (part.empty()) return Ok{};
    ANYBIT_TRY(const std::vector<TokenId> ids, tokenizer.encode(part, specials));
    out.ids.insert(out.ids.end(), ids.begin(), ids.end());
    out.counted.resize(out.ids.size(), counts ? 1 : 0);
    return Ok{};
  };
  const model::Vocabulary& v = tokenizer.vocabulary();
  if (v.add_bos && v.bos) out.ids.push_back(*v.bos), out.counted.push_back(0);
  ANYBIT_TRY_STATUS(add(chat.opening, model::Specials::parsed, false));
  for (const Turn& t : turns) {
    const bool counts = t.role == Role::assistant;
    const ChatTemplate::Part& part = chat.of(t.role);
    ANYBIT_TRY_STATUS(add(part.before, model::Specials::parsed, false));
    ANYBIT_TRY_STATUS(add(t.text, model::Specials::as_text, counts));
    if (counts && chat.ends_with_eos && v.eos) out.ids.push_back(*v.eos), out.counted.push_back(1);
    ANYBIT_TRY_STATUS(add(part.after, model::Specials::parsed, counts));
  }
  const auto length = static_cast<std::size_t>(std::max<Index>(context, 0));
  const std::size_t whole = out.ids.size();
  if (whole > length) out.ids.resize(length), out.counted.resize(length);
  if (predictions(std::span<const Example>(std::vector<Example>{out.view()})) == 0)
    return {ErrorCode::insufficient_data,
            text("has ", whole, " tokens, of whose first ", length, " none is the assistant's: use a larger context")};
  return out;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::train

#include <anybit/core/macros_end.hpp>
