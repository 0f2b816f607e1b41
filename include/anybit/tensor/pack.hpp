#pragma once
// Between the plain form (QuantizedMatrix), bytes (PackedTensor) and floats.

#include <vector>

#include <anybit/core/matrix.hpp>
#include <anybit/tensor/packed_tensor.hpp>
#include <anybit/tensor/quantized_matrix.hpp>
#include <anybit/tensor/unpack.hpp>

namespace anybit::inline ANYBIT_CODE {

/// The bytes of q. Cannot fail: whoever made q kept its codes below 2^bits and its affines as stored.
template <AnyScheme S>
PackedTensor<S> pack(const QuantizedMatrix<S>& q) {
  ANYBIT_CHECK(static_cast<Index>(q.codes.size()) == q.extents.size(), "pack: the number of codes is not rows * cols");
  ANYBIT_CHECK(static_cast<Index>(q.affines.size()) == S::granularity::count(q.extents), "pack: the number of affines does not fit the granularity");
  auto t = PackedTensor<S>::allocate(q.extents, !q.column_order.empty(), q.provenance);
  PackedBytes& b = t.bytes();
  const auto codes = b.mutable_section(b.codes());
  for (Index r = 0; r < q.extents.rows; ++r)
    pack_row<typename S::layout, S::bits>(q.row(r), codes.data() + r * S::row_bytes(q.extents.cols));
  std::vector<float> scales(q.affines.size());
  for (std::size_t i = 0; i < scales.size(); ++i) scales[i] = q.affines[i].scale;
  S::scale_store::store(scales, b.mutable_section(b.scales()).data());
  if constexpr (S::has_zero_point) {
    std::vector<typename S::code> zeros(q.affines.size());
    for (std::size_t i = 0; i < zeros.size(); ++i) zeros[i] = static_cast<typename S::code>(q.affines[i].zero);
    BitStream::pack<S::bits>(zeros, b.mutable_section(b.zeros()).data());
  }
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

/// The weights that q stands for, in original column order; `out` has q's extents.
template <AnyScheme S>
void dequantize(const QuantizedMatrix<S>& q, MutableMatrix out) {
  ANYBIT_CHECK(out.extents() == q.extents, "dequantize: the output has another shape than the matrix");
  const Index group = S::granularity::group_cols(q.extents.cols);
  for (Index r = 0; r < q.extents.rows; ++r)
    for (Index c = 0; c < q.extents.cols; ++c) {
      const Index original = q.column_order.empty() ? c : static_cast<Index>(q.column_order[static_cast<std::size_t>(c)]);
      out(r, original) = dequantize_value<typename S::format>(q.codes[static_cast<std::size_t>(r * q.extents.cols + c)], q.affine(r, c / group));
    }
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
  constexpr Index chunk = 640;  // a multiple of every layout's granule
  std::array<typename S::code, chunk> codes;
  const Index group = S::granularity::group_cols(t.cols());
  Index g = -1;
  Affine a;
  for (Index first = 0; first < t.cols(); first += chunk) {
    const Index n = std::min(chunk, t.cols() - first);
    unpack_codes(t, row, first, std::span(codes).first(static_cast<std::size_t>(n)));
    for (Index i = 0; i < n; ++i) {
      if ((first + i) / group != g) a = t.affine(row, g = (first + i) / group);
      out[static_cast<std::size_t>(first + i)] = dequantize_value<typename S::format>(codes[static_cast<std::size_t>(i)], a);
    }
  }
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

}  // namespace anybit::inline ANYBIT_CODE
