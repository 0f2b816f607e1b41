#include "gguf_calibration.hpp"

#include <algorithm>
#include <filesystem>
#include <numeric>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include <anybit/model/to_gguf.hpp>

#include "shared/open_model.hpp"
#include "shared/text.hpp"

namespace tool {

using namespace anybit;

Result<GgufCalibration> GgufCalibration::make(const std::string& model, const std::string& text, Index tokens, ThreadPool& pool) {
  constexpr Index window = 512;
  ANYBIT_TRY(const std::string words, read_text(text));
  ANYBIT_TRY(const model::Model m, open_model(model, {}));
  const model::Decoder& d = m.decoder;
  ANYBIT_TRY(std::vector<model::TokenId> ids, m.tokenizer.encode(words, model::Specials::as_text));
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

const gptq::Factor* GgufCalibration::factor(const std::string& tensor) {
  const auto found = sites_.find(tensor);
  if (found == sites_.end()) return nullptr;
  if (factor_ && at_ == found->second) return factor_.get();
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
  if (!made) return nullptr;
  at_ = found->second;
  factor_ = std::make_unique<gptq::Factor>(*std::move(made));
  return factor_.get();
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
