#include "linear_source.hpp"

#include <filesystem>
#include <string_view>
#include <utility>
#include <variant>

#include <anybit/io/anybit_file.hpp>
#include <anybit/io/checkpoint.hpp>
#include <anybit/io/gguf.hpp>

#include "convert/packed_codes.hpp"

namespace tool {

using namespace anybit;

struct LinearSource::Opened {
  std::variant<std::monostate, io::Checkpoint, io::GgufFile, io::SafetensorsFile, io::AnybitFile> file;
  std::string format, folder;
  std::vector<SourceMatrix> matrices;
  std::vector<std::string> remarks;

  void add_weights(const std::vector<io::TensorInfo>& tensors) {
    for (const io::TensorInfo& t : tensors)
      if (is_weight(t)) matrices.push_back({std::string(module_of(t.name)), t.shape, false});
  }
  static std::string_view module_of(std::string_view tensor) { return tensor.substr(0, tensor.size() - suffix.size()); }
  static bool is_weight(const io::TensorInfo& t) { return t.name.ends_with(suffix) && t.shape.size() >= 2; }
  static constexpr std::string_view suffix = ".weight";
};

namespace {

std::string_view method_name(io::CheckpointMethod m) {
  switch (m) {
    case io::CheckpointMethod::gptq: return "GPTQ checkpoint";
    case io::CheckpointMethod::awq: return "AWQ checkpoint";
    case io::CheckpointMethod::compressed_tensors: return "compressed-tensors checkpoint";
    case io::CheckpointMethod::fp8: return "FP8 checkpoint";
    case io::CheckpointMethod::bitsandbytes: return "bitsandbytes checkpoint";
    case io::CheckpointMethod::hqq: return "HQQ checkpoint";
    case io::CheckpointMethod::exl3: return "EXL3 checkpoint";
    default: return "Hugging Face folder";
  }
}

}  // namespace

LinearSource::LinearSource(std::unique_ptr<Opened> o) : opened_(std::move(o)) {}
LinearSource::LinearSource(LinearSource&&) noexcept = default;
LinearSource& LinearSource::operator=(LinearSource&&) noexcept = default;
LinearSource::~LinearSource() = default;

Result<LinearSource> LinearSource::open(const std::string& path) {
  auto o = std::make_unique<Opened>();
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) {
    ANYBIT_TRY(io::Checkpoint checkpoint, io::Checkpoint::open(path));
    o->format = method_name(checkpoint.method());
    o->folder = path;
    o->remarks = checkpoint.remarks();
    o->add_weights(checkpoint.tensors());
    for (SourceMatrix& m : o->matrices) m.quantized = checkpoint.is_quantized(m.module);
    o->file = std::move(checkpoint);
    return LinearSource(std::move(o));
  }
  ANYBIT_TRY(const io::MappedFile file, io::MappedFile::open(path));
  const auto bytes = file.bytes();
  const std::string_view start(reinterpret_cast<const char*>(bytes.data()), std::min<std::size_t>(bytes.size(), 16));
  if (start.starts_with("GGUF")) {
    ANYBIT_TRY(io::GgufFile gguf, io::GgufFile::open(path));
    o->format = "GGUF";
    o->add_weights(gguf.tensors());
    for (SourceMatrix& m : o->matrices) m.quantized = !io::find_dtype(gguf.find(m.module + ".weight")->dtype)->in_safetensors;
    o->file = std::move(gguf);
  } else if (auto own = io::AnybitFile::open(path)) {
    o->format = "anybit";
    for (const io::TensorInfo& t : own->tensors()) {
      if (own->is_packed(t.name)) {
        ANYBIT_TRY(const PackedBytes packed, own->packed(t.name));
        const std::string_view name = t.name;
        o->matrices.push_back({std::string(name.ends_with(".weight") ? Opened::module_of(name) : name),
                               {packed.extents().rows, packed.extents().cols},
                               true});
      } else if (Opened::is_weight(t)) {
        o->matrices.push_back({std::string(Opened::module_of(t.name)), t.shape, false});
      }
    }
    o->file = *std::move(own);
  } else {
    ANYBIT_TRY(io::SafetensorsFile weights, io::SafetensorsFile::open(path));
    o->format = "safetensors";
    io::CheckpointMethod method = io::CheckpointMethod::none;
    if (const auto modules = io::detail::quantized_modules(weights.tensors(), method); !modules.empty())
      return Error{ErrorCode::unsupported, path + ": holds quantized modules (" + std::string(method_name(method)) +
                                               "), whose config is beside it: give the folder instead of the file"};
    o->add_weights(weights.tensors());
    o->file = std::move(weights);
  }
  return LinearSource(std::move(o));
}

const std::string& LinearSource::format() const { return opened_->format; }
const std::string& LinearSource::folder() const { return opened_->folder; }
const std::vector<SourceMatrix>& LinearSource::matrices() const { return opened_->matrices; }
const std::vector<std::string>& LinearSource::remarks() const { return opened_->remarks; }

Result<Matrix> LinearSource::read_f32(const SourceMatrix& m) const {
  const std::string tensor = m.module + ".weight";
  if (const auto* checkpoint = std::get_if<io::Checkpoint>(&opened_->file)) return checkpoint->read_f32(tensor);
  if (const auto* gguf = std::get_if<io::GgufFile>(&opened_->file)) return gguf->read_f32(tensor);
  if (const auto* own = std::get_if<io::AnybitFile>(&opened_->file)) {
    if (!m.quantized) return own->read_f32(tensor);
    ANYBIT_TRY(const PackedBytes packed, own->packed(own->is_packed(tensor) ? tensor : m.module));
    return packed_weights(packed);
  }
  return std::get<io::SafetensorsFile>(opened_->file).read_f32(tensor);
}

Result<std::optional<io::CheckpointLinear>> LinearSource::read_codes(const SourceMatrix& m) const {
  using Codes = std::optional<io::CheckpointLinear>;
  if (!m.quantized) return Codes();
  if (const auto* checkpoint = std::get_if<io::Checkpoint>(&opened_->file)) {
    if (!checkpoint->has_codes())
      return Error{ErrorCode::unsupported, checkpoint->name() +
                                               ": weights of EXL3 have no codes of their own to convert: write them "
                                               "as floats with anybit dequantize"};
    ANYBIT_TRY(io::CheckpointLinear linear, checkpoint->read(m.module));
    return Codes(std::move(linear));
  }
  const std::string tensor = m.module + ".weight";
  if (const auto* own = std::get_if<io::AnybitFile>(&opened_->file)) {
    ANYBIT_TRY(const PackedBytes packed, own->packed(own->is_packed(tensor) ? tensor : m.module));
    return packed_codes(packed);
  }
  if (const auto* gguf = std::get_if<io::GgufFile>(&opened_->file)) return gguf_codes(*gguf->find(tensor));
  return Codes();
}

std::vector<io::TensorInfo> LinearSource::plain_tensors() const {
  std::vector<io::TensorInfo> out;
  if (const auto* checkpoint = std::get_if<io::Checkpoint>(&opened_->file))
    for (const io::TensorInfo& t : checkpoint->tensors())
      if (checkpoint->quantized_module(t.name).empty()) out.push_back(t);
  return out;
}

}  // namespace tool
