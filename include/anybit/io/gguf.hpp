#pragma once
// GGUF versions 2 and 3, reading: magic, version, counts, metadata, tensor infos, padding, data.
// Every count, length, extent and offset is checked against the file before it is used, in checked arithmetic.

#include <algorithm>
#include <bit>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <anybit/io/gguf_metadata.hpp>
#include <anybit/io/reader.hpp>
#include <anybit/io/tensor_file.hpp>

namespace anybit::io {
inline namespace ANYBIT_CODE {

/// An opened GGUF file: TensorFile's members, with one extent n read as 1 x n, and the metadata.
class GgufFile : public TensorFile<GgufFile> {
 public:
  bool has(std::string_view key) const { return metadata_.has(key); }
  template <class = void>
  std::vector<std::string> keys() const {
    return metadata_.keys();
  }
  // Integers may have any width in the file; nothing else is converted but numbers to double and float.
  template <class = void>
  Result<std::uint64_t> get_u64(std::string_view key) const {
    return in_file(metadata_.get_u64(key));
  }
  template <class = void>
  Result<double> get_f64(std::string_view key) const {
    return in_file(metadata_.get_f64(key));
  }
  template <class = void>
  Result<bool> get_bool(std::string_view key) const {
    return in_file(metadata_.get_bool(key));
  }
  template <class = void>
  Result<std::string> get_string(std::string_view key) const {
    return in_file(metadata_.get_string(key));
  }
  template <class = void>
  Result<std::vector<std::string>> get_strings(std::string_view key) const {
    return in_file(metadata_.get_strings(key));
  }
  template <class = void>
  Result<std::vector<float>> get_floats(std::string_view key) const {
    return in_file(metadata_.get_floats(key));
  }
  template <class = void>
  Result<std::vector<std::int32_t>> get_ints(std::string_view key) const {
    return in_file(metadata_.get_ints(key));
  }

 private:
  friend TensorFile<GgufFile>;
  struct Entry {
    TensorInfo info;
    const DType* dtype;
    std::uint64_t offset;
  };

  template <class T>
  Result<T> in_file(Result<T> r) const {
    if (!r) return in_context(r.error(), name_);
    return r;
  }

  template <class = void>
  Status parse_all(std::span<const std::byte> bytes) {
    ByteReader reader(bytes);
    ANYBIT_TRY(const std::uint32_t magic, reader.number<std::uint32_t>("the magic number"));
    if (magic != 0x46554747u)  // "GGUF"
      return {ErrorCode::corrupt_data, "does not start with 'GGUF': this is no GGUF file (older GGML files must be converted)"};
    ANYBIT_TRY(const std::uint32_t version, reader.number<std::uint32_t>("the version"));
    if (version != 2 && version != 3)
      return {ErrorCode::unsupported,
              version != 0 && (version & 0xFFFFu) == 0
                  ? std::string("a big-endian file: convert it to little-endian")
                  : detail::text("GGUF version ", version, " is not 2 or 3: convert the model again with a current tool")};
    ANYBIT_TRY(const std::uint64_t tensor_count, reader.number<std::uint64_t>("the number of tensors"));
    ANYBIT_TRY(const std::uint64_t pair_count, reader.number<std::uint64_t>("the number of metadata pairs"));
    ANYBIT_TRY(metadata_, GgufMetadata::parse(reader, pair_count));
    ANYBIT_TRY(const std::uint64_t alignment, data_alignment());

    constexpr std::uint64_t smallest_info = 8 + 1 + 4 + 4 + 8;  // a name of one character and no extents
    if (tensor_count > reader.remaining() / smallest_info)
      return {ErrorCode::corrupt_data, detail::text("declares ", tensor_count, " tensors, more than its ", reader.remaining(),
                                                    " bytes can hold: the file is damaged, fetch it again")};
    std::vector<Entry> entries;
    entries.reserve(static_cast<std::size_t>(tensor_count));
    for (std::uint64_t i = 0; i < tensor_count; ++i) {
      ANYBIT_TRY(Entry entry, parse_entry(reader, alignment));
      entries.push_back(std::move(entry));
    }
    return place(std::move(entries), bytes, CheckedSize(reader.position()).rounded_up(alignment));
  }

  template <class = void>
  Result<std::uint64_t> data_alignment() const {
    if (!has("general.alignment")) return std::uint64_t{32};
    ANYBIT_TRY(const std::uint64_t alignment, metadata_.get_u64("general.alignment"));
    constexpr std::uint64_t limit = 1u << 20;
    if (!std::has_single_bit(alignment) || alignment > limit)
      return {ErrorCode::corrupt_data,
              detail::text("general.alignment is ", alignment, ", not a power of two up to ", limit, ": the file is damaged")};
    return alignment;
  }

  template <class = void>
  static Result<Entry> parse_entry(ByteReader& reader, std::uint64_t alignment) {
    ANYBIT_TRY(const std::string_view name, reader.string<std::uint64_t>("the name of a tensor"));
    if (name.empty() || name.size() > 65535)
      return {ErrorCode::corrupt_data,
              detail::text("the name of a tensor has ", name.size(), " bytes, not 1 to 65535: the file is damaged")};
    auto entry = parse_extents(reader, alignment);
    if (!entry) return in_context(entry.error(), "tensor " + detail::shown(name));
    entry->info.name = name;
    return entry;
  }

  template <class = void>
  static Result<Entry> parse_extents(ByteReader& reader, std::uint64_t alignment) {
    Entry out{};
    ANYBIT_TRY(const std::uint32_t dimensions, reader.number<std::uint32_t>("the number of dimensions"));
    if (dimensions > 4)
      return {ErrorCode::corrupt_data, detail::text(dimensions, " dimensions, more than 4: the file is damaged")};
    for (std::uint32_t i = 0; i < dimensions; ++i) {
      ANYBIT_TRY(const std::uint64_t extent, reader.number<std::uint64_t>("an extent"));
      const auto index = CheckedSize(extent).get();
      if (!index || extent == 0)
        return {ErrorCode::corrupt_data,
                detail::text("extent ", i, " is ", extent, ", not 1 to 2^63-1: the file is damaged, convert the model again")};
      out.info.shape.push_back(*index);
    }
    std::reverse(out.info.shape.begin(), out.info.shape.end());  // ggml's first extent is the contiguous one

    ANYBIT_TRY(const std::uint32_t type, reader.number<std::uint32_t>("the type"));
    out.dtype = find_gguf_dtype(type);
    if (!out.dtype)
      return {ErrorCode::unsupported,
              detail::text("type ", type, " is unknown: convert the model to F16, Q8_0 or a Q2_K to Q6_K mix")};
    out.info.dtype = out.dtype->name;
    ANYBIT_TRY(out.offset, reader.number<std::uint64_t>("the offset"));
    if (out.offset % alignment != 0)
      return {ErrorCode::corrupt_data,
              detail::text("offset ", out.offset, " is no multiple of the alignment ", alignment, ": the file is damaged")};
    return out;
  }

  template <class = void>
  Status place(std::vector<Entry> entries, std::span<const std::byte> bytes, CheckedSize data_begin) {
    const auto begin = data_begin.get();
    const bool empty = !begin || static_cast<std::size_t>(*begin) > bytes.size();  // a file without tensors may lack its padding
    const auto data = empty ? std::span<const std::byte>() : bytes.subspan(static_cast<std::size_t>(*begin));

    for (Entry& e : entries) {
      const auto size = tensor_bytes(*e.dtype, e.info.shape);
      if (!size) return in_context(size.error(), "tensor " + detail::shown(e.info.name));
      if (e.offset > data.size() || *size > data.size() - e.offset)
        return {ErrorCode::corrupt_data,
                detail::text("tensor ", detail::shown(e.info.name), ": ", *size, " bytes at offset ", e.offset, " exceed the ",
                             data.size(), " bytes of data: the file is truncated or damaged, fetch it again")};
      e.info.bytes = data.subspan(static_cast<std::size_t>(e.offset), *size);
    }

    std::vector<const Entry*> order;
    for (const Entry& e : entries) order.push_back(&e);
    std::sort(order.begin(), order.end(), [](const Entry* a, const Entry* b) { return a->offset < b->offset; });
    for (std::size_t i = 1; i < order.size(); ++i)
      if (order[i]->offset - order[i - 1]->offset < order[i - 1]->info.bytes.size())
        return {ErrorCode::corrupt_data,
                detail::text("tensors ", detail::shown(order[i - 1]->info.name), " and ", detail::shown(order[i]->info.name),
                             " overlap at offset ", order[i]->offset, ": the file is damaged")};

    for (Entry& e : entries) {
      const std::string name = e.info.name;
      if (!tensors_.add(std::move(e.info)))
        return {ErrorCode::corrupt_data, "two tensors are named " + detail::shown(name) + ": the file is damaged"};
    }
    return Ok{};
  }

  GgufMetadata metadata_;
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::io
