#pragma once
// Gradients of a decoder by WeightId, and the tensors that training changes as named spans.

#include <anybit/core/macros_begin.hpp>

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <anybit/model/decoder.hpp>
#include <anybit/train/backward/linear.hpp>
#include <anybit/train/parameter.hpp>

namespace anybit::train {
inline namespace ANYBIT_CODE {

struct WeightGradient {
  backward::LinearGradient linear{};
  std::vector<float> values{};

  bool empty() const { return linear.empty() && values.empty(); }
};

/// By WeightId; what is frozen is empty.
using Gradients = std::vector<WeightGradient>;

/// Whether a tensor is trained, by its name: WeightSpec::name and ::bias, and "blk.0.attn_q.lora_a", "..lora_b" for adapters.
using Trained = std::function<bool(std::string_view name)>;

inline bool is_adapter(std::string_view name) { return name.ends_with(".lora_a") || name.ends_with(".lora_b"); }
/// All tensors of the model itself.
inline bool all_weights(std::string_view name) { return !is_adapter(name); }

/// "blk.0.attn_q.lora_a" for "blk.0.attn_q.weight".
inline std::string adapter_name(std::string_view weight, std::string_view part) {
  weight.remove_suffix(weight.ends_with(".weight") ? 7 : 0);
  return std::string(weight) + "." + std::string(part);
}

/// Zeros for every tensor that is trained. Packed weights have no gradient: there is nothing to step along it.
inline Gradients make_gradients(const model::Decoder& d, const Trained& trained) {
  Gradients out(d.weights.size());
  const auto like = [](const Matrix& m) { return Matrix(m.rows(), m.cols()); };
  for (std::size_t i = 0; i < out.size(); ++i) {
    const model::WeightSpec& spec = d.blueprint->weights[i];
    const model::Weight& w = d.weights[i];
    if (!w.values.empty() && trained(spec.name)) out[i].values.resize(w.values.size());
    if (w.linear.dense() && trained(spec.name)) out[i].linear.weight = like(*w.linear.dense());
    if (!w.linear.bias().empty() && trained(spec.bias)) out[i].linear.bias.resize(w.linear.bias().size());
    if (const nn::LowRank* l = w.linear.adapter()) {
      if (trained(adapter_name(spec.name, "lora_a"))) out[i].linear.a = like(l->a);
      if (trained(adapter_name(spec.name, "lora_b"))) out[i].linear.b = like(l->b);
    }
  }
  return out;
}

/// The trained tensors of d and their gradients, in the order of WeightId. The spans stay valid until a weight of d is replaced.
/// Tensors that another decoder shares are copied first; a copy of d that is made afterwards shares them and changes along.
inline std::vector<Parameter> parameters(model::Decoder& d, Gradients& gradients) {
  ANYBIT_CHECK(gradients.size() == d.weights.size(), "train::parameters: gradients of another model");
  std::vector<Parameter> out;
  const auto add = [&](std::string name, std::span<float> values, std::span<float> gradient) {
    ANYBIT_CHECK(values.size() == gradient.size(), "train::parameters: gradients of another model");
    out.push_back({std::move(name), values, gradient});
  };
  const auto flat = [](MutableMatrix m) {
    return std::span(m.data, static_cast<std::size_t>(m.rows) * static_cast<std::size_t>(m.cols));
  };
  for (std::size_t i = 0; i < gradients.size(); ++i) {
    const model::WeightSpec& spec = d.blueprint->weights[i];
    WeightGradient& g = gradients[i];
    model::Weight& w = d.weights[i];
    if (!g.values.empty()) add(spec.name, w.values, g.values);
    if (!g.linear.weight.empty()) add(spec.name, flat(w.linear.own_dense()), flat(g.linear.weight.view()));
    if (!g.linear.bias.empty()) add(spec.bias, w.linear.own_bias(), g.linear.bias);
    if (g.linear.a.empty() && g.linear.b.empty()) continue;
    nn::LowRank* const l = w.linear.own_adapter();
    ANYBIT_CHECK(l != nullptr, "train::parameters: gradients of another model");
    if (!g.linear.a.empty()) add(adapter_name(spec.name, "lora_a"), flat(l->a.view()), flat(g.linear.a.view()));
    if (!g.linear.b.empty()) add(adapter_name(spec.name, "lora_b"), flat(l->b.view()), flat(g.linear.b.view()));
  }
  return out;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::train

#include <anybit/core/macros_end.hpp>
