// What quantizing allocates: W and the Hessian are looked at, not copied.

#include <atomic>
#include <cstdlib>
#include <new>

#include <anybit/algorithm/compiled_methods.hpp>
#include <anybit/algorithm/nearest.hpp>
#include <anybit/format/integer.hpp>
#include <anybit/recipe/recipe.hpp>
#include <anybit/testing/algorithm_laws.hpp>
#include <anybit/transform/smooth_quant.hpp>

#include "support/catch.hpp"

using namespace anybit;

namespace {

std::atomic<std::size_t> largest{0}, threshold{0};
std::atomic<int> large{0};  // allocations of at least the threshold

void* counted(std::size_t size, std::size_t alignment) {
  if (size > largest) largest = size;
  if (size >= threshold) ++large;
  void* const p = std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
  if (!p) std::abort();
  return p;
}

/// How many allocations of `size` bytes or more.
template <class Do>
int count_of(std::size_t size, Do&& work) {
  threshold = size, large = 0, largest = 0;
  work();
  return large;
}

}  // namespace

void* operator new(std::size_t size) { return counted(size, alignof(std::max_align_t)); }
void* operator new[](std::size_t size) { return counted(size, alignof(std::max_align_t)); }
void* operator new(std::size_t size, std::align_val_t a) { return counted(size, static_cast<std::size_t>(a)); }
void* operator new[](std::size_t size, std::align_val_t a) { return counted(size, static_cast<std::size_t>(a)); }
// A sanitizer's own would not go with the delete below.
void* operator new(std::size_t size, const std::nothrow_t&) noexcept { return counted(size, alignof(std::max_align_t)); }
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }

TEST_CASE("nearest makes no second W and no second Hessian") {
  const Matrix w = testing::normal_matrix(1024, 1200, 1), x = testing::normal_matrix(64, 1200, 2);
  const Stats stats = *accumulate<Needs::hessian>(x.view());
  const std::size_t size = 4 * 1024 * 1200, hessian = 8 * 1200 * 1201 / 2;
  const ConstMatrix one[] = {w.view()};
  REQUIRE(count_of(size, [&] { Matrix copy(w.view()); }) == 1);  // it counts
  std::optional<double> error;
  const int halves = count_of(size / 2, [&] {
    const auto q = quantize_siblings(Nearest<SInt<4>, PerGroup<128>>{}, one, stats);
    error = q->matrices[0].report.output_error;
  });
  CHECK(error.has_value());  // the Hessian was used
  CHECK(halves == 0);
  CHECK(largest <= size / 4);  // the codes, of one byte each
  CHECK(largest < hessian / 4);
  // One scale a tensor, of the whole of W, too.
  CHECK(count_of(size / 2, [&] { CHECK(quantize_siblings(Nearest<SInt<4>, PerTensor>{}, one, Stats()).ok()); }) == 0);
  // A transform that writes copies W once.
  const Stats maxima = *accumulate<Needs::abs_max>(x.view());
  CHECK(count_of(size / 2,
                 [&] { CHECK(quantize_siblings(SmoothQuant{} | Nearest<SInt<4>, PerGroup<128>>{}, one, maxima).ok()); }) == 1);
}

TEST_CASE("errors measured in parts are those of the definition") {
  for (const Extents e : {Extents{1, 1}, Extents{5, 130}, Extents{300, 129}, Extents{700, 40}}) {
    const Matrix w = testing::normal_matrix(e.rows, e.cols, 1), x = testing::example_inputs(2 * e.cols + 3, e.cols, 2),
                 other = testing::normal_matrix(e.rows, e.cols, 3);
    const Stats stats = *accumulate<Needs::hessian>(x.view());
    std::vector<double> h(static_cast<std::size_t>(e.cols * e.cols));
    const MatrixView<double> hessian(h.data(), e.cols, e.cols);
    stats.hessian(hessian);
    for (const float share : {1.0f, 0.001f}) {  // the latter is not resolved in float
      Matrix back = w;
      for (Index i = 0; i < e.size(); ++i) back.data()[i] += share * other.data()[i];
      Report report;
      recipe::measure_weights<>(w.view(), back.view(), stats, report);
      const recipe::OutputMetric<> metric(w.view(), hessian, {});
      CHECK(report.output_error.value() == metric.relative_to_outputs(metric.error(back.view())));
      CHECK(report.weight_error == relative_error(w.view(), back.view()));
      double error = 0, reference = 0;
      for (Index t = 0; t < x.rows(); ++t)
        for (Index r = 0; r < e.rows; ++r) {
          double d = 0, y = 0;
          for (Index j = 0; j < e.cols; ++j) {
            d += double{x(t, j)} * (double{w(r, j)} - double{back(r, j)});
            y += double{x(t, j)} * double{w(r, j)};
          }
          error += d * d, reference += y * y;
        }
      CHECK(report.output_error.value() == Approx(std::sqrt(error / reference)).epsilon(1e-3));
    }
  }
}
