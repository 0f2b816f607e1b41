#include "exl3_folder.hpp"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <utility>

#include <nlohmann/json.hpp>

#include <anybit/evaluate/perplexity.hpp>
#include <anybit/exec/thread_pool.hpp>
#include <anybit/io/checkpoint.hpp>
#include <anybit/model/file_tensors.hpp>
#include <anybit/model/folder_config.hpp>
#include <anybit/model/load.hpp>
#include <anybit/quantize/block_by_block.hpp>
#include <anybit/quantize/calibration_check.hpp>

#include "quantization_config.hpp"
#include "recipes/catalog.hpp"
#include "shared/conversations.hpp"
#include "shared/open_model.hpp"
#include "shared/outputs.hpp"
#include "shared/progress.hpp"
#include "shared/text.hpp"

namespace tool {

using namespace anybit;
using nlohmann::ordered_json;

namespace {

/// The release of exllamav3 whose tensors and configuration these are.
constexpr const char* exllamav3_version = "1.4.1";
constexpr std::string_view head_weight = "output.weight";

Index padded_to_128(Index n) { return round_up(n, 128); }

/// Names of the modules of the linears by the name of the weight.
using ModuleNames = std::map<std::string, std::string, std::less<>>;

/// An error where a linear has no tensor of its own in the folder, or readers of the format could not tell its extents.
Result<ModuleNames> exl3_module_names(const LinearSource& source, const model::Decoder& d, bool head) {
  ANYBIT_TRY(const io::HfFolder folder, io::HfFolder::open(source.folder()));
  ANYBIT_TRY(const model::detail::FolderConfig config, model::detail::read_config(folder));
  ANYBIT_TRY(const io::Checkpoint checkpoint, io::Checkpoint::of(folder));
  const model::FileTensors<io::Checkpoint> tensors(checkpoint, *config.architecture, config.config, model::NamesOf::hugging_face);
  ModuleNames names;
  std::map<std::string, std::string> taken;  // by module
  const auto add = [&](const std::string& weight, Extents e) -> Status {
    std::string tensor = tensors.label(weight);
    constexpr std::string_view suffix = ".weight";
    const auto refuse = [&](const std::string& why) {
      return Error{ErrorCode::unsupported, source.folder() + ": tensor " + io::detail::shown(tensor) + ' ' + why};
    };
    if (!std::string_view(tensor).ends_with(suffix))
      return refuse("is no NAME.weight, so EXL3 has no name for its module: convert to another format");
    const std::string module = tensor.substr(0, tensor.size() - suffix.size());
    if (const auto [place, fresh] = taken.emplace(module, weight); !fresh)
      return refuse("holds several linears (" + place->second + ", " + weight +
                    "), which EXL3 stores one by one: split it, or convert to another format");
    const Extents padded{padded_to_128(e.rows), padded_to_128(e.cols)};
    if (const Extents read = io::exl3_extents(module, padded, folder.config()); read != e)
      return refuse(io::detail::text("has ", e.rows, " outputs and ", e.cols,
                                     " inputs; EXL3 pads both to multiples of 128, and readers do not find the real ones in "
                                     "config.json for a module of this name: convert to another format"));
    names.emplace(weight, module);
    return Ok{};
  };
  for (const model::WeightId id : d.blueprint->linears)
    if (const Extents e = d[id].linear.extents(); e.size() > 0) ANYBIT_TRY_STATUS(add((*d.blueprint)[id].name, e));
  if (head) ANYBIT_TRY_STATUS(add(std::string(head_weight), d.output_head().extents()));
  for (const SourceMatrix& m : source.matrices())
    if (m.quantized && !taken.contains(m.module))
      return Error{ErrorCode::unsupported,
                   source.folder() + ": module " + io::detail::shown(m.module) +
                       " is quantized otherwise, and is none that becomes EXL3: " +
                       (m.module == "lm_head" ? "give --head-bits 1 to 8" : "start from the float model")};
  return names;
}

Result<model::ModelRecipe> exl3_recipe(const Exl3Request& o, int bits) {
  ANYBIT_TRY(const RecipeText text,
             parse_recipe((o.calibrate.empty() ? "nearest exl3/" : "ldlq exl3/") + std::to_string(bits) + '/' + o.codebook));
  return catalog().make(text);
}

/// The text in windows of up to 512 tokens.
Result<evaluate::Windows> exl3_windows(const model::Model& m, const std::string& folder, const Exl3Request& o) {
  ANYBIT_TRY(const std::string words, read_text(o.calibrate));
  ANYBIT_TRY(std::vector<model::TokenId> ids, domain_tokens(words, o.calibrate, m.tokenizer, {{}, folder}));
  if (static_cast<Index>(ids.size()) > o.calibration_tokens) ids.resize(static_cast<std::size_t>(o.calibration_tokens));
  const model::Vocabulary& v = m.tokenizer.vocabulary();
  auto windows =
      evaluate::llama_cpp_windows(ids, std::min<Index>(512, m.decoder.config.context), v.add_bos ? v.bos : std::nullopt);
  if (!windows) return in_context(windows.error(), o.calibrate);
  return windows;
}

void add_exl3_module(Exl3Model& to, std::string name, const AnyPacked& weights) {
  const Extents e = weights.bytes().extents();
  to.padded += e.rows % 128 != 0 || e.cols % 128 != 0;
  to.modules.push_back({std::move(name), weights});
}

void add_exl3_report(Exl3Model& to, const std::string& module, const Report& report) {
  if (report.weight_error > to.worst_error) to.worst_error = report.weight_error, to.worst = module;
  for (const std::string& f : report.fallbacks) to.remarks.push_back(module + ": " + f);
}

/// As exllamav3's list of tensors has it.
ordered_json stored_as(const io::OwnedTensor& t) {
  const std::string type = t.dtype == "F16" ? "float16" : t.dtype == "I16" ? "int16" : "int32";
  return {{"shape", t.shape}, {"n_bytes", t.bytes.size()}, {"dtype", "torch." + type}};
}

ordered_json exl3_config(const Exl3Model& m) {
  ordered_json out{{"quant_method", "exl3"},
                   {"version", exllamav3_version},
                   {"bits", m.request.bits},
                   {"head_bits", m.head ? m.request.head_bits : 16}};
  if (m.windows > 0) out["calibration"] = {{"rows", m.windows}, {"cols", m.window}};
  out["out_scales"] = "always", out["codebook"] = m.request.codebook;
  return out;
}

}  // namespace

Result<Exl3Model> quantize_to_exl3(const LinearSource& source, const Exl3Request& o) {
  Exl3Model out;
  out.request = o;
  ANYBIT_TRY(const model::ModelRecipe blocks, exl3_recipe(o, o.bits));
  std::optional<model::ModelRecipe> head_recipe;
  std::optional<model::Model> with_tokenizer;  // which only a text needs
  model::Decoder d;
  if (o.calibrate.empty()) {
    ANYBIT_TRY(d, model::load_decoder(source.folder()));
  } else {
    ANYBIT_TRY(with_tokenizer, model::load_model(source.folder()));
    d = with_tokenizer->decoder;
  }
  ANYBIT_TRY_STATUS(model::check_is_decoder(d, source.folder()));
  out.head = o.head_bits < 16 && d.config.form.head;
  ANYBIT_TRY(const ModuleNames names, exl3_module_names(source, d, out.head));
  model::ModelPlan plan = model::uniform_plan(blocks, d);
  plan.guards = false;  // every module of the format has the bits that are asked for
  if (out.head) {
    ANYBIT_TRY(head_recipe, exl3_recipe(o, o.head_bits));
    plan.head = &*head_recipe;
  }

  ThreadPool pool(thread_count(o.threads));
  Progress progress;
  model::ModelStats stats(d, Needs::none, Stats::default_sample_cap,
                          out.head && !o.calibrate.empty() ? Needs::hessian : Needs::none);
  std::vector<std::span<const model::TokenId>> windows;
  evaluate::Windows text;
  if (!o.calibrate.empty()) {
    ANYBIT_TRY(text, exl3_windows(*with_tokenizer, source.folder(), o));
    for (Index i = 0; i < text.count(); ++i) windows.push_back(text.window(i));
    out.windows = text.count(), out.window = text.length;
  }
  constexpr double head_share = 1, blocks_share = 4;
  progress.begin("quantizing the head", head_share, head_share + blocks_share);
  if (stats.head())
    for (const auto& window : windows) {
      ANYBIT_TRY(const Matrix hidden, stats.accumulate(d, window, pool));
    }
  ANYBIT_TRY(const model::PackedEmbedding embedding,
             model::pack_embedding(d, plan, stats.head(), {.strict = o.strict, .executor = pool}));
  progress.end();
  progress.begin("quantizing the blocks", blocks_share, head_share + blocks_share);
  model::QuantizedModel done;
  if (o.calibrate.empty()) {
    model::QuantizeModelOptions how;
    how.strict = o.strict, how.executor = pool;
    how.progress = [&](Index at, Index of) { progress.update(at, of); };
    ANYBIT_TRY(done, model::quantize_model(d, stats, plan, embedding, how));
  } else {
    model::LayerWiseOptions how;
    how.strict = o.strict, how.executor = pool;
    how.progress = [&](const model::LayerWiseProgress& p) { return progress.update(p.block, p.blocks), true; };
    ANYBIT_TRY(model::LayerWiseModel layers, model::quantize_layer_wise(d, plan, windows, embedding, how));
    out.remarks = model::warnings(layers.checks);
    done = std::move(layers.quantized);
  }
  progress.end();
  progress.clear();

  for (const model::WeightId id : d.blueprint->linears)
    if (const auto found = names.find((*d.blueprint)[id].name); found != names.end())
      add_exl3_module(out, found->second, *done.decoder[id].linear.packed());
  for (const model::QuantizedLayer& layer : done.layers) add_exl3_report(out, names.find(layer.name)->second, layer.report);
  if (out.head) {
    const std::string& name = names.find(head_weight)->second;
    add_exl3_module(out, name, *embedding.head);
    add_exl3_report(out, name, embedding.head_report);
  }
  double bits = 0, weights = 0;
  for (const Exl3Module& module : out.modules)
    bits += 8 * static_cast<double>(module.weights.payload_bytes()),
        weights += static_cast<double>(module.weights.bytes().extents().size());
  out.bits_per_weight = bits / std::max(1.0, weights);
  return out;
}

Status write_exl3_folder(const LinearSource& source, const Exl3Model& m, CheckpointFolder& to) {
  std::set<std::string> replaced;
  ordered_json storage = ordered_json::object();
  for (const Exl3Module& module : m.modules) {
    replaced.insert(module.name + ".weight");
    ordered_json tensors = ordered_json::object();
    ordered_json entry{{"stored_tensors", nullptr}, {"quant_format", "exl3"}, {"bits_per_weight", 0}};
    for (io::OwnedTensor& t : io::write_exl3(module.name, module.weights.bytes())) {
      if (t.name.ends_with(".trellis")) entry["bits_per_weight"] = t.shape.back() / 16;
      tensors[t.name] = stored_as(t);
      ANYBIT_TRY_STATUS(to.add(std::move(t)));
    }
    if (m.request.codebook == "mul1") entry["mul1_multiplier"] = Mul1::multiplier;
    if (m.request.codebook == "mcg") entry["mcg_multiplier"] = Mcg::multiplier;
    entry["stored_tensors"] = std::move(tensors);
    storage[module.name] = std::move(entry);
  }
  for (const io::TensorInfo& t : source.plain_tensors())
    if (!replaced.contains(t.name)) ANYBIT_TRY_STATUS(to.add({t.name, t.dtype, t.shape, {t.bytes.begin(), t.bytes.end()}}));
  ANYBIT_TRY(auto config, read_config_json(source.folder()));
  if (m.head) {
    // The head is a tensor of its own now, also where it was the embedding.
    config["tie_word_embeddings"] = false;
    if (config.contains("text_config") && config["text_config"].is_object()) config["text_config"]["tie_word_embeddings"] = false;
  }
  ordered_json quantization = exl3_config(m);
  config["quantization_config"] = quantization;
  ANYBIT_TRY_STATUS(to.write_text("config.json", text_of(config)));
  quantization["tensor_storage"] = std::move(storage);
  ANYBIT_TRY_STATUS(to.write_text("quantization_config.json", text_of(quantization)));
  return to.copy_other_files(source.folder());
}

}  // namespace tool
