#include "gguf_calibration.hpp"

#include <algorithm>
#include <filesystem>
#include <numeric>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include <anybit/model/to_gguf.hpp>

#include "shared/conversations.hpp"
#include "shared/open_model.hpp"
#include "shared/text.hpp"

namespace tool {

using namespace anybit;

Result<GgufCalibration> GgufCalibration::make(const std::string& model, const std::string& text, Index tokens, ThreadPool& pool) {
  constexpr Index window = 512;
  ANYBIT_TRY(const std::string words, read_text(text));
  ANYBIT_TRY(const model::Model m, open_model(model, {}));
  const model::Decoder& d = m.decoder;
  ANYBIT_TRY(std::vector<model::TokenId> ids, domain_tokens(words, text, m.tokenizer, {{}, model}));
  if (static_cast<Index>(ids.size()) > tokens) ids.resize(static_cast<std::size_t>(tokens));
  if (static_cast<Index>(ids.size()) < window)
    return Error{
        ErrorCode::insufficient_data,
        io::detail::text(text, ": has ", ids.size(), " tokens, calibration needs at least ", window, ": give a longer text")};
  GgufCalibration out;
  out.text_ = std::filesystem::path(text).filename().string();
  out.stats_ = model::ModelStats(d, Needs::hessian);
  for (std::size_t first = 0; first + 16 <= ids.size(); first += window, ++out.windows_) {
    const auto part = std::span(ids).subspan(first, std::min<std::size_t>(window, ids.size() - first));
    ANYBIT_TRY(const Matrix ignored, out.stats_.accumulate(d, part, pool));
    out.tokens_ += static_cast<Index>(part.size());
  }
  const std::vector<model::GgufTensor> tensors = model::gguf_tensors(d);
  for (const model::GgufTensor& t : tensors) {
    if (t.shape.size() != 2 || t.weights.empty()) continue;
    for (std::size_t s = 0; s < d.blueprint->sites.size(); ++s)
      for (const model::WeightId reader : d.blueprint->sites[s].readers)
        if (model::place(reader) == t.weights.front()) out.sites_[t.name] = static_cast<model::SiteId>(s);
  }
  return out;
}

namespace {
using Found = const gptq::Factor*;
}  // namespace

Result<GgufCalibration> GgufCalibration::read(const std::string& path) {
  GgufCalibration out;
  ANYBIT_TRY(out.given_, io::Imatrix::open(path));
  return out;
}

Result<const gptq::Factor*> GgufCalibration::factor(const std::string& tensor, Index columns) {
  if (given_) return factor_of_importance(tensor, columns);
  const auto found = sites_.find(tensor);
  if (found == sites_.end()) return Found{};
  if (factor_ && at_ == found->second) return Found{factor_.get()};
  factor_.reset();
  const Stats& stats = stats_.at(found->second, Needs::hessian);
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
  auto made = gptq::damped_factor<double>({{h.data(), n, n}, order, diagonal}, 0.01, report);
  if (!made) return Found{};
  at_ = found->second;
  factor_ = std::make_unique<gptq::Factor>(*std::move(made));
  return Found{factor_.get()};
}

/// Without feedback: of an importance matrix only the costs of the columns are known.
Result<const gptq::Factor*> GgufCalibration::factor_of_importance(const std::string& tensor, Index columns) {
  const auto found = given_->entries.find(tensor);
  if (found == given_->entries.end() || found->second.counts.size() != 1) return Found{};
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
  factor_ = std::make_unique<gptq::Factor>();
  factor_->size = columns, factor_->weight = std::move(squares), factor_->unit = static_cast<double>(largest);
  return Found{factor_.get()};
}

io::Imatrix GgufCalibration::importance() const {
  io::Imatrix out;
  out.datasets = {text_}, out.chunks = static_cast<std::uint32_t>(windows_), out.chunk_size = 512;
  for (const auto& [tensor, site] : sites_) {
    const Stats& stats = stats_.at(site, Needs::none);
    io::ImatrixEntry e;
    e.counts = {static_cast<float>(tokens_)};
    for (const float v : stats.mean_square()) e.sums.push_back(v * static_cast<float>(tokens_));
    out.entries.emplace(tensor, std::move(e));
  }
  return out;
}

}  // namespace tool
