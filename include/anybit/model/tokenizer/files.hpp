#pragma once
// Tokenizers from files of any kind that is known.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <string>
#include <string_view>

#include <anybit/io/mapped_file.hpp>
#include <anybit/model/tokenizer/from_gguf.hpp>
#include <anybit/model/tokenizer/from_llama2c.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

/// The tokenizer in a file; its content decides about the format, not its name.
inline Result<Tokenizer> open_tokenizer(const std::string& path) {
  ANYBIT_TRY(const io::MappedFile file, io::MappedFile::open(path));
  const auto bytes = file.bytes();
  const std::string_view start(reinterpret_cast<const char*>(bytes.data()), std::min<std::size_t>(bytes.size(), 16));
  if (start.starts_with("GGUF")) {
    ANYBIT_TRY(const io::GgufFile gguf, io::GgufFile::open(path));
    return tokenizer_from_gguf(gguf);
  }
  return tokenizer_from_llama2c(bytes, path);
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
