#pragma once
// The tensors of a GGUF or Hugging Face file under the names of a model's weights: found by the architecture's table, parts of
// fused tensors cut out, transposed ones turned, gains that are stored less 1 made whole.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <anybit/io/checkpoint_linear.hpp>
#include <anybit/io/tensor_info.hpp>
#include <anybit/model/architecture.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

namespace detail {

/// Buffers that old checkpoints carry along: masks and frequencies, which follow from the configuration.
inline bool is_buffer(std::string_view name, std::size_t extents) {
  return name.ends_with("rotary_emb.inv_freq") || name.ends_with(".masked_bias") || name.ends_with("position_ids") ||
         (name.ends_with(".attn.bias") && extents == 4) || (name.ends_with(".attention.bias") && extents == 4);
}

/// Rows of the tensor in the file that make up a part: row r of the part is row `row(r)` of the tensor.
struct PartRows {
  Index first = 0, count = 0;  ///< rows that lie together, where `stride` is 0
  Index whole = 0;             ///< rows of the whole tensor
  Index run = 0, stride = 0;   ///< else `run` rows lie together, and the next ones `stride` rows later
  Index row(Index r) const { return stride == 0 ? first + r : first + r / run * stride + r % run; }
};

/// Of expert number `expert`, in a tensor with `rows` of each: all, or the half that is gate or up.
inline PartRows rows_of_expert(Part part, Index rows, Index expert, const DecoderConfig& c) {
  const Index whole = c.form.experts.count * rows;
  if (part == Part::expert) return {expert * rows, rows, whole};
  return {expert * rows + (part == Part::expert_up ? rows / 2 : 0), rows / 2, whole};
}
inline PartRows rows_of(Part part, const DecoderConfig& c, FusedOrder order) {
  const Index q = c.query_width(), k = c.kv_width(), e = c.head_dim, group = c.heads / c.kv_heads;
  if (part == Part::gate) return {0, c.hidden, 2 * c.hidden};
  if (part == Part::up) return {c.hidden, c.hidden, 2 * c.hidden};
  if (order == FusedOrder::blocks) {
    if (part == Part::q) return {0, q, q + 2 * k};
    return part == Part::k ? PartRows{q, k, q + 2 * k} : PartRows{q + k, k, q + 2 * k};
  }
  const Index stride = (group + 2) * e;
  if (part == Part::q) return {0, q, q + 2 * k, group * e, stride};
  return {(part == Part::k ? group : group + 1) * e, k, q + 2 * k, e, stride};
}

}  // namespace detail

/// A view on an opened file, which outlives it, as TensorReader wants one. Tensors that are no weight of the architecture keep
/// their names, so that the reader can refuse them.
template <class File>
class FileTensors {
 public:
  /// `config` says how many rows the parts of fused tensors have.
  FileTensors(const File& file, const Architecture& architecture, const DecoderConfig& config, NamesOf names)
      : file_(file),
        architecture_(architecture),
        config_(config),
        names_(names),
        stacks_(block_names(architecture, config, names)) {
    for (const io::TensorInfo& t : file.tensors()) {
      if (names == NamesOf::hugging_face && (detail::is_buffer(t.name, t.shape.size()) || is_left_out(t.name))) continue;
      if (!add_weights(t)) add(t, t.name, {});
    }
    for (const auto& [weight, tensor] : copies_) add_copy(weight, *tensor);
  }

  const std::string& name() const { return file_.name(); }
  const std::vector<io::TensorInfo>& tensors() const { return tensors_.all(); }
  /// With the extents of the weight; its values come from read_f32() alone.
  const io::TensorInfo* find(std::string_view weight) const { return tensors_.find(weight); }
  /// The tensor of the file behind a weight; null if there is none.
  const io::TensorInfo* source(std::string_view weight) const {
    const auto found = sources_.find(weight);
    return found == sources_.end() ? nullptr : found->second.tensor;
  }
  bool is_quantized(std::string_view weight) const {
    const io::TensorInfo* const t = source(weight);
    return t && !quantized_module(*t).empty();
  }
  /// The name of a weight's tensor in the file, for messages.
  std::string label(std::string_view weight) const {
    if (const io::TensorInfo* const t = source(weight)) return t->name;
    const std::string named = stored_name(architecture_, config_, weight, names_);
    return named.empty() ? std::string(weight) : named;
  }
  /// Two tensors of the file that are the same weight; nothing where there are none.
  const std::optional<std::string>& duplicate() const { return duplicate_; }

  /// The codes of a weight that the file has quantized, or those of the rows that are its part of a fused tensor; nothing where
  /// the weight is float, or its groups run across rows.
  Result<std::optional<io::CheckpointLinear>> read_codes(std::string_view weight) const
    requires requires(const File& f) { f.quantized_module(weight); }
  {
    using Codes = std::optional<io::CheckpointLinear>;
    const auto found = sources_.find(weight);
    if (found == sources_.end()) return Codes();
    const std::string_view module = quantized_module(*found->second.tensor);
    if (module.empty() || !file_.has_codes()) return Codes();
    ANYBIT_TRY(io::CheckpointLinear linear, file_.read(module));
    if (linear.grouping != io::Grouping::columns) return Codes();
    if (found->second.stored.part == Part::whole) return Codes(std::move(linear));
    const detail::PartRows rows = part_rows(found->second);
    if (linear.extents.rows != rows.whole) return Codes(std::move(linear));  // which the reader refuses
    std::vector<Index> taken(static_cast<std::size_t>(rows.count));
    for (Index r = 0; r < rows.count; ++r) taken[static_cast<std::size_t>(r)] = rows.row(r);
    return Codes(io::take_rows(linear, taken));
  }

  /// The bytes of a weight that the file has quantized by EXL3; nothing where that is not so, or the weight is a part of a
  /// tensor.
  Result<std::optional<PackedBytes>> read_packed(std::string_view weight) const
    requires requires(const File& f) { f.read_packed(weight); }
  {
    using Bytes = std::optional<PackedBytes>;
    const auto found = sources_.find(weight);
    if (found == sources_.end() || file_.has_codes() || found->second.stored.part != Part::whole) return Bytes();
    const std::string_view module = quantized_module(*found->second.tensor);
    if (module.empty()) return Bytes();
    ANYBIT_TRY(PackedBytes packed, file_.read_packed(module));
    return Bytes(std::move(packed));
  }

  Result<Matrix> read_f32(std::string_view weight) const {
    const auto found = sources_.find(weight);
    if (found == sources_.end()) return file_.read_f32(label(weight));
    const Source& s = found->second;
    auto out = read(s);
    if (!out) return in_context(out.error(), name());
    if (s.stored.less_one)
      for (Index i = 0; i < out->extents().size(); ++i) out->data()[i] += 1.0f;
    return out;
  }

 private:
  struct Source {
    const io::TensorInfo* tensor = nullptr;
    StoredTensor stored{};
    Index expert = 0;  ///< of parts that experts have
  };

  bool is_left_out(std::string_view name) const {
    return !architecture_.hugging_face_left_out.empty() && name.starts_with(architecture_.hugging_face_left_out);
  }

  /// The tensor as `stored` has its extents.
  static io::TensorInfo reshaped(io::TensorInfo t, const StoredTensor& stored) {
    if (stored.flattened && t.shape.size() > 2) {
      const Index rows = t.shape[0], values = t.extents().size();
      t.shape = {rows, rows > 0 ? values / rows : 0};
    }
    return t;
  }

  void add_copy(const std::string& weight, const io::TensorInfo& t) {
    const io::TensorInfo* const first = source(weight);
    if (!first) return add(t, weight, {});
    const bool same = first->dtype == t.dtype && first->shape == t.shape &&
                      std::equal(first->bytes.begin(), first->bytes.end(), t.bytes.begin(), t.bytes.end());
    if (!same && !duplicate_) duplicate_ = t.name;
  }

  void add(const io::TensorInfo& t, std::string weight, const StoredTensor& stored, Index expert = 0) {
    const Source source{&t, stored, expert};
    if (stored.copy) {
      copies_.emplace_back(std::move(weight), &t);
      return;
    }
    io::TensorInfo view = reshaped(t, stored);
    view.name = weight;
    // Quantized modules have outputs by inputs, whatever the architecture does with floats.
    if (stored.transposed && view.shape.size() == 2 && quantized_module(t).empty()) std::swap(view.shape[0], view.shape[1]);
    // A tensor of another size than the parts need keeps its own, which the reader refuses.
    if (is_of_expert(stored.part)) {
      const bool halved = stored.part != Part::expert;
      if (view.shape.size() == 3 && view.shape[0] == config_.form.experts.count && (!halved || view.shape[1] % 2 == 0)) {
        view.shape.erase(view.shape.begin());
        if (halved) view.shape[0] /= 2;
      }
    } else if (stored.part != Part::whole && !view.shape.empty()) {
      if (const auto rows = part_rows(source); view.shape[0] == rows.whole) view.shape[0] = rows.count;
    }
    if (!tensors_.add(std::move(view))) {
      if (!duplicate_) duplicate_ = t.name;
      return;
    }
    sources_.emplace(std::move(weight), source);
  }

  detail::PartRows part_rows(const Source& s) const {
    if (is_of_expert(s.stored.part)) {
      const Index experts = config_.form.experts.count, rows = s.tensor->extents().rows;
      return detail::rows_of_expert(s.stored.part, experts > 0 && rows % experts == 0 ? rows / experts : rows, s.expert, config_);
    }
    return detail::rows_of(s.stored.part, config_, names_ == NamesOf::gguf ? FusedOrder::blocks : architecture_.fused_order);
  }

  /// Whether the tensor is one or more weights, which are added.
  bool add_weights(const io::TensorInfo& t) {
    if (add_named(t, t.name)) return true;
    if (names_ == NamesOf::gguf) return false;
    const std::string_view name = t.name, prefix = architecture_.hugging_face_prefix;
    if (add_named(t, std::string(architecture_.hugging_face_root) + t.name)) return true;
    if (!prefix.empty() && name.starts_with(prefix) && add_named(t, name.substr(prefix.size()))) return true;
    // Models of text and images have the text model below one of these.
    if (name.starts_with("language_model.")) return add_named(t, name.substr(15));
    if (name.starts_with("model.language_model.")) return add_named(t, "model." + std::string(name.substr(21)));
    return false;
  }
  bool add_named(const io::TensorInfo& t, std::string_view name) {
    for (const BlockNames& stack : stacks_)
      if (const auto block = detail::split_block(name, stack.prefix))
        if (const auto number = number_in_stack(block->first); number && *number < stack.blocks)
          if (add_of_table(t, block->second, stack.names, io::detail::text("blk.", stack.first + *number, "."))) return true;
    return add_of_table(t, name, architecture_.names(config_), {});
  }
  static std::optional<Index> number_in_stack(const std::string& digits) {
    Index number = 0;
    const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), number);
    if (parsed.ec != std::errc() || (digits.size() > 1 && digits[0] == '0')) return std::nullopt;
    return number;
  }
  bool add_of_table(const io::TensorInfo& t, std::string_view rest, std::span<const TensorNames> table,
                    const std::string& prefix) {
    bool any = false;
    const auto add_if_named = [&](const TensorNames& n, const StoredTensor& stored, std::string_view own) {
      if (own.empty()) return;
      const auto number = fit_pattern(own, rest);
      if (!number) return;
      // One tensor of all experts is the weights of each.
      const bool of_expert = is_of_expert(stored.part);
      const Index experts = of_expert ? std::max<Index>(1, config_.form.experts.count) : 1;
      for (Index e = 0; e < experts; ++e) add(t, prefix + fill_pattern(n.name, of_expert ? e : *number), stored, e);
      any = true;
    };
    for (const TensorNames& n : table) {
      if (names_ == NamesOf::gguf) {
        add_if_named(n, n.gguf, n.gguf.name.empty() && !n.hugging_face.copy ? n.name : n.gguf.name);
      } else {
        add_if_named(n, n.hugging_face, n.hugging_face.name);
        add_if_named(n, n.hugging_face_stacked, n.hugging_face_stacked.name);
      }
    }
    return any;
  }

  /// Files of quantized modules say so by quantized_module(tensor), and give their codes by read(module).
  std::string_view quantized_module([[maybe_unused]] const io::TensorInfo& t) const {
    if constexpr (requires { file_.quantized_module(t.name); })
      return file_.quantized_module(t.name);
    else
      return {};
  }

  static Error wrong_rows(const io::TensorInfo& t, Index is, Index needed) {
    return {ErrorCode::shape_mismatch, io::detail::text("tensor ", io::detail::shown(t.name), " has ", is,
                                                        " outputs, its parts need ", needed, ": convert the model again")};
  }

  Result<Matrix> read(const Source& s) const {
    const io::TensorInfo t = reshaped(*s.tensor, s.stored);
    if constexpr (requires { file_.quantized_module(t.name); })
      if (!quantized_module(t).empty()) {
        ANYBIT_TRY(Matrix whole, file_.read_f32(t.name));
        if (s.stored.part == Part::whole) return whole;
        const detail::PartRows rows = part_rows(s);
        if (whole.rows() != rows.whole) return whole;  // which the reader refuses
        Matrix out(rows.count, whole.cols());
        for (Index r = 0; r < rows.count; ++r)
          std::memcpy(out.view().row(r).data(), whole.view().row(rows.row(r)).data(), whole.view().row(r).size_bytes());
        return out;
      }
    const bool vector = t.shape.size() == 1;
    if (s.stored.part == Part::whole && !s.stored.transposed) return io::to_f32(t);
    if (s.stored.transposed) {
      ANYBIT_TRY(const Matrix m, io::to_f32(t));
      const detail::PartRows rows = s.stored.part == Part::whole ? detail::PartRows{0, m.cols(), m.cols()} : part_rows(s);
      if (m.cols() != rows.whole) return wrong_rows(t, m.cols(), rows.whole);
      Matrix out(rows.count, m.rows());
      for (Index r = 0; r < rows.count; ++r)
        for (Index c = 0; c < m.rows(); ++c) out(r, c) = m(c, rows.row(r));
      return out;
    }
    // Rows of bytes: only the part is turned into floats.
    const detail::PartRows rows = part_rows(s);
    const Index stored_rows = vector ? t.shape[0] : t.extents().rows;
    if (t.shape.empty() || stored_rows != rows.whole) return wrong_rows(t, t.shape.empty() ? 1 : stored_rows, rows.whole);
    const std::size_t row_bytes = t.bytes.size() / static_cast<std::size_t>(rows.whole);
    io::TensorInfo part = t;
    part.shape = vector ? std::vector<Index>{rows.count} : std::vector<Index>{rows.count, t.shape.back()};
    std::vector<std::byte> gathered;
    if (rows.stride == 0) {
      part.bytes =
          t.bytes.subspan(static_cast<std::size_t>(rows.first) * row_bytes, static_cast<std::size_t>(rows.count) * row_bytes);
    } else {
      gathered.resize(static_cast<std::size_t>(rows.count) * row_bytes);
      for (Index r = 0; r < rows.count; ++r)
        std::memcpy(gathered.data() + static_cast<std::size_t>(r) * row_bytes,
                    t.bytes.data() + static_cast<std::size_t>(rows.row(r)) * row_bytes, row_bytes);
      part.bytes = gathered;
    }
    if (vector) {
      // A bias in a type with blocks would be cut inside a block.
      const io::DType* const dtype = io::find_dtype(t.dtype);
      if (!dtype || dtype->block_values != 1)
        return {ErrorCode::unsupported, io::detail::text("tensor ", io::detail::shown(t.name), " is a vector of type ", t.dtype,
                                                         ", of which no part can be read: convert it to F32")};
    }
    return io::to_f32(part);
  }

  const File& file_;
  const Architecture& architecture_;
  DecoderConfig config_;
  NamesOf names_;
  std::vector<BlockNames> stacks_;
  io::TensorList tensors_;
  std::map<std::string, Source, std::less<>> sources_;
  std::vector<std::pair<std::string, const io::TensorInfo*>> copies_;
  std::optional<std::string> duplicate_;
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
