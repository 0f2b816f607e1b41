#pragma once
// An opened model file: a name for messages, tensors, and the mappings that hold them.

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <anybit/io/mapped_file.hpp>
#include <anybit/io/tensor_info.hpp>

namespace anybit::io {
inline namespace ANYBIT_CODE {

/// The base of GgufFile, SafetensorsFile and Llama2cFile. `File` has a member `Status parse_all(std::span<const std::byte>)`
/// that fills tensors_; its errors need not name the file. Copies share the mappings; tensors stay valid while one copy lives.
template <class File>
class TensorFile {
 public:
  static Result<File> open(const std::string& path) {
    ANYBIT_TRY(MappedFile file, MappedFile::open(path));
    auto owner = std::make_shared<const MappedFile>(std::move(file));
    ANYBIT_TRY(File out, parse(owner->bytes(), path));
    out.owners_.push_back(std::move(owner));
    return out;
  }
  /// Of bytes that the caller keeps; `name` is for messages.
  static Result<File> parse(std::span<const std::byte> bytes, std::string name) {
    File out;
    out.name_ = std::move(name);
    if (auto done = out.parse_all(bytes); !done) return in_context(done.error(), out.name_);
    return out;
  }

  const std::string& name() const { return name_; }
  /// In the order of the file.
  const std::vector<TensorInfo>& tensors() const { return tensors_.all(); }
  /// Null if there is none of that name.
  const TensorInfo* find(std::string_view tensor) const { return tensors_.find(tensor); }
  /// Any readable type as floats, quantized ones by ggml's formulas to the bit; see TensorInfo::extents for the shape.
  Result<Matrix> read_f32(std::string_view tensor) const { return tensors_.read_f32(tensor, name_); }

 protected:
  TensorFile() = default;

  std::string name_;
  TensorList tensors_;
  std::vector<std::shared_ptr<const MappedFile>> owners_;
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::io
