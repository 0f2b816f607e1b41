#pragma once
// Conversations, instructions and documents in JSON lines, and the chat template that writes them down.

#include <string>
#include <vector>

#include <anybit/core/result.hpp>
#include <anybit/model/chat.hpp>

namespace tool {

struct Conversation {
  std::vector<anybit::model::Turn> turns;
  anybit::Index line = 0;  ///< in the file, from 1 on
};

/// JSON lines, each a conversation: {"turns": [{"role", "text"}]}, {"messages": [{"role", "content"}]} as OpenAI has it,
/// {"conversations": [{"from", "value"}]} as ShareGPT has it, {"instruction", "input", "output"} or {"prompt", "completion"}.
/// A turn that is a string is the user's: {"turns": ["..", ".."]} as MT-Bench has it.
anybit::Result<std::vector<Conversation>> read_conversations(const std::string& path);

/// A template by name, or the one of the model at this path.
struct ChatChoice {
  std::string name, model;
};

std::vector<std::string> chat_template_names();

/// The Jinja text in a folder or a GGUF file; empty where there is none.
std::string chat_template_text(const std::string& path);

/// By name; or as the model's own text shows; or, where it has none, by the control tokens of its vocabulary. An error lists the
/// names.
anybit::Result<const anybit::model::ChatTemplate*> find_template(const ChatChoice& choice,
                                                                 const anybit::model::Tokenizer& tokenizer);

/// The token ids of a file to calibrate with or to evaluate on. JSON lines are conversations, which the template writes down, or
/// documents ({"text"}, {"content"}, {"code"}, or HumanEval's {"prompt", "canonical_solution"}), one behind the other without
/// padding. Everything else is one text.
anybit::Result<std::vector<anybit::model::TokenId>> domain_tokens(
    const std::string& text, const std::string& name, const anybit::model::Tokenizer& tokenizer, const ChatChoice& chat,
    anybit::model::Specials specials = anybit::model::Specials::as_text);

}  // namespace tool
