#include "gguf_file.hpp"

#include <atomic>
#include <filesystem>
#include <functional>
#include <mutex>
#include <optional>
#include <utility>

#include <nlohmann/json.hpp>

#include <anybit/exec/thread_pool.hpp>
#include <anybit/io/gguf.hpp>
#include <anybit/io/gguf_writer.hpp>
#include <anybit/io/mapped_file.hpp>
#include <anybit/model/to_gguf.hpp>
#include <anybit/quantize/ggml_gptq.hpp>

#include "gguf_calibration.hpp"
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

/// Calls encode(rows, blocks of these rows) for slices of `grain` rows on all threads; the first error in row order.
template <class Encode>
Result<io::RoundingError> encode_slices(const io::DType& type, ConstMatrix m, Index grain, std::span<std::byte> to,
                                        ThreadPool& pool, const Encode& encode) {
  const auto row_bytes = static_cast<std::size_t>(m.cols / type.block_values * type.block_bytes);
  std::mutex mutex;
  io::RoundingError total;
  std::optional<std::pair<Index, Error>> failed;
  pool.parallel_for(m.rows, grain, [&](Index begin, Index end) {
    const ConstMatrix rows(m.row(begin).data(), end - begin, m.cols);
    const Result<io::RoundingError> done = encode(rows, to.data() + static_cast<std::size_t>(begin) * row_bytes);
    const std::scoped_lock lock(mutex);
    if (done)
      total.add(*done);
    else if (!failed || begin < failed->first)
      failed.emplace(begin, done.error());
  });
  if (failed) return failed->second;
  return total;
}

Result<io::RoundingError> encode(const io::GgmlEncoder& encoder, ConstMatrix m, std::span<std::byte> to, ThreadPool& pool) {
  return encode_slices(*io::find_dtype(encoder.name), m, 8, to, pool,
                       [&](ConstMatrix rows, std::byte* own) { return io::encode_rows(encoder, rows, own); });
}

/// Rounded for the error of the outputs. Weights that are not finite have been refused by encode() before.
Result<io::RoundingError> encode_for_outputs(const io::DType& type, ConstMatrix m, const gptq::Factor& factor,
                                             std::span<std::byte> to, ThreadPool& pool) {
  return encode_slices(type, m, 16, to, pool, [&](ConstMatrix rows, std::byte* own) -> Result<io::RoundingError> {
    ggml_gptq_rows(type.name, rows, factor, own);
    std::vector<float> decoded(static_cast<std::size_t>(rows.rows * rows.cols));
    type.to_f32(own, rows.rows * rows.cols / type.block_values, decoded.data());
    io::RoundingError error;
    for (std::size_t i = 0; i < decoded.size(); ++i) {
      const double e = std::fabs(static_cast<double>(decoded[i]) - static_cast<double>(rows.data[i]));
      error.add({e, e});
    }
    return error;
  });
}

/// What a file of `sources` in the mix looks like, or an error in strict mode.
Result<std::vector<io::GgufStream::Tensor>> plan(const GgufRequest& request, const std::vector<GgufSource>& sources,
                                                 const io::MixFacts& facts, GgufOutcome& outcome) {
  std::vector<io::GgufStream::Tensor> out;
  for (const GgufSource& s : sources) {
    std::string type = s.type;
    if (const auto mixed = io::mixed_type(*request.mix, s.name, s.shape.size(), s.shape.back(), facts)) {
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
    ++outcome.types[type];
    out.push_back({s.name, s.shape, std::move(type)});
  }
  return out;
}

Result<GgufOutcome> write(const GgufRequest& request, io::GgufWriter metadata, const std::vector<GgufSource>& sources,
                          const io::MixFacts& facts) {
  GgufOutcome outcome;
  ANYBIT_TRY(const auto tensors, plan(request, sources, facts, outcome));
  metadata.add_metadata("general.file_type", std::uint32_t{request.mix->file_type});
  metadata.add_metadata("general.quantization_version", std::uint32_t{2});
  ThreadPool pool(thread_count(request.threads));
  std::optional<GgufCalibration> calibration;
  if (!request.calibrate.empty()) {
    ANYBIT_TRY(calibration, GgufCalibration::make(request.in, request.calibrate, request.calibration_tokens, pool));
    if (!request.imatrix.empty()) ANYBIT_TRY_STATUS(calibration->importance().save(request.imatrix));
  } else if (!request.importance.empty()) {
    ANYBIT_TRY(calibration, GgufCalibration::read(request.importance));
  }
  ANYBIT_TRY(io::GgufStream stream, io::GgufStream::create(request.out, std::move(metadata), tensors));
  for (std::size_t i = 0; i < sources.size(); ++i) {
    const GgufSource& s = sources[i];
    const auto context = [&](const Error& e) { return in_context(e, "tensor " + io::detail::shown(s.name)); };
    if (tensors[i].type == s.type && !s.bytes.empty()) {
      ++outcome.exact;
      ANYBIT_TRY_STATUS(stream.write(s.bytes));
      continue;
    }
    auto values = s.read();
    if (!values) return context(values.error());
    const io::DType& type = *io::find_dtype(tensors[i].type);
    const io::GgmlEncoder* const encoder = io::find_ggml_encoder(type.name);
    ANYBIT_CHECK(encoder, "a mix names a type that has no encoder");
    const Index size = values->extents().size();
    std::vector<std::byte> bytes(static_cast<std::size_t>(size / type.block_values * type.block_bytes));
    auto error = encode(*encoder, values->view(), bytes, pool);
    if (!error) return context(error.error());
    const gptq::Factor* factor = nullptr;
    if (calibration && has_ggml_gptq(type.name)) {
      const auto found = calibration->factor(s.name, values->extents().cols);
      if (!found) return context(found.error());
      factor = *found;
    }
    if (factor && error->largest > 0) {
      error = encode_for_outputs(type, values->view(), *factor, bytes, pool);
      ++outcome.calibrated;
    }
    if (error->largest > 0) {
      ++outcome.rounded;
      if (io::find_dtype(s.type)->block_values > 1) ++outcome.rounded_twice;
      if (error->largest > outcome.error.largest) outcome.worst = s.name;
      outcome.error.add(*error);
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
