#pragma once
// Tokenizers from files of any kind that is known.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <filesystem>
#include <string>
#include <string_view>
#include <system_error>

#include <anybit/io/mapped_file.hpp>
#include <anybit/model/tokenizer/from_folder.hpp>
#include <anybit/model/tokenizer/from_gguf.hpp>
#include <anybit/model/tokenizer/from_huggingface.hpp>
#include <anybit/model/tokenizer/from_llama2c.hpp>
#include <anybit/model/tokenizer/from_sentencepiece.hpp>
#include <anybit/model/tokenizer/from_tekken.hpp>
#include <anybit/model/tokenizer/from_tiktoken.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

/// The tokenizer in a folder, or in a file: GGUF, tokenizer.json, tekken.json, SentencePiece's tokenizer.model, tiktoken's ranks,
/// or llama2.c's tokenizer.bin. The content decides, not the name. `pre` is for tokenizer_from_tiktoken().
inline Result<Tokenizer> open_tokenizer(const std::string& path, std::string_view pre = {}) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) return tokenizer_from_folder(path);
  ANYBIT_TRY(const io::MappedFile file, io::MappedFile::open(path));
  const auto bytes = file.bytes();
  const std::string_view start(reinterpret_cast<const char*>(bytes.data()), std::min<std::size_t>(bytes.size(), 4096));
  if (start.starts_with("GGUF")) {
    ANYBIT_TRY(const io::GgufFile gguf, io::GgufFile::open(path));
    return tokenizer_from_gguf(gguf);
  }
  if (const auto first = start.find_first_not_of(" \t\r\n"); first != std::string_view::npos && start[first] == '{')
    return is_tekken(bytes) ? tokenizer_from_tekken(bytes, path) : tokenizer_from_huggingface(bytes, path);
  if (looks_like_tiktoken(start)) return tokenizer_from_tiktoken(bytes, path, pre);
  if (start.size() > 1 && start[0] == '\n' && start[1] != '\0')
    return tokenizer_from_sentencepiece(bytes, path);  // the key of the first piece
  return tokenizer_from_llama2c(bytes, path);
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
