#pragma once
// safetensors, reading: u64 length of the header, the header (JSON), the data.
// The rules are the format's own: a header of at most 100 MB that starts with '{', no key twice, and data that lies
// without gaps or overlap from the end of the header to the end of the file. A model in several files is opened by its
// "....safetensors.index.json". Writing: safetensors_writer.hpp.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <anybit/core/stable_sort.hpp>
#include <anybit/io/detail/json_subset.hpp>
#include <anybit/io/mapped_file.hpp>
#include <anybit/io/reader.hpp>
#include <anybit/io/tensor_file.hpp>

namespace anybit::io {
inline namespace ANYBIT_CODE {

inline constexpr std::uint64_t safetensors_header_limit = 100'000'000;

namespace detail {

struct ShardIndex {
  std::map<std::string, std::vector<std::string>> tensors_of_file;
  std::map<std::string, std::string, std::less<>> file_of_tensor;
};

/// {"metadata": anything, "weight_map": {"tensor": "file in the same folder", ...}}
inline Result<ShardIndex> read_shard_index(std::string_view text) {
  if (text.size() > safetensors_header_limit || !is_utf8(text))
    return {ErrorCode::corrupt_data, "is over 100 MB or not UTF-8: give the index of a safetensors model"};
  ShardIndex index;
  JsonReader json(text);
  const auto map_entry = [&](std::string tensor) -> Status {
    ANYBIT_TRY(std::string file, json.string());
    // A name from a file must not lead out of the folder.
    const bool safe = std::all_of(file.begin(), file.end(), [](char c) {
      return c != '/' && c != '\\' && static_cast<unsigned char>(c) >= 0x20 && c != 0x7F;
    });
    if (file.empty() || file == "." || file == ".." || !safe)
      return json.fail("weight_map sends " + shown(tensor) + " to " + shown(file) +
                       "; only a file name in the same folder will do");
    index.tensors_of_file[file].push_back(tensor);
    index.file_of_tensor.emplace(std::move(tensor), std::move(file));
    return Ok{};
  };
  Status read = json.object(
      [&](const std::string& key) -> Status { return key == "weight_map" ? json.object(map_entry) : json.skip_value(); });
  if (read) read = json.end();
  if (!read) return {ErrorCode::corrupt_data, read.error().message + ": fetch the index again"};
  if (index.tensors_of_file.empty()) return {ErrorCode::corrupt_data, "has no weight_map: give the index of a safetensors model"};
  return index;
}

}  // namespace detail

/// An opened safetensors file: TensorFile's members, tensors in the order of their data, and the metadata.
class SafetensorsFile : public TensorFile<SafetensorsFile> {
 public:
  /// One file, or all files of an index (a path that ends in ".json").
  template <class = void>
  static Result<SafetensorsFile> open(const std::string& path) {
    return path.ends_with(".json") ? open_index(path) : TensorFile::open(path);
  }

  const std::map<std::string, std::string>& metadata() const { return metadata_; }

  /// The values as stored. T must be the type that the file names: nothing is converted.
  template <class T>
  Result<std::vector<T>> read(std::string_view tensor) const {
    static_assert(!dtype_name_v<T>.empty(), "anybit: safetensors has no such type; read float, double or a fixed-width integer");
    ANYBIT_TRY(const TensorInfo* const t, tensors_.need(tensor, name_));
    if (t->dtype != dtype_name_v<T>)
      return {ErrorCode::invalid_argument, detail::text(name_, ": tensor ", detail::shown(tensor), " has type ", t->dtype,
                                                        ", not ", dtype_name_v<T>, ": read it by its own type or with read_f32")};
    std::vector<T> out(t->bytes.size() / sizeof(T));
    if (!out.empty()) std::memcpy(out.data(), t->bytes.data(), t->bytes.size());
    return out;
  }

 private:
  friend TensorFile<SafetensorsFile>;
  struct Entry {
    std::string name;
    std::string dtype;
    std::vector<Index> shape;
    std::uint64_t begin = 0, end = 0;
  };

  template <class = void>
  static Result<SafetensorsFile> open_index(const std::string& path) {
    ANYBIT_TRY(const MappedFile index, MappedFile::open(path));
    auto out = open_shards(path, index.bytes());
    if (!out) return in_context(out.error(), path);
    return out;
  }

  template <class = void>
  static Result<SafetensorsFile> open_shards(const std::string& path, std::span<const std::byte> bytes) {
    ANYBIT_TRY(const detail::ShardIndex index,
               detail::read_shard_index({reinterpret_cast<const char*>(bytes.data()), bytes.size()}));
    SafetensorsFile out;
    out.name_ = path;
    for (const auto& [file, tensors] : index.tensors_of_file) {
      auto opened = TensorFile::open(detail::folder_of(path) + file);
      if (!opened && opened.error().code == ErrorCode::io)
        return {ErrorCode::io, opened.error().message + ", or fetch the shard that the index names"};
      ANYBIT_TRY(const SafetensorsFile shard, std::move(opened));
      for (const std::string& tensor : tensors) ANYBIT_TRY_STATUS(shard.tensors_.need(tensor, shard.name_));
      // Those that the index leaves out too: readers of a model say which tensors they do not expect.
      for (const TensorInfo& t : shard.tensors()) {
        const auto mapped = index.file_of_tensor.find(t.name);
        const bool elsewhere = mapped != index.file_of_tensor.end() && mapped->second != file;
        if (elsewhere || !out.tensors_.add(t))
          return {ErrorCode::corrupt_data, detail::text("tensor ", detail::shown(t.name), " is in ", detail::shown(file),
                                                        " and in ", elsewhere ? detail::shown(mapped->second) : "another shard",
                                                        ": fetch the shards again, or remove those of another save")};
      }
      out.metadata_.insert(shard.metadata_.begin(), shard.metadata_.end());
      out.owners_.insert(out.owners_.end(), shard.owners_.begin(), shard.owners_.end());
    }
    return out;
  }

  template <class = void>
  Status parse_all(std::span<const std::byte> bytes) {
    ByteReader reader(bytes);
    ANYBIT_TRY(const std::uint64_t header_size, reader.number<std::uint64_t>("the length of the safetensors header"));
    if (header_size > safetensors_header_limit)
      return {ErrorCode::corrupt_data,
              detail::text("a header of ", header_size, " bytes, more than the ", safetensors_header_limit,
                           " that safetensors allows: this is no safetensors file or it is damaged, fetch it again")};
    ANYBIT_TRY(const std::span<const std::byte> header, reader.take(header_size, "the safetensors header"));
    ANYBIT_TRY(const std::span<const std::byte> data, reader.take(reader.remaining(), "the data"));
    const std::string_view text(reinterpret_cast<const char*>(header.data()), header.size());
    if (text.empty() || text[0] != '{' || !detail::is_utf8(text))
      return {ErrorCode::corrupt_data,
              "the header is not UTF-8 that starts with '{': this is no safetensors file or it is damaged, fetch it again"};
    std::vector<Entry> entries;
    if (auto done = parse_header(text, entries); !done)
      return {ErrorCode::corrupt_data, "safetensors header: " + done.error().message + ": the file is damaged, fetch it again"};
    return place(std::move(entries), data);
  }

  template <class = void>
  Status parse_header(std::string_view text, std::vector<Entry>& entries) {
    detail::JsonReader json(text);
    ANYBIT_TRY_STATUS(json.object([&](std::string key) -> Status {
      if (key != "__metadata__") {
        entries.push_back({std::move(key), {}, {}});
        auto done = parse_entry(json, entries.back());
        if (!done) return in_context(done.error(), "tensor " + detail::shown(entries.back().name));
        return done;
      }
      if (json.null()) return Ok{};  // as in the format's own reader: no metadata
      auto done = json.object([&](std::string name) -> Status {
        ANYBIT_TRY(std::string value, json.string());
        metadata_.emplace(std::move(name), std::move(value));
        return Ok{};
      });
      if (!done) return in_context(done.error(), "__metadata__");
      return done;
    }));
    return json.end();
  }

  template <class = void>
  static Status parse_entry(detail::JsonReader& json, Entry& entry) {
    int seen = 0;
    ANYBIT_TRY_STATUS(json.object([&](const std::string& field) -> Status {
      ++seen;  // object() has refused doubles, so three known fields are all three
      if (field == "dtype") {
        ANYBIT_TRY(entry.dtype, json.string());
        return Ok{};
      }
      if (field == "shape") return parse_shape(json, entry);
      if (field == "data_offsets") return parse_offsets(json, entry);
      return json.fail("unknown field " + detail::shown(field));
    }));
    if (seen != 3) return json.fail("dtype, shape and data_offsets must all be given");
    return Ok{};
  }

  template <class = void>
  static Status parse_shape(detail::JsonReader& json, Entry& entry) {
    return json.array([&]() -> Status {
      ANYBIT_TRY(const std::uint64_t extent, json.unsigned_integer());
      const auto index = CheckedSize(extent).get();
      if (!index) return json.fail("an extent overflows");
      entry.shape.push_back(*index);
      return Ok{};
    });
  }

  template <class = void>
  static Status parse_offsets(detail::JsonReader& json, Entry& entry) {
    std::vector<std::uint64_t> offsets;
    ANYBIT_TRY_STATUS(json.array([&]() -> Status {
      ANYBIT_TRY(const std::uint64_t offset, json.unsigned_integer());
      offsets.push_back(offset);
      return Ok{};
    }));
    if (offsets.size() != 2) return json.fail("data_offsets must be [begin, end]");
    entry.begin = offsets[0];
    entry.end = offsets[1];
    return Ok{};
  }

  template <class = void>
  Status place(std::vector<Entry> entries, std::span<const std::byte> data) {
    anybit::stable_sort(entries.begin(), entries.end(),
                        [](const Entry& a, const Entry& b) { return a.begin != b.begin ? a.begin < b.begin : a.end < b.end; });
    std::uint64_t end = 0;
    for (Entry& e : entries) {
      const auto bad = [&](const auto&... why) {
        return Error{ErrorCode::corrupt_data,
                     detail::text("tensor ", detail::shown(e.name), ": ", why..., ": the file is damaged, fetch it again")};
      };
      if (e.begin != end || e.end < e.begin || e.end > data.size())
        return bad("data_offsets [", e.begin, ", ", e.end, "] do not follow byte ", end, " inside ", data.size(),
                   " bytes of data");
      // Of a type that is unknown here only its bytes count: it is an error when somebody asks for its values.
      const DType* const dtype = find_dtype(e.dtype);
      const auto bytes = tensor_bytes(dtype ? *dtype : *find_dtype("U8"), e.shape);
      if (!bytes) return bad(bytes.error().message);
      if (dtype && *bytes != e.end - e.begin)
        return bad("type ", e.dtype, " and shape need ", *bytes, " bytes, data_offsets give ", e.end - e.begin);
      end = e.end;
      tensors_.add({std::move(e.name), std::move(e.dtype), std::move(e.shape),
                    data.subspan(static_cast<std::size_t>(e.begin), static_cast<std::size_t>(e.end - e.begin))});
    }
    if (end != data.size())
      return {ErrorCode::corrupt_data,
              detail::text("tensors fill ", end, " of ", data.size(), " bytes of data: the file is damaged, fetch it again")};
    return Ok{};
  }

  std::map<std::string, std::string> metadata_;
};

#if defined(ANYBIT_COMPILED_MODELS)  // model/load.hpp says which file of the program has them
extern template class TensorFile<SafetensorsFile>;
extern template Result<SafetensorsFile> SafetensorsFile::open<void>(const std::string&);
extern template Result<SafetensorsFile> SafetensorsFile::open_index<void>(const std::string&);
extern template Result<SafetensorsFile> SafetensorsFile::open_shards<void>(const std::string&, std::span<const std::byte>);
extern template Status SafetensorsFile::parse_all<void>(std::span<const std::byte>);
#endif

}  // namespace ANYBIT_CODE
}  // namespace anybit::io

#include <anybit/core/macros_end.hpp>
