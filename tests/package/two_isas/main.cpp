#include "work.hpp"

#include <cmath>
#include <cstdio>
#include <cstring>

int main() {
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) {
    std::puts("skipped: this processor has no AVX2");
    return 0;
  }
  if (std::strcmp(baseline.isa, avx2.isa) == 0) {
    std::printf("both translation units use the namespace %s\n", avx2.isa);
    return 1;
  }
  constexpr anybit::Index rows = 7, cols = 101;
  anybit::Matrix w(rows, cols);
  for (anybit::Index r = 0; r < rows; ++r)
    for (anybit::Index c = 0; c < cols; ++c) w(r, c) = std::cos(static_cast<float>(3 * r * cols + c));

  auto a = baseline.make(w.view()), b = avx2.make(w.view());
  const anybit::Matrix from_a = avx2.restore(a), from_b = baseline.restore(b);
  const bool same = a == b && std::memcmp(from_a.data(), from_b.data(), sizeof(float) * rows * cols) == 0;
  avx2.destroy(std::move(a));
  baseline.destroy(std::move(b));
  std::printf("%s and %s: %s\n", baseline.isa, avx2.isa, same ? "same bytes, same values" : "DIFFERENT");
  return same ? 0 : 1;
}
