#include "gguf_calibration.hpp"

#include <algorithm>
#include <filesystem>
#include <numeric>
#include <span>
#include <utility>

#include <anybit/quantize/block_by_block.hpp>

#include "ggml_rows.hpp"
#include "shared/conversations.hpp"
#include "shared/open_model.hpp"
#include "shared/text.hpp"

namespace tool {

using namespace anybit;

std::optional<OutputError> output_error(const Stats& stats) {
  const Index n = stats.inputs();
  std::vector<double> h(static_cast<std::size_t>(n * n)), diagonal;
  stats.hessian(MatrixView<double>(h.data(), n, n));
  double mean = 0;
  for (Index i = 0; i < n; ++i) mean += h[static_cast<std::size_t>(i * n + i)] / static_cast<double>(n);
  for (Index i = 0; i < n; ++i) {
    const double entry = h[static_cast<std::size_t>(i * n + i)];
    diagonal.push_back(entry != 0 ? entry : mean);
  }
  std::vector<Index> order(static_cast<std::size_t>(n));
  std::iota(order.begin(), order.end(), Index{0});
  Report report;
  auto factor = gptq::damped_factor<double>({{h.data(), n, n}, order, diagonal}, 0.01, report);
  if (!factor) return std::nullopt;
  OutputError out{*std::move(factor), Matrix(n, n)};
  for (Index i = 0; i < n; ++i)
    for (Index j = 0; j < n; ++j)
      out.hessian(i, j) = static_cast<float>(i == j ? diagonal[static_cast<std::size_t>(i)] + out.factor.damping
                                                    : h[static_cast<std::size_t>(i * n + j)]);
  return out;
}

Result<std::optional<OutputError>> output_error(const io::Imatrix& importance, const std::string& tensor, Index columns) {
  using Found = std::optional<OutputError>;
  const auto found = importance.entries.find(tensor);
  if (found == importance.entries.end() || found->second.counts.size() != 1) return Found{};
  std::vector<float> squares = found->second.mean_squares();
  if (static_cast<Index>(squares.size()) != columns)
    return Error{ErrorCode::shape_mismatch,
                 io::detail::text("the importance matrix has ", squares.size(), " columns, the tensor ", columns,
                                  ": give the one that was made for this model")};
  const float largest = *std::max_element(squares.begin(), squares.end());
  if (!(largest > 0)) return Found{};
  // Columns that were never seen still cost something, so that their groups have a scale.
  constexpr float least = 1e-6f;
  for (float& s : squares) s = std::max(s / largest, least);
  OutputError out;
  out.factor.size = columns, out.factor.weight = std::move(squares), out.factor.unit = static_cast<double>(largest);
  return Found{std::move(out)};
}

Result<std::optional<std::vector<std::byte>>> put_rounded(model::Decoder& d, const GgufCalibration::Matrix& m, ConstMatrix values,
                                                          const io::DType& type, const OutputError* weigh, ThreadPool& pool) {
  std::vector<std::byte> bytes(ggml_bytes(type, values.rows * values.cols));
  const auto nearest = encode_nearest(type, values, bytes, pool);
  if (!nearest) return in_context(nearest.error(), "tensor " + io::detail::shown(m.tensor.name));
  if (nearest->largest == 0) return std::optional<std::vector<std::byte>>{};
  if (weigh) encode_for_outputs(type, values, weigh->factor, weigh->hessian.view(), bytes, pool);
  Matrix decoded(values.rows, values.cols);
  type.to_f32(bytes.data(), values.rows * values.cols / type.block_values, decoded.data());
  model::set_gguf_tensor(d, m.tensor, decoded.view());
  return std::optional(std::move(bytes));
}

Result<GgufCalibration> GgufCalibration::make(const std::string& model, const std::string& text, Index tokens,
                                              CalibrationWork work, ThreadPool& pool, Progress& progress) {
  constexpr Index longest = 512;
  ANYBIT_TRY(const std::string words, read_text(text));
  ANYBIT_TRY(model::Model opened, open_model(model, {}));
  GgufCalibration out;
  out.work_ = work;
  out.model_ = std::make_unique<model::Model>(std::move(opened));
  const model::Decoder& d = out.model_->decoder;
  ANYBIT_TRY(out.ids_, domain_tokens(words, text, out.model_->tokenizer, {{}, model}));
  if (static_cast<Index>(out.ids_.size()) > tokens) out.ids_.resize(static_cast<std::size_t>(tokens));
  if (static_cast<Index>(out.ids_.size()) < longest)
    return Error{ErrorCode::insufficient_data,
                 io::detail::text(text, ": has ", out.ids_.size(), " tokens, calibration needs at least ", longest,
                                  ": give a longer text")};
  out.window_ = std::min(longest, d.config.context);
  out.text_ = std::filesystem::path(text).filename().string();

  out.seen_ = model::ModelStats(d, Needs::none, Stats::default_sample_cap, Needs::hessian);
  progress.begin("running the text through the model", work.text, work.all());
  const auto windows = out.windows();
  for (std::size_t w = 0; w < windows.size(); ++w) {
    ANYBIT_TRY(const anybit::Matrix ignored, out.seen_.accumulate(d, windows[w], pool));
    progress.update(static_cast<Index>(w) + 1, static_cast<Index>(windows.size()));
  }
  progress.end();

  const model::Blueprint& b = *d.blueprint;
  for (model::GgufTensor& t : model::gguf_tensors(d)) {
    if (t.shape.size() != 2 || t.weights.empty() || t.bias) continue;
    Matrix m;
    const std::size_t first = t.weights.front();
    if (d.weights[first].linear.extents().size() == 0) continue;
    m.embedding = first == model::place(b.embedding);
    m.head = first == model::place(d.has_head() ? b.head : b.embedding);
    for (std::size_t s = 0; s < b.sites.size(); ++s)
      for (const model::WeightId reader : b.sites[s].readers)
        if (model::place(reader) == first) m.site = static_cast<model::SiteId>(s);
    if (!m.site && !m.embedding && !m.head) continue;
    for (std::size_t l = 0; l < b.linears.size(); ++l)
      if (std::find(t.weights.begin(), t.weights.end(), model::place(b.linears[l])) != t.weights.end()) m.linears.push_back(l);
    m.tensor = std::move(t);
    out.matrices_.push_back(std::move(m));
  }
  return out;
}

const GgufCalibration::Matrix* GgufCalibration::find(const std::string& tensor) const {
  const auto found = std::find_if(matrices_.begin(), matrices_.end(), [&](const Matrix& m) { return m.tensor.name == tensor; });
  return found == matrices_.end() ? nullptr : &*found;
}

std::vector<std::span<const model::TokenId>> GgufCalibration::windows() const {
  constexpr std::size_t least = 16;
  std::vector<std::span<const model::TokenId>> out;
  const auto length = static_cast<std::size_t>(window_);
  for (std::size_t first = 0; first + std::min(least, length) <= ids_.size(); first += length)
    out.push_back(std::span(ids_).subspan(first, std::min(length, ids_.size() - first)));
  return out;
}

io::Imatrix GgufCalibration::importance() const {
  io::Imatrix out;
  Index tokens = 0;
  const auto windows = this->windows();
  for (const auto& w : windows) tokens += static_cast<Index>(w.size());
  out.datasets = {text_}, out.chunks = static_cast<std::uint32_t>(windows.size());
  out.chunk_size = static_cast<std::uint32_t>(window_);
  for (const Matrix& m : matrices_) {
    if (!m.site) continue;
    io::ImatrixEntry e;
    e.counts = {static_cast<float>(tokens)};
    for (const float v : seen_.at(*m.site, Needs::none).mean_square()) e.sums.push_back(v * static_cast<float>(tokens));
    out.entries.emplace(m.tensor.name, std::move(e));
  }
  return out;
}

Status GgufCalibration::for_blocks(model::Decoder& d, ThreadPool& pool,
                                   const std::function<Status(Index, const model::ModelStats&)>& f) const {
  const auto windows = this->windows();
  const model::Blueprint& b = *d.blueprint;
  model::detail::Stream stream(d, windows, {}, pool);
  model::detail::WindowRunner runner(d, pool);
  for (Index block = 0; block < d.config.blocks; ++block) {
    const std::vector<model::SiteId> sites = b.sites_of(block);
    model::ModelStats stats(d, Needs::hessian, sites, Stats::default_sample_cap);
    Status status = Ok{};
    const auto add = [&](model::SiteId s, ConstMatrix x) {
      if (status) status = stats.add(s, x, nullptr, pool);
    };
    const std::vector<model::Tap> taps = model::site_taps(b, sites, add);
    for (std::size_t w = 0; w < windows.size() && !sites.empty(); ++w) {
      runner.look(d.block(block), block, stream, w, taps, b[sites.back()].point);
      if (!status) return status;
    }
    ANYBIT_TRY_STATUS(f(block, stats));
    if (block + 1 < d.config.blocks)
      for (std::size_t w = 0; w < windows.size(); ++w) runner.run(d.block(block), block, stream, w);
  }
  return Ok{};
}

Result<TensorBytes> GgufCalibration::round(const TensorTypes& types, ThreadPool& pool, Progress& progress) const {
  TensorBytes out;
  if (types.empty()) return out;
  model::Decoder d = decoder();
  const auto round = [&](const Matrix& m, const OutputError* weigh) -> Status {
    const auto wanted = types.find(m.tensor.name);
    if (wanted == types.end()) return Ok{};
    const io::DType& type = *io::find_dtype(wanted->second);
    const anybit::Matrix values = model::read_gguf_tensor(decoder(), decoder().weights, m.tensor);
    ANYBIT_TRY(auto bytes, put_rounded(d, m, values.view(), type, weigh, pool));
    if (bytes && (m.site || m.head)) out.emplace(m.tensor.name, *std::move(bytes));
    return Ok{};
  };
  const Index steps = d.config.blocks + 1;
  progress.begin("rounding", work_.rounding, work_.all());
  const std::optional<OutputError> of_head = output_error(head());
  for (const Matrix& m : matrices_)
    if (!m.site) ANYBIT_TRY_STATUS(round(m, m.head && of_head ? &*of_head : nullptr));
  progress.update(1, steps);
  ANYBIT_TRY_STATUS(for_blocks(d, pool, [&](Index block, const model::ModelStats& stats) -> Status {
    std::optional<OutputError> weigh;
    std::optional<model::SiteId> at;
    for (const Matrix& m : matrices_) {
      if (!m.site || m.tensor.block != block || !types.contains(m.tensor.name)) continue;
      if (at != m.site) weigh = output_error(stats.at(*m.site, Needs::hessian)), at = m.site;
      ANYBIT_TRY_STATUS(round(m, weigh ? &*weigh : nullptr));
    }
    progress.update(block + 2, steps);
    return Ok{};
  }));
  progress.end();
  return out;
}

}  // namespace tool
