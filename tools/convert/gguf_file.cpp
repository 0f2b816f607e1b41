#include "gguf_file.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <numeric>
#include <optional>
#include <utility>

#include <nlohmann/json.hpp>

#include <anybit/exec/thread_pool.hpp>
#include <anybit/io/gguf.hpp>
#include <anybit/io/gguf_writer.hpp>
#include <anybit/io/mapped_file.hpp>
#include <anybit/model/to_gguf.hpp>
#include <anybit/quantize/allocation.hpp>
#include <anybit/quantize/ggml_gptq.hpp>

#include "ggml_rows.hpp"
#include "gguf_calibration.hpp"
#include "gguf_types.hpp"
#include "shared/conversations.hpp"
#include "shared/open_model.hpp"

namespace tool {

using namespace anybit;
namespace fs = std::filesystem;

namespace {

/// A tensor to write: its bytes as they are where the type stays, else its values.
struct GgufSource {
  std::string name;
  std::vector<Index> shape;
  std::string type;                    ///< in the input; "F32" of models
  std::span<const std::byte> bytes{};  ///< of the input's type; empty: only read() has the values
  std::function<Result<Matrix>()> read;
};

using Plan = std::vector<io::GgufStream::Tensor>;

/// What a file of `sources` in a mix looks like, or an error in strict mode.
Result<Plan> plan_of_mix(const GgufRequest& request, const io::GgufMix& mix, const std::vector<GgufSource>& sources,
                         const io::MixFacts& facts, GgufOutcome& outcome) {
  Plan out;
  for (const GgufSource& s : sources) {
    std::string type = s.type;
    if (const auto mixed = io::mixed_type(mix, s.name, s.shape.size(), s.shape.back(), facts)) {
      type = mixed->type;
      if (mixed->type != mixed->asked) {
        if (request.strict)
          return Error{ErrorCode::unsupported,
                       io::detail::text("tensor ", io::detail::shown(s.name), ": no block of ", mixed->asked, " divides rows of ",
                                        s.shape.back(), " values, and --strict forbids ", mixed->type,
                                        " in its place: choose another --type, or leave --strict")};
        ++outcome.substituted[{std::string(mixed->asked), type}];
      }
    }
    out.push_back({s.name, s.shape, std::move(type)});
  }
  return out;
}

Index values_of(const std::vector<Index>& shape) {
  return std::accumulate(shape.begin(), shape.end(), Index{1}, std::multiplies<>());
}

/// Matrices that the text can be asked about are free to take any type that fits; the others are as in `mix`, which is Q8_0.
struct FreePlan {
  Plan plan;
  std::vector<std::size_t> places;  ///< of the free matrices in the plan
  std::vector<FreeMatrix> free;
  Index weights = 0, fixed_bytes = 0;  ///< of all matrices; of those that are not free
};

Result<FreePlan> find_free(const GgufRequest& request, const std::vector<GgufSource>& sources, const io::MixFacts& facts,
                           const GgufCalibration& calibration, GgufOutcome& outcome) {
  FreePlan out;
  ANYBIT_TRY(out.plan, plan_of_mix(request, *request.mix, sources, facts, outcome));
  for (std::size_t i = 0; i < sources.size(); ++i) {
    const GgufSource& s = sources[i];
    if (!io::mixed_type(*request.mix, s.name, s.shape.size(), s.shape.back(), facts)) continue;
    const Index values = values_of(s.shape);
    out.weights += values;
    const GgufCalibration::Matrix* const matrix = calibration.find(s.name);
    FreeMatrix f{matrix && matrix->tensor.shape == s.shape ? matrix : nullptr, ggml_gptq_types(s.shape.back()), {}};
    if (f.matrix && !f.types.empty()) {
      if (!s.bytes.empty()) f.keeps = s.type;
      out.places.push_back(i), out.free.push_back(std::move(f));
      continue;
    }
    if (s.shape.size() > 2)
      return Error{
          ErrorCode::unsupported,
          io::detail::text("tensor ", io::detail::shown(s.name),
                           " holds the same matrix of several experts, of which none has an error of its own: types cannot "
                           "be chosen for this model, give --type")};
    out.fixed_bytes += static_cast<Index>(ggml_bytes(*io::find_dtype(out.plan[i].type), values));
    outcome.remarks.push_back(
        io::detail::text(io::detail::shown(s.name), " is ", out.plan[i].type, ": ",
                         f.types.empty() ? io::detail::text("no type's blocks divide its rows of ", s.shape.back(), " values")
                                         : std::string("it takes part in no product that the text was run through")));
  }
  if (out.free.empty()) return Error{ErrorCode::unsupported, "no matrix of the model has a type to choose: give --type"};
  return out;
}

std::string bits_text(double bits) {
  char text[32];
  std::snprintf(text, sizeof text, "%.4f", bits);
  return text;
}

/// The plan of least expected loss within the target.
Result<Plan> plan_for_target(const GgufRequest& request, const io::GgufWriter& metadata, const std::vector<GgufSource>& sources,
                             const io::MixFacts& facts, const GgufCalibration& calibration, GgufOutcome& outcome,
                             ThreadPool& pool, Progress& progress) {
  ANYBIT_TRY(FreePlan f, find_free(request, sources, facts, calibration, outcome));
  // Of files every tensor counts, with its padding; of bits a weight the matrices alone.
  const bool whole_file = request.target_bits == 0;
  std::vector<std::vector<evaluate::SizedCost>> items(f.free.size());
  const auto size_of = [&](std::size_t i, std::string_view type) {
    const auto bytes = static_cast<Index>(ggml_bytes(*io::find_dtype(type), values_of(sources[f.places[i]].shape)));
    return whole_file ? round_up(bytes, static_cast<Index>(metadata.alignment)) : bytes;
  };
  Index least = 0, most = 0;
  for (std::size_t i = 0; i < items.size(); ++i) {
    for (const std::string_view type : f.free[i].types) items[i].push_back({size_of(i, type), 0});
    const auto [low, high] =
        std::minmax_element(items[i].begin(), items[i].end(), [](const auto& a, const auto& b) { return a.bytes < b.bytes; });
    least += low->bytes, most += high->bytes;
  }
  Index target = 0, fixed = f.fixed_bytes;
  const auto bits = [&](Index bytes) { return 8 * static_cast<double>(bytes) / static_cast<double>(f.weights); };
  if (whole_file) {
    Index free = 0;
    for (std::size_t i = 0; i < f.places.size(); ++i) free += size_of(i, f.plan[f.places[i]].type);
    ANYBIT_TRY(const std::size_t file, io::GgufStream::file_bytes(metadata, f.plan));
    fixed = static_cast<Index>(file) - free;
    target = static_cast<Index>(request.target_bytes);
    if (request.target_mix) {
      GgufOutcome ignored;
      ANYBIT_TRY(const Plan like, plan_of_mix(request, *request.target_mix, sources, facts, ignored));
      ANYBIT_TRY(const std::size_t like_bytes, io::GgufStream::file_bytes(metadata, like));
      target = static_cast<Index>(like_bytes);
    }
  } else {
    target = static_cast<Index>(std::floor(request.target_bits * static_cast<double>(f.weights) / 8));
  }
  if (target < fixed + least)
    return Error{ErrorCode::invalid_argument,
                 whole_file ? io::detail::text("a file of ", target, " bytes cannot be had: ggml's types give ", fixed + least,
                                               " to ", fixed + most, " bytes")
                            : io::detail::text(bits_text(request.target_bits), " bits a weight cannot be had: ggml's types give ",
                                               bits_text(bits(fixed + least)), " to ", bits_text(bits(fixed + most)))};
  const double probe_bits = whole_file ? bits(std::min(target - fixed, most) + f.fixed_bytes) : request.target_bits;
  ANYBIT_TRY(const auto costs, type_costs(calibration, f.free, probe_bits, pool, progress));
  for (std::size_t i = 0; i < items.size(); ++i)
    for (std::size_t t = 0; t < items[i].size(); ++t) items[i][t].cost = costs[i][t];
  ANYBIT_TRY(const evaluate::Allocation chosen, evaluate::allocate(items, target - fixed));
  Index bytes = f.fixed_bytes;
  for (std::size_t i = 0; i < items.size(); ++i) {
    std::string& type = f.plan[f.places[i]].type;
    type = f.free[i].types[chosen.chosen[i]];
    bytes += static_cast<Index>(ggml_bytes(*io::find_dtype(type), values_of(sources[f.places[i]].shape)));
  }
  outcome.remarks.push_back(io::detail::text(bits_text(bits(bytes)), " bits a weight, ", bytes, " bytes for ", f.weights,
                                             " weights; expected KL ", gptq::detail::number(chosen.cost)));
  return std::move(f.plan);
}

/// What general.file_type says: of chosen types the one that most weights have, as llama.cpp would guess it.
unsigned file_type_of(const Plan& plan) {
  std::map<std::string, Index> weights;
  for (const io::GgufStream::Tensor& t : plan)
    if (io::find_dtype(t.type)->block_values > 1) weights[t.type] += values_of(t.shape);
  const auto most =
      std::max_element(weights.begin(), weights.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  return most == weights.end() ? io::find_gguf_mix("F16")->file_type : io::mostly(most->first)->file_type;
}

Result<GgufOutcome> write(const GgufRequest& request, io::GgufWriter metadata, const std::vector<GgufSource>& sources,
                          const io::MixFacts& facts) {
  GgufOutcome outcome;
  ThreadPool pool(thread_count(request.threads));
  Progress progress;
  std::optional<GgufCalibration> calibration;
  std::optional<io::Imatrix> importance;
  if (!request.calibrate.empty()) {
    ANYBIT_TRY(calibration, GgufCalibration::make(request.in, request.calibrate, request.calibration_tokens, pool, progress));
    if (!request.imatrix.empty()) ANYBIT_TRY_STATUS(calibration->importance().save(request.imatrix));
  } else if (!request.importance.empty()) {
    ANYBIT_TRY(importance, io::Imatrix::open(request.importance));
  }
  const auto with_type = [&](unsigned file_type) {
    io::GgufWriter out = metadata;
    out.add_metadata("general.file_type", std::uint32_t{file_type});
    out.add_metadata("general.quantization_version", std::uint32_t{2});
    return out;
  };
  Plan tensors;
  if (request.chooses()) {
    ANYBIT_TRY(tensors, plan_for_target(request, with_type(0), sources, facts, *calibration, outcome, pool, progress));
    metadata = with_type(file_type_of(tensors));
  } else {
    ANYBIT_TRY(tensors, plan_of_mix(request, *request.mix, sources, facts, outcome));
    metadata = with_type(request.mix->file_type);
  }
  for (const auto& t : tensors) ++outcome.types[t.type];
  const auto keeps = [&](std::size_t i) { return tensors[i].type == sources[i].type && !sources[i].bytes.empty(); };
  TensorBytes calibrated;
  if (calibration) {
    TensorTypes wanted;
    for (std::size_t i = 0; i < sources.size(); ++i) {
      const GgufCalibration::Matrix* const m = calibration->find(sources[i].name);
      if (m && m->tensor.shape == sources[i].shape && has_ggml_gptq(tensors[i].type) && !keeps(i))
        wanted.emplace(sources[i].name, tensors[i].type);
    }
    ANYBIT_TRY(calibrated, calibration->round(wanted, pool, progress));
    calibration.reset();
  }
  progress.clear();
  ANYBIT_TRY(outcome.bytes, io::GgufStream::file_bytes(metadata, tensors));
  ANYBIT_TRY(io::GgufStream stream, io::GgufStream::create(request.out, std::move(metadata), tensors));
  for (std::size_t i = 0; i < sources.size(); ++i) {
    const GgufSource& s = sources[i];
    const auto context = [&](const Error& e) { return in_context(e, "tensor " + io::detail::shown(s.name)); };
    if (keeps(i)) {
      ++outcome.exact;
      ANYBIT_TRY_STATUS(stream.write(s.bytes));
      continue;
    }
    auto values = s.read();
    if (!values) return context(values.error());
    const io::DType& type = *io::find_dtype(tensors[i].type);
    const Index size = values->extents().size();
    io::RoundingError error;
    std::vector<std::byte> bytes;
    if (const auto found = calibrated.find(s.name); found != calibrated.end()) {
      bytes = std::move(found->second);
      error = rounding_error(type, values->view(), bytes, pool);
      ++outcome.calibrated;
    } else {
      bytes.resize(ggml_bytes(type, size));
      const auto nearest = encode_nearest(type, values->view(), bytes, pool);
      if (!nearest) return context(nearest.error());
      error = *nearest;
      if (importance && error.largest > 0 && has_ggml_gptq(type.name)) {
        const auto weigh = output_error(*importance, s.name, values->extents().cols);
        if (!weigh) return context(weigh.error());
        if (*weigh) {
          encode_for_outputs(type, values->view(), (*weigh)->factor, {}, bytes, pool);
          error = rounding_error(type, values->view(), bytes, pool);
          ++outcome.calibrated;
        }
      }
    }
    if (error.largest > 0) {
      ++outcome.rounded;
      if (io::find_dtype(s.type)->block_values > 1) ++outcome.rounded_twice;
      if (error.largest > outcome.error.largest) outcome.worst = s.name;
      outcome.error.add(error);
      outcome.values += size;
    } else {
      ++outcome.exact;
    }
    ANYBIT_TRY_STATUS(stream.write(bytes));
  }
  ANYBIT_TRY_STATUS(stream.commit());
  return outcome;
}

/// The largest of a count that is one number, or one a block.
Index count_or(const io::GgufFile& file, const std::string& key, Index fallback) {
  if (!file.has(key)) return fallback;
  if (const auto one = file.get_u64(key)) return static_cast<Index>(std::min<std::uint64_t>(*one, 1u << 30));
  Index out = fallback;
  if (const auto many = file.get_ints(key))
    for (const std::int32_t n : *many) out = std::max<Index>(out, n);
  return out;
}

/// Any architecture: metadata are copied.
Result<GgufOutcome> from_gguf(const GgufRequest& request) {
  ANYBIT_TRY(const io::GgufFile file, io::GgufFile::open(request.in));
  if (request.context > 0)
    return Error{ErrorCode::invalid_argument, request.in + ": --context is for models that are no GGUF file: leave it out"};
  io::GgufWriter metadata;
  for (const std::string& key : file.keys()) {
    if (key.starts_with("split.") || key == "general.file_type" || key == "general.quantization_version" ||
        key == "general.alignment")
      continue;
    ANYBIT_TRY(const auto value, file.raw(key));
    metadata.add_raw_metadata(key, value.type, value.bytes);
  }
  ANYBIT_TRY(const std::string architecture, file.get_string("general.architecture"));
  const auto count = [&](const char* key, Index fallback) { return count_or(file, architecture + "." + key, fallback); };
  const Index heads = count("attention.head_count", 1), key_heads = count("attention.head_count_kv", heads);
  io::MixFacts facts;
  facts.blocks = count("block_count", 0), facts.experts = count("expert_count", 0);
  facts.queries_per_key = key_heads > 0 ? heads / key_heads : 1;
  facts.tied = !file.find("output.weight");
  std::vector<GgufSource> sources;
  for (const io::TensorInfo& t : file.tensors()) {
    if (!io::find_dtype(t.dtype) || io::find_dtype(t.dtype)->gguf_id < 0)
      return Error{ErrorCode::unsupported,
                   io::detail::text(request.in, ": tensor ", io::detail::shown(t.name), " has the unknown type ",
                                    io::detail::shown(t.dtype), ": convert the model again")};
    sources.push_back({t.name, t.shape, t.dtype, t.bytes, [&t] { return io::to_f32(t); }});
  }
  return write(request, std::move(metadata), sources, facts);
}

/// Of a folder one block at a time, of other files whole.
Result<GgufOutcome> from_model(const GgufRequest& request) {
  std::error_code ignored;
  const bool folder = fs::is_directory(request.in, ignored);
  std::optional<model::BlockwiseModel> opened;
  if (folder) {
    ANYBIT_TRY(opened, model::open_blocks(request.in));
  } else {
    ANYBIT_TRY(model::Model whole, open_model(request.in, {}));
    opened = model::BlockwiseModel{std::move(whole), {}};
  }
  model::Decoder& d = opened->model.decoder;
  if (request.context > 0) model::limit_context(d.config, request.context);
  const std::vector<model::GgufTensor> tensors = model::gguf_tensors(d);
  io::GgufWriter metadata;
  const auto here = [&](const Status& s) { return in_context(s.error(), request.in); };
  if (const auto done = model::write_gguf_metadata(metadata, d, opened->model.name, tensors); !done) return here(done);
  if (const auto done = model::write_tokenizer(metadata, opened->model.tokenizer); !done) return here(done);
  if (const std::string text = folder ? chat_template_text(request.in) : ""; !text.empty())
    metadata.add_metadata("tokenizer.chat_template", text);

  Index loaded = model::no_block;
  const auto read = [&](const model::GgufTensor& t) -> Result<Matrix> {
    if (t.block != loaded && t.block != model::no_block && opened->load_block) {
      if (loaded != model::no_block) d.set_block(loaded, model::BlockWeights(d.block(loaded).size()));
      ANYBIT_TRY(const model::BlockWeights block, opened->load_block(t.block));
      d.set_block(t.block, block);
      loaded = t.block;
    }
    return model::read_gguf_tensor(d, d.weights, t);
  };
  std::vector<GgufSource> sources;
  for (const model::GgufTensor& t : tensors) sources.push_back({t.name, t.shape, "F32", {}, [&read, &t] { return read(t); }});
  io::MixFacts facts;
  facts.blocks = d.config.blocks, facts.queries_per_key = d.config.heads / d.config.kv_heads, facts.tied = !d.has_head();
  return write(request, std::move(metadata), sources, facts);
}

}  // namespace

Result<GgufOutcome> convert_to_gguf(const GgufRequest& request) {
  std::error_code ignored;
  if (!fs::is_directory(request.in, ignored)) {
    ANYBIT_TRY(const io::MappedFile file, io::MappedFile::open(request.in));
    if (file.bytes().size() >= 4 && std::memcmp(file.bytes().data(), "GGUF", 4) == 0) return from_gguf(request);
  }
  return from_model(request);
}

}  // namespace tool
