#include <anybit/tensor/requantize.hpp>

#include <cmath>

#include "examples.hpp"
#include "support/catch.hpp"

using namespace anybit;

using Fine = Scheme<SInt<8>, PerGroup<32>, ScaleF32>;
using Coarse = Scheme<Superfloat<3>, PerGroup<64>>;

TEST_CASE("requantize: its error is that of the two matrices of weights") {
  const Matrix w = examples::weights({6, 100}, 1);
  const auto fine = pack(quantize_nearest<Fine>(w.view()).value());
  const auto coarse = requantize<Coarse>(fine).value();
  const Matrix a = dequantize(fine), b = dequantize(coarse.tensor);
  double difference = 0, whole = 0, largest = 0;
  for (Index i = 0; i < 600; ++i) {
    const double d = static_cast<double>(a.data()[i]) - static_cast<double>(b.data()[i]);
    difference += d * d;
    whole += static_cast<double>(a.data()[i]) * static_cast<double>(a.data()[i]);
    largest = std::max(largest, std::abs(d));
  }
  CHECK(coarse.error.relative == Approx(std::sqrt(difference / whole)));
  CHECK(static_cast<double>(coarse.error.largest) == Approx(largest));
  CHECK(coarse.error.relative > 0.05);  // three bits do cost something
  CHECK(coarse.error.relative < 0.5);
  CHECK(coarse.tensor.provenance() == "requantized from int8/g32/f32/bits (nearest)");
}

TEST_CASE("requantize: to more levels of the same kind costs nothing, and back gives the same tensor") {
  using Sf4 = Scheme<Superfloat<4>, PerGroup<32>, ScaleF32>;
  const auto source = pack(quantize_nearest<Sf4>(examples::weights({5, 96}, 2).view()).value());
  const auto same = requantize<Sf4>(source).value();
  CHECK(same.error.relative == 0);
  CHECK(same.error.largest == 0);
  CHECK(same.tensor == source);
}

TEST_CASE("requantize: a column order is resolved") {
  auto q = quantize_nearest<Fine>(examples::weights({2, 40}, 3).view()).value();
  for (std::uint32_t j = 0; j < 40; ++j) q.column_order.push_back((j * 7 + 3) % 40);
  const auto source = pack(q);
  const auto result = requantize<Scheme<SInt<8>, PerGroup<1>, ScaleF32>>(source).value();
  CHECK_FALSE(result.tensor.has_column_order());
  CHECK(result.error.relative < 1e-6);  // one weight a group: exact up to a rounding of scales
  const Matrix a = dequantize(source), b = dequantize(result.tensor);
  for (Index i = 0; i < 80; ++i) CHECK(b.data()[i] == Approx(a.data()[i]).margin(1e-7));
}

TEST_CASE("requantize: from zeros and from nothing") {
  const auto zeros = requantize<Coarse>(pack(quantize_nearest<Fine>(Matrix(3, 8).view()).value())).value();
  CHECK(zeros.error.relative == 0);
  CHECK(requantize<Coarse>(pack(quantize_nearest<Fine>(Matrix(0, 8).view()).value())).value().tensor.extents() == Extents{0, 8});
  const Matrix one(1, 1);
  Matrix other(1, 1);
  other(0, 0) = -2;
  CHECK(std::isinf(matrix_distance(one.view(), other.view()).relative));
  CHECK(matrix_distance(one.view(), other.view()).largest == 2);
  CHECK(matrix_distance(other.view(), one.view()).relative == 1);
}

TEST_CASE("requantize: a code that stands for infinity is an error") {
  QuantizedMatrix<Scheme<Minifloat<5, 2>, PerRow, ScaleF32>> q({2, 3});
  for (Affine& a : q.affines) a = {1, 0};
  q.codes[4] = 0x7C;
  const auto result = requantize<Scheme<SInt<8>>>(pack(q));
  REQUIRE(!result.ok());
  CHECK(result.error().message.find("weight at row 1, column 1 is inf") == 0);
}
