#pragma once
// A decoder from any file whose tensors have the names of weights.

#include <anybit/core/macros_begin.hpp>

#include <cmath>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <anybit/core/finite.hpp>
#include <anybit/io/tensor_info.hpp>
#include <anybit/model/architecture.hpp>

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
  Status read(const std::string& name, Extents needed, nn::Linear& to) {
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
    to = nn::Linear(std::move(m));
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
  Status all_used(std::string_view architecture, std::string_view prefix = {}) const {
    for (const auto& t : file_.tensors())
      if (std::string_view(t.name).starts_with(prefix) && !used_.contains(t.name))
        return {ErrorCode::unsupported,
                io::detail::text(file_.name(), ": tensor ", io::detail::shown(label(t.name)), " is no part of the ", architecture,
                                 " architecture as anybit computes it: use a model without it")};
    return Ok{};
  }

 private:
  /// What the file calls the tensor.
  std::string label(std::string_view name) const {
    if constexpr (requires { file_.label(name); })
      return file_.label(name);
    else
      return std::string(name);
  }
  Status check_extents(std::string_view name, Extents is, Extents needed) const {
    if (is == needed) return Ok{};
    return {ErrorCode::shape_mismatch,
            io::detail::text(file_.name(), ": tensor ", label(name), " is ", is.rows, " x ", is.cols,
                             ", the configuration needs ", needed.rows, " x ", needed.cols, ": convert the model again")};
  }
  Status check_finite(std::string_view name, Index row, std::span<const float> values) const {
    for (std::size_t j = 0; j < values.size(); ++j)
      if (!is_finite(values[j]))
        return {ErrorCode::not_finite, io::detail::text(file_.name(), ": tensor ", label(name), " is ", values[j], " at row ",
                                                        row, ", column ", j, ": the file is damaged, fetch or convert it again")};
    return Ok{};
  }

  const File& file_;
  std::set<std::string, std::less<>> used_;
};

template <class File>
Status read_weight(TensorReader<File>& reader, const WeightSpec& spec, Weight& to) {
  if (spec.optional && !reader.has(spec.name)) return Ok{};
  if (!spec.multiplies()) return reader.read(spec.name, spec.shape.cols, to.values);
  ANYBIT_TRY_STATUS(reader.read(spec.name, spec.shape, to.linear));
  if (spec.bias.empty()) return Ok{};
  std::vector<float> bias;
  ANYBIT_TRY_STATUS(reader.read(spec.bias, spec.shape.rows, bias));
  to.linear.set_bias(std::move(bias));
  return Ok{};
}

template <class File>
Result<BlockWeights> read_block(TensorReader<File>& reader, const Blueprint& b, Index i) {
  BlockWeights block;
  for (std::size_t w = b.blocks[static_cast<std::size_t>(i)]; w < b.blocks[static_cast<std::size_t>(i) + 1]; ++w)
    ANYBIT_TRY_STATUS(read_weight(reader, b.weights[w], block.emplace_back()));
  return block;
}

enum class Blocks { now, later };

/// The decoder in a file whose tensors have the names of weights. `later`: its blocks are there, but hold nothing.
template <class File>
Result<Decoder> read_decoder(const File& file, const Architecture& architecture, DecoderConfig config,
                             Blocks blocks = Blocks::now) {
  TensorReader<File> reader(file);
  if (reader.has("rope_freqs.weight")) {
    ANYBIT_TRY_STATUS(reader.read("rope_freqs.weight", config.rotary_dim / 2, config.rope_factors));
  }
  if (reader.has("rope_factors_short.weight")) {
    ANYBIT_TRY_STATUS(reader.read("rope_factors_short.weight", config.rotary_dim / 2, config.rope_factors));
  }
  if (reader.has("rope_factors_long.weight")) {
    ANYBIT_TRY_STATUS(reader.read("rope_factors_long.weight", config.rotary_dim / 2, config.rope_long_factors));
  }
  if (auto valid = check(config); !valid) return in_context(valid.error(), file.name());
  if (static_cast<std::size_t>(config.blocks) > file.tensors().size())  // before memory is taken for them
    return {ErrorCode::corrupt_data,
            io::detail::text(file.name(), ": the configuration has ", config.blocks, " blocks, but the file only ",
                             file.tensors().size(), " tensors: convert the model again")};
  Index sparse = 0;
  for (Index i = 0; i < config.blocks; ++i) sparse += config.form.experts.in(i) ? 1 : 0;
  if (static_cast<std::size_t>(sparse) * static_cast<std::size_t>(config.form.experts.count) > file.tensors().size())
    return {ErrorCode::corrupt_data, io::detail::text(file.name(), ": the configuration has ", config.form.experts.count,
                                                      " experts in each of ", sparse, " blocks, but the file only ",
                                                      file.tensors().size(), " tensors: correct it or convert the model again")};
  Decoder d = make_decoder(architecture, std::move(config));
  for (std::size_t i = 0; i < d.weights.size(); ++i) {
    const WeightSpec& spec = d.blueprint->weights[i];
    if (blocks == Blocks::now || spec.block == no_block) ANYBIT_TRY_STATUS(read_weight(reader, spec, d.weights[i]));
  }
  if (blocks == Blocks::later)
    for (Index i = 0; i < d.config.blocks; ++i) reader.leave(io::detail::text("blk.", i, "."));
  ANYBIT_TRY_STATUS(reader.all_used(architecture.name));
  return d;
}

}  // namespace detail

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
