#pragma once
// Any scheme against the scalar reference, at odd shapes, with canaries around everything that is written and exact sizes
// around everything that is read (run under AddressSanitizer).

#include <anybit/exec/thread_pool.hpp>
#include <anybit/kernel/any_packed.hpp>
#include <anybit/kernel/matvec.hpp>
#include <anybit/scheme/presets.hpp>

#include <random>

#include "kernel/packed_reference.hpp"
#include "support/catch.hpp"

namespace products {

using namespace anybit;

struct Shape {
  Index rows, cols, tokens;
};
// Everything that has to do with a boundary: of bytes, vectors, tiles, blocks of 512 columns, panels.
inline const std::vector<Shape>& shapes() {
  static const std::vector<Shape> list = [] {
    std::vector<Shape> l{{1, 1, 1},    {1, 700, 1},  {3, 7, 2},    {4, 16, 3},    {5, 31, 5},   {16, 64, 8},
                         {17, 65, 9},  {33, 127, 6}, {15, 128, 7}, {16, 129, 1},  {2, 511, 12}, {20, 512, 1},
                         {7, 513, 4},  {1, 1024, 2}, {6, 1100, 1}, {19, 640, 16}, {130, 33, 3}, {1, 5, 70},
                         {9, 320, 31}, {4, 4160, 1}, {2, 4700, 2}, {3, 1280, 13}};
    std::mt19937 random(20240607);
    for (int i = 0; i < 12; ++i)
      l.push_back(
          {static_cast<Index>(random() % 40 + 1), static_cast<Index>(random() % 700 + 1), static_cast<Index>(random() % 24 + 1)});
    return l;
  }();
  return list;
}

inline constexpr Compute all_computes[] = {Compute::f32, Compute::int8_per_token, Compute::int8_per_block, Compute::bf16};

enum class Fill { random, lowest, highest };

template <AnyScheme S>
QuantizedMatrix<S> some_weights(Extents e, unsigned seed, Fill fill = Fill::random) {
  using F = typename S::format;
  std::mt19937 random(seed);
  QuantizedMatrix<S> q(e);
  const int count = code_count_v<F>;
  const auto finite = [](Code c) { return std::isfinite(F::decode(c)); };
  Code low = 0, high = 0;
  for (int c = 0; c < count; ++c) {
    if (!finite(static_cast<Code>(c))) continue;
    if (F::decode(static_cast<Code>(c)) < F::decode(low)) low = static_cast<Code>(c);
    if (F::decode(static_cast<Code>(c)) > F::decode(high)) high = static_cast<Code>(c);
  }
  for (auto& c : q.codes) {
    Code code = fill == Fill::lowest ? low : high;
    while (fill == Fill::random && !finite(code = static_cast<Code>(random() % static_cast<unsigned>(count)))) {
    }
    if (fill == Fill::random && !finite(code)) code = 0;
    c = static_cast<typename S::code>(code);
  }
  std::vector<float> scales(q.affines.size());
  for (float& s : scales) s = static_cast<float>(random() % 1000) * 0.001f;  // some are 0
  S::scale_store::round_trip(scales);
  for (std::size_t i = 0; i < scales.size(); ++i) {
    q.affines[i].scale = scales[i];
    if (S::has_zero_point) q.affines[i].zero = static_cast<float>(random() % (1u << S::bits));
  }
  return q;
}

/// A matrix at an odd address, rows further apart than they are long, with canaries wherever nothing may be written.
class Guarded {
 public:
  Guarded(Index rows, Index cols, Index gap)
      : cols_(cols), stride_(cols + gap), storage_(static_cast<std::size_t>(rows * (cols + gap) + 33), canary) {
    view_ = {storage_.data() + 13, rows, cols, stride_};
  }
  MutableMatrix view() { return view_; }
  bool intact() const {
    for (std::size_t i = 0; i < storage_.size(); ++i) {
      const Index at = static_cast<Index>(i) - 13;
      const bool inside = at >= 0 && at < view_.rows * stride_ && at % stride_ < cols_;
      if (!inside && storage_[i] != canary) return false;
    }
    return true;
  }

 private:
  static constexpr float canary = -1234.5f;
  Index cols_, stride_;
  std::vector<float> storage_;
  MutableMatrix view_;
};

/// Activations in an allocation that ends where they end.
struct InputAtOddPlace {
  std::vector<float> storage;
  ConstMatrix view;
  InputAtOddPlace(Index tokens, Index cols, Index gap, unsigned seed)
      : storage(static_cast<std::size_t>(tokens * (cols + gap) - gap + 1)) {
    std::mt19937 random(seed);
    for (float& v : storage) v = static_cast<float>(static_cast<int>(random() % 2001) - 1000) * 0.001f;
    view = {storage.data() + 1, tokens, cols, cols + gap};
  }
};

/// Upper bound of the rounding of a float sum: 2^-24 times the sum of magnitudes, times a chain's length.
template <AnyScheme S>
std::vector<double> magnitudes(const QuantizedMatrix<S>& q, ConstMatrix x) {
  const Matrix w = dequantize(q);
  std::vector<double> m(static_cast<std::size_t>(x.rows * q.extents.rows));
  for (Index t = 0; t < x.rows; ++t)
    for (Index r = 0; r < q.extents.rows; ++r)
      for (Index k = 0; k < x.cols; ++k)
        m[static_cast<std::size_t>(t * q.extents.rows + r)] +=
            std::fabs(static_cast<double>(w(r, k)) * static_cast<double>(x(t, k)));
  return m;
}

template <AnyScheme S>
void agree(const QuantizedMatrix<S>& q, Index tokens, unsigned seed) {
  const PackedTensor<S> w = pack(q);
  const Index rows = q.extents.rows, cols = q.extents.cols;
  CAPTURE(std::string(S::name.view()), rows, cols, tokens);
  const InputAtOddPlace x(tokens, cols, static_cast<Index>(seed % 3), seed);
  const auto size = magnitudes(q, x.view);
  Workspace workspace;
  Matrix bf16(tokens, cols);
  for (Index t = 0; t < tokens; ++t)
    for (Index k = 0; k < cols; ++k) bf16(t, k) = bf16_to_f32(f32_to_bf16(x.view(t, k)));
  for (const Compute compute : all_computes) {
    const bool rounded = rounds_to_int8(compute);
    CAPTURE(std::string(name(compute)));
    const auto expected = rounded ? packed_reference::matmul_int8(w, x.view, compute)
                                  : packed_reference::matmul(w, compute == Compute::bf16 ? ConstMatrix(bf16.view()) : x.view);
    Guarded y(tokens, rows, static_cast<Index>(seed % 4));
    matmul(w, x.view, y.view(), compute, workspace);
    REQUIRE(y.intact());
    std::string wrong;
    for (Index t = 0; t < tokens; ++t)
      for (Index r = 0; r < rows; ++r) {
        const auto i = static_cast<std::size_t>(t * rows + r);
        // Rounded activations are up to 1/254 of the largest off; their products are as large as `size` up to that.
        // Weights rounded to bfloat16 are up to 2^-8 off.
        const double weights = compute == Compute::bf16 && kernel::multiplies_bf16<kernel::native_arch> ? size[i] * 0x1p-8 : 0;
        const double bound = weights + (size[i] + (rounded ? 0.01 * static_cast<double>(cols) : 0.0)) * 1e-6 + 1e-30;
        if (!(std::fabs(static_cast<double>(y.view()(t, r)) - expected[i]) <= bound) && wrong.empty())
          wrong = "token " + std::to_string(t) + " row " + std::to_string(r) + ": " + std::to_string(y.view()(t, r)) +
                  " instead of " + std::to_string(expected[i]);
      }
    REQUIRE(wrong == "");
    // Whatever is computed along with a value must not change it.
    Guarded other(tokens, rows, 1);
    for (Index t = 0; t < tokens; ++t)
      matmul(w, x.view.row_range(t, t + 1), other.view().row_range(t, t + 1), compute, workspace);
    bool same = true;
    for (Index t = 0; t < tokens; ++t)
      same = same && std::equal(y.view().row(t).begin(), y.view().row(t).end(), other.view().row(t).begin());
    REQUIRE(same);
    if (compute == Compute::f32) {
      Guarded sliced(tokens, rows, 0);
      for (Index begin = 0, length = 1; begin < rows; begin += length, length = length % 7 + 2)
        matmul_rows(w, x.view, sliced.view(), begin, std::min(rows, begin + length));
      for (Index t = 0; t < tokens; ++t)
        same = same && std::equal(y.view().row(t).begin(), y.view().row(t).end(), sliced.view().row(t).begin());
      REQUIRE(same);
      REQUIRE(sliced.intact());
    }
  }
}

template <AnyScheme S>
void agree_everywhere() {
  unsigned seed = 1;
  for (const Shape& s : shapes()) {
    agree(some_weights<S>({s.rows, s.cols}, seed), s.tokens, seed);
    ++seed;
  }
}

}  // namespace products
