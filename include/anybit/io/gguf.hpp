#pragma once
// GGUF versions 2 and 3, reading: magic, version, counts, metadata, tensor infos, padding, data.
// Every count, length, extent and offset is checked against the file before it is used, in checked arithmetic.
// A model in several files is opened by its first, "....-00001-of-00003.gguf".

#include <anybit/core/macros_begin.hpp>

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
  /// One file, or all parts of a split model, which lie beside the first. The metadata are the first part's.
  template <class = void>
  static Result<GgufFile> open(const std::string& path) {
    return open_parts(path, [](const std::string& part) { return TensorFile::open(part); });
  }
  /// Likewise through `open_one(path)`, for models that lie elsewhere than in files.
  template <class OpenOne>
  static Result<GgufFile> open_parts(const std::string& path, OpenOne&& open_one) {
    ANYBIT_TRY(GgufFile file, open_one(path));
    file.paths_.push_back(path);
    ANYBIT_TRY(const Part part, file.part());
    if (part.count == 1) return file;
    if (auto done = file.open_others(part, open_one); !done) return in_context(done.error(), path);
    return file;
  }
  /// Of bytes that the caller keeps, one part or a whole model.
  template <class = void>
  static Result<GgufFile> parse_part(std::span<const std::byte> bytes, std::string name) {
    return TensorFile::parse(bytes, std::move(name));
  }
  /// Of bytes that the caller keeps, a whole model; `name` is for messages.
  template <class = void>
  static Result<GgufFile> parse(std::span<const std::byte> bytes, std::string name) {
    ANYBIT_TRY(GgufFile file, TensorFile::parse(bytes, std::move(name)));
    ANYBIT_TRY(const Part part, file.part());
    if (part.count != 1)
      return {ErrorCode::unsupported, detail::text(file.name_, ": is part ", part.number + 1, " of ", part.count,
                                                   ": open the file of the first part, with the others beside it")};
    return file;
  }

  /// The files that were opened, the given one first.
  const std::vector<std::string>& paths() const { return paths_; }

  bool has(std::string_view key) const { return metadata_.has(key); }
  template <class = void>
  std::vector<std::string> keys() const {
    return metadata_.keys();
  }
  /// A value without its meaning, to be copied.
  template <class = void>
  Result<GgufMetadata::RawValue> raw(std::string_view key) const {
    return in_file(metadata_.raw(key));
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
    const DType* dtype;  ///< null: of a type that is unknown here
    std::uint64_t offset;
  };
  /// Which part of a split model a file is, from 0 on.
  struct Part {
    std::uint64_t number = 0, count = 1;
  };

  template <class = void>
  Result<Part> part() const {
    Part out;
    if (has("split.count")) {
      ANYBIT_TRY(out.count, get_u64("split.count"));
      if (out.count == 0) out.count = 1;
    }
    if (has("split.no")) {
      ANYBIT_TRY(out.number, get_u64("split.no"));
    }
    if (out.number >= out.count)
      return {ErrorCode::corrupt_data, detail::text(name_, ": split.no is ", out.number, " of ", out.count,
                                                    " parts: the file is damaged, split the model again")};
    return out;
  }

  /// "-00001-of-00003.gguf": how the name of a part ends.
  static std::string part_suffix(std::uint64_t number, std::uint64_t count) {
    const auto five = [](std::uint64_t n) {
      const std::string digits = std::to_string(n);
      return std::string(digits.size() < 5 ? 5 - digits.size() : 0, '0') + digits;
    };
    return detail::text("-", five(number + 1), "-of-", five(count), ".gguf");
  }

  template <class OpenOne>
  Status open_others(Part mine, OpenOne& open_one) {
    const std::string suffix = part_suffix(mine.number, mine.count);
    const std::string of = detail::text("part ", mine.number + 1, " of ", mine.count);
    if (!name_.ends_with(suffix))
      return {ErrorCode::unsupported,
              detail::text("is ", of, ", but its name does not end in ", suffix, ": give the parts the names that they had")};
    const std::string stem = name_.substr(0, name_.size() - suffix.size());
    if (mine.number != 0)
      return {ErrorCode::invalid_argument, detail::text("is ", of, ": open the first, ", stem, part_suffix(0, mine.count))};
    for (std::uint64_t i = 1; i < mine.count; ++i) {
      const std::string path = stem + part_suffix(i, mine.count);
      const auto context = [&](const Error& e) { return in_context(e, detail::text("is ", of, "; part ", i + 1)); };
      Result<GgufFile> other = open_one(path);
      if (!other) return context(other.error());
      const auto theirs = other->part();
      if (!theirs) return context(theirs.error());
      if (theirs->number != i || theirs->count != mine.count)
        return {ErrorCode::corrupt_data, detail::text("is ", of, ", but ", path, " says that it is part ", theirs->number + 1,
                                                      " of ", theirs->count, ": fetch the parts of one model")};
      for (const TensorInfo& t : other->tensors())
        if (!tensors_.add(t))
          return {ErrorCode::corrupt_data,
                  detail::text("tensor ", detail::shown(t.name), " is in ", path, " too: fetch the parts of one model")};
      owners_.insert(owners_.end(), other->owners_.begin(), other->owners_.end());
      paths_.push_back(path);
    }
    if (!has("split.tensors.count")) return Ok{};
    ANYBIT_TRY(const std::uint64_t tensors, metadata_.get_u64("split.tensors.count"));
    if (tensors != tensors_.all().size())
      return {ErrorCode::corrupt_data, detail::text("split.tensors.count is ", tensors, ", but the ", mine.count, " parts hold ",
                                                    tensors_.all().size(), ": fetch the parts of one model")};
    return Ok{};
  }

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
      return {ErrorCode::corrupt_data,
              "does not start with 'GGUF': this is no GGUF file, convert the model (older GGML files too)"};
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
      return {ErrorCode::corrupt_data, detail::text("general.alignment is ", alignment, ", not a power of two up to ", limit,
                                                    ": the file is damaged, fetch it again")};
    return alignment;
  }

  template <class = void>
  static Result<Entry> parse_entry(ByteReader& reader, std::uint64_t alignment) {
    ANYBIT_TRY(const std::string_view name, reader.string<std::uint64_t>("the name of a tensor"));
    if (name.empty() || name.size() > 65535)
      return {ErrorCode::corrupt_data, detail::text("the name of a tensor has ", name.size(),
                                                    " bytes, not 1 to 65535: the file is damaged, fetch it again")};
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
      return {ErrorCode::corrupt_data, detail::text(dimensions, " dimensions, more than 4: the file is damaged, fetch it again")};
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
    out.info.dtype = out.dtype ? std::string(out.dtype->name) : detail::text("number ", type);
    ANYBIT_TRY(out.offset, reader.number<std::uint64_t>("the offset"));
    if (out.offset % alignment != 0)
      return {ErrorCode::corrupt_data, detail::text("offset ", out.offset, " is no multiple of the alignment ", alignment,
                                                    ": the file is damaged, convert the model again")};
    return out;
  }

  template <class = void>
  Status place(std::vector<Entry> entries, std::span<const std::byte> bytes, CheckedSize data_begin) {
    const auto begin = data_begin.get();
    const bool empty = !begin || static_cast<std::size_t>(*begin) > bytes.size();  // a file without tensors may lack its padding
    const auto data = empty ? std::span<const std::byte>() : bytes.subspan(static_cast<std::size_t>(*begin));

    std::vector<Entry*> order;
    for (Entry& e : entries) order.push_back(&e);
    std::sort(order.begin(), order.end(), [](const Entry* a, const Entry* b) { return a->offset < b->offset; });
    for (std::size_t i = 0; i < order.size(); ++i) {
      Entry& e = *order[i];
      // The size of an unknown type is unknown too; one byte a value only keeps the product of its extents in range.
      auto size = tensor_bytes(e.dtype ? *e.dtype : *find_dtype("U8"), e.info.shape);
      if (!size)
        return {ErrorCode::corrupt_data, detail::text("tensor ", detail::shown(e.info.name), ": ", size.error().message,
                                                      ": the file is damaged, convert the model again")};
      const std::uint64_t limit = i + 1 < order.size() ? std::min<std::uint64_t>(order[i + 1]->offset, data.size()) : data.size();
      if (!e.dtype && e.offset < limit) size = static_cast<std::size_t>(limit - e.offset);
      if (e.offset > data.size() || *size > data.size() - e.offset)
        return {ErrorCode::corrupt_data,
                detail::text("tensor ", detail::shown(e.info.name), ": ", *size, " bytes at offset ", e.offset, " exceed the ",
                             data.size(), " bytes of data: the file is truncated or damaged, fetch it again")};
      e.info.bytes = data.subspan(static_cast<std::size_t>(e.offset), *size);
      if (i + 1 < order.size() && order[i + 1]->offset - e.offset < *size)
        return {ErrorCode::corrupt_data,
                detail::text("tensors ", detail::shown(e.info.name), " and ", detail::shown(order[i + 1]->info.name),
                             " overlap at offset ", order[i + 1]->offset, ": the file is damaged, fetch it again")};
    }

    for (Entry& e : entries) {
      const std::string name = e.info.name;
      if (!tensors_.add(std::move(e.info)))
        return {ErrorCode::corrupt_data, "two tensors are named " + detail::shown(name) + ": convert the model again"};
    }
    return Ok{};
  }

  GgufMetadata metadata_;
  std::vector<std::string> paths_;
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::io

#include <anybit/core/macros_end.hpp>
