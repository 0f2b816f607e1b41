#include "work.hpp"

#include <anybit/kernel/isa.hpp>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>

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
std::span<const float> values(const anybit::Matrix& m) { return {m.data(), static_cast<std::size_t>(m.rows() * m.cols())}; }

bool can_run(const Work& work) {
  const std::pair<const char*, bool> features[] = {
#define FEATURE(name) {name, __builtin_cpu_supports(name) != 0}
      FEATURE("avx2"),       FEATURE("fma"),
      FEATURE("avx512f"),    FEATURE("avx512bw"),
      FEATURE("avx512dq"),   FEATURE("avx512vl"),
      FEATURE("avx512vbmi"), FEATURE("avx512ifma"),
      FEATURE("avx512vnni"), {"avxvnni", (anybit::kernel::detail::processor_features() & anybit::kernel::detail::avx_vnni) != 0}};
  for (std::string_view rest = work.needs; !rest.empty();) {
    const std::size_t end = std::min(rest.find(' '), rest.size());
    const std::string_view name = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    bool here = false;
    for (const auto& f : features) here = here || (name == f.first && f.second);
    if (!here) return false;
  }
  return true;
}

}  // namespace

int main() {
  check(std::strcmp(first.tag, second.tag) != 0, "both translation units use one namespace");
  if (failures == 0 && (!can_run(first) || !can_run(second))) return 77;

  constexpr anybit::Index rows = 37, cols = 101;
  anybit::Matrix w(rows, cols);
  std::vector<float> x(cols), y_a(rows), y_b(rows);
  for (anybit::Index r = 0; r < rows; ++r)
    for (anybit::Index c = 0; c < cols; ++c) w(r, c) = std::cos(static_cast<float>(3 * r * cols + c));
  for (std::size_t c = 0; c < x.size(); ++c) x[c] = std::sin(static_cast<float>(c));

  auto a = first.quantize(w.view()), b = second.quantize(w.view());
  const bool exact = !first.fast_math && !second.fast_math;
  check(a.rows() == rows && (a == b || !exact), "the packed bytes differ");

  const anybit::Matrix a_by_b = second.dequantize(a), a_by_a = first.dequantize(a), b_by_a = first.dequantize(b);
  check(
      exact ? std::memcmp(a_by_b.data(), b_by_a.data(), sizeof(float) * rows * cols) == 0 : close(values(a_by_b), values(a_by_a)),
      "the dequantized values differ");

  second.matvec(a, x, y_a);
  first.matvec(a, x, y_b);
  check(close(y_a, y_b), "matvec differs");
  float expected = 0;
  for (anybit::Index c = 0; c < cols; ++c) expected += a_by_b(rows - 1, c) * x[static_cast<std::size_t>(c)];
  check(close({&expected, 1}, {&y_a.back(), 1}), "matvec is not the product");

  // Bad input is found whichever body of the check the linker has kept.
  const float bad[] = {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()};
  for (const float v : bad) {
    anybit::Matrix damaged = w;
    damaged(rows - 1, cols - 1) = v;
    for (const Work* unit : {&first, &second})
      check(unit->takes(w.view()) && !unit->takes(damaged.view()), "a weight that is not finite is taken");
  }
  for (const std::uint16_t scale : {0x7E00, 0x7C00, 0xBC00}) {  // NaN, infinity, -1 in binary16
    auto damaged = a;
    std::memcpy(damaged.bytes().mutable_section(damaged.bytes().scales()).data(), &scale, 2);
    for (const Work* unit : {&first, &second})
      check(unit->opens(a.bytes()) && !unit->opens(damaged.bytes()), "a scale that cannot be is taken");
  }

  // A handle made by one unit works and dies in the other.
  auto copy = a;
  anybit::AnyPacked erased_a = first.erase(std::move(a)), erased_b = second.erase(std::move(copy));
  second.matvec_int8(erased_a, x, y_a);
  first.matvec_int8(erased_b, x, y_b);
  check(close(y_a, y_b), "matmul with int8 activations differs");
  second.destroy(std::move(erased_a));
  first.destroy(std::move(erased_b));

  if (failures > 0) std::printf("%s and %s differ\n", first.tag, second.tag);
  return failures == 0 ? 0 : 1;
}
