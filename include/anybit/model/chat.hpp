#pragma once
// Conversations written down as a model was taught to read them: chat templates as data, and turns as text or token ids. Formats
// as published with the models: ChatML, Llama 2 and 3, Alpaca, Vicuna 1.1, Gemma, Mistral, Phi-3.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <iterator>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <anybit/io/detail/text.hpp>
#include <anybit/model/tokenizer/tokenizer.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

enum class ChatRole : std::uint8_t { system, user, assistant };

struct Turn {
  ChatRole role = ChatRole::user;
  std::string text{};
  std::string input{};  ///< of an instruction: what it is to be carried out on
};

/// How turns are written down. Control tokens are those of `controls` in the template's own texts, so a turn cannot end itself by
/// naming one.
struct ChatTemplate {
  struct Part {
    std::string_view before{}, after{};
  };
  enum class Bos : std::uint8_t { by_vocabulary, once, each_exchange };
  enum class SystemPlace : std::uint8_t { own_turn, first_user, last_user };

  std::string_view name;
  std::array<std::string_view, 4> controls{};  ///< plain text in a vocabulary that has no such token
  Part system{}, user{}, assistant{};
  std::string_view closing{};  ///< behind the end of the assistant's turn; not learned
  std::string_view answer{};   ///< asks for an answer
  Bos bos = Bos::by_vocabulary;
  SystemPlace system_place = SystemPlace::own_turn;
  bool ends_with_eos = false;                 ///< the vocabulary's eos stands behind assistant.after
  bool trims = false;                         ///< white space around texts goes
  std::string_view input_heading = "\n\n";    ///< between an instruction and its input
  std::string_view usual_system{};            ///< where a conversation has no system text
  std::string_view usual_system_for_input{};  ///< the same where the first user's turn has an input
};

/// `plain` has names of speakers, for any vocabulary.
inline constexpr ChatTemplate chat_templates[] = {
    {.name = "chatml",
     .controls = {"<|im_start|>", "<|im_end|>"},
     .system = {"<|im_start|>system\n", "<|im_end|>\n"},
     .user = {"<|im_start|>user\n", "<|im_end|>\n"},
     .assistant = {"<|im_start|>assistant\n", "<|im_end|>"},
     .closing = "\n",
     .answer = "<|im_start|>assistant\n"},
    {.name = "llama2",
     .system = {"<<SYS>>\n", "\n<</SYS>>\n\n"},
     .user = {"[INST] ", " [/INST]"},
     .assistant = {" ", " "},
     .bos = ChatTemplate::Bos::each_exchange,
     .system_place = ChatTemplate::SystemPlace::first_user,
     .ends_with_eos = true,
     .trims = true},
    {.name = "llama3",
     .controls = {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"},
     .system = {"<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>"},
     .user = {"<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"},
     .assistant = {"<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>"},
     .answer = "<|start_header_id|>assistant<|end_header_id|>\n\n",
     .bos = ChatTemplate::Bos::once,
     .trims = true},
    {.name = "alpaca",
     .system = {"", "\n\n"},
     .user = {"### Instruction:\n", "\n\n"},
     .assistant = {"### Response:\n", ""},
     .closing = "\n\n",
     .answer = "### Response:\n",
     .ends_with_eos = true,
     .input_heading = "\n\n### Input:\n",
     .usual_system = "Below is an instruction that describes a task. Write a response that appropriately completes the request.",
     .usual_system_for_input =
         "Below is an instruction that describes a task, paired with an input that provides further context. "
         "Write a response that appropriately completes the request."},
    {.name = "vicuna",
     .system = {"", " "},
     .user = {"USER: ", " "},
     .assistant = {"ASSISTANT: ", ""},
     .answer = "ASSISTANT:",
     .bos = ChatTemplate::Bos::once,
     .ends_with_eos = true,
     .usual_system = "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
                     "detailed, and polite answers to the user's questions.",
     .usual_system_for_input = {}},
    {.name = "gemma",
     .controls = {"<start_of_turn>", "<end_of_turn>"},
     .system = {"", "\n\n"},
     .user = {"<start_of_turn>user\n", "<end_of_turn>\n"},
     .assistant = {"<start_of_turn>model\n", "<end_of_turn>"},
     .closing = "\n",
     .answer = "<start_of_turn>model\n",
     .bos = ChatTemplate::Bos::once,
     .system_place = ChatTemplate::SystemPlace::first_user,
     .trims = true},
    {.name = "mistral",
     .system = {"", "\n\n"},
     .user = {" [INST] ", " [/INST]"},
     .assistant = {" ", ""},
     .bos = ChatTemplate::Bos::once,
     .system_place = ChatTemplate::SystemPlace::first_user,
     .ends_with_eos = true},
    {.name = "mistral-v3",
     .controls = {"[INST]", "[/INST]"},
     .system = {"", "\n\n"},
     .user = {"[INST] ", "[/INST]"},
     .assistant = {" ", ""},
     .bos = ChatTemplate::Bos::once,
     .system_place = ChatTemplate::SystemPlace::last_user,
     .ends_with_eos = true},
    {.name = "mistral-tekken",
     .controls = {"[INST]", "[/INST]"},
     .system = {"", "\n\n"},
     .user = {"[INST]", "[/INST]"},
     .bos = ChatTemplate::Bos::once,
     .system_place = ChatTemplate::SystemPlace::last_user,
     .ends_with_eos = true},
    {.name = "mistral-v7",
     .controls = {"[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"},
     .system = {"[SYSTEM_PROMPT] ", "[/SYSTEM_PROMPT]"},
     .user = {"[INST] ", "[/INST]"},
     .assistant = {" ", ""},
     .bos = ChatTemplate::Bos::once,
     .ends_with_eos = true},
    {.name = "phi3",
     .controls = {"<|system|>", "<|user|>", "<|assistant|>", "<|end|>"},
     .system = {"<|system|>\n", "<|end|>\n"},
     .user = {"<|user|>\n", "<|end|>\n"},
     .assistant = {"<|assistant|>\n", "<|end|>"},
     .closing = "\n",
     .answer = "<|assistant|>\n"},
    {.name = "plain",
     .system = {"", "\n"},
     .user = {"User: ", "\n"},
     .assistant = {"Assistant: ", ""},
     .closing = "\n",
     .answer = "Assistant:",
     .ends_with_eos = true},
};

inline const ChatTemplate* find_chat_template(std::string_view name) {
  const auto found = std::find_if(std::begin(chat_templates), std::end(chat_templates),
                                  [name](const ChatTemplate& t) { return t.name == name; });
  return found == std::end(chat_templates) ? nullptr : &*found;
}

/// The template that a model's own Jinja text writes, told by its marks; null where none of them is in it.
inline const ChatTemplate* recognized_chat_template(std::string_view jinja) {
  constexpr std::pair<std::string_view, std::string_view> marks[] = {
      {"<|im_start|>", "chatml"},   {"<|start_header_id|>", "llama3"},
      {"<start_of_turn>", "gemma"}, {"[SYSTEM_PROMPT]", "mistral-v7"},
      {"<<SYS>>", "llama2"},        {" [INST]", "mistral"},
      {" [/INST]", "mistral"},      {"\"[INST]\"", "mistral-tekken"},
      {"[INST]", "mistral-v3"},     {"### Instruction:", "alpaca"},
      {"USER: ", "vicuna"},
  };
  for (const auto& [mark, name] : marks)
    if (jinja.find(mark) != std::string_view::npos) return find_chat_template(name);
  const bool phi3 = jinja.find("<|assistant|>") != std::string_view::npos && jinja.find("<|end|>") != std::string_view::npos;
  return phi3 ? find_chat_template("phi3") : nullptr;
}

namespace detail {

/// The id of the control token of this name; -1 where the vocabulary has none.
inline TokenId control_id(const Tokenizer& t, std::string_view name) {
  const auto ids = t.encode(name, Specials::parsed);
  if (!ids || ids->size() != 1 || t.size() < 2) return -1;
  return t.vocabulary().kinds[static_cast<std::size_t>(ids->front())] == TokenKind::control ? ids->front() : -1;
}

inline std::string_view trimmed(std::string_view text) {
  constexpr std::string_view spaces = " \t\r\n\f\v";
  const std::size_t first = text.find_first_not_of(spaces);
  return first == std::string_view::npos ? std::string_view{} : text.substr(first, text.find_last_not_of(spaces) + 1 - first);
}

}  // namespace detail

/// The first template whose control tokens the vocabulary has, else plain.
inline const ChatTemplate& chat_template_for(const Tokenizer& t) {
  for (const ChatTemplate& chat : chat_templates)
    if (!chat.controls[0].empty() && detail::control_id(t, chat.controls[0]) >= 0) return chat;
  return *find_chat_template("plain");
}

/// One piece of a conversation written down.
struct ChatPiece {
  enum class Kind : std::uint8_t { template_text, turn_text, bos, eos };
  Kind kind = Kind::template_text;
  std::string text{};
  bool learned = false;  ///< the assistant's text and what ends it
  Index turn = 0;        ///< counts turns of user and assistant; a system text belongs to the turn behind it
};

/// The turns in pieces; with `asks`, what asks for an answer behind them. An error where the template has no place for a system
/// text.
inline Result<std::vector<ChatPiece>> chat_pieces(std::span<const Turn> turns, const ChatTemplate& chat, bool asks = false) {
  using Kind = ChatPiece::Kind;
  std::vector<ChatPiece> out;
  Index turn = 0;
  const auto add = [&](Kind kind, std::string_view text, bool learned = false) {
    if (!text.empty() || kind == Kind::bos || kind == Kind::eos) out.push_back({kind, std::string(text), learned, turn});
  };
  const auto text_of = [&](std::string_view text) { return chat.trims ? detail::trimmed(text) : text; };
  const auto first = std::find_if(turns.begin(), turns.end(), [](const Turn& t) { return t.role == ChatRole::user; });
  const bool has_system = std::any_of(turns.begin(), turns.end(), [](const Turn& t) { return t.role == ChatRole::system; });
  std::string system;
  if (!has_system && first != turns.end()) system = first->input.empty() ? chat.usual_system : chat.usual_system_for_input;
  for (const Turn& t : turns)
    if (t.role == ChatRole::system && chat.system_place != ChatTemplate::SystemPlace::own_turn)
      system += (system.empty() ? "" : "\n\n") + std::string(text_of(t.text));
  std::ptrdiff_t place = first - turns.begin();
  if (chat.system_place == ChatTemplate::SystemPlace::last_user)
    for (std::size_t i = 0; i < turns.size(); ++i)
      if (turns[i].role == ChatRole::user) place = static_cast<std::ptrdiff_t>(i);
  if (first == turns.end() && !system.empty())
    return {ErrorCode::unsupported, io::detail::text("has a system text and no turn of a user, in which the template ", chat.name,
                                                     " puts it: add one, or choose another template")};
  const auto add_system = [&](std::string_view text) {
    add(Kind::template_text, chat.system.before), add(Kind::turn_text, text), add(Kind::template_text, chat.system.after);
  };
  if (chat.bos == ChatTemplate::Bos::once) add(Kind::bos, {});
  if (chat.system_place == ChatTemplate::SystemPlace::own_turn && !system.empty()) add_system(system);
  for (std::size_t i = 0; i < turns.size(); ++i) {
    const Turn& t = turns[i];
    if (t.role == ChatRole::system) {
      if (chat.system_place == ChatTemplate::SystemPlace::own_turn) add_system(text_of(t.text));
    } else if (t.role == ChatRole::user) {
      if (chat.bos == ChatTemplate::Bos::each_exchange) add(Kind::bos, {});
      add(Kind::template_text, chat.user.before);
      if (static_cast<std::ptrdiff_t>(i) == place && chat.system_place != ChatTemplate::SystemPlace::own_turn && !system.empty())
        add_system(system);
      add(Kind::turn_text, text_of(t.text));
      if (!t.input.empty()) add(Kind::template_text, chat.input_heading), add(Kind::turn_text, text_of(t.input));
      add(Kind::template_text, chat.user.after);
      ++turn;
    } else {
      add(Kind::template_text, chat.assistant.before);
      add(Kind::turn_text, text_of(t.text), true);
      add(Kind::template_text, chat.assistant.after, true);
      if (chat.ends_with_eos) add(Kind::eos, {}, true);
      add(Kind::template_text, chat.closing);
      ++turn;
    }
  }
  if (asks) add(Kind::template_text, chat.answer);
  return out;
}

/// The conversation as text, with these names for its ends.
inline std::string chat_text(std::span<const ChatPiece> pieces, std::string_view bos, std::string_view eos) {
  std::string out;
  for (const ChatPiece& p : pieces)
    out += p.kind == ChatPiece::Kind::bos ? bos : p.kind == ChatPiece::Kind::eos ? eos : std::string_view(p.text);
  return out;
}

struct ChatTokens {
  std::vector<TokenId> ids{};
  std::vector<std::uint8_t> learned{};  ///< 1 for tokens that hold a byte of a learned piece
  std::vector<Index> turns{};           ///< of the piece that a token's last byte is in
};

namespace detail {

/// Text between control tokens is encoded in one run, as if it had been written by hand.
class ChatEncoder {
 public:
  ChatEncoder(const Tokenizer& tokenizer, const ChatTemplate& chat) : tokenizer_(tokenizer) {
    for (const std::string_view name : chat.controls)
      if (!name.empty())
        if (const TokenId id = control_id(tokenizer, name); id >= 0) controls_.push_back({name, id});
  }

  Status add(const ChatPiece& p) {
    turn_ = p.turn;
    const Vocabulary& v = tokenizer_.vocabulary();
    if (p.kind == ChatPiece::Kind::bos) return v.bos ? add(*v.bos, p.learned) : Status(Ok{});
    if (p.kind == ChatPiece::Kind::eos) return v.eos ? add(*v.eos, p.learned) : Status(Ok{});
    if (p.kind == ChatPiece::Kind::turn_text) return add_text(p.text, p.learned);
    std::string_view rest = p.text;
    while (!rest.empty()) {
      std::size_t at = rest.size();
      const std::pair<std::string_view, TokenId>* control = nullptr;
      for (const auto& c : controls_)
        if (const std::size_t found = rest.find(c.first); found < at) at = found, control = &c;
      ANYBIT_TRY_STATUS(add_text(rest.substr(0, at), p.learned));
      if (!control) break;
      ANYBIT_TRY_STATUS(add(control->second, p.learned));
      rest.remove_prefix(at + control->first.size());
    }
    return Ok{};
  }

  Status add(TokenId id, bool learned) {
    ANYBIT_TRY_STATUS(flush());
    out_.ids.push_back(id), out_.learned.push_back(learned ? 1 : 0), out_.turns.push_back(turn_);
    begun_ = true;
    return Ok{};
  }

  Result<ChatTokens> take() {
    ANYBIT_TRY_STATUS(flush());
    return std::move(out_);
  }

 private:
  Status add_text(std::string_view text, bool learned) {
    if (text.empty()) return Ok{};
    if (learned) ranges_.push_back({run_.size(), run_.size() + text.size()});
    if (turn_starts_.empty() || turn_starts_.back().second != turn_) turn_starts_.push_back({run_.size(), turn_});
    run_ += text;
    return Ok{};
  }

  Status flush() {
    if (run_.empty()) return Ok{};
    ANYBIT_TRY(const std::vector<TokenId> ids, tokenizer_.encode(run_, Specials::as_text, !begun_));
    std::string spelled;
    for (const TokenId id : ids) spelled += tokenizer_.token(id);
    const bool exact = spelled.size() >= run_.size() && spelled.ends_with(run_) && spelled.size() - run_.size() <= 1;
    const std::size_t start = out_.ids.size();
    out_.ids.insert(out_.ids.end(), ids.begin(), ids.end());
    out_.learned.resize(out_.ids.size(), 0), out_.turns.resize(out_.ids.size(), turn_starts_.front().second);
    const std::size_t shift = exact ? spelled.size() - run_.size() : 0;
    for (const auto& [begin, end] : ranges_) {
      if (exact) {
        std::size_t at = 0;
        for (std::size_t i = 0; i < ids.size(); ++i) {
          const std::size_t next = at + tokenizer_.token(ids[i]).size();
          if (next > begin + shift && at < end + shift) out_.learned[start + i] = 1;
          at = next;
        }
      } else {  // the vocabulary changes texts: places are counted in tokens
        ANYBIT_TRY(const std::vector<TokenId> before, tokenizer_.encode(std::string_view(run_).substr(0, begin)));
        ANYBIT_TRY(const std::vector<TokenId> with, tokenizer_.encode(std::string_view(run_).substr(0, end)));
        for (std::size_t i = before.size(); i < std::min(with.size(), ids.size()); ++i) out_.learned[start + i] = 1;
      }
    }
    for (const auto& [begin, turn] : std::span(turn_starts_).subspan(1)) {
      std::size_t first = 0;
      if (exact) {
        for (std::size_t end = 0; first < ids.size() && (end += tokenizer_.token(ids[first]).size()) <= begin + shift;) ++first;
      } else {
        ANYBIT_TRY(const std::vector<TokenId> before, tokenizer_.encode(std::string_view(run_).substr(0, begin)));
        first = std::min(before.size(), ids.size());
      }
      std::fill(out_.turns.begin() + static_cast<std::ptrdiff_t>(start + first), out_.turns.end(), turn);
    }
    run_.clear(), ranges_.clear(), turn_starts_.clear();
    begun_ = true;
    return Ok{};
  }

  const Tokenizer& tokenizer_;
  std::vector<std::pair<std::string_view, TokenId>> controls_;
  ChatTokens out_;
  std::string run_;
  std::vector<std::pair<std::size_t, std::size_t>> ranges_;  ///< learned bytes of run_
  std::vector<std::pair<std::size_t, Index>> turn_starts_;   ///< in run_
  Index turn_ = 0;
  bool begun_ = false;
};

}  // namespace detail

/// The turns as token ids. Control tokens come from the template and the vocabulary only: a turn's text is text.
inline Result<ChatTokens> encode_chat(const Tokenizer& tokenizer, std::span<const Turn> turns, const ChatTemplate& chat,
                                      bool asks = false) {
  ANYBIT_TRY(const std::vector<ChatPiece> pieces, chat_pieces(turns, chat, asks));
  detail::ChatEncoder encoder(tokenizer, chat);
  const Vocabulary& v = tokenizer.vocabulary();
  if (chat.bos == ChatTemplate::Bos::by_vocabulary && v.add_bos && v.bos) ANYBIT_TRY_STATUS(encoder.add(*v.bos, false));
  for (const ChatPiece& p : pieces) ANYBIT_TRY_STATUS(encoder.add(p));
  return encoder.take();
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
