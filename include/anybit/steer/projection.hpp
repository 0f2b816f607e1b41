#pragma once
// A direction taken out of everything that writes to the residual stream (the third operator of Zou et al., arXiv:2310.01405, on
// weights; "directional ablation").
//
//   W <- W - r (r^T W)      W (outputs, inputs) writes to the residual stream, |r| = 1
//   e <- e - r (r . e)      rows of tables: the embedding
//   b <- b - r (r . b)      biases
//
// Project before quantizing: quantization noise brings back a component, leakage() measures it, and reproject() takes it out of
// packed weights by an adapter of rank 1.

#include <anybit/core/macros_begin.hpp>

#include <cmath>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <anybit/model/decoder.hpp>
#include <anybit/steer/direction.hpp>

namespace anybit::steer {
inline namespace ANYBIT_ABI {

/// A weight that writes to the residual stream and what of it lies along a direction.
struct WeightLeakage {
  std::string weight{};
  double relative = 0;  ///< |r^T W| / |W|, Frobenius norms; of random weights of n outputs about 1 / sqrt(n)
};

}  // namespace ANYBIT_ABI
}  // namespace anybit::steer

namespace anybit::steer {
inline namespace ANYBIT_CODE {

/// r / |r|, or an error where that is nothing.
inline Result<std::vector<double>> unit(std::span<const double> r, Index width) {
  using io::detail::text;
  if (static_cast<Index>(r.size()) != width)
    return {ErrorCode::shape_mismatch, text("steer: a direction of ", r.size(), " values for a residual stream of ", width,
                                            ": it was read from another model or point, read it again")};
  for (const double& x : r)
    if (!is_finite(x)) return {ErrorCode::not_finite, "steer: the direction is not finite: read it again"};
  const double length = norm(r);
  if (!(length > 0)) return {ErrorCode::invalid_argument, "steer: the direction is zero: read it again"};
  std::vector<double> out(r.begin(), r.end());
  for (double& x : out) x /= length;
  return out;
}

/// r^T W, (inputs); W as the linear multiplies, with its adapter.
inline std::vector<double> along_outputs(const nn::Linear& w, std::span<const double> r) {
  const Extents e = w.extents();
  std::vector<double> out(static_cast<std::size_t>(e.cols));
  std::vector<float> row(out.size());
  const auto add = [&](double share, std::span<const float> values) {
    for (std::size_t j = 0; j < out.size(); ++j) out[j] += share * static_cast<double>(values[j]);
  };
  for (Index i = 0; i < e.rows; ++i) {
    w.read_row(i, row);
    add(r[static_cast<std::size_t>(i)], row);
  }
  if (const nn::LowRank* const low = w.adapter())
    for (Index k = 0; k < low->a.rows(); ++k) {
      double share = 0;
      for (Index i = 0; i < e.rows; ++i) share += r[static_cast<std::size_t>(i)] * static_cast<double>(low->b(i, k));
      add(static_cast<double>(low->scale) * share, low->a.view().row(k));
    }
  return out;
}

/// W <- W - r (r^T W) of w (outputs, inputs); r has unit length.
inline void project_columns(MutableMatrix w, std::span<const double> r) {
  std::vector<double> along(static_cast<std::size_t>(w.cols));
  for (Index i = 0; i < w.rows; ++i)
    for (std::size_t j = 0; j < along.size(); ++j) along[j] += r[static_cast<std::size_t>(i)] * static_cast<double>(w.row(i)[j]);
  for (Index i = 0; i < w.rows; ++i)
    for (std::size_t j = 0; j < along.size(); ++j)
      w.row(i)[j] = static_cast<float>(static_cast<double>(w.row(i)[j]) - r[static_cast<std::size_t>(i)] * along[j]);
}

/// e <- e - r (r . e) of each row; r has unit length.
inline void project_rows(MutableMatrix table, std::span<const double> r) {
  for (Index i = 0; i < table.rows; ++i) {
    const double share = dot(table.row(i), r);
    for (std::size_t j = 0; j < r.size(); ++j)
      table.row(i)[j] = static_cast<float>(static_cast<double>(table.row(i)[j]) - share * r[j]);
  }
}

/// The linears whose outputs are added to the residual stream.
inline std::vector<model::WeightId> residual_writers(const model::Blueprint& b) {
  std::vector<model::WeightId> out;
  for (const model::SiteSpec& s : b.sites)
    if (s.writes_residual) out.insert(out.end(), s.readers.begin(), s.readers.end());
  return out;
}

/// |r^T W| / |W| of every linear that writes to the residual stream.
inline Result<std::vector<WeightLeakage>> leakage(const model::Decoder& d, std::span<const double> direction) {
  ANYBIT_TRY(const std::vector<double> r, unit(direction, d.config.dim));
  std::vector<WeightLeakage> out;
  for (const model::WeightId id : residual_writers(*d.blueprint)) {
    const nn::Linear& w = d[id].linear;
    double square = 0;
    std::vector<float> row(static_cast<std::size_t>(w.extents().cols));
    for (Index i = 0; i < w.extents().rows; ++i) {
      w.read_row(i, row);
      square += dot(row, row);
    }
    out.push_back({(*d.blueprint)[id].name, square > 0 ? norm(along_outputs(w, r)) / std::sqrt(square) : 0});
  }
  return out;
}

/// Projects every writer and its bias, and the tables of the width of the residual stream. A head that is tied to the embedding
/// becomes a tensor of its own, because it reads the stream and must not change. Weights must be floats without adapters, and the
/// stream must not be rotated. A model that norms outputs before adding them writes the direction again with the norm's gains.
inline Status project_out(model::Decoder& d, std::span<const double> direction) {
  using io::detail::text;
  ANYBIT_TRY(const std::vector<double> r, unit(direction, d.config.dim));
  if (d.online.residual)
    return {ErrorCode::unsupported, "steer: the model's residual stream is rotated: project before rotating"};
  std::vector<model::WeightId> writers = residual_writers(*d.blueprint), tables;
  for (std::size_t i = 0; i < d.weights.size(); ++i) {
    const model::WeightSpec& spec = d.blueprint->weights[i];
    if (spec.role == model::Role::table && spec.shape.cols == d.config.dim) tables.push_back(static_cast<model::WeightId>(i));
  }
  for (const auto* group : {&writers, &tables})
    for (const model::WeightId id : *group)
      if (!d[id].linear.dense() || d[id].linear.adapter())
        return {ErrorCode::unsupported,
                text("steer: ", (*d.blueprint)[id].name, " is ", d[id].linear.dense() ? "under an adapter" : "packed",
                     ": project the float model, then quantize, or reproject() what is quantized")};
  if (!d.has_head()) d.head() = d.token_embedding();
  for (const model::WeightId id : writers) {
    nn::Linear& w = d[id].linear;
    Matrix changed(w.dense()->view());
    project_columns(changed.view(), r);
    std::vector<float> bias = w.bias();
    if (!bias.empty()) project_rows({bias.data(), 1, static_cast<Index>(bias.size())}, r);
    w = nn::Linear(std::move(changed));
    w.set_bias(std::move(bias));
  }
  for (const model::WeightId id : tables) {
    Matrix changed(d[id].linear.dense()->view());
    project_rows(changed.view(), r);
    d[id].linear = nn::Linear(std::move(changed));
  }
  return Ok{};
}

/// W <- W - r (r^T W) for packed writers as an adapter of rank 1, B = -r and A = r^T W, beside what adapter there is. Codes stay
/// as they are: rounding again would bring the direction back.
inline Status reproject(model::Decoder& d, std::span<const double> direction) {
  ANYBIT_TRY(const std::vector<double> r, unit(direction, d.config.dim));
  for (const model::WeightId id : residual_writers(*d.blueprint)) {
    nn::Linear& w = d[id].linear;
    const std::vector<double> along = along_outputs(w, r);
    const nn::LowRank* const old = w.adapter();
    const Index rank = old ? old->a.rows() : 0;
    auto low = std::make_shared<nn::LowRank>();
    low->a = Matrix(rank + 1, w.extents().cols), low->b = Matrix(w.extents().rows, rank + 1);
    for (Index k = 0; k < rank; ++k) {
      std::copy_n(old->a.view().row(k).data(), low->a.cols(), low->a.view().row(k).data());
      for (Index i = 0; i < low->b.rows(); ++i) low->b(i, k) = old->scale * old->b(i, k);
    }
    for (std::size_t j = 0; j < along.size(); ++j) low->a(rank, static_cast<Index>(j)) = static_cast<float>(along[j]);
    for (std::size_t i = 0; i < r.size(); ++i) low->b(static_cast<Index>(i), rank) = static_cast<float>(-r[i]);
    w.set_adapter(std::move(low));
  }
  return Ok{};
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::steer

#include <anybit/core/macros_end.hpp>
