#pragma once
// Codes of packed tensors of any scheme that the program has, and of GGUF's blocks with one scale each.

#include <optional>

#include <anybit/core/matrix.hpp>
#include <anybit/core/result.hpp>
#include <anybit/io/checkpoint_linear.hpp>
#include <anybit/io/tensor_info.hpp>
#include <anybit/tensor/packed_bytes.hpp>

namespace tool {

/// The weights, of any registered scheme.
anybit::Result<anybit::Matrix> packed_weights(const anybit::PackedBytes& packed);

/// Empty where the scheme's grid is none of a CheckpointLinear's.
anybit::Result<std::optional<anybit::io::CheckpointLinear>> packed_codes(const anybit::PackedBytes& packed);

/// The layer in the smallest scheme that holds it exactly, or an error.
anybit::Result<anybit::PackedBytes> packed_exactly(const anybit::io::CheckpointLinear& l);

/// Q4_0, Q5_0, Q8_0 and MXFP4; empty for other types.
std::optional<anybit::io::CheckpointLinear> gguf_codes(const anybit::io::TensorInfo& t);

}  // namespace tool
