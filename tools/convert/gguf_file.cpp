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

/// The types of each target, which share the measurements.
class TypeChoice {
 public:
  TypeChoice(const GgufRequest& request, const io::GgufWriter& metadata, const std::vector<GgufSource>& sources, FreePlan free)
      : request_(request), metadata_(metadata), sources_(sources), f_(std::move(free)), items_(f_.free.size()) {
    for (std::size_t i = 0; i < items_.size(); ++i) {
      for (const std::string_view type : f_.free[i].types) items_[i].push_back({size_of(i, type), 0});
      const auto [low, high] =
          std::minmax_element(items_[i].begin(), items_[i].end(), [](const auto& a, const auto& b) { return a.bytes < b.bytes; });
      least_ += low->bytes, most_ += high->bytes;
    }
  }

  /// Budgets, or an error where one cannot be had.
  Status find_budgets(const io::MixFacts& facts) {
    fixed_ = f_.fixed_bytes;
    if (whole_file()) {
      ANYBIT_TRY(const std::size_t file, io::GgufStream::file_bytes(metadata_, f_.plan));
      fixed_ = static_cast<Index>(file);
      for (std::size_t i = 0; i < f_.places.size(); ++i) fixed_ -= size_of(i, f_.plan[f_.places[i]].type);
    }
    for (const GgufTarget& t : request_.targets) {
      Index target = 0;
      if (t.bits > 0) {
        target = static_cast<Index>(std::floor(t.bits * static_cast<double>(f_.weights) / 8));
      } else if (t.mix) {
        GgufOutcome ignored;
        GgufRequest anything = request_;
        anything.strict = false;
        ANYBIT_TRY(const Plan like, plan_of_mix(anything, *t.mix, sources_, facts, ignored));
        ANYBIT_TRY(const std::size_t bytes, io::GgufStream::file_bytes(metadata_, like));
        target = static_cast<Index>(bytes);
      } else {
        constexpr Index any = Index{1} << 62;
        target = static_cast<Index>(std::min(t.bytes, static_cast<std::size_t>(any)));
      }
      if (target < fixed_ + least_)
        return Error{ErrorCode::invalid_argument,
                     whole_file() ? io::detail::text("a file of ", target, " bytes cannot be had: ggml's types give ",
                                                     fixed_ + least_, " to ", fixed_ + most_, " bytes")
                                  : io::detail::text(bits_text(t.bits), " bits a weight cannot be had: ggml's types give ",
                                                     bits_text(bits(fixed_ + least_)), " to ", bits_text(bits(fixed_ + most_)))};
      budgets_.push_back(target - fixed_);
    }
    return Ok{};
  }

  Status measure(const GgufCalibration& calibration, ThreadPool& pool, Progress& progress) {
    Index sum = 0;
    for (const Index b : budgets_) sum += std::min(b, most_);
    const double middle = bits(sum / static_cast<Index>(budgets_.size()) + f_.fixed_bytes);
    ANYBIT_TRY(const auto costs, type_costs(calibration, f_.free, middle, pool, progress));
    for (std::size_t i = 0; i < items_.size(); ++i)
      for (std::size_t t = 0; t < items_[i].size(); ++t) items_[i][t].cost = costs[i][t];
    return Ok{};
  }

  /// The plan of least expected loss within target `i`.
  Result<Plan> plan(std::size_t target, GgufOutcome& outcome) const {
    Plan out = f_.plan;
    ANYBIT_TRY(const evaluate::Allocation chosen, evaluate::allocate(items_, budgets_[target]));
    Index bytes = f_.fixed_bytes;
    for (std::size_t i = 0; i < items_.size(); ++i) {
      const std::string_view type = f_.free[i].types[chosen.chosen[i]];
      out[f_.places[i]].type = type;
      bytes += static_cast<Index>(ggml_bytes(*io::find_dtype(type), values_of(sources_[f_.places[i]].shape)));
    }
    outcome.remarks.push_back(io::detail::text(bits_text(bits(bytes)), " bits a weight, ", bytes, " bytes for ", f_.weights,
                                               " weights; expected KL ", gptq::detail::number(chosen.cost)));
    return out;
  }

 private:
  /// Of files every tensor counts, with its padding; of bits a weight the matrices alone.
  bool whole_file() const { return request_.targets.front().bits == 0; }
  double bits(Index bytes) const { return 8 * static_cast<double>(bytes) / static_cast<double>(f_.weights); }
  Index size_of(std::size_t i, std::string_view type) const {
    const auto bytes = static_cast<Index>(ggml_bytes(*io::find_dtype(type), values_of(sources_[f_.places[i]].shape)));
    return whole_file() ? round_up(bytes, static_cast<Index>(metadata_.alignment)) : bytes;
  }

  const GgufRequest& request_;
  const io::GgufWriter& metadata_;
  const std::vector<GgufSource>& sources_;
  FreePlan f_;
  std::vector<std::vector<evaluate::SizedCost>> items_;
  Index least_ = 0, most_ = 0;  ///< bytes of the free matrices
  Index fixed_ = 0;             ///< of what else counts
  std::vector<Index> budgets_;  ///< for the free matrices, by target
};

/// What general.file_type says: of chosen types the one that most weights have, as llama.cpp would guess it.
unsigned file_type_of(const Plan& plan) {
  std::map<std::string, Index> weights;
  for (const io::GgufStream::Tensor& t : plan)
    if (io::find_dtype(t.type)->block_values > 1 && io::mostly(t.type)) weights[t.type] += values_of(t.shape);
  const auto most =
      std::max_element(weights.begin(), weights.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  return most == weights.end() ? io::find_gguf_mix("F16")->file_type : io::mostly(most->first)->file_type;
}

/// What tensors are rounded by: at most one of the two.
struct Weighing {
  std::optional<GgufCalibration> calibration;
  std::optional<io::Imatrix> importance;
};

io::GgufWriter with_file_type(io::GgufWriter metadata, unsigned file_type) {
  metadata.add_metadata("general.file_type", std::uint32_t{file_type});
  metadata.add_metadata("general.quantization_version", std::uint32_t{2});
  return metadata;
}

Status write_file(const std::string& path, io::GgufWriter metadata, const Plan& tensors, const std::vector<GgufSource>& sources,
                  const Weighing& weighing, GgufOutcome& outcome, ThreadPool& pool, Progress& progress) {
  for (const auto& t : tensors) ++outcome.types[t.type];
  const auto keeps = [&](std::size_t i) { return tensors[i].type == sources[i].type && !sources[i].bytes.empty(); };
  TensorBytes calibrated;
  if (weighing.calibration) {
    TensorTypes wanted;
    for (std::size_t i = 0; i < sources.size(); ++i) {
      const GgufCalibration::Matrix* const m = weighing.calibration->find(sources[i].name);
      if (m && m->tensor.shape == sources[i].shape && has_ggml_gptq(tensors[i].type) && !keeps(i))
        wanted.emplace(sources[i].name, tensors[i].type);
    }
    ANYBIT_TRY(calibrated, weighing.calibration->round(wanted, pool, progress));
  }
  progress.clear();
  ANYBIT_TRY(outcome.bytes, io::GgufStream::file_bytes(metadata, tensors));
  ANYBIT_TRY(io::GgufStream stream, io::GgufStream::create(path, std::move(metadata), tensors));
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
      if (weighing.importance && error.largest > 0 && has_ggml_gptq(type.name)) {
        const auto weigh = output_error(*weighing.importance, s.name, values->extents().cols);
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
  return stream.commit();
}

Result<std::vector<GgufOutcome>> write(const GgufRequest& request, const io::GgufWriter& metadata,
                                       const std::vector<GgufSource>& sources, const io::MixFacts& facts) {
  ThreadPool pool(thread_count(request.threads));
  Progress progress;
  Weighing weighing;
  if (!request.calibrate.empty()) {
    ANYBIT_TRY(weighing.calibration, GgufCalibration::make(request.in, request.calibrate, request.calibration_tokens,
                                                           {request.targets.size()}, pool, progress));
    if (!request.imatrix.empty()) ANYBIT_TRY_STATUS(weighing.calibration->importance().save(request.imatrix));
  } else if (!request.importance.empty()) {
    ANYBIT_TRY(weighing.importance, io::Imatrix::open(request.importance));
  }
  std::vector<GgufOutcome> out(std::max<std::size_t>(1, request.targets.size()));
  if (request.targets.empty()) {
    ANYBIT_TRY(const Plan plan, plan_of_mix(request, *request.mix, sources, facts, out.front()));
    ANYBIT_TRY_STATUS(write_file(request.out, with_file_type(metadata, request.mix->file_type), plan, sources, weighing,
                                 out.front(), pool, progress));
    return out;
  }
  const io::GgufWriter as_long = with_file_type(metadata, 0);
  ANYBIT_TRY(FreePlan free, find_free(request, sources, facts, *weighing.calibration, out.front()));
  for (GgufOutcome& o : out) o = out.front();
  TypeChoice choice(request, as_long, sources, std::move(free));
  ANYBIT_TRY_STATUS(choice.find_budgets(facts));
  ANYBIT_TRY_STATUS(choice.measure(*weighing.calibration, pool, progress));
  for (std::size_t i = 0; i < out.size(); ++i) {
    ANYBIT_TRY(const Plan plan, choice.plan(i, out[i]));
    ANYBIT_TRY_STATUS(write_file(request.path(i), with_file_type(metadata, file_type_of(plan)), plan, sources, weighing, out[i],
                                 pool, progress));
  }
  return out;
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
Result<std::vector<GgufOutcome>> from_gguf(const GgufRequest& request) {
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
  return write(request, metadata, sources, facts);
}

/// Of a folder one block at a time, of other files whole.
Result<std::vector<GgufOutcome>> from_model(const GgufRequest& request) {
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
  return write(request, metadata, sources, facts);
}

}  // namespace

Result<std::vector<GgufOutcome>> convert_to_gguf(const GgufRequest& request) {
  std::error_code ignored;
  if (!fs::is_directory(request.in, ignored)) {
    ANYBIT_TRY(const io::MappedFile file, io::MappedFile::open(request.in));
    if (file.bytes().size() >= 4 && std::memcmp(file.bytes().data(), "GGUF", 4) == 0) return from_gguf(request);
  }
  return from_model(request);
}

}  // namespace tool
