#pragma once
// Which ggml type each matrix of a GGUF file gets, so that the model loses least at a given size: docs/bits.md's method with
// ggml's types as candidates.

#include <string>
#include <string_view>
#include <vector>

#include <anybit/core/result.hpp>
#include <anybit/core/types.hpp>
#include <anybit/exec/thread_pool.hpp>

#include "gguf_calibration.hpp"

namespace tool {

/// A matrix whose type is to be chosen.
struct FreeMatrix {
  const GgufCalibration::Matrix* matrix = nullptr;
  std::vector<std::string_view> types;  ///< candidates, at least one
  std::string keeps;                    ///< the type in which the input has its bytes, which costs nothing; or empty
};

/// The KL divergence that each candidate of each matrix is expected to cost, in the order of FreeMatrix::types. Linears of the
/// blocks: measured with one type each, those of about `bits` bits a weight, and carried over to the others by their errors on a
/// sample of rows. Embedding and head: measured.
anybit::Result<std::vector<std::vector<double>>> type_costs(const GgufCalibration& calibration,
                                                            const std::vector<FreeMatrix>& matrices, double bits,
                                                            anybit::ThreadPool& pool, Progress& progress);

}  // namespace tool
