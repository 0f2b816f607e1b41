#pragma once
// llama.cpp's importance matrices: for each weight matrix the sum of squares of every input column, diag(X^T X). Read and written
// as GGUF (general.type "imatrix") and in the older form without a magic number.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <anybit/core/finite.hpp>
#include <anybit/core/result.hpp>
#include <anybit/io/atomic_write.hpp>
#include <anybit/io/detail/text.hpp>
#include <anybit/io/gguf.hpp>
#include <anybit/io/gguf_writer.hpp>
#include <anybit/io/mapped_file.hpp>
#include <anybit/io/reader.hpp>

namespace anybit::io {
inline namespace ANYBIT_CODE {

/// Sums over the tokens that a matrix has seen, or that each expert of a tensor of them has.
struct ImatrixEntry {
  std::vector<float> sums;    ///< of x_j^2, column after column, expert after expert
  std::vector<float> counts;  ///< tokens of each expert; one number for all in the older form

  /// 1/n sum x_j^2 of every column of every expert; 1 for experts that saw no token, as llama.cpp has it.
  template <class = void>
  std::vector<float> mean_squares() const {
    std::vector<float> out = sums;
    const std::size_t columns = sums.size() / std::max<std::size_t>(1, counts.size());
    for (std::size_t i = 0; i < out.size(); ++i) {
      const float count = counts[i / columns];
      out[i] = count > 0 ? out[i] / count : 1.0f;
    }
    return out;
  }
};

struct Imatrix {
  std::map<std::string, ImatrixEntry, std::less<>> entries;  ///< by the name of the weight in GGUF, "blk.0.attn_q.weight"
  std::vector<std::string> datasets;                         ///< the texts that were run
  std::uint32_t chunks = 0;                                  ///< of text
  std::uint32_t chunk_size = 0;                              ///< tokens in each; the older form has no such number

  /// Either form, told by the first bytes.
  template <class = void>
  static Result<Imatrix> open(const std::string& path) {
    ANYBIT_TRY(const MappedFile file, MappedFile::open(path));
    return parse(file.bytes(), path);
  }
  /// `name` is for messages.
  template <class = void>
  static Result<Imatrix> parse(std::span<const std::byte> bytes, const std::string& name) {
    if (bytes.size() >= 4 && std::memcmp(bytes.data(), "GGUF", 4) == 0) {
      ANYBIT_TRY(const GgufFile file, GgufFile::parse(bytes, name));
      return from_gguf(file);
    }
    auto out = from_older_form(bytes);
    if (!out) return in_context(out.error(), name);
    return out;
  }

  /// The whole file or nothing.
  template <class = void>
  Status save(const std::string& path) const {
    GgufWriter w;
    w.add_metadata("general.type", "imatrix");
    w.add_metadata("imatrix.datasets", datasets);
    w.add_metadata("imatrix.chunk_count", chunks);
    w.add_metadata("imatrix.chunk_size", chunk_size);
    for (const auto& [tensor, e] : entries) {
      const auto experts = static_cast<Index>(e.counts.size()), columns = static_cast<Index>(e.sums.size()) / experts;
      w.add_f32(tensor + ".in_sum2", {experts, columns}, e.sums);
      w.add_f32(tensor + ".counts", {experts, 1}, e.counts);
    }
    return w.save(path);
  }
  /// The form without a magic number, for programs before 2025. It stores means times chunks and one count for all experts.
  template <class = void>
  Status save_older_form(const std::string& path) const {
    std::string out;
    const auto put = [&](std::size_t number) {
      const auto n = static_cast<std::int32_t>(number);
      out.append(reinterpret_cast<const char*>(&n), sizeof n);
    };
    const auto put_text = [&](std::string_view text) { put(text.size()), out.append(text); };
    put(entries.size());
    for (const auto& [tensor, e] : entries) {
      const float tokens = *std::max_element(e.counts.begin(), e.counts.end());
      const auto calls = static_cast<std::size_t>(std::ceil(tokens / static_cast<float>(std::max(1u, chunk_size))));
      std::vector<float> values = e.mean_squares();
      for (float& v : values) v *= static_cast<float>(calls);
      put_text(tensor), put(calls), put(values.size());
      out.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
    }
    put(chunks), put_text(datasets.empty() ? std::string_view() : datasets.front());
    ANYBIT_TRY(AtomicFile file, AtomicFile::create(path));
    ANYBIT_TRY_STATUS(file.write(out));
    return file.commit();
  }

 private:
  static constexpr std::string_view remedy = ": the file is damaged, make the importance matrix again and read that";

  template <class = void>
  Status add(std::string_view tensor, ImatrixEntry e) {
    const auto bad = [&](const auto&... problem) {
      return Error{ErrorCode::corrupt_data, detail::text("entry ", detail::shown(tensor), ": ", problem..., remedy)};
    };
    if (e.sums.empty() || e.counts.empty() || e.sums.size() % e.counts.size() != 0)
      return bad(e.sums.size(), " sums for ", e.counts.size(), " counts");
    for (const std::vector<float>* values : {&e.sums, &e.counts})
      for (std::size_t i = 0; i < values->size(); ++i)
        if (!is_finite((*values)[i]) || (*values)[i] < 0)
          return bad(values == &e.sums ? "sum " : "count ", i, " is ", (*values)[i], ", which no sum of squares is");
    if (!entries.emplace(std::string(tensor), std::move(e)).second) return bad("comes twice");
    return Ok{};
  }

  template <class = void>
  static Result<Imatrix> from_gguf(const GgufFile& file) {
    const auto bad = [&](const auto&... problem) {
      return Error{ErrorCode::corrupt_data, detail::text(file.name(), ": ", problem...)};
    };
    if (const auto type = file.has("general.type") ? file.get_string("general.type") : std::string(); !type || *type != "imatrix")
      return bad("general.type is ", detail::shown(type ? *type : "of another type"),
                 ", not 'imatrix': give a file that llama-imatrix or anybit made");
    Imatrix out;
    const auto number = [&](const char* key, std::uint32_t& to) -> Status {
      if (!file.has(key)) return Ok{};
      ANYBIT_TRY(const std::uint64_t value, file.get_u64(key));
      if (value > 0xFFFFFFFFu) return bad(key, " is ", value, remedy);
      to = static_cast<std::uint32_t>(value);
      return Ok{};
    };
    ANYBIT_TRY_STATUS(number("imatrix.chunk_count", out.chunks));
    ANYBIT_TRY_STATUS(number("imatrix.chunk_size", out.chunk_size));
    if (file.has("imatrix.datasets")) {
      ANYBIT_TRY(out.datasets, file.get_strings("imatrix.datasets"));
    }
    constexpr std::string_view sums = ".in_sum2", counts = ".counts";
    for (const TensorInfo& t : file.tensors()) {
      if (t.name.ends_with(counts) && file.find(t.name.substr(0, t.name.size() - counts.size()) + std::string(sums))) continue;
      const std::string tensor = t.name.ends_with(sums) ? t.name.substr(0, t.name.size() - sums.size()) : t.name;
      const TensorInfo* const beside = file.find(tensor + std::string(counts));
      if (tensor == t.name || !beside)
        return bad("tensor ", detail::shown(t.name), " has no ", tensor == t.name ? sums : counts, " beside it", remedy);
      ANYBIT_TRY(const Matrix s, file.read_f32(t.name));
      ANYBIT_TRY(const Matrix c, file.read_f32(beside->name));
      const auto all = [](const Matrix& m) { return std::vector<float>(m.data(), m.data() + m.extents().size()); };
      if (auto added = out.add(tensor, {all(s), all(c)}); !added) return in_context(added.error(), file.name());
    }
    return out;
  }

  template <class = void>
  static Result<Imatrix> from_older_form(std::span<const std::byte> bytes) {
    ByteReader reader(bytes);
    const auto count = [&](std::string_view what) -> Result<std::uint32_t> {
      ANYBIT_TRY(const std::int32_t n, reader.number<std::int32_t>(what));
      if (n < 0) return Error{ErrorCode::corrupt_data, detail::text(what, " is ", n, remedy)};
      return static_cast<std::uint32_t>(n);
    };
    ANYBIT_TRY(const std::uint32_t entry_count, count("the number of entries"));
    constexpr std::size_t smallest_entry = 4 + 1 + 4 + 4 + 4;
    if (entry_count == 0 || entry_count > reader.remaining() / smallest_entry)
      return {ErrorCode::corrupt_data,
              detail::text("declares ", entry_count, " entries, but has ", reader.remaining(),
                           " bytes for them: this is no importance matrix, give one that llama-imatrix made")};
    Imatrix out;
    for (std::uint32_t i = 0; i < entry_count; ++i) {
      ANYBIT_TRY(const std::string_view tensor, reader.string<std::uint32_t>("the name of an entry"));
      ANYBIT_TRY(const std::uint32_t calls, count("the number of calls"));
      ANYBIT_TRY(const std::uint32_t values, count("the number of values"));
      ANYBIT_TRY(const auto raw, reader.take(std::uint64_t{values} * sizeof(float), "the values of an entry"));
      ImatrixEntry e{std::vector<float>(values), {static_cast<float>(std::max(1u, calls))}};
      if (values != 0) std::memcpy(e.sums.data(), raw.data(), raw.size());
      ANYBIT_TRY_STATUS(out.add(tensor, std::move(e)));
    }
    if (reader.remaining() == 0) return out;  // as the first versions wrote it
    ANYBIT_TRY(out.chunks, count("the number of chunks"));
    ANYBIT_TRY(const std::string_view dataset, reader.string<std::uint32_t>("the name of the data set"));
    out.datasets.emplace_back(dataset);
    return out;
  }
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::io

#include <anybit/core/macros_end.hpp>
