#pragma once
// No output may be an input or another output. Checked before any work, so that nothing that a user gives can be lost.

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <anybit/core/result.hpp>

namespace tool {

/// A file and what it is for, as messages call it: "--save", "the model".
struct FileRole {
  std::string role, path;
};

/// An error that names both, where an output is the same file as an input or as another output. Files that exist are told apart
/// by device and inode, so that links and other spellings of a path are seen; others by their path without links and "..". Empty
/// paths and "-" (standard output) are no files.
anybit::Status check_roles(const std::vector<FileRole>& inputs, const std::vector<FileRole>& outputs);

/// check_roles(), and check_writable() of every output: before any work. The exit code of an error, which has been printed.
std::optional<int> check_files(std::string_view command, const std::vector<FileRole>& inputs,
                               const std::vector<FileRole>& outputs);

/// All files that reading this model may open: itself, every file of a folder, the other parts of a split one, and `tokenizer`,
/// or if that is empty those beside the model that a llama2.c checkpoint takes.
std::vector<FileRole> model_inputs(const std::string& model, const std::string& tokenizer);

}  // namespace tool
