#pragma once
// The result of a quantization method before packing: codes and affines in plain arrays.

#include <span>
#include <string>
#include <vector>

#include <anybit/core/matrix.hpp>
#include <anybit/scheme/scheme.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

/// An algorithm's choice, plain to inspect: a code for every weight and an Affine for every group, as stored (scales have
/// been through the scale store). pack() turns it into bytes.
template <AnyScheme S>
struct QuantizedMatrix {
  using scheme = S;
  Extents extents;
  std::vector<typename S::code> codes;  ///< rows x cols, row-major, in stored column order
  std::vector<Affine> affines;          ///< granularity::count(extents), indexed by granularity::index
  /// Original column of each stored column; empty means the identity. Act-order with dynamic groups needs it: there a group
  /// is a run of stored columns, and whoever multiplies permutes the input vector once.
  std::vector<std::uint32_t> column_order;
  std::string provenance;  ///< how the codes were chosen, for people

  QuantizedMatrix() = default;
  explicit QuantizedMatrix(Extents e)
      : extents(e), codes(static_cast<std::size_t>(e.size())), affines(static_cast<std::size_t>(S::granularity::count(e))) {}

  Affine& affine(Index row, Index group) { return affines[static_cast<std::size_t>(S::granularity::index(extents, row, group))]; }
  const Affine& affine(Index row, Index group) const {
    return affines[static_cast<std::size_t>(S::granularity::index(extents, row, group))];
  }
  std::span<typename S::code> row(Index r) { return {codes.data() + r * extents.cols, static_cast<std::size_t>(extents.cols)}; }
  std::span<const typename S::code> row(Index r) const {
    return {codes.data() + r * extents.cols, static_cast<std::size_t>(extents.cols)};
  }

  /// Same meaning: extents, codes, affines and column order. Provenance is a remark and does not count.
  friend bool operator==(const QuantizedMatrix& a, const QuantizedMatrix& b) {
    return a.extents == b.extents && a.codes == b.codes && a.affines == b.affines && a.column_order == b.column_order;
  }
};

}  // namespace ANYBIT_ABI
}  // namespace anybit
