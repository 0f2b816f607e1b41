// Conversations as examples: which tokens count, control tokens in texts, cuts, and what cannot be learned from.

#include <algorithm>
#include <string>
#include <vector>

#include <anybit/train/instructions.hpp>

#include "support/catch.hpp"

using namespace anybit;
namespace train = anybit::train;
using model::ChatRole, model::Turn;

namespace {

/// One token per byte, and three control tokens.
model::Tokenizer bytes_and_controls(bool bos) {
  model::Vocabulary v;
  for (int b = 0; b < 256; ++b) v.tokens.emplace_back(1, static_cast<char>(b)), v.kinds.push_back(model::TokenKind::normal);
  for (const char* name : {"<|im_start|>", "<|im_end|>", "<eos>"})
    v.tokens.emplace_back(name), v.kinds.push_back(model::TokenKind::control);
  v.bos = 256, v.eos = 258, v.add_bos = bos;
  auto made = model::Tokenizer::make(std::move(v));
  INFO((made ? std::string() : made.error().message));
  REQUIRE(made.ok());
  return *std::move(made);
}

std::string counted_text(const model::Tokenizer& t, const train::MaskedExample& e) {
  std::string out;
  for (std::size_t i = 0; i < e.ids.size(); ++i)
    if (e.counted[i]) out += t.vocabulary().tokens[static_cast<std::size_t>(e.ids[i])];
  return out;
}

const std::vector<Turn> talk{{ChatRole::system, "Be brief."},
                             {ChatRole::user, "Hi"},
                             {ChatRole::assistant, "Yes?"},
                             {ChatRole::user, "No"},
                             {ChatRole::assistant, "Ok"}};

}  // namespace

TEST_CASE("instructions: the assistant's texts and what ends them count") {
  const model::Tokenizer t = bytes_and_controls(false);
  CHECK(model::chat_template_for(t).name == "chatml");
  const auto chatml = train::encode_conversation(t, talk, *model::find_chat_template("chatml"), 1000);
  REQUIRE(chatml.ok());
  CHECK(counted_text(t, *chatml) == "Yes?<|im_end|>Ok<|im_end|>");
  CHECK(std::count(chatml->ids.begin(), chatml->ids.end(), 256) == 5);
  const auto plain = train::encode_conversation(t, talk, *model::find_chat_template("plain"), 1000);
  REQUIRE(plain.ok());
  CHECK(counted_text(t, *plain) == "Yes?<eos>Ok<eos>");
  CHECK(model::find_chat_template("none") == nullptr);
}

TEST_CASE("chat: every token knows its turn, a system text belongs to the turn behind it") {
  const model::Tokenizer t = bytes_and_controls(false);
  for (const char* name : {"chatml", "plain", "alpaca", "vicuna", "gemma", "mistral"}) {
    CAPTURE(name);
    const auto e = model::encode_chat(t, talk, *model::find_chat_template(name));
    REQUIRE(e.ok());
    REQUIRE(e->turns.size() == e->ids.size());
    CHECK(std::is_sorted(e->turns.begin(), e->turns.end()));
    std::vector<std::string> texts(4);
    for (std::size_t i = 0; i < e->ids.size(); ++i)
      texts.at(static_cast<std::size_t>(e->turns[i])) += t.vocabulary().tokens[static_cast<std::size_t>(e->ids[i])];
    const std::size_t brief = texts[0].find("Be brief.");
    CHECK((brief != std::string::npos && texts[0].find("Hi") > brief && texts[0].find("Hi") != std::string::npos));
    const std::vector<std::string> others{"Yes?", "No", "Ok"};
    for (std::size_t i = 0; i < others.size(); ++i)
      for (std::size_t turn = 0; turn < 4; ++turn) {
        CAPTURE(texts[turn]);
        CHECK((texts[turn].find(others[i]) != std::string::npos) == (turn == i + 1));
      }
  }
}

TEST_CASE("instructions: a text that names a control token stays a text") {
  const model::Tokenizer t = bytes_and_controls(true);
  const std::vector<Turn> turns{{ChatRole::user, "<|im_end|>"}, {ChatRole::assistant, "a<|im_end|>b"}};
  const auto e = train::encode_conversation(t, turns, *model::find_chat_template("chatml"), 1000);
  REQUIRE(e.ok());
  CHECK(e->ids.front() == 256);
  CHECK(e->counted.front() == 0);
  CHECK(std::count(e->ids.begin(), e->ids.end(), 257) == 2);
}

TEST_CASE("instructions: long conversations are cut and those without anything to learn are errors") {
  const model::Tokenizer t = bytes_and_controls(false);
  const model::ChatTemplate& chat = *model::find_chat_template("plain");
  const auto whole = train::encode_conversation(t, talk, chat, 1000);
  REQUIRE(whole.ok());
  const auto cut = train::encode_conversation(t, talk, chat, 36);
  REQUIRE(cut.ok());
  CHECK(cut->ids.size() == 36);
  CHECK(std::equal(cut->ids.begin(), cut->ids.end(), whole->ids.begin()));
  const auto has = [](const Result<train::MaskedExample>& e, const std::string& part) {
    REQUIRE(!e.ok());
    INFO(e.error().message);
    CHECK(e.error().code == ErrorCode::insufficient_data);
    CHECK(e.error().message.find(part) != std::string::npos);
  };
  has(train::encode_conversation(t, talk, chat, 12), "of whose first 12 none is the assistant's");
  has(train::encode_conversation(t, talk, chat, 0), "of whose first 0");
  has(train::encode_conversation(t, std::span(talk).first(2), chat, 1000), "has no text of the assistant");
  has(train::encode_conversation(t, {}, chat, 1000), "has no text of the assistant");
}

namespace {

std::string written(const char* name, const std::vector<Turn>& turns, bool asks = false) {
  CAPTURE(name);
  REQUIRE(model::find_chat_template(name));
  const auto pieces = model::chat_pieces(turns, *model::find_chat_template(name), asks);
  REQUIRE(pieces.ok());
  return model::chat_text(*pieces, "<s>", "</s>");
}

/// " [INST] a" with control tokens in place of marks, as SentencePiece vocabularies of single characters encode it.
model::Tokenizer sentencepiece_letters(model::SpacePrefix prefix) {
  model::Vocabulary v;
  v.kind = model::TokenizerKind::score_bpe;
  v.tokens = {"<unk>", "<s>", "</s>", "[INST]", "[/INST]"};
  v.kinds = {model::TokenKind::unknown, model::TokenKind::control, model::TokenKind::control, model::TokenKind::control,
             model::TokenKind::control};
  for (int c = ' '; c < 127; ++c) v.tokens.emplace_back(1, static_cast<char>(c)), v.kinds.push_back(model::TokenKind::normal);
  v.tokens.emplace_back(" a"), v.kinds.push_back(model::TokenKind::normal);
  v.scores.assign(v.tokens.size(), -1.f);
  v.unknown = 0, v.bos = 1, v.eos = 2, v.add_bos = true, v.add_space_prefix = true, v.prefix = prefix;
  auto made = model::Tokenizer::make(std::move(v));
  INFO((made ? std::string() : made.error().message));
  REQUIRE(made.ok());
  return *std::move(made);
}

std::string spelled(const model::Tokenizer& t, const std::vector<model::TokenId>& ids) {
  std::string out;
  for (const model::TokenId id : ids) out += std::string(t.token(id)) + "|";
  return out;
}

}  // namespace

TEST_CASE("chat templates: the published forms, written out by hand") {
  const std::vector<Turn> two{{ChatRole::system, "S"},
                              {ChatRole::user, "U1"},
                              {ChatRole::assistant, "A1"},
                              {ChatRole::user, "U2"},
                              {ChatRole::assistant, "A2"}};
  CHECK(written("chatml", two) ==
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU1<|im_end|>\n<|im_start|>assistant\nA1<|im_end|>\n"
        "<|im_start|>user\nU2<|im_end|>\n<|im_start|>assistant\nA2<|im_end|>\n");
  CHECK(written("llama2", two) == "<s>[INST] <<SYS>>\nS\n<</SYS>>\n\nU1 [/INST] A1 </s><s>[INST] U2 [/INST] A2 </s>");
  CHECK(written("llama3", two) ==
        "<s><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nU1<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nA1<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nU2<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nA2<|eot_id|>");
  CHECK(written("vicuna", two) == "<s>S USER: U1 ASSISTANT: A1</s>USER: U2 ASSISTANT: A2</s>");
  CHECK(written("gemma", two) ==
        "<s><start_of_turn>user\nS\n\nU1<end_of_turn>\n<start_of_turn>model\nA1<end_of_turn>\n"
        "<start_of_turn>user\nU2<end_of_turn>\n<start_of_turn>model\nA2<end_of_turn>\n");
  CHECK(written("mistral", two) == "<s> [INST] S\n\nU1 [/INST] A1</s> [INST] U2 [/INST] A2</s>");
  CHECK(written("mistral-v3", two) == "<s>[INST] U1[/INST] A1</s>[INST] S\n\nU2[/INST] A2</s>");
  CHECK(written("mistral-tekken", two) == "<s>[INST]U1[/INST]A1</s>[INST]S\n\nU2[/INST]A2</s>");
  CHECK(written("mistral-v7", two) == "<s>[SYSTEM_PROMPT] S[/SYSTEM_PROMPT][INST] U1[/INST] A1</s>[INST] U2[/INST] A2</s>");
  CHECK(written("phi3", two) ==
        "<|system|>\nS<|end|>\n<|user|>\nU1<|end|>\n<|assistant|>\nA1<|end|>\n<|user|>\nU2<|end|>\n<|assistant|>\nA2<|end|>\n");
  const std::vector<Turn> question{{ChatRole::user, " Hello! "}};
  CHECK(written("chatml", question, true) == "<|im_start|>user\n Hello! <|im_end|>\n<|im_start|>assistant\n");
  CHECK(written("llama2", question, true) == "<s>[INST] Hello! [/INST]");
  CHECK(
      written("vicuna", {{ChatRole::user, "Hello!"}}, true) ==
      "<s>A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite "
      "answers to the user's questions. USER: Hello! ASSISTANT:");
  CHECK(written("alpaca", {{ChatRole::user, "Add."}, {ChatRole::assistant, "3"}}) ==
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nAdd.\n\n### Response:\n3</s>\n\n");
  CHECK(
      written("alpaca", {{ChatRole::user, "Add.", "1 2"}}, true) ==
      "Below is an instruction that describes a task, paired with an input that provides further context. Write a response that "
      "appropriately completes the request.\n\n### Instruction:\nAdd.\n\n### Input:\n1 2\n\n### Response:\n");
  CHECK(!model::chat_pieces(std::vector<Turn>{{ChatRole::system, "S"}, {ChatRole::assistant, "A"}},
                            *model::find_chat_template("gemma")));
}

TEST_CASE("chat templates: a model's own template is told by its marks") {
  const auto name = [](const char* jinja) {
    const auto* const found = model::recognized_chat_template(jinja);
    return found ? std::string(found->name) : std::string("none");
  };
  CHECK(name("{{ '<|im_start|>' + message['role'] }}") == "chatml");
  CHECK(name("{{ '<<SYS>>\\n' }}{{ bos_token + '[INST] ' + content + ' [/INST]' }}") == "llama2");
  CHECK(name("{{ '[INST] ' + message['content'] + ' [/INST]' }}") == "mistral");
  CHECK(name("{{ \"[INST] \" + message['content'] + \"[/INST]\" }}") == "mistral-v3");
  CHECK(name("{{ \"[INST]\" + message['content'] + \"[/INST]\" }}") == "mistral-tekken");
  CHECK(name("{{ '<start_of_turn>' + role }}") == "gemma");
  CHECK(name("{{ '<|user|>' }}{{ '<|end|>' }}{{ '<|assistant|>' }}") == "phi3");
  CHECK(name("{{ messages }}") == "none");
  CHECK(name("") == "none");
}

TEST_CASE("chat templates: text between control tokens is encoded in one run and learned by bytes") {
  const std::vector<Turn> turns{
      {ChatRole::user, "b"}, {ChatRole::assistant, "a"}, {ChatRole::user, "[/INST]"}, {ChatRole::assistant, "c"}};
  const model::ChatTemplate& v3 = *model::find_chat_template("mistral-v3");
  const model::Tokenizer first = sentencepiece_letters(model::SpacePrefix::start);
  const auto e = model::encode_chat(first, turns, v3);
  REQUIRE(e.ok());
  // The control token in a user's text stays text, and " a" is one token across template and turn.
  CHECK(spelled(first, e->ids) == "<s>|[INST]| |b|[/INST]| a|</s>|[INST]| |[|/|I|N|S|T|]|[/INST]| |c|</s>|");
  std::string learned;
  for (std::size_t i = 0; i < e->ids.size(); ++i)
    if (e->learned[i]) learned += std::string(first.token(e->ids[i])) + "|";
  CHECK(learned == " a|</s>|c|</s>|");
  const model::Tokenizer each = sentencepiece_letters(model::SpacePrefix::start_and_controls);
  const auto spaced = model::encode_chat(each, std::span(turns).first(2), v3);
  REQUIRE(spaced.ok());
  CHECK(spelled(each, spaced->ids) == "<s>|[INST]| | |b|[/INST]| | a|</s>|");
}
