#pragma once
// Forward declarations, for headers that only mention anybit's types.

#include <anybit/core/types.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

template <class T>
struct MatrixView;
template <class T>
class Result;
class AlignedBuffer;
class Matrix;
class PackedBytes;
class AnyPacked;
class Stats;
class Mask;
struct Sparsity;
struct Pruned;
template <class Format, class Granularity, class ScaleStore, class Layout>
struct Scheme;

}  // namespace ANYBIT_ABI
}  // namespace anybit
