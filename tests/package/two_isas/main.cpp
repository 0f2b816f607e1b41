#include "work.hpp"

#include <cmath>
#include <cstdio>
#include <cstring>

namespace {

int failures = 0;
void check(bool right, const char* what) {
  if (right) return;
  std::printf("wrong: %s\n", what);
  ++failures;
}

/// Float sums may differ in their last bits between instruction sets.
bool close(std::span<const float> a, std::span<const float> b) {
  for (std::size_t i = 0; i < a.size(); ++i)
    if (!(std::fabs(a[i] - b[i]) <= 1e-5f * (1 + std::fabs(a[i])))) return false;
  return true;
}

}  // namespace

int main() {
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) {
    std::puts("skipped: this processor has no AVX2");
    return 0;
  }
  check(std::strcmp(baseline.isa, avx2.isa) != 0, "both translation units use one namespace");

  constexpr anybit::Index rows = 37, cols = 101;
  anybit::Matrix w(rows, cols);
  std::vector<float> x(cols), y_a(rows), y_b(rows);
  for (anybit::Index r = 0; r < rows; ++r)
    for (anybit::Index c = 0; c < cols; ++c) w(r, c) = std::cos(static_cast<float>(3 * r * cols + c));
  for (std::size_t c = 0; c < x.size(); ++c) x[c] = std::sin(static_cast<float>(c));

  auto a = baseline.quantize(w.view()), b = avx2.quantize(w.view());
  check(a.rows() == rows && a == b, "the packed bytes differ");

  const anybit::Matrix from_a = avx2.dequantize(a), from_b = baseline.dequantize(b);
  check(std::memcmp(from_a.data(), from_b.data(), sizeof(float) * rows * cols) == 0, "the dequantized values differ");

  avx2.matvec(a, x, y_a);
  baseline.matvec(b, x, y_b);
  check(close(y_a, y_b), "matvec differs");
  float expected = 0;
  for (anybit::Index c = 0; c < cols; ++c) expected += from_a(rows - 1, c) * x[static_cast<std::size_t>(c)];
  check(close({&expected, 1}, {&y_a.back(), 1}), "matvec is not the product");

  // A handle made by one unit works and dies in the other.
  anybit::AnyPacked erased_a = baseline.erase(std::move(a)), erased_b = avx2.erase(std::move(b));
  avx2.matvec_int8(erased_a, x, y_a);
  baseline.matvec_int8(erased_b, x, y_b);
  check(close(y_a, y_b), "matmul with int8 activations differs");
  avx2.destroy(std::move(erased_a));
  baseline.destroy(std::move(erased_b));

  std::printf("%s and %s: %s\n", baseline.isa, avx2.isa, failures == 0 ? "same bytes, same values" : "DIFFERENT");
  return failures == 0 ? 0 : 1;
}
