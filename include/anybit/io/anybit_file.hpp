#pragma once
// anybit's own container: a safetensors file, so that any tool can list it.
//
// A packed tensor is a U8 tensor that holds PackedBytes whole, filled up with zeros to a multiple of 64 so that all of
// them start at one when the file is mapped; kernels use it where it lies. A float matrix is an F32 tensor. Metadata:
//   anybit.version            "1"
//   anybit.scheme.<tensor>    the scheme's name, for each packed tensor
//   anybit.shape.<tensor>     "<rows>x<cols>" of its weights
// and whatever the writer adds: other keys, for example a model's configuration and vocabulary.

#include <anybit/core/macros_begin.hpp>

#include <cstring>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <anybit/core/matrix.hpp>
#include <anybit/io/safetensors.hpp>
#include <anybit/io/safetensors_writer.hpp>
#include <anybit/tensor/packed_bytes.hpp>

namespace anybit::io {
inline namespace ANYBIT_CODE {

namespace detail {

inline constexpr std::string_view reserved_keys = "anybit.", version_key = "anybit.version", scheme_key = "anybit.scheme.",
                                  shape_key = "anybit.shape.";
inline constexpr std::string_view container_version = "1";
inline std::string shape_text(Extents e) { return text(e.rows, "x", e.cols); }

}  // namespace detail

/// Collects tensors and metadata, then writes them at once. Tensors are not copied: keep them until write().
class AnybitWriter {
 public:
  AnybitWriter() = default;
  AnybitWriter(AnybitWriter&&) = default;  // not copied: tensors_ may point into copies_
  AnybitWriter& operator=(AnybitWriter&&) = default;

  template <class = void>
  void add(std::string name, const PackedBytes& packed) {
    if (packed.empty()) refuse(name, "holds no bytes: pack it first");
    metadata_[std::string(detail::scheme_key) + name] = packed.scheme_name();
    metadata_[std::string(detail::shape_key) + name] = detail::shape_text(packed.extents());
    std::span<const std::byte> bytes = packed.bytes();
    if (bytes.size() % AlignedBuffer::alignment != 0) {  // rare: only a column order ends beside a multiple of 64
      AlignedBuffer& filled =
          copies_.emplace_back(static_cast<std::size_t>(round_up(static_cast<Index>(bytes.size()), AlignedBuffer::alignment)));
      std::memcpy(filled.data(), bytes.data(), bytes.size());
      bytes = filled.bytes();
    }
    tensors_.push_back({std::move(name), "U8", {static_cast<Index>(bytes.size())}, bytes});
  }

  template <class = void>
  void add(std::string name, ConstMatrix m) {
    const auto size = static_cast<std::size_t>(m.rows * m.cols) * sizeof(float);
    std::span<const std::byte> bytes(reinterpret_cast<const std::byte*>(m.data), size);
    if (!m.contiguous()) {
      AlignedBuffer& gathered = copies_.emplace_back(size);
      for (Index r = 0; r < m.rows; ++r) std::memcpy(gathered.as<float>() + r * m.cols, m.row(r).data(), m.row(r).size_bytes());
      bytes = gathered.bytes();
    }
    tensors_.push_back({std::move(name), "F32", {m.rows, m.cols}, bytes});
  }

  /// Any other tensor of a safetensors type, for example a vocabulary as U8.
  void add(TensorInfo t) { tensors_.push_back(std::move(t)); }

  /// UTF-8; keys that start with "anybit." are the container's own.
  template <class = void>
  void set_metadata(const std::string& key, std::string value) {
    if (key.starts_with(detail::reserved_keys))
      refuse(key, "is a key of the container: choose one that does not start with 'anybit.'");
    metadata_[key] = std::move(value);
  }

  /// Bytes of the file that write() would make.
  template <class = void>
  Result<Index> file_bytes() const {
    if (refused_) return *refused_;
    ANYBIT_TRY(const SafetensorsPlan plan, plan_safetensors(tensors_, metadata_));
    Index total = static_cast<Index>(plan.head.size());
    for (const TensorInfo* t : plan.order) total += static_cast<Index>(t->bytes.size());
    return total;
  }

  /// The whole file or nothing.
  template <class = void>
  Status write(const std::string& path) const {
    if (refused_) return in_context(*refused_, path);
    return write_safetensors(path, tensors_, metadata_);
  }

 private:
  void refuse(std::string_view name, std::string_view why) {
    if (!refused_) refused_ = Error{ErrorCode::invalid_argument, detail::text(detail::shown(name), " ", why)};
  }

  std::vector<TensorInfo> tensors_;
  std::vector<AlignedBuffer> copies_;
  std::map<std::string, std::string> metadata_{{std::string(detail::version_key), std::string(detail::container_version)}};
  std::optional<Error> refused_;
};

/// An opened container. Copies share the mapping; packed() and view_f32() are views on it, valid while one copy lives.
class AnybitFile {
 public:
  template <class = void>
  static Result<AnybitFile> open(const std::string& path) {
    ANYBIT_TRY(SafetensorsFile file, SafetensorsFile::open(path));
    return check(std::move(file));
  }
  /// Of bytes that the caller keeps; `name` is for messages.
  template <class = void>
  static Result<AnybitFile> parse(std::span<const std::byte> bytes, std::string name) {
    ANYBIT_TRY(SafetensorsFile file, SafetensorsFile::parse(bytes, std::move(name)));
    return check(std::move(file));
  }

  const std::string& name() const { return file_.name(); }
  /// All tensors, packed ones as U8.
  const std::vector<TensorInfo>& tensors() const { return file_.tensors(); }
  bool has(std::string_view tensor) const { return file_.find(tensor) != nullptr; }
  bool is_packed(std::string_view tensor) const { return packed_.find(tensor) != packed_.end(); }
  /// The writer's own entries, without the container's keys.
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

  /// A view on the mapped bytes, its sizes checked against each other. PackedTensor<Scheme>::from gives it a type.
  template <class = void>
  Result<PackedBytes> packed(std::string_view tensor) const {
    if (!is_packed(tensor)) {
      ANYBIT_TRY(const TensorInfo* const t, need(tensor));
      return {ErrorCode::invalid_argument, detail::text(name(), ": tensor ", detail::shown(tensor), " is not packed but ",
                                                        t->dtype, ": read it with read_f32")};
    }
    return PackedBytes::view(file_.find(tensor)->bytes);
  }
  /// The values of a plain tensor as stored; T must be its type.
  template <class T>
  Result<std::vector<T>> read(std::string_view tensor) const {
    ANYBIT_TRY_STATUS(plain(tensor));
    return file_.read<T>(tensor);
  }
  /// A copy of a plain tensor as floats.
  template <class = void>
  Result<Matrix> read_f32(std::string_view tensor) const {
    ANYBIT_TRY_STATUS(plain(tensor));
    return file_.read_f32(tensor);
  }
  /// A float tensor where it lies.
  template <class = void>
  Result<ConstMatrix> view_f32(std::string_view tensor) const {
    ANYBIT_TRY_STATUS(plain(tensor));
    ANYBIT_TRY(const TensorInfo* const t, need(tensor));
    auto view = io::view_f32(*t);
    if (!view) return in_context(view.error(), name());
    return view;
  }

 private:
  template <class = void>
  Result<const TensorInfo*> need(std::string_view tensor) const {
    if (const TensorInfo* t = file_.find(tensor)) return t;
    return {ErrorCode::invalid_argument,
            detail::text(name(), ": no tensor ", detail::shown(tensor), ": check the name and the model's architecture")};
  }
  template <class = void>
  Status plain(std::string_view tensor) const {
    const auto found = packed_.find(tensor);
    if (found == packed_.end()) return Ok{};
    return {ErrorCode::invalid_argument, detail::text(name(), ": tensor ", detail::shown(tensor), " is packed by ",
                                                      detail::shown(found->second), ": take it with packed() and dequantize it")};
  }

  template <class = void>
  static Result<AnybitFile> check(SafetensorsFile file) {
    AnybitFile out;
    out.file_ = std::move(file);
    if (auto done = out.check_metadata(); !done) return in_context(done.error(), out.name());
    return out;
  }

  template <class = void>
  Status check_metadata() {
    const auto& all = file_.metadata();
    const auto version = all.find(std::string(detail::version_key));
    if (version == all.end())
      return {ErrorCode::corrupt_data,
              "a safetensors file without 'anybit.version': open it as safetensors, or quantize it first"};
    if (version->second != detail::container_version)
      return {ErrorCode::unsupported, detail::text("container version ", detail::shown(version->second), "; this build reads ",
                                                   detail::container_version, ": use a newer anybit")};
    for (const auto& [key, value] : all) {
      if (!key.starts_with(detail::reserved_keys)) metadata_.emplace(key, value);
      if (!key.starts_with(detail::scheme_key)) continue;
      const std::string tensor = key.substr(detail::scheme_key.size());
      if (auto done = check_packed(tensor, value); !done) return in_context(done.error(), "tensor " + detail::shown(tensor));
      packed_.emplace(tensor, value);
    }
    return Ok{};
  }

  template <class = void>
  Status check_packed(const std::string& tensor, std::string_view scheme) const {
    const TensorInfo* const t = file_.find(tensor);
    if (!t || t->dtype != "U8" || t->shape.size() != 1)
      return {ErrorCode::corrupt_data,
              detail::text("metadata gives it the scheme ", detail::shown(scheme), ", but it is ",
                           t ? "no U8 tensor of one extent" : "not in the file", ": write the file again")};
    const auto viewed = PackedBytes::view(t->bytes);
    if (!viewed)
      return {viewed.error().code,
              viewed.error().message + (viewed.error().code == ErrorCode::unsupported ? ": use a newer anybit"
                                                                                      : ": the file is damaged, fetch it again")};
    const PackedBytes& packed = *viewed;
    const auto shape = file_.metadata().find(std::string(detail::shape_key) + tensor);
    const std::string stored = detail::shape_text(packed.extents());
    if (packed.scheme_name() != scheme || shape == file_.metadata().end() || shape->second != stored)
      return {ErrorCode::corrupt_data,
              detail::text("metadata says ", detail::shown(scheme), " and ",
                           shape == file_.metadata().end() ? "no shape" : detail::shown(shape->second), ", its bytes say ",
                           detail::shown(packed.scheme_name()), " and ", stored, ": write the file again")};
    return Ok{};
  }

  SafetensorsFile file_;
  std::map<std::string, std::string, std::less<>> packed_;  ///< tensor to scheme
  std::map<std::string, std::string> metadata_;
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::io

#include <anybit/core/macros_end.hpp>
