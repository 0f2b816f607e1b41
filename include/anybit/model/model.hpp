#pragma once

#include <anybit/core/macros_begin.hpp>

#include <string>

#include <anybit/model/run.hpp>
#include <anybit/model/tokenizer/tokenizer.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

/// The contents of a model file: all that turns text into logits. The tokenizer has as many tokens as the decoder has logits.
struct Model {
  std::string name;  ///< UTF-8, and safe to print: loaders escape control characters
  Decoder decoder;
  Tokenizer tokenizer;
};

/// A tokenizer of another size belongs to another model.
inline Status check_sizes_agree(const Decoder& d, const Tokenizer& t) {
  if (t.size() == d.config.vocabulary) return Ok{};
  return {ErrorCode::shape_mismatch, io::detail::text("the tokenizer has ", t.size(), " tokens, the model ", d.config.vocabulary,
                                                      ": use the tokenizer that belongs to the model")};
}

/// The tokenizer of a model whose embedding has `rows` rows. Rows beyond the last token are padding that makes products come
/// out even: they get tokens of the kind `unused`, which are in no text and must never be predicted.
inline Result<Tokenizer> with_padding(const Tokenizer& t, Index rows) {
  if (t.size() > rows)
    return {ErrorCode::shape_mismatch, io::detail::text("the vocabulary has ", t.size(), " tokens, but the embedding only ", rows,
                                                        " rows: convert the model again")};
  if (t.size() == rows) return t;
  Vocabulary v = t.vocabulary();
  for (Index i = t.size(); i < rows; ++i) {
    v.tokens.push_back(io::detail::text("[PAD", i, "]"));
    v.kinds.push_back(TokenKind::unused);
    if (!v.scores.empty()) v.scores.push_back(0);
  }
  return Tokenizer::make(std::move(v));
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
