#pragma once
// Rows of a matrix in a ggml type, on all threads.

#include <cstddef>
#include <span>

#include <anybit/algorithm/feedback/factor.hpp>
#include <anybit/core/matrix.hpp>
#include <anybit/core/result.hpp>
#include <anybit/exec/thread_pool.hpp>
#include <anybit/io/dtype.hpp>
#include <anybit/io/ggml_encoders.hpp>

namespace tool {

/// Bytes of so many values, which are whole blocks.
std::size_t ggml_bytes(const anybit::io::DType& type, anybit::Index values);

/// Rounded as ggml does; the first error in row order where a weight is not finite or the type cannot hold it.
anybit::Result<anybit::io::RoundingError> encode_nearest(const anybit::io::DType& type, anybit::ConstMatrix m,
                                                         std::span<std::byte> to, anybit::ThreadPool& pool);

/// Rounded for the error of the outputs, which comes back: tr(E (H + damping) E^T) of the Hessian that `factor` is of. `hessian`
/// is H + damping, or empty: then codes stay where error feedback leaves them. Weights that are not finite have been refused by
/// encode_nearest() before.
double encode_for_outputs(const anybit::io::DType& type, anybit::ConstMatrix m, const anybit::gptq::Factor& factor,
                          anybit::ConstMatrix hessian, std::span<std::byte> to, anybit::ThreadPool& pool);

/// How far `bytes` are from the rows that they were made of.
anybit::io::RoundingError rounding_error(const anybit::io::DType& type, anybit::ConstMatrix m, std::span<const std::byte> bytes,
                                         anybit::ThreadPool& pool);

}  // namespace tool
