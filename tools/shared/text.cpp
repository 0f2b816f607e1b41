#include "text.hpp"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <vector>

#include <anybit/model/tokenizer/unicode.hpp>

namespace tool {

using namespace anybit;

Result<std::string> read_text(const std::string& path) {
  std::error_code failed;
  if (std::filesystem::is_directory(path, failed)) return Error{ErrorCode::io, path + ": is a folder; name a text file"};
  std::ifstream file(path, std::ios::binary);
  if (!file) return Error{ErrorCode::io, path + ": cannot be read; check the name and its permissions"};
  std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  if (file.bad()) return Error{ErrorCode::io, path + ": reading it failed"};
  if (text.empty()) return Error{ErrorCode::insufficient_data, path + ": is empty; name a file with some pages of text"};
  for (std::size_t at = 0; at < text.size();) {
    const auto c = model::decode_utf8(std::string_view(text).substr(at));
    if (!c.valid)
      return Error{ErrorCode::invalid_argument,
                   path + ": byte " + std::to_string(at) + " is not UTF-8; convert the file (iconv -f ... -t UTF-8)"};
    at += c.bytes;
  }
  return text;
}

std::vector<std::string> documentation_files(const std::string& folder) {
  namespace fs = std::filesystem;
  std::vector<std::string> files;
  std::error_code failed;
  const fs::path docs = fs::path(folder) / "docs", tables = docs / "results";
  for (fs::recursive_directory_iterator entry(docs, failed), end; !failed && entry != end; entry.increment(failed))
    if (entry->path().extension() == ".md" && entry->path().parent_path() != tables) files.push_back(entry->path().string());
  std::sort(files.begin(), files.end());
  return files;
}

Result<TwoTexts> documentation(const std::string& folder) {
  const std::vector<std::string> files = documentation_files(folder);
  if (files.empty())
    return Error{ErrorCode::io, folder + ": has no docs/*.md, the default texts; give your own with --calibrate and --evaluate"};
  std::string all;
  for (const std::string& file : files) {
    ANYBIT_TRY(const std::string text, read_text(file));
    all += text + "\n\n";
  }
  return cut_in_two(all);
}

std::vector<TextLine> lines_of(std::string_view text) {
  std::vector<TextLine> out;
  Index number = 0;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view line = text.substr(at, end - at);
    at = end + 1, ++number;
    if (line.find_first_not_of(" \t\r") != std::string_view::npos) out.push_back({line, number});
  }
  return out;
}

TwoTexts cut_in_two(std::string_view text) {
  const std::size_t middle = text.size() / 2;
  const std::size_t after = text.find("\n\n", middle), before = text.rfind("\n\n", middle);
  std::size_t cut = middle;
  if (after != std::string_view::npos) cut = after + 2;
  if (before != std::string_view::npos && (after == std::string_view::npos || middle - before < after - middle)) cut = before + 2;
  while (cut < text.size() && (static_cast<unsigned char>(text[cut]) & 0xC0) == 0x80) ++cut;  // not inside a character
  return {std::string(text.substr(0, cut)), std::string(text.substr(cut))};
}

std::vector<std::string> text_warnings(const evaluate::Windows& windows, Index tokens) {
  std::vector<std::string> out;
  if (const Index used = static_cast<Index>(windows.tokens.size()); used < tokens)
    out.push_back("Calibration: the last " + std::to_string(tokens - used) + " of " + std::to_string(tokens) +
                  " tokens fill no window of " + std::to_string(windows.length) + " and are dropped.");
  Index repeated = 0;
  std::set<std::vector<std::int32_t>> seen;
  for (Index i = 0; i < windows.count(); ++i) {
    const auto w = windows.window(i);
    repeated += seen.emplace(w.begin(), w.end()).second ? 0 : 1;
  }
  if (repeated > 0)
    out.push_back("Calibration: " + std::to_string(repeated) + " of " + std::to_string(windows.count()) +
                  " windows repeat others and teach nothing new.");
  return out;
}

}  // namespace tool
