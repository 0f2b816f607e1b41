#pragma once
// A file of prepared weights (AnyPacked::prepare_into), to be mapped at the next start: a cache of this machine's, which nothing
// writes unasked. A safetensors file of bytes under names, each at a multiple of 64.

#include <anybit/core/macros_begin.hpp>

#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <anybit/io/safetensors.hpp>
#include <anybit/io/safetensors_writer.hpp>

namespace anybit::io {
inline namespace ANYBIT_CODE {

/// Bytes that prepare_into() filled, and the name to find them by.
struct PreparedBytes {
  std::string name;
  std::span<const std::byte> bytes;
};

/// Writes a whole file or nothing.
template <class = void>
Status write_prepared(const std::string& path, std::span<const PreparedBytes> all) {
  std::vector<TensorInfo> tensors;
  for (const PreparedBytes& p : all) {
    if (p.bytes.size() % AlignedBuffer::alignment != 0)
      return Error{ErrorCode::invalid_argument,
                   detail::text(path, ": ", detail::shown(p.name), " has ", p.bytes.size(),
                                " bytes, no multiple of 64: give what prepared_bytes() says, whole")};
    tensors.push_back({p.name, "U8", {static_cast<Index>(p.bytes.size())}, p.bytes});
  }
  return write_safetensors(path, tensors, {});
}

/// The file, mapped. What it holds is checked by AnyPacked::use_prepared().
class PreparedFile {
 public:
  template <class = void>
  static Result<PreparedFile> open(const std::string& path) {
    ANYBIT_TRY(SafetensorsFile file, SafetensorsFile::open(path));
    return PreparedFile(std::move(file));
  }
  /// They stay as long as this object.
  template <class = void>
  Result<std::span<const std::byte>> bytes(std::string_view name) const {
    const TensorInfo* const t = file_.find(name);
    if (t == nullptr)
      return Error{ErrorCode::invalid_argument,
                   detail::text(file_.name(), ": there are no prepared weights of ", detail::shown(name), ": prepare them")};
    return t->bytes;
  }

 private:
  explicit PreparedFile(SafetensorsFile file) : file_(std::move(file)) {}
  SafetensorsFile file_;
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::io

#include <anybit/core/macros_end.hpp>
