#pragma once
// Conversions between codes and scales (QuantizedMatrix), bytes (PackedTensor) and floats.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <array>
#include <vector>

#include <anybit/core/matrix.hpp>
#include <anybit/tensor/dequantize.hpp>
#include <anybit/tensor/quantized_matrix.hpp>

namespace anybit {
inline namespace ANYBIT_CODE {

/// Scales, as stored, and zero points (of formats that have them) of all groups into their sections.
template <AnyScheme S>
void store_affines(std::span<const float> scales, std::span<const float> zeros, PackedBytes& b) {
  using Store = typename S::scale_store;
  std::byte* const to = b.mutable_section(b.scales()).data();
  std::size_t i = 0;
  if constexpr (std::is_same_v<Store, ScaleF16>) {
    constexpr auto step = static_cast<std::size_t>(simd::width);
    for (; i + step <= scales.size(); i += step) {
      std::uint16_t patterns[step];
      simd::store_f16(patterns, simd::min(simd::load(scales.data() + i), simd::broadcast(65504.0f)));
      std::memcpy(to + 2 * i, patterns, sizeof patterns);
    }
  }
  Store::store(scales.subspan(i), to + 2 * i);
  if constexpr (S::has_zero_point) {
    std::vector<typename S::code> codes(zeros.size());
    for (std::size_t z = 0; z < zeros.size(); ++z) codes[z] = static_cast<typename S::code>(zeros[z]);
    pack_row<BitStream, S::bits>(codes, b.mutable_section(b.zeros()).data());
  }
}

/// Whether the layout can hold q: only those like TwoOfFour may say no. The error names the first code that is too many.
template <AnyScheme S>
Status check_packable(const QuantizedMatrix<S>& q) {
  using L = typename S::layout;
  if constexpr (PartialLayout<L, S::bits>)
    for (Index r = 0; r < q.extents.rows; ++r)
      if (const Index c = L::template misfit<S::bits>(q.row(r)); c >= 0)
        return Error{
            ErrorCode::invalid_argument,
            "row " + std::to_string(r) + ", column " + std::to_string(c) + ": layout " + std::string(std::string_view(L::name)) +
                " has no place for one more weight other than 0; prune the matrix to its pattern first, or use BitStream"};
  return Ok{};
}

/// The bytes of q. Cannot fail: whoever made q kept its codes below 2^bits and its affines as stored, and asked check_packable()
/// if the layout does not hold everything.
template <AnyScheme S>
PackedTensor<S> pack(const QuantizedMatrix<S>& q) {
  ANYBIT_CHECK(static_cast<Index>(q.codes.size()) == q.extents.size(), "pack: the number of codes is not rows * cols");
  ANYBIT_CHECK(static_cast<Index>(q.affines.size()) == S::granularity::count(q.extents),
               "pack: the number of affines does not fit the granularity");
  auto t = PackedTensor<S>::allocate(q.extents, !q.column_order.empty(), q.provenance);
  PackedBytes& b = t.bytes();
  const auto codes = b.mutable_section(b.codes());
  for (Index r = 0; r < q.extents.rows; ++r)
    pack_row<typename S::layout, S::bits>(q.row(r), codes.data() + r * S::row_bytes(q.extents.cols));
  std::vector<float> scales(q.affines.size()), zeros(S::has_zero_point ? scales.size() : 0);
  for (std::size_t i = 0; i < scales.size(); ++i) {
    scales[i] = q.affines[i].scale;
    if constexpr (S::has_zero_point) zeros[i] = q.affines[i].zero;
  }
  store_affines<S>(scales, zeros, b);
  if (!q.column_order.empty()) std::memcpy(b.mutable_section(b.order()).data(), q.column_order.data(), b.order().size());
  return t;
}

template <AnyScheme S>
QuantizedMatrix<S> unpack(const PackedTensor<S>& t) {
  QuantizedMatrix<S> q(t.extents());
  for (Index r = 0; r < t.rows(); ++r) unpack_codes(t, r, 0, q.row(r));
  std::vector<float> scales(q.affines.size());
  t.load_scales(0, scales);
  for (std::size_t i = 0; i < scales.size(); ++i) q.affines[i] = {scales[i], t.zero(static_cast<Index>(i))};
  if (t.has_column_order()) {
    q.column_order.resize(static_cast<std::size_t>(t.cols()));
    std::memcpy(q.column_order.data(), t.bytes().order().data(), t.bytes().order().size());
  }
  q.provenance = t.provenance();
  return q;
}

/// Rows begin .. end - 1 of the weights that q stands for, in original column order; `out` has only those rows.
template <AnyScheme S>
void dequantize_rows(const QuantizedMatrix<S>& q, Index begin, Index end, MutableMatrix out) {
  ANYBIT_CHECK(out.rows == end - begin && out.cols == q.extents.cols,
               "dequantize_rows: the output has another shape than the rows");
  const Index cols = q.extents.cols, group = S::granularity::group_cols(cols);
  std::vector<float> stored(q.column_order.empty() ? 0 : static_cast<std::size_t>(cols));
  for (Index r = begin; r < end; ++r) {
    float* const to = stored.empty() ? out.row(r - begin).data() : stored.data();
    for (Index g = 0; g < S::granularity::groups_per_row(cols); ++g)
      decoding::dequantize_codes<typename S::format>(q.row(r).data() + g * group, q.affine(r, g),
                                                     std::min(group, cols - g * group), to + g * group);
    for (std::size_t j = 0; j < stored.size(); ++j) out(r - begin, static_cast<Index>(q.column_order[j])) = stored[j];
  }
}
/// All of them; `out` has q's extents.
template <AnyScheme S>
void dequantize(const QuantizedMatrix<S>& q, MutableMatrix out) {
  ANYBIT_CHECK(out.extents() == q.extents, "dequantize: the output has another shape than the matrix");
  dequantize_rows(q, 0, q.extents.rows, out);
}
template <AnyScheme S>
Matrix dequantize(const QuantizedMatrix<S>& q) {
  Matrix m(q.extents.rows, q.extents.cols);
  dequantize(q, m.view());
  return m;
}

/// Row `row` of the weights that t stands for, in stored column order, which is what kernels multiply with.
template <AnyScheme S>
void dequantize_row(const PackedTensor<S>& t, Index row, std::span<float> out) {
  ANYBIT_CHECK(static_cast<Index>(out.size()) == t.cols(), "dequantize_row: the output has another length than a row");
  decoding::dequantize_columns(t, row, 0, t.cols(), out.data());
}

/// All weights, in original column order.
template <AnyScheme S>
void dequantize(const PackedTensor<S>& t, MutableMatrix out) {
  ANYBIT_CHECK(out.extents() == t.extents(), "dequantize: the output has another shape than the tensor");
  if (!t.has_column_order()) {
    for (Index r = 0; r < t.rows(); ++r) dequantize_row(t, r, out.row(r));
    return;
  }
  std::vector<float> stored(static_cast<std::size_t>(t.cols()));
  for (Index r = 0; r < t.rows(); ++r) {
    dequantize_row(t, r, stored);
    for (Index j = 0; j < t.cols(); ++j) out(r, t.original_column(j)) = stored[static_cast<std::size_t>(j)];
  }
}
template <AnyScheme S>
Matrix dequantize(const PackedTensor<S>& t) {
  Matrix m(t.rows(), t.cols());
  dequantize(t, m.view());
  return m;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit

#include <anybit/core/macros_end.hpp>
