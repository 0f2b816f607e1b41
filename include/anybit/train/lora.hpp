#pragma once
// Low-rank adapters (Hu et al., arXiv:2106.09685): new ones from a seed, and those of PEFT in adapter_config.json and
// adapter_model.safetensors, read and written.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <anybit/io/json.hpp>
#include <anybit/io/safetensors_writer.hpp>
#include <anybit/model/number_text.hpp>
#include <anybit/train/hugging_face_tensors.hpp>
#include <anybit/train/random.hpp>

namespace anybit::train {
inline namespace ANYBIT_CODE {

struct LoraOptions {
  Index rank = 8;
  float alpha = 16;              ///< the adapter adds alpha / rank B A
  bool rank_stabilized = false;  ///< alpha / sqrt(rank) instead (arXiv:2312.03732)
  float dropout = 0;             ///< of the adapter's input while it trains
  std::uint64_t seed = 0;
  /// Which linears of blocks get one, by name ("blk.0.attn_q.weight"); empty: all. Routers get none.
  std::function<bool(std::string_view name)> chosen{};

  float scale() const {
    const auto r = static_cast<float>(rank);
    return alpha / (rank_stabilized ? std::sqrt(r) : r);
  }
};

/// Gives linears of blocks an adapter that adds nothing yet: A uniform in +-1 / sqrt(inputs), as PEFT draws it, by Draws(seed,
/// WeightId)(element); B zero. Packed weights stay packed.
inline void add_adapters(model::Decoder& d, const LoraOptions& o) {
  ANYBIT_CHECK(o.rank > 0, "add_adapters: the rank must be above 0");
  for (std::size_t i = 0; i < d.weights.size(); ++i) {
    const model::WeightSpec& spec = d.blueprint->weights[i];
    if (spec.role != model::Role::linear || !spec.quantizable || spec.block == model::no_block ||
        (o.chosen && !o.chosen(spec.name)))
      continue;
    nn::LowRank l{Matrix(o.rank, spec.shape.cols), Matrix(spec.shape.rows, o.rank), o.scale()};
    const Draws draws(o.seed, i);
    const float bound = 1.0f / std::sqrt(static_cast<float>(spec.shape.cols));
    for (Index j = 0; j < l.a.extents().size(); ++j)
      l.a.data()[j] = bound * (2.0f * draws.uniform(static_cast<std::uint64_t>(j)) - 1.0f);
    d.weights[i].linear.set_adapter(std::make_shared<const nn::LowRank>(std::move(l)));
  }
}

namespace detail {

inline constexpr std::string_view peft_prefix = "base_model.model.";

/// Keys of adapter_config.json that change the product, with the only value that is computed here.
inline Status check_plain_lora(const io::JsonObject& config) {
  ANYBIT_TRY(const std::string type, config.text("peft_type"));
  if (type != "LORA")
    return {ErrorCode::unsupported,
            io::detail::text(config.file(), ": peft_type is ", io::detail::shown(type), ": anybit reads LORA adapters")};
  for (const std::string_view key : {"use_dora", "use_qalora", "lora_bias", "alora_invocation_tokens", "layer_replication"})
    if (const io::JsonValue* const value = config.find(key)) {
      const bool* const flag = value->as<bool>();
      if (!flag || *flag)
        return {ErrorCode::unsupported,
                io::detail::text(config.file(), ": ", key, " is ", io::detail::shown(*value), ": anybit reads plain LoRA only")};
    }
  for (const std::string_view key : {"rank_pattern", "alpha_pattern"})
    if (const io::JsonValue* const value = config.find(key))
      if (const auto* const members = value->as<io::JsonValue::Object>(); !members || !members->empty())
        return {ErrorCode::unsupported,
                io::detail::text(config.file(), ": ", key, " is not empty: anybit reads adapters of one rank and alpha")};
  if (config.has("bias")) {
    ANYBIT_TRY(const std::string bias, config.text("bias"));
    if (bias != "none")
      return {ErrorCode::unsupported,
              io::detail::text(config.file(), ": bias is ", io::detail::shown(bias), ": anybit reads adapters without biases")};
  }
  return Ok{};
}

/// PEFT's target_modules: the last part of a module's name ("q_proj") where every linear with it has an adapter, else whole
/// names.
inline std::set<std::string> peft_targets(const model::Decoder& d, std::span<const NamedTensor> adapters) {
  const auto last_part = [](std::string_view module) { return std::string(module.substr(module.rfind('.') + 1)); };
  std::set<std::string> adapted, bare, out;
  for (const NamedTensor& t : adapters) adapted.insert(t.name.substr(0, t.name.rfind('.')));
  for (const model::WeightSpec& spec : d.blueprint->weights) {
    if (spec.role != model::Role::linear) continue;
    std::string module = model::hugging_face_name(*d.blueprint->architecture, d.config, spec.name);
    module.resize(module.size() - (module.ends_with(".weight") ? 7 : 0));
    if (!adapted.contains(module)) bare.insert(last_part(module));
  }
  for (const std::string& module : adapted) {
    const std::string last = last_part(module);
    out.insert(bare.contains(last) ? module : last);
  }
  return out;
}

}  // namespace detail

/// Reads PEFT's folder into the adapters of d, on float or packed weights. Every tensor must fit a linear of d. The options come
/// back as the file has them (seed and choice are not in it).
inline Result<LoraOptions> load_adapters(const std::string& folder, model::Decoder& d) {
  using io::detail::text;
  const std::string config_path = folder + "/adapter_config.json", path = folder + "/adapter_model.safetensors";
  ANYBIT_TRY(const io::MappedFile mapped, io::MappedFile::open(config_path));
  const auto bytes = mapped.bytes();
  const auto document = io::parse_json({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  if (!document) return in_context(document.error(), config_path);
  const io::JsonObject config(*document, config_path);
  ANYBIT_TRY_STATUS(detail::check_plain_lora(config));
  LoraOptions o;
  ANYBIT_TRY(const std::int64_t rank, config.integer("r"));
  if (rank < 1 || rank > Index{1} << 20) return config.wrong("r", "1 to 2^20");
  ANYBIT_TRY(const double alpha, config.number("lora_alpha"));
  o.rank = static_cast<Index>(rank), o.alpha = static_cast<float>(alpha);
  if (config.has("lora_dropout")) {
    ANYBIT_TRY(const double dropout, config.number("lora_dropout"));
    if (!(dropout >= 0 && dropout < 1)) return config.wrong("lora_dropout", "0 or above and below 1");
    o.dropout = static_cast<float>(dropout);
  }
  if (config.has("use_rslora")) {
    ANYBIT_TRY(o.rank_stabilized, config.boolean("use_rslora"));
  }

  ANYBIT_TRY(const io::SafetensorsFile file, io::SafetensorsFile::open(path));
  std::set<std::string, std::less<>> used;
  for (std::size_t i = 0; i < d.weights.size(); ++i) {
    const model::WeightSpec& spec = d.blueprint->weights[i];
    const model::StoredTensor* const stored = spec.multiplies() ? detail::stored_as(d, spec.name) : nullptr;
    if (!stored || d.weights[i].linear.extents().size() == 0) continue;
    std::string module = model::hugging_face_name(*d.blueprint->architecture, d.config, spec.name);
    module.resize(module.size() - (module.ends_with(".weight") ? 7 : 0));
    const std::string a_name = text(detail::peft_prefix, module, ".lora_A.weight"),
                      b_name = text(detail::peft_prefix, module, ".lora_B.weight");
    if (!file.find(a_name) && !file.find(b_name)) continue;
    ANYBIT_TRY(Matrix a, file.read_f32(a_name));
    ANYBIT_TRY(Matrix b, file.read_f32(b_name));
    used.insert(a_name), used.insert(b_name);
    const bool whole = stored->part == model::Part::whole;
    const model::detail::PartRows part =
        whole ? model::detail::PartRows{0, spec.shape.rows, spec.shape.rows}
              : model::detail::rows_of(stored->part, d.config, d.blueprint->architecture->fused_order);
    const auto need = [&](const std::string& name, Extents is, Extents needed) -> Status {
      if (is == needed) return Ok{};
      return {ErrorCode::shape_mismatch,
              text(path, ": tensor ", name, " is ", is.rows, " x ", is.cols, ", rank ", o.rank, " and the model need ",
                   needed.rows, " x ", needed.cols, ": use the adapter of this model")};
    };
    ANYBIT_TRY_STATUS(need(a_name, a.extents(), {o.rank, spec.shape.cols}));
    ANYBIT_TRY_STATUS(need(b_name, b.extents(), {part.whole, o.rank}));
    if (!whole) {
      Matrix rows(part.count, o.rank);
      for (Index r = 0; r < part.count; ++r) std::copy_n(b.view().row(part.row(r)).data(), o.rank, rows.view().row(r).data());
      b = std::move(rows);
    }
    d.weights[i].linear.set_adapter(std::make_shared<const nn::LowRank>(nn::LowRank{std::move(a), std::move(b), o.scale()}));
  }
  for (const io::TensorInfo& t : file.tensors())
    if (!used.contains(t.name))
      return {ErrorCode::unsupported, text(path, ": tensor ", io::detail::shown(t.name), " fits no linear of the ",
                                           d.blueprint->architecture->name, " model: use the adapter of this model")};
  return o;
}

/// Writes the adapters of d as PEFT does; the folder is made. `base` is the name or path of the model below, for the reader.
inline Status save_adapters(const std::string& folder, const model::Decoder& d, const LoraOptions& o, std::string_view base) {
  using io::detail::text;
  ANYBIT_TRY(const std::vector<NamedTensor> adapters, hugging_face_adapters(d));
  if (adapters.empty()) return {ErrorCode::invalid_argument, folder + ": the model has no adapters to save"};
  std::vector<io::TensorInfo> tensors;
  for (const NamedTensor& t : adapters)
    tensors.push_back(io::tensor_of<float>(text(detail::peft_prefix, t.name, ".weight"), t.shape, t.values));
  bool transposed = false;
  for (const model::TensorNames& n : d.blueprint->architecture->names(d.config))
    transposed = transposed || n.hugging_face.transposed;
  std::string names;
  for (const std::string& target : detail::peft_targets(d, adapters))
    names += (names.empty() ? "" : ", ") + io::detail::json_quoted(target);
  const auto number = [](float x) { return model::detail::number_text(x); };
  const std::string config =
      text("{\n \"peft_type\": \"LORA\",\n \"task_type\": \"CAUSAL_LM\",\n \"base_model_name_or_path\": ",
           io::detail::json_quoted(base), ",\n \"r\": ", o.rank, ",\n \"lora_alpha\": ", number(o.alpha),
           ",\n \"lora_dropout\": ", number(o.dropout), ",\n \"use_rslora\": ", o.rank_stabilized ? "true" : "false",
           ",\n \"bias\": \"none\",\n \"fan_in_fan_out\": ", transposed ? "true" : "false",
           ",\n \"inference_mode\": true,\n \"target_modules\": [", names, "]\n}\n");
  std::error_code failed;
  std::filesystem::create_directories(folder, failed);
  if (failed) return {ErrorCode::io, text(folder, ": cannot be made: ", failed.message())};
  ANYBIT_TRY_STATUS(io::write_safetensors(folder + "/adapter_model.safetensors", tensors, {{"format", "pt"}}));
  ANYBIT_TRY(io::AtomicFile file, io::AtomicFile::create(folder + "/adapter_config.json"));
  ANYBIT_TRY_STATUS(file.write(config));
  return file.commit();
}

/// W + scale B A for every adapter on float weights, which it then takes away. An error names the first packed one: the sum would
/// have to be rounded again.
inline Status merge_adapters(model::Decoder& d, ExecutorRef executor = {}) {
  for (std::size_t i = 0; i < d.weights.size(); ++i)
    if (d.weights[i].linear.adapter() && d.weights[i].linear.packed())
      return {ErrorCode::unsupported,
              io::detail::text("tensor ", d.blueprint->weights[i].name,
                               " is packed, its adapter cannot be added to it: merge into the float model")};
  for (model::Weight& w : d.weights) {
    const nn::LowRank* const l = w.linear.adapter();
    if (!l) continue;
    backward::add_times(l->b.view(), l->a.view(), w.linear.own_dense(), executor, l->scale);
    w.linear.set_adapter(nullptr);
  }
  return Ok{};
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::train

#include <anybit/core/macros_end.hpp>
