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

namespace {

/// A damped Hessian with its factor.
struct Damped {
  gptq::Factor factor;
  std::vector<double> h;
  Matrix hessian;  // the same in floats
};

Damped damped(Index n) {
  Damped out;
  out.h = correlated_hessian(n);
  std::vector<double> diagonal;
  std::vector<Index> order;
  for (Index i = 0; i < n; ++i) diagonal.push_back(out.h[static_cast<std::size_t>(i * n + i)]), order.push_back(i);
  Report report;
  auto factor = gptq::damped_factor<double>({{out.h.data(), n, n}, order, diagonal}, 0.01, report);
  REQUIRE(factor);
  out.factor = *std::move(factor);
  out.hessian = Matrix(n, n);
  for (Index i = 0; i < n; ++i) out.h[static_cast<std::size_t>(i * n + i)] += out.factor.damping;
  for (Index i = 0; i < n * n; ++i) out.hessian.data()[i] = static_cast<float>(out.h[static_cast<std::size_t>(i)]);
  return out;
}

/// Bytes of row r of rows of 512 values.
std::vector<std::byte> row_of(const std::vector<std::byte>& bytes, std::size_t row_bytes, std::size_t r) {
  const auto from = bytes.begin() + static_cast<std::ptrdiff_t>(r * row_bytes);
  return {from, from + static_cast<std::ptrdiff_t>(row_bytes)};
}

}  // namespace

TEST_CASE("ggml GPTQ: errors of rows are those of the blocks against the damped Hessian, and asking for them changes nothing") {
  Matrix w = random_weights(5, 512);
  for (Index c = 0; c < 512; ++c) w(2, c) = 0;
  const Damped d = damped(512);
  for (const std::string_view type : ggml_gptq_types(512)) {
    CAPTURE(type);
    const io::DType& t = *io::find_dtype(type);
    const auto row_bytes = static_cast<std::size_t>(512 / t.block_values * t.block_bytes);
    std::vector<std::byte> plain(5 * row_bytes), bytes(5 * row_bytes), refined(5 * row_bytes), slice(2 * row_bytes);
    std::vector<double> errors(5, -1), less(5, -1);
    ggml_gptq_rows(type, w.view(), d.factor, plain.data());
    ggml_gptq_rows(type, w.view(), d.factor, bytes.data(), errors);
    CHECK(plain == bytes);
    ggml_gptq_rows(type, w.view(), d.factor, refined.data(), less, d.hessian.view());
    ggml_gptq_rows(type, w.view().row_range(3, 5), d.factor, slice.data(), {}, d.hessian.view());
    CHECK(std::equal(slice.begin(), slice.end(), refined.begin() + static_cast<std::ptrdiff_t>(3 * row_bytes)));
    CHECK(errors[2] == 0);
    CHECK(less[2] == 0);
    double before = 0, after = 0;
    for (std::size_t r = 0; r < 5; ++r) {
      const ConstMatrix row(w.view().row(static_cast<Index>(r)).data(), 1, 512);
      // Feedback is summed in floats.
      CHECK(errors[r] == Approx(layer_error(std::string(type), row, row_of(bytes, row_bytes, r), d.h)).epsilon(1e-3));
      CHECK(less[r] == Approx(layer_error(std::string(type), row, row_of(refined, row_bytes, r), d.h)).epsilon(1e-3));
      CHECK(less[r] <= errors[r] * 1.0001);
      before += errors[r], after += less[r];
    }
    CHECK(after < before);
  }
}

TEST_CASE("ggml GPTQ: of refined blocks no other code of a value makes a smaller error") {
  const Matrix w = random_weights(3, 256);
  const Damped d = damped(256);
  const std::string type = "Q4_0";
  constexpr std::size_t block_bytes = 18, row_bytes = 8 * block_bytes;
  std::vector<std::byte> bytes(3 * row_bytes);
  ggml_gptq_rows(type, w.view(), d.factor, bytes.data(), {}, d.hessian.view());
  for (std::size_t r = 0; r < 3; ++r) {
    const ConstMatrix row(w.view().row(static_cast<Index>(r)).data(), 1, 256);
    const std::vector<std::byte> own = row_of(bytes, row_bytes, r);
    const double least = layer_error(type, row, own, d.h);
    for (std::size_t i = 0; i < 256; i += 5)
      for (int code = 0; code < 16; ++code) {
        std::vector<std::byte> other = own;
        std::byte& pair = other[i / 32 * block_bytes + 2 + i % 16];
        pair = i % 32 < 16 ? (pair & std::byte{0xF0}) | static_cast<std::byte>(code)
                           : (pair & std::byte{0x0F}) | static_cast<std::byte>(code << 4);
        CHECK(layer_error(type, row, other, d.h) > least * (1 - 1e-5));
      }
  }
}

TEST_CASE("ggml GPTQ: the types of a row are those whose blocks divide it") {
  CHECK(ggml_gptq_types(576) == std::vector<std::string_view>{"Q4_0", "Q5_0", "Q4_1", "Q5_1", "Q8_0", "IQ4_NL"});
  CHECK(ggml_gptq_types(256).size() == ggml_blocks::ggml_grids.size());
  for (const Index none : {0, 1, 31, 48}) CHECK(ggml_gptq_types(none).empty());
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
