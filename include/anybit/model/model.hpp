#pragma once

#include <string>

#include <anybit/model/decoder.hpp>
#include <anybit/model/tokenizer/tokenizer.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

/// What a model file holds: all that turns text into logits.
struct Model {
  std::string name;
  Decoder decoder;
  Tokenizer tokenizer;
};

/// A tokenizer of another size belongs to another model.
inline Status check_sizes_agree(const Decoder& d, const Tokenizer& t) {
  if (t.size() == d.config.vocabulary) return Ok{};
  return {ErrorCode::shape_mismatch, io::detail::text("the tokenizer has ", t.size(), " tokens, the model ", d.config.vocabulary,
                                                      ": use the tokenizer that belongs to the model")};
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model
