#pragma once
// Weights, gradients and adapters of a decoder as the tensors of a Hugging Face model: under its names, fused where it fuses q, k
// and v, transposed where it stores (inputs, outputs). Adapters are those of PEFT, "model.layers.0.self_attn.q_proj.lora_A".

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <anybit/core/result.hpp>
#include <anybit/io/tensor_info.hpp>
#include <anybit/model/file_tensors.hpp>
#include <anybit/train/gradients.hpp>

namespace anybit::train {
inline namespace ANYBIT_CODE {

/// A tensor that owns its values, row-major.
struct NamedTensor {
  std::string name;
  std::vector<Index> shape;
  std::vector<float> values;
};

namespace detail {

enum class Kind : std::uint8_t { matrix, vector, adapter_a, adapter_b };

/// One tensor of a decoder, or its gradient, under anybit's name.
struct TensorView {
  std::string name;  ///< of an adapter that of its weight
  Kind kind = Kind::matrix;
  ConstMatrix values{};  ///< a vector is (length, 1)
};

inline ConstMatrix column(const std::vector<float>& v) { return {v.data(), static_cast<Index>(v.size()), 1}; }

/// All float tensors of d; packed ones have none.
inline std::vector<TensorView> views_of(const model::Decoder& d) {
  std::vector<TensorView> out;
  for (std::size_t i = 0; i < d.weights.size(); ++i) {
    const model::WeightSpec& spec = d.blueprint->weights[i];
    const model::Weight& w = d.weights[i];
    if (!w.values.empty()) out.push_back({spec.name, Kind::vector, column(w.values)});
    if (w.linear.dense()) out.push_back({spec.name, Kind::matrix, w.linear.dense()->view()});
    if (!w.linear.bias().empty()) out.push_back({spec.bias, Kind::vector, column(w.linear.bias())});
    if (const nn::LowRank* l = w.linear.adapter()) {
      out.push_back({spec.name, Kind::adapter_a, l->a.view()});
      out.push_back({spec.name, Kind::adapter_b, l->b.view()});
    }
  }
  return out;
}
inline std::vector<TensorView> views_of(const model::Decoder& d, const Gradients& gradients) {
  std::vector<TensorView> out;
  for (std::size_t i = 0; i < gradients.size(); ++i) {
    const model::WeightSpec& spec = d.blueprint->weights[i];
    const WeightGradient& g = gradients[i];
    if (!g.values.empty()) out.push_back({spec.name, Kind::vector, column(g.values)});
    if (!g.linear.weight.empty()) out.push_back({spec.name, Kind::matrix, g.linear.weight.view()});
    if (!g.linear.bias.empty()) out.push_back({spec.bias, Kind::vector, column(g.linear.bias)});
    if (!g.linear.a.empty()) out.push_back({spec.name, Kind::adapter_a, g.linear.a.view()});
    if (!g.linear.b.empty()) out.push_back({spec.name, Kind::adapter_b, g.linear.b.view()});
  }
  return out;
}

/// Where a weight is stored; null if the architecture has no name for it.
inline const model::StoredTensor* stored_as(const model::Decoder& d, std::string_view name) {
  if (const auto block = model::detail::split_block(name, "blk.")) name = block->second;
  for (const model::TensorNames& n : d.blueprint->architecture->names(d.config))
    if (model::fit_pattern(n.name, name)) return &n.hugging_face;
  return nullptr;
}

/// Gathers parts of fused tensors. Gradients of a tensor that several weights share (A of a fused adapter) are added; values must
/// agree.
inline Result<std::vector<NamedTensor>> in_hugging_face_layout(const model::Decoder& d, std::span<const TensorView> views,
                                                               bool gradients) {
  const model::Architecture& architecture = *d.blueprint->architecture;
  std::vector<NamedTensor> out;
  for (const TensorView& v : views) {
    const model::StoredTensor* const stored = stored_as(d, v.name);
    if (!stored)
      return {ErrorCode::unsupported, io::detail::text("tensor ", v.name, ": the ", architecture.name,
                                                       " architecture has no name for it in Hugging Face's files")};
    const bool adapter = v.kind == Kind::adapter_a || v.kind == Kind::adapter_b, whole = stored->part == model::Part::whole;
    const bool turned = stored->transposed && v.kind == Kind::matrix;
    const auto [rows, cols] = v.values.extents();
    const model::detail::PartRows part = whole || v.kind == Kind::adapter_a
                                             ? model::detail::PartRows{0, rows, rows}
                                             : model::detail::rows_of(stored->part, d.config, architecture.fused_order);
    std::string name = model::hugging_face_name(architecture, d.config, v.name);
    if (adapter) {
      name.resize(name.size() - (name.ends_with(".weight") ? 7 : 0));
      name += v.kind == Kind::adapter_a ? ".lora_A" : ".lora_B";
    }
    auto found = std::find_if(out.begin(), out.end(), [&](const NamedTensor& t) { return t.name == name; });
    const bool first = found == out.end();
    if (first) {
      NamedTensor t{std::move(name), {}, std::vector<float>(static_cast<std::size_t>(part.whole * cols))};
      if (v.kind == Kind::vector)
        t.shape = {part.whole};
      else
        t.shape = turned ? std::vector<Index>{cols, part.whole} : std::vector<Index>{part.whole, cols};
      out.push_back(std::move(t));
      found = out.end() - 1;
    }
    const float less = stored->less_one && !gradients ? 1.0f : 0.0f;
    for (Index r = 0; r < rows; ++r)
      for (Index c = 0; c < cols; ++c) {
        const Index row = part.row(r);
        float& to = found->values[static_cast<std::size_t>(turned ? c * part.whole + row : row * cols + c)];
        const float value = v.values(r, c) - less;
        if (v.kind != Kind::adapter_a || first || gradients)
          to = v.kind == Kind::adapter_a && gradients ? to + value : value;
        else if (to != value)
          return {ErrorCode::unsupported,
                  io::detail::text("adapter ", found->name,
                                   ": its parts have been trained apart and differ, which one adapter of a "
                                   "fused linear cannot hold: merge them into the weights")};
      }
  }
  return out;
}

}  // namespace detail

/// Gradients of weights, biases and adapters.
inline Result<std::vector<NamedTensor>> hugging_face_gradients(const model::Decoder& d, const Gradients& gradients) {
  return detail::in_hugging_face_layout(d, detail::views_of(d, gradients), true);
}

/// The float weights of d without adapters, as its files had them; an error where a weight is packed.
inline Result<std::vector<NamedTensor>> hugging_face_weights(const model::Decoder& d) {
  for (std::size_t i = 0; i < d.weights.size(); ++i)
    if (d.weights[i].linear.packed())
      return {ErrorCode::unsupported, io::detail::text("tensor ", d.blueprint->weights[i].name,
                                                       " is packed, a Hugging Face folder holds floats: save anybit's own file")};
  std::vector<detail::TensorView> views = detail::views_of(d);
  std::erase_if(
      views, [](const detail::TensorView& v) { return v.kind == detail::Kind::adapter_a || v.kind == detail::Kind::adapter_b; });
  return detail::in_hugging_face_layout(d, views, false);
}

/// Names are those of modules with ".lora_A" and ".lora_B".
inline Result<std::vector<NamedTensor>> hugging_face_adapters(const model::Decoder& d) {
  std::vector<detail::TensorView> views = detail::views_of(d);
  std::erase_if(
      views, [](const detail::TensorView& v) { return v.kind != detail::Kind::adapter_a && v.kind != detail::Kind::adapter_b; });
  return detail::in_hugging_face_layout(d, views, false);
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::train

#include <anybit/core/macros_end.hpp>
