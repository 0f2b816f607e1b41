#pragma once
// Conversations as examples of which only the assistant's tokens count: what a user or a system prompt says is read, not learned.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include <anybit/io/detail/text.hpp>
#include <anybit/model/chat.hpp>
#include <anybit/train/loss.hpp>

namespace anybit::train {
inline namespace ANYBIT_CODE {

/// An example that owns its ids and says which of them count.
struct MaskedExample {
  std::vector<TokenId> ids{};
  std::vector<std::uint8_t> counted{};

  Example view() const { return {ids, counted}; }
};

/// The turns through the template: counted are the assistant's texts and what ends them. At most `context` tokens: the rest is
/// cut off. An error where no token counts, or no turn does.
inline Result<MaskedExample> encode_conversation(const model::Tokenizer& tokenizer, std::span<const model::Turn> turns,
                                                 const model::ChatTemplate& chat, Index context) {
  using io::detail::text;
  const auto answers = [](const model::Turn& t) { return t.role == model::ChatRole::assistant && !t.text.empty(); };
  if (std::none_of(turns.begin(), turns.end(), answers))
    return {ErrorCode::insufficient_data, "has no text of the assistant, from which alone is learned: add one"};
  ANYBIT_TRY(model::ChatTokens tokens, model::encode_chat(tokenizer, turns, chat));
  MaskedExample out{std::move(tokens.ids), std::move(tokens.learned)};
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
