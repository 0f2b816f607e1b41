#pragma once
// Options of learned rounding of whole blocks, apart from the gradients that train/learned_blocks.hpp includes.

#include <anybit/core/macros_begin.hpp>

#include <cstdint>
#include <string>

#include <anybit/algorithm/learned_method.hpp>

namespace anybit::train {
inline namespace ANYBIT_CODE {

struct LearnedBlocks {
  int iterations = 200;
  float rate = 0;       ///< as Learned's
  float ends_rate = 0;  ///< likewise
  bool learn_ends = true;
  Index batch = 8;         ///< windows of one iteration
  std::uint64_t seed = 1;  ///< of their order

  learned::Options options() const { return {iterations, rate, ends_rate, learn_ends}; }
  std::string describe() const {
    std::string text = "blocks_learned(iterations=" + std::to_string(iterations);
    const auto add = [&](const char* name, double value) {
      text += std::string(", ") + name + "=" + gptq::detail::number(value);
    };
    if (rate > 0) add("rate", double{rate});
    if (ends_rate > 0) add("ends_rate", double{ends_rate});
    if (!learn_ends) text += ", ends as found";
    if (batch != 8) add("batch", static_cast<double>(batch));
    if (seed != 1) text += ", seed=" + std::to_string(seed);
    return text + ")";
  }
  Status check() const {
    ANYBIT_TRY_STATUS(options().check());
    if (batch < 1)
      return Error{ErrorCode::invalid_argument, "blocks_learned: batch is " + std::to_string(batch) + "; it must be at least 1"};
    return Ok{};
  }
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::train

#include <anybit/core/macros_end.hpp>
