#pragma once
// A tokenizer for models made in tests.

#include <string>
#include <utility>

#include <anybit/model/tokenizer/tokenizer.hpp>

namespace test_support {

/// The 61 characters from 'A' on, each a token: as many as random_decoder() and its like have.
inline anybit::model::Tokenizer letters() {
  anybit::model::Vocabulary v;
  v.kind = anybit::model::TokenizerKind::byte_bpe;
  for (int i = 0; i < 61; ++i) {
    v.tokens.push_back(std::string(1, static_cast<char>('A' + i)));
    v.kinds.push_back(anybit::model::TokenKind::normal);
  }
  return anybit::model::Tokenizer::make(std::move(v)).value();
}

}  // namespace test_support
