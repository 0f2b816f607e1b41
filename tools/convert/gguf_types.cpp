#include "gguf_types.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <utility>

#include <anybit/evaluate/sensitivity.hpp>
#include <anybit/io/dtype.hpp>

#include "ggml_rows.hpp"

namespace tool {

using namespace anybit;

namespace {

constexpr Index sampled_rows = 128;

double bits_of(std::string_view type) {
  const io::DType& t = *io::find_dtype(type);
  return 8.0 * t.block_bytes / t.block_values;
}

/// Rows at equal distances.
Matrix sample_of(ConstMatrix m) {
  const Index rows = std::min(sampled_rows, m.rows);
  Matrix out(rows, m.cols);
  for (Index r = 0; r < rows; ++r) std::copy_n(m.row(r * m.rows / rows).data(), m.cols, out.view().row(r).data());
  return out;
}

/// The error of the outputs, or of the weights where nothing weighs it: to be compared with that of other types.
Result<double> error_in(const io::DType& type, ConstMatrix rows, const OutputError* weigh, ThreadPool& pool) {
  std::vector<std::byte> bytes(ggml_bytes(type, rows.rows * rows.cols));
  ANYBIT_TRY(const io::RoundingError nearest, encode_nearest(type, rows, bytes, pool));
  if (nearest.largest == 0) return 0.0;
  if (weigh) return encode_for_outputs(type, rows, weigh->factor, weigh->hessian.view(), bytes, pool);
  std::vector<float> decoded(static_cast<std::size_t>(rows.rows * rows.cols));
  type.to_f32(bytes.data(), rows.rows * rows.cols / type.block_values, decoded.data());
  double sum = 0;
  for (std::size_t i = 0; i < decoded.size(); ++i) {
    const double e = static_cast<double>(decoded[i]) - static_cast<double>(rows.data[i]);
    sum += e * e;
  }
  return sum;
}

}  // namespace

Result<std::vector<std::vector<double>>> type_costs(const GgufCalibration& calibration, const std::vector<FreeMatrix>& matrices,
                                                    double bits, ThreadPool& pool, Progress& progress) {
  const model::Decoder& source = calibration.decoder();
  const auto values_of = [&](const FreeMatrix& f) { return model::read_gguf_tensor(source, source.weights, f.matrix->tensor); };
  std::vector<std::vector<double>> costs(matrices.size());
  for (std::size_t i = 0; i < matrices.size(); ++i) costs[i].assign(matrices[i].types.size(), 0.0);

  // Errors of the linears in every type, and a model that has one of them each.
  std::vector<std::vector<double>> errors(matrices.size());
  std::vector<double> probed(matrices.size(), 0.0);
  model::Decoder probe = source, running = source;
  const CalibrationWork& work = calibration.work();
  progress.begin("finding the errors of each type", work.errors, work.all());
  ANYBIT_TRY_STATUS(calibration.for_blocks(running, pool, [&](Index block, const model::ModelStats& stats) -> Status {
    std::optional<OutputError> found;
    std::optional<model::SiteId> at;
    for (std::size_t i = 0; i < matrices.size(); ++i) {
      const GgufCalibration::Matrix& m = *matrices[i].matrix;
      if (!m.site || m.tensor.block != block) continue;
      if (at != m.site) found = output_error(stats.at(*m.site, Needs::hessian)), at = m.site;
      const OutputError* const weigh = found ? &*found : nullptr;
      const Matrix values = values_of(matrices[i]), sample = sample_of(values.view());
      std::size_t nearest = matrices[i].types.size();
      for (std::size_t t = 0; t < matrices[i].types.size(); ++t) {
        const std::string_view name = matrices[i].types[t];
        const auto error = error_in(*io::find_dtype(name), sample.view(), weigh, pool);
        if (!error) return in_context(error.error(), "tensor " + io::detail::shown(m.tensor.name));
        errors[i].push_back(*error);
        const auto distance = [&](std::size_t k) { return std::abs(bits_of(matrices[i].types[k]) - bits); };
        if (*error > 0 && (nearest == matrices[i].types.size() || distance(t) < distance(nearest))) nearest = t;
      }
      if (nearest == matrices[i].types.size()) continue;  // every type holds it exactly
      probed[i] = errors[i][nearest];
      ANYBIT_TRY_STATUS(put_rounded(probe, m, values.view(), *io::find_dtype(matrices[i].types[nearest]), weigh, pool));
    }
    progress.update(block + 1, source.config.blocks);
    return Ok{};
  }));
  progress.end();

  // Embedding and head, each candidate by itself: their errors act otherwise than those of the linears.
  const evaluate::Windows text = evaluate::sensitivity_text(calibration.ids(), source.config.context);
  progress.begin("embedding and head", work.outside, work.all());
  ANYBIT_TRY(const evaluate::ReferenceLogits reference, evaluate::reference_logits(source, text, pool));
  const std::optional<OutputError> of_head = output_error(calibration.head());
  for (std::size_t i = 0; i < matrices.size(); ++i) {
    const GgufCalibration::Matrix& m = *matrices[i].matrix;
    if (m.site) continue;
    const Matrix values = values_of(matrices[i]);
    for (std::size_t t = 0; t < matrices[i].types.size(); ++t) {
      model::Decoder changed = source;
      ANYBIT_TRY_STATUS(put_rounded(changed, m, values.view(), *io::find_dtype(matrices[i].types[t]),
                                    m.head && of_head ? &*of_head : nullptr, pool));
      ANYBIT_TRY(const auto tokens, evaluate::compare(reference, changed, text, pool));
      costs[i][t] = evaluate::kl_statistics(tokens).kl.value;
      progress.update(static_cast<Index>(t) + 1, static_cast<Index>(matrices[i].types.size()));
    }
  }
  progress.end();

  progress.begin("finding what each matrix is worth", work.worth, work.all());
  ANYBIT_TRY(const std::vector<double> kl,
             evaluate::sensitivities(source, probe, text, pool, [&](Index done, Index total) { progress.update(done, total); }));
  progress.end();
  for (std::size_t i = 0; i < matrices.size(); ++i) {
    const FreeMatrix& f = matrices[i];
    for (std::size_t t = 0; t < f.types.size(); ++t) {
      if (f.matrix->site) {
        double of_probe = 0;
        for (const std::size_t linear : f.matrix->linears) of_probe += kl[linear];
        costs[i][t] = probed[i] > 0 ? of_probe * errors[i][t] / probed[i] : 0;
      }
      if (f.types[t] == f.keeps) costs[i][t] = 0;
    }
  }
  return costs;
}

}  // namespace tool
