#pragma once
// Qwen2 (arXiv:2407.10671): llama with biases on q, k and v.

#include <anybit/model/arch/llama.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

inline constexpr Architecture qwen2_architecture{
    .name = "qwen2",
    .points = llama::points,
    .names = llama::names,
    .gguf_order = nn::RopeOrder::halves,
    .read_config = [](GgufConfigReader& read) { return llama::read_config(read); },
    .blueprint = [](const DecoderConfig& c) { return llama::blueprint(c, {.qkv_bias = true}); },
    .embed = llama::embed,
    .run_block = llama::run_block,
    .finish = llama::finish,
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::model
