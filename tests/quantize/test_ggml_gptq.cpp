#include <anybit/io/ggml_encoders.hpp>
#include <anybit/io/tensor_info.hpp>
#include <anybit/quantize/ggml_gptq.hpp>

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "support/catch.hpp"

using namespace anybit;

namespace ggml_gptq_test {
namespace {

/// Activations of which neighbours and a few outlier channels go together.
std::vector<double> correlated_hessian(Index n) {
  std::mt19937 random(7);
  std::normal_distribution<double> normal;
  const Index tokens = 2 * n;
  std::vector<double> h(static_cast<std::size_t>(n * n));
  std::vector<double> x(static_cast<std::size_t>(n));
  for (Index t = 0; t < tokens; ++t) {
    double slow = 0;
    for (Index j = 0; j < n; ++j) {
      slow = 0.9 * slow + normal(random);
      x[static_cast<std::size_t>(j)] = slow * (j % 37 == 5 ? 6 : 1);
    }
    for (Index i = 0; i < n; ++i)
      for (Index j = 0; j <= i; ++j)
        h[static_cast<std::size_t>(i * n + j)] += x[static_cast<std::size_t>(i)] * x[static_cast<std::size_t>(j)];
  }
  for (Index i = 0; i < n; ++i)
    for (Index j = 0; j < i; ++j) h[static_cast<std::size_t>(j * n + i)] = h[static_cast<std::size_t>(i * n + j)];
  return h;
}

/// tr(E H E^T) of the weights in blocks.
double layer_error(const std::string& type, ConstMatrix w, const std::vector<std::byte>& bytes, const std::vector<double>& h) {
  const auto q = io::to_f32({"t", type, {w.rows, w.cols}, bytes});
  REQUIRE(q.ok());
  double sum = 0;
  for (Index r = 0; r < w.rows; ++r)
    for (Index i = 0; i < w.cols; ++i) {
      double inner = 0;
      for (Index j = 0; j < w.cols; ++j)
        inner += h[static_cast<std::size_t>(i * w.cols + j)] * static_cast<double>(w(r, j) - (*q)(r, j));
      sum += inner * static_cast<double>(w(r, i) - (*q)(r, i));
    }
  return sum;
}

std::vector<std::byte> gptq_bytes(const std::string& type, ConstMatrix w, const std::vector<double>& h) {
  std::vector<double> diagonal;
  std::vector<Index> order;
  for (Index i = 0; i < w.cols; ++i) diagonal.push_back(h[static_cast<std::size_t>(i * w.cols + i)]), order.push_back(i);
  Report report;
  const auto factor = gptq::damped_factor<double>({{h.data(), w.cols, w.cols}, order, diagonal}, 0.01, report);
  REQUIRE(factor);
  const io::DType& d = *io::find_dtype(type);
  std::vector<std::byte> out(static_cast<std::size_t>(w.rows * w.cols / d.block_values * d.block_bytes));
  ggml_gptq_rows(type, w, *factor, out.data());
  return out;
}

Matrix random_weights(Index rows, Index cols) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal(0, 0.05f);
  Matrix w(rows, cols);
  for (Index i = 0; i < w.extents().size(); ++i) w.data()[i] = normal(random);
  return w;
}

}  // namespace
}  // namespace ggml_gptq_test

using namespace ggml_gptq_test;

TEST_CASE("ggml GPTQ: the error of a layer is far below that of ggml's own rounding in every type") {
  const Matrix w = random_weights(6, 512);
  const std::vector<double> h = correlated_hessian(512);
  for (const ggml_blocks::GgmlGrid& grid : ggml_blocks::ggml_grids) {
    const std::string type(grid.type);
    CAPTURE(type);
    const io::DType& d = *io::find_dtype(type);
    std::vector<std::byte> nearest(static_cast<std::size_t>(6 * 512 / d.block_values * d.block_bytes));
    REQUIRE(io::encode_rows(*io::find_ggml_encoder(type), w.view(), nearest.data()).ok());
    const double own = layer_error(type, w.view(), gptq_bytes(type, w.view(), h), h),
                 theirs = layer_error(type, w.view(), nearest, h);
    CAPTURE(own / theirs);
    CHECK(own < 0.5 * theirs);
  }
}

TEST_CASE(
    "ggml GPTQ: without correlation it is no worse than ggml's search; zeros stay zero; slices of rows give the same bytes") {
  Matrix w = random_weights(5, 256);
  for (Index c = 0; c < 256; ++c) w(4, c) = 0;
  std::vector<double> h(256 * 256);
  for (std::size_t i = 0; i < 256; ++i) h[i * 256 + i] = 1;
  for (const ggml_blocks::GgmlGrid& grid : ggml_blocks::ggml_grids) {
    const std::string type(grid.type);
    CAPTURE(type);
    const io::DType& d = *io::find_dtype(type);
    const auto row_bytes = static_cast<std::size_t>(256 / d.block_values * d.block_bytes);
    std::vector<std::byte> nearest(5 * row_bytes);
    REQUIRE(io::encode_rows(*io::find_ggml_encoder(type), w.view(), nearest.data()).ok());
    const std::vector<std::byte> own = gptq_bytes(type, w.view(), h);
    CHECK(layer_error(type, w.view(), own, h) < 1.05 * layer_error(type, w.view(), nearest, h));
    const auto q = io::to_f32({"t", type, {5, 256}, own});
    for (Index c = 0; c < 256; ++c) CHECK((*q)(4, c) == 0);
    const std::vector<std::byte> last = gptq_bytes(type, ConstMatrix(w.view().row(3).data(), 2, 256), h);
    CHECK(std::equal(last.begin(), last.end(), own.begin() + static_cast<std::ptrdiff_t>(3 * row_bytes)));
  }
}

TEST_CASE("ggml GPTQ: a factor without feedback weighs errors by the costs of columns alone") {
  const Matrix w = random_weights(6, 512);
  gptq::Factor importance;
  importance.size = 512;
  std::vector<double> h(512 * 512);
  for (std::size_t i = 0; i < 512; ++i) {
    importance.weight.push_back(i % 37 == 5 ? 1.0f : 0.01f * static_cast<float>(1 + i % 7));
    h[i * 512 + i] = static_cast<double>(importance.weight.back());
  }
  for (const ggml_blocks::GgmlGrid& grid : ggml_blocks::ggml_grids) {
    const std::string type(grid.type);
    CAPTURE(type);
    const io::DType& d = *io::find_dtype(type);
    std::vector<std::byte> nearest(static_cast<std::size_t>(6 * 512 / d.block_values * d.block_bytes)), own(nearest.size());
    REQUIRE(io::encode_rows(*io::find_ggml_encoder(type), w.view(), nearest.data()).ok());
    ggml_gptq_rows(type, w.view(), importance, own.data());
    CHECK(layer_error(type, w.view(), own, h) < layer_error(type, w.view(), nearest, h));
    // Feedback of zero gives the same bytes.
    gptq::Factor zero;
    zero.size = 512, zero.weight = importance.weight, zero.feedback = AlignedBuffer(512 * 512 * sizeof(float));
    std::vector<std::byte> with_zero(own.size());
    ggml_gptq_rows(type, w.view(), zero, with_zero.data());
    CHECK(own == with_zero);
  }
}
