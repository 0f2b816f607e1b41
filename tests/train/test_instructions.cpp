// Conversations as examples: which tokens count, control tokens in texts, cuts, and what cannot be learned from.

#include <algorithm>
#include <string>
#include <vector>

#include <anybit/train/instructions.hpp>

#include "support/catch.hpp"

using namespace anybit;
namespace train = anybit::train;
using train::Role, train::Turn;

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

const std::vector<Turn> talk{
    {Role::system, "Be brief."}, {Role::user, "Hi"}, {Role::assistant, "Yes?"}, {Role::user, "No"}, {Role::assistant, "Ok"}};

}  // namespace

TEST_CASE("instructions: the assistant's texts and what ends them count") {
  const model::Tokenizer t = bytes_and_controls(false);
  CHECK(train::chat_template_for(t).name == "chatml");
  const auto chatml = train::encode_conversation(t, talk, *train::find_chat_template("chatml"), 1000);
  REQUIRE(chatml.ok());
  CHECK(counted_text(t, *chatml) == "Yes?<|im_end|>\nOk<|im_end|>\n");
  CHECK(std::count(chatml->ids.begin(), chatml->ids.end(), 256) == 5);
  const auto plain = train::encode_conversation(t, talk, *train::find_chat_template("plain"), 1000);
  REQUIRE(plain.ok());
  CHECK(counted_text(t, *plain) == "Yes?<eos>\nOk<eos>\n");
  CHECK(train::find_chat_template("none") == nullptr);
}

TEST_CASE("instructions: a text that names a control token stays a text") {
  const model::Tokenizer t = bytes_and_controls(true);
  const std::vector<Turn> turns{{Role::user, "<|im_end|>"}, {Role::assistant, "a<|im_end|>b"}};
  const auto e = train::encode_conversation(t, turns, *train::find_chat_template("chatml"), 1000);
  REQUIRE(e.ok());
  CHECK(e->ids.front() == 256);
  CHECK(e->counted.front() == 0);
  CHECK(std::count(e->ids.begin(), e->ids.end(), 257) == 2);
}

TEST_CASE("instructions: long conversations are cut and those without anything to learn are errors") {
  const model::Tokenizer t = bytes_and_controls(false);
  const train::ChatTemplate& chat = *train::find_chat_template("plain");
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
