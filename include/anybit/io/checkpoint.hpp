#pragma once
// A folder of Hugging Face whose linears may be quantized by GPTQ, AWQ, compressed-tensors, transformers' FP8, bitsandbytes, HQQ
// or EXL3.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <anybit/io/checkpoint_bitsandbytes.hpp>
#include <anybit/io/checkpoint_config.hpp>
#include <anybit/io/checkpoint_exl3.hpp>
#include <anybit/io/hf_folder.hpp>
#include <anybit/io/hqq.hpp>

namespace anybit::io {
inline namespace ANYBIT_CODE {

namespace detail {

/// A tensor that only quantized modules have, and whose it is. ("weight_scale" also stands beside "weight_packed".)
struct ModuleMarker {
  std::string_view part;
  CheckpointMethod method;
};
inline constexpr ModuleMarker module_markers[] = {{".qweight", CheckpointMethod::gptq},  // AWQ's has the same name
                                                  {".weight_scale", CheckpointMethod::compressed_tensors},
                                                  {".weight_packed", CheckpointMethod::compressed_tensors},
                                                  {".weight_scale_inv", CheckpointMethod::fp8},
                                                  {".SCB", CheckpointMethod::bitsandbytes},
                                                  {".weight.quant_state.bitsandbytes__nf4", CheckpointMethod::bitsandbytes},
                                                  {".weight.quant_state.bitsandbytes__fp4", CheckpointMethod::bitsandbytes},
                                                  {".W_q", CheckpointMethod::hqq},
                                                  {".trellis", CheckpointMethod::exl3}};

/// Quantized modules of a list of tensors by name, with all of their tensors.
inline std::map<std::string, ModuleTensors, std::less<>> quantized_modules(const std::vector<TensorInfo>& tensors,
                                                                           CheckpointMethod& method) {
  std::map<std::string_view, const TensorInfo*> by_name;
  for (const TensorInfo& t : tensors) by_name.emplace(t.name, &t);
  std::map<std::string, ModuleTensors, std::less<>> out;
  for (const TensorInfo& t : tensors)
    for (const ModuleMarker& marker : module_markers) {
      if (!std::string_view(t.name).ends_with(marker.part)) continue;
      if (method == CheckpointMethod::none) method = marker.method;
      const std::string module = t.name.substr(0, t.name.size() - marker.part.size());
      ModuleTensors& m = out[module];
      m.name = module;
      const std::string prefix = module + ".";
      for (auto at = by_name.lower_bound(prefix); at != by_name.end() && at->first.starts_with(prefix); ++at)
        m.tensors.emplace(at->first.substr(prefix.size()), at->second);
    }
  return out;
}

}  // namespace detail

/// As a file of tensors it has every quantized module's weights as NAME.weight, of the type `quantized_type` and without bytes:
/// only read_f32() gives their values, and read() their codes. Copies share the folder's mappings.
class Checkpoint {
 public:
  static constexpr std::string_view quantized_type = "quantized";

  static Result<Checkpoint> open(const std::string& folder) {
    ANYBIT_TRY(HfFolder opened, HfFolder::open(folder));
    return of(std::move(opened));
  }
  /// Reads the quantization config and decides how zero points of GPTQ are stored. A folder that is not quantized has no modules.
  static Result<Checkpoint> of(HfFolder folder) {
    Checkpoint out(std::move(folder));
    const std::string& where = out.folder().name();
    ANYBIT_TRY_STATUS(out.read_config());
    CheckpointMethod method = out.config_.method;
    out.modules_ = detail::quantized_modules(out.folder().tensors(), method);
    if (out.modules_.empty() && out.config_.method != CheckpointMethod::none)
      return {ErrorCode::corrupt_data,
              detail::text(where, ": ", out.config_.source, " says ", name_of(out.config_.method),
                           ", but no tensor is quantized: correct the config or fetch the quantized weights")};
    if (out.config_.method == CheckpointMethod::none) ANYBIT_TRY_STATUS(out.guess(method));
    ANYBIT_TRY_STATUS(out.settle_zeros());
    ANYBIT_TRY_STATUS(out.list_tensors());
    return out;
  }

  const HfFolder& folder() const { return *folder_; }
  const CheckpointConfig& config() const { return config_; }
  CheckpointMethod method() const { return config_.method; }
  /// What a person should know: metadata that the data proved wrong. One sentence each.
  const std::vector<std::string>& remarks() const { return remarks_; }

  bool is_quantized(std::string_view module) const { return modules_.find(module) != modules_.end(); }
  /// Names of the quantized modules, sorted.
  std::vector<std::string> modules() const {
    std::vector<std::string> out;
    for (const auto& [name, tensors] : modules_) out.push_back(name);
    return out;
  }
  const std::string& name() const { return folder_->name(); }
  /// Tensors of no quantized module and biases of those that are, in the order of the files; then the weights of quantized
  /// modules.
  const std::vector<TensorInfo>& tensors() const { return tensors_.all(); }
  /// Null if there is none of that name.
  const TensorInfo* find(std::string_view tensor) const { return tensors_.find(tensor); }
  /// The module whose quantized weights the tensor is; empty if it is an ordinary one.
  std::string_view quantized_module(std::string_view tensor) const {
    const TensorInfo* const t = find(tensor);
    return t && t->dtype == quantized_type ? tensor.substr(0, tensor.size() - weight_suffix.size()) : std::string_view();
  }
  Result<Matrix> read_f32(std::string_view tensor) const {
    const std::string_view module = quantized_module(tensor);
    if (module.empty()) return folder_->read_f32(tensor);
    if (!has_codes()) {
      ANYBIT_TRY(const PackedBytes packed, read_packed(module));
      return exl3_weights(packed);
    }
    ANYBIT_TRY(const CheckpointLinear linear, read(module));
    return dequantize(linear);
  }

  /// Whether weights of quantized modules have codes of their own, which read() gives. Those of EXL3 have none: read_packed().
  bool has_codes() const { return config_.method != CheckpointMethod::exl3; }
  /// A quantized module as bytes of a scheme Exl3<K, Book>.
  Result<PackedBytes> read_packed(std::string_view module) const {
    const auto found = modules_.find(module);
    if (found == modules_.end() || has_codes())
      return {ErrorCode::invalid_argument, detail::text(folder_->name(), ": ", detail::shown(module),
                                                        " is no module quantized by EXL3: check the name, or read its codes")};
    auto e = exl3_extents(found->second, folder_->config());
    if (!e) return in_context(e.error(), folder_->name());
    return read_exl3(*folder_, module, *e);
  }

  /// The codes of a quantized module.
  Result<CheckpointLinear> read(std::string_view module) const {
    const auto found = modules_.find(module);
    if (found == modules_.end())
      return {ErrorCode::invalid_argument,
              detail::text(folder_->name(), ": ", detail::shown(module), " is no quantized module: check the name")};
    auto linear = read(found->second);
    if (!linear) return in_context(linear.error(), folder_->name());
    return linear;
  }

 private:
  static constexpr std::string_view weight_suffix = ".weight";

  explicit Checkpoint(HfFolder folder) : folder_(std::make_shared<const HfFolder>(std::move(folder))) {}

  Result<CheckpointLinear> read(const ModuleTensors& m) const {
    switch (config_.method) {
      case CheckpointMethod::gptq: {
        ANYBIT_TRY(const GptqFormat f, gptq_format_of(config_, m.name));
        return read_gptq(m, f);
      }
      case CheckpointMethod::awq: return read_awq(m, config_.awq);
      case CheckpointMethod::fp8:
      case CheckpointMethod::compressed_tensors: {
        ANYBIT_TRY(const CompressedFormat f, compressed_format_of(config_, m.name));
        return read_compressed(m, f);
      }
      case CheckpointMethod::bitsandbytes: return read_bitsandbytes(m);
      case CheckpointMethod::hqq: return read_hqq(m);
      case CheckpointMethod::exl3:
        return m.bad(ErrorCode::unsupported, "weights of EXL3 have no codes of their own: read its floats, or its packed bytes");
      case CheckpointMethod::none: break;
    }
    return m.bad(ErrorCode::unsupported, "its method is unknown: give the checkpoint's config.json");
  }

  Result<Extents> extents(const ModuleTensors& m) const {
    switch (config_.method) {
      case CheckpointMethod::gptq: {
        ANYBIT_TRY(const GptqFormat f, gptq_format_of(config_, m.name));
        return gptq_extents(m, f);
      }
      case CheckpointMethod::awq: return awq_extents(m);
      case CheckpointMethod::fp8:
      case CheckpointMethod::compressed_tensors: return detail::compressed_extents(m);
      case CheckpointMethod::bitsandbytes: return bitsandbytes_extents(m);
      case CheckpointMethod::exl3: return exl3_extents(m, folder_->config());
      default: return hqq_extents(m);
    }
  }

  Status list_tensors() {
    for (const TensorInfo& t : folder_->tensors()) {
      bool plain = true;
      for (std::size_t dot = t.name.find('.'); dot != std::string::npos && plain; dot = t.name.find('.', dot + 1))
        plain = !is_quantized(std::string_view(t.name).substr(0, dot)) || std::string_view(t.name).substr(dot) == ".bias";
      if (plain) tensors_.add(t);
    }
    for (const auto& [name, module] : modules_) {
      const auto shape = extents(module);
      if (!shape) return in_context(shape.error(), folder_->name());
      TensorInfo t{name + std::string(weight_suffix), std::string(quantized_type), {shape->rows, shape->cols}, {}};
      if (!tensors_.add(std::move(t)))
        return Error{ErrorCode::corrupt_data,
                     detail::text(folder_->name(), ": module ", detail::shown(name),
                                  " is quantized and has float weights: remove one or fetch the model again")};
    }
    return Ok{};
  }

  Status read_config() {
    if (const JsonObject config = folder_->config(); config.has("quantization_config")) {
      ANYBIT_TRY(const JsonObject quantization, config.object("quantization_config"));
      ANYBIT_TRY(config_, read_checkpoint_config(quantization, "config.json: quantization_config"));
    }
    for (const char* name : {"quantize_config.json", "quant_config.json"}) {
      if (!folder_->has(name)) continue;
      const std::string path = folder_->path(name);
      ANYBIT_TRY(const MappedFile file, MappedFile::open(path));
      const auto json = parse_json({reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()});
      if (!json) return in_context(json.error(), path);
      const auto otherwise = name == std::string_view("quant_config.json") ? CheckpointMethod::awq : CheckpointMethod::gptq;
      ANYBIT_TRY(CheckpointConfig beside, read_checkpoint_config(JsonObject(*json, path), name, otherwise));
      if (config_.method == CheckpointMethod::none)
        config_ = std::move(beside);
      else
        ANYBIT_TRY_STATUS(compare(beside));
    }
    return Ok{};
  }

  /// Two configs of one folder must agree in what decides how tensors are read.
  Status compare(const CheckpointConfig& beside) const {
    const auto differ = [&](std::string_view what, const auto& here, const auto& there) {
      return Error{ErrorCode::corrupt_data,
                   detail::text(folder_->name(), ": ", what, " is ", here, " in ", config_.source, " and ", there, " in ",
                                beside.source, ": remove the one that is wrong")};
    };
    if (beside.method != config_.method) return differ("quant_method", name_of(config_.method), name_of(beside.method));
    if (config_.method == CheckpointMethod::gptq) {
      if (beside.gptq.bits != config_.gptq.bits) return differ("bits", config_.gptq.bits, beside.gptq.bits);
      if (beside.gptq.group != config_.gptq.group) return differ("group_size", config_.gptq.group, beside.gptq.group);
      if (beside.gptq.layout != config_.gptq.layout ||
          (beside.gptq_zeros_stated && config_.gptq_zeros_stated && beside.gptq.zeros != config_.gptq.zeros))
        return differ("checkpoint_format", format_name(config_.gptq), format_name(beside.gptq));
    }
    if (config_.method == CheckpointMethod::awq && beside.awq.group != config_.awq.group)
      return differ("group_size", config_.awq.group, beside.awq.group);
    return Ok{};
  }
  static std::string_view format_name(const GptqFormat& f) {
    return f.layout == WordLayout::planar ? "gptq_p" : f.zeros == GptqZeros::minus_one ? "gptq" : "gptq_v2";
  }

  /// Without any config: GPTQ and AWQ by the shapes of their first module, bitsandbytes and HQQ by their own metadata.
  Status guess(CheckpointMethod method) {
    if (modules_.empty()) return Ok{};
    config_.source = "the tensors (there is no quantization config)";
    const ModuleTensors& m = modules_.begin()->second;
    if (method == CheckpointMethod::compressed_tensors || method == CheckpointMethod::fp8)
      return Error{ErrorCode::unsupported,
                   detail::text(folder_->name(), ": module ", detail::shown(m.name), " is quantized by ", name_of(method),
                                ", but config.json has no "
                                "quantization_config to say how: give the complete folder")};
    config_.method = method;
    if (method != CheckpointMethod::gptq) return Ok{};
    ANYBIT_TRY(const TensorInfo* const qweight, m.need("qweight", {"I32"}, 2));
    ANYBIT_TRY(const TensorInfo* const scales, m.need("scales", scale_types, 2));
    ANYBIT_TRY(const TensorInfo* const qzeros, m.need("qzeros", {"I32"}, 2));
    if (scales->shape[1] != qweight->shape[1]) {
      config_.method = CheckpointMethod::awq;
      return Ok{};
    }
    config_.gptq.bits = static_cast<int>(std::min<Index>(qzeros->shape[1] * 32 / scales->shape[1], 64));
    config_.gptq.layout = config_.gptq.bits >= 5 && config_.gptq.bits <= 7 ? WordLayout::planar : WordLayout::dense;
    if (config_.gptq.layout == WordLayout::planar) config_.gptq.zeros = GptqZeros::as_is;
    return Ok{};
  }

  /// GPTQ's two ways of storing zero points look alike, and checkpoints exist whose metadata names the wrong one: what the data
  /// proves, or the means of some modules all show, goes before the metadata.
  Status settle_zeros() {
    if (config_.method != CheckpointMethod::gptq || config_.gptq.layout == WordLayout::planar) return Ok{};
    int certain[2] = {}, likely[2] = {}, unclear = 0;
    constexpr int enough = 4;  // modules whose weights are averaged
    for (const auto& [name, tensors] : modules_) {
      const auto f = gptq_format_of(config_, name);
      if (!f) return in_context(f.error(), folder_->name());
      const bool average = likely[0] + likely[1] + unclear < enough;
      const auto evidence = gptq_evidence(tensors, *f, average);
      if (!evidence) return in_context(evidence.error(), folder_->name());
      const auto at = static_cast<std::size_t>(evidence->zeros);
      certain[at] += evidence->certain;
      likely[at] += evidence->likely;
      unclear += average && !evidence->certain && !evidence->likely;
    }
    GptqZeros found = config_.gptq.zeros;
    if ((certain[0] > 0) != (certain[1] > 0))
      found = certain[0] > 0 ? GptqZeros::minus_one : GptqZeros::as_is;
    else if (certain[0] == 0 && unclear == 0 && (likely[0] > 0) != (likely[1] > 0))
      found = likely[0] > 0 ? GptqZeros::minus_one : GptqZeros::as_is;
    if (found == config_.gptq.zeros) return Ok{};
    GptqFormat stated = config_.gptq;
    config_.gptq.zeros = found;
    remarks_.push_back(detail::text(
        config_.source, config_.gptq_zeros_stated ? " says checkpoint_format " : " says no checkpoint_format, which means ",
        format_name(stated), ", but the zero points are those of ", format_name(config_.gptq),
        certain[0] + certain[1] > 0 ? " (every symmetric module shows it)" : " (the mean weights show it)",
        "; they are read so"));
    return Ok{};
  }

  std::shared_ptr<const HfFolder> folder_;  ///< shared, because modules_ points to its tensors
  CheckpointConfig config_;
  std::map<std::string, ModuleTensors, std::less<>> modules_;
  TensorList tensors_;
  std::vector<std::string> remarks_;
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::io

#include <anybit/core/macros_end.hpp>
