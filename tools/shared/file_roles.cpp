#include "file_roles.hpp"

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <string_view>
#include <utility>

#if defined(__unix__) || defined(__APPLE__)
#include <sys/stat.h>
#endif

#include "command.hpp"
#include "outputs.hpp"

namespace tool {

using namespace anybit;
namespace fs = std::filesystem;

namespace {

/// Equal for two paths of one file. Those that exist start with a digit, the others with anything else.
std::string identity(const std::string& path) {
  std::error_code failed;
  fs::path resolved = fs::weakly_canonical(fs::absolute(path, failed), failed);
  if (failed) resolved = fs::path(path).lexically_normal();
#if defined(__unix__) || defined(__APPLE__)
  // The path as given too: "folder/../file" is there for the system only if the folder is.
  for (const std::string& name : {path, resolved.string()})
    if (struct ::stat s{}; ::stat(name.c_str(), &s) == 0) return std::to_string(s.st_dev) + ":" + std::to_string(s.st_ino);
#endif
  return resolved.string();
}

bool is_file(const FileRole& f) { return !f.path.empty() && f.path != "-"; }

/// "-00002-of-00005.gguf" at the end of a name.
bool is_part(std::string_view name) {
  constexpr std::string_view pattern = "-#####-of-#####.gguf";
  if (name.size() < pattern.size()) return false;
  name.remove_prefix(name.size() - pattern.size());
  return std::equal(name.begin(), name.end(), pattern.begin(),
                    [](char c, char p) { return p == '#' ? std::isdigit(static_cast<unsigned char>(c)) != 0 : c == p; });
}

/// "tokenizer.bin" or "tok32000.bin".
bool is_tokenizer(std::string_view name) {
  if (name == "tokenizer.bin") return true;
  if (!name.starts_with("tok") || !name.ends_with(".bin")) return false;
  name = name.substr(3, name.size() - 7);
  return !name.empty() && std::all_of(name.begin(), name.end(), [](unsigned char c) { return std::isdigit(c) != 0; });
}

}  // namespace

Status check_roles(const std::vector<FileRole>& inputs, const std::vector<FileRole>& outputs) {
  std::vector<std::pair<std::string, const FileRole*>> seen;
  for (const FileRole& f : inputs)
    if (is_file(f)) seen.emplace_back(identity(f.path), &f);
  const std::size_t read = seen.size();
  for (const FileRole& f : outputs) {
    if (!is_file(f)) continue;
    std::string id = identity(f.path);
    for (std::size_t i = 0; i < seen.size(); ++i) {
      if (seen[i].first != id) continue;
      const FileRole& other = *seen[i].second;
      if (i < read)
        return Error{ErrorCode::invalid_argument,
                     f.role + " " + f.path + " would overwrite " + other.role + ", " + other.path + ": choose another path"};
      return Error{ErrorCode::invalid_argument,
                   f.role + " " + f.path + " and " + other.role + " " + other.path + " are one file: give each its own path"};
    }
    seen.emplace_back(std::move(id), &f);
  }
  return Ok{};
}

std::optional<int> check_files(std::string_view command, const std::vector<FileRole>& inputs,
                               const std::vector<FileRole>& outputs) {
  if (const auto apart = check_roles(inputs, outputs); !apart) return fail(command, usage, apart.error());
  for (const FileRole& f : outputs)
    if (!f.path.empty())
      if (const auto writable = check_writable(f.path); !writable) return fail(command, cannot_write, writable.error());
  return std::nullopt;
}

std::vector<FileRole> model_inputs(const std::string& model, const std::string& tokenizer) {
  std::vector<FileRole> out{{"the model", model}, {"the tokenizer", tokenizer}};
  std::error_code failed;
  if (fs::is_directory(model, failed)) {
    for (fs::directory_iterator entry(model, failed), end; !failed && entry != end; entry.increment(failed))
      out.push_back({"a file of the model", entry->path().string()});
    return out;
  }
  const std::string own = fs::path(model).filename().string();
  fs::path folder = fs::path(model).parent_path();
  if (folder.empty()) folder = ".";
  for (fs::directory_iterator entry(folder, failed), end; !failed && entry != end; entry.increment(failed)) {
    const std::string name = entry->path().filename().string();
    if (tokenizer.empty() && is_tokenizer(name)) out.push_back({"the tokenizer beside the model", entry->path().string()});
    if (is_part(own) && is_part(name) && name != own && name.substr(0, name.size() - 20) == own.substr(0, own.size() - 20))
      out.push_back({"a part of the model", entry->path().string()});
  }
  return out;
}

}  // namespace tool
