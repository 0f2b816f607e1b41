#pragma once
// A decoder from any file whose tensors have GGUF's names.

#include <anybit/core/macros_begin.hpp>

#include <cmath>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <anybit/core/finite.hpp>
#include <anybit/io/tensor_info.hpp>
#include <anybit/model/decoder.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

namespace detail {

/// Reads tensors, checks shape and values, and remembers which were asked for.
template <class File>
class TensorReader {
 public:
  explicit TensorReader(const File& file) : file_(file) {}

  bool has(std::string_view name) const { return file_.find(name) != nullptr; }

  Result<Matrix> matrix(const std::string& name, Extents needed) {
    used_.insert(name);
    if (const auto* info = file_.find(name)) ANYBIT_TRY_STATUS(check_extents(name, info->extents(), needed));
    ANYBIT_TRY(Matrix m, file_.read_f32(name));
    for (Index r = 0; r < needed.rows; ++r) ANYBIT_TRY_STATUS(check_finite(name, r, m.view().row(r)));
    return m;
  }

  /// Files that can hold packed weights say so by is_packed() and give them by packed().
  Status read(const std::string& name, Extents needed, Linear& to) {
    if constexpr (requires { file_.is_packed(name); }) {
      if (file_.is_packed(name)) {
        used_.insert(name);
        ANYBIT_TRY(to, file_.packed(name));
        ANYBIT_TRY_STATUS(check_extents(name, to.extents(), needed));
        std::vector<float> row(static_cast<std::size_t>(needed.cols));
        for (Index r = 0; r < needed.rows; ++r) {
          to.read_row(r, row);
          ANYBIT_TRY_STATUS(check_finite(name, r, row));
        }
        return Ok{};
      }
    }
    ANYBIT_TRY(Matrix m, matrix(name, needed));
    to = Linear(std::move(m));
    return Ok{};
  }
  Status read(const std::string& name, Index size, std::vector<float>& to) {
    ANYBIT_TRY(const Matrix m, matrix(name, {1, size}));
    to.assign(m.data(), m.data() + size);
    return Ok{};
  }

  /// Tensors whose names start so will be asked for by another reader.
  void leave(std::string_view prefix) {
    for (const auto& t : file_.tensors())
      if (std::string_view(t.name).starts_with(prefix)) used_.insert(t.name);
  }

  /// A tensor that nobody asked for changes what the model computes: a bias, an expert.
  Status all_used(std::string_view prefix = {}) const {
    for (const auto& t : file_.tensors())
      if (std::string_view(t.name).starts_with(prefix) && !used_.contains(t.name))
        return {ErrorCode::unsupported,
                io::detail::text(file_.name(), ": tensor ", io::detail::shown(t.name),
                                 " is no part of the llama architecture as anybit computes it: use a model without it")};
    return Ok{};
  }

 private:
  Status check_extents(std::string_view name, Extents is, Extents needed) const {
    if (is == needed) return Ok{};
    return {ErrorCode::shape_mismatch,
            io::detail::text(file_.name(), ": tensor ", name, " is ", is.rows, " x ", is.cols, ", the configuration needs ",
                             needed.rows, " x ", needed.cols, ": convert the model again")};
  }
  Status check_finite(std::string_view name, Index row, std::span<const float> values) const {
    for (std::size_t j = 0; j < values.size(); ++j)
      if (!is_finite(values[j]))
        return {ErrorCode::not_finite, io::detail::text(file_.name(), ": tensor ", name, " is ", values[j], " at row ", row,
                                                        ", column ", j, ": the file is damaged, fetch or convert it again")};
    return Ok{};
  }

  const File& file_;
  std::set<std::string, std::less<>> used_;
};

template <class File>
Result<Block> read_block(TensorReader<File>& reader, const DecoderConfig& c, Index i) {
  const auto name = [&](std::string_view which) { return io::detail::text("blk.", i, ".", which, ".weight"); };
  Block b;
  ANYBIT_TRY_STATUS(reader.read(name("attn_norm"), c.dim, b.attn_norm));
  ANYBIT_TRY_STATUS(reader.read(name("attn_q"), Extents{c.query_width(), c.dim}, b.q));
  ANYBIT_TRY_STATUS(reader.read(name("attn_k"), Extents{c.kv_width(), c.dim}, b.k));
  ANYBIT_TRY_STATUS(reader.read(name("attn_v"), Extents{c.kv_width(), c.dim}, b.v));
  ANYBIT_TRY_STATUS(reader.read(name("attn_output"), Extents{c.dim, c.query_width()}, b.o));
  ANYBIT_TRY_STATUS(reader.read(name("ffn_norm"), c.dim, b.ffn_norm));
  ANYBIT_TRY_STATUS(reader.read(name("ffn_gate"), Extents{c.hidden, c.dim}, b.gate));
  ANYBIT_TRY_STATUS(reader.read(name("ffn_up"), Extents{c.hidden, c.dim}, b.up));
  ANYBIT_TRY_STATUS(reader.read(name("ffn_down"), Extents{c.dim, c.hidden}, b.down));
  return b;
}

enum class Blocks { now, later };

/// The decoder in a file whose tensors have GGUF's names. `later`: its blocks are there, but hold nothing.
template <class File>
Result<Decoder> read_decoder(const File& file, DecoderConfig config, Blocks blocks = Blocks::now) {
  TensorReader<File> reader(file);
  if (reader.has("rope_freqs.weight")) {
    ANYBIT_TRY_STATUS(reader.read("rope_freqs.weight", config.rotary_dim / 2, config.rope_factors));
  }
  if (auto valid = check(config); !valid) return in_context(valid.error(), file.name());
  Decoder d;
  d.config = std::move(config);
  const DecoderConfig& c = d.config;
  ANYBIT_TRY_STATUS(reader.read("token_embd.weight", Extents{c.vocabulary, c.dim}, d.token_embedding));
  if (static_cast<std::size_t>(c.blocks) > file.tensors().size())  // before memory is taken for them
    return {ErrorCode::corrupt_data,
            io::detail::text(file.name(), ": the configuration has ", c.blocks, " blocks, but the file only ",
                             file.tensors().size(), " tensors: convert the model again")};
  d.blocks.resize(static_cast<std::size_t>(c.blocks));
  for (Index i = 0; i < c.blocks; ++i) {
    if (blocks == Blocks::later) {
      reader.leave(io::detail::text("blk.", i, "."));
      continue;
    }
    ANYBIT_TRY(d.blocks[static_cast<std::size_t>(i)], read_block(reader, c, i));
  }
  ANYBIT_TRY_STATUS(reader.read("output_norm.weight", c.dim, d.output_norm));
  if (reader.has("output.weight")) {
    d.head.emplace();
    ANYBIT_TRY_STATUS(reader.read("output.weight", Extents{c.vocabulary, c.dim}, *d.head));
  }
  ANYBIT_TRY_STATUS(reader.all_used());
  return d;
}

}  // namespace detail

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
