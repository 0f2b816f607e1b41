#pragma once
// Everything for engines and quantizers: formats, schemes, packed tensors, kernels, executors, calibrated methods. By name you
// include anybit/io/ (files), anybit/model/ (transformers and tokenizers), anybit/evaluate/ (perplexity, KL, reports),
// anybit/testing/ (the laws that a format of your own has to keep) and anybit/core/eigen_view.hpp (views of Eigen's matrices).

#include <anybit/algorithm/gptaq.hpp>
#include <anybit/algorithm/gptq.hpp>
#include <anybit/algorithm/hqq.hpp>
#include <anybit/algorithm/learned.hpp>
#include <anybit/algorithm/nearest.hpp>
#include <anybit/algorithm/qronos.hpp>
#include <anybit/calibrate/accumulate.hpp>
#include <anybit/calibrate/stats.hpp>
#include <anybit/core/config.hpp>
#include <anybit/core/matrix.hpp>
#include <anybit/core/result.hpp>
#include <anybit/exec/executor.hpp>
#include <anybit/exec/openmp.hpp>
#include <anybit/exec/thread_pool.hpp>
#include <anybit/format/formats.hpp>
#include <anybit/kernel/any_packed.hpp>
#include <anybit/kernel/isa.hpp>
#include <anybit/kernel/matmul.hpp>
#include <anybit/kernel/matvec.hpp>
#include <anybit/prune/magnitude.hpp>
#include <anybit/prune/pruned_nearest.hpp>
#include <anybit/prune/sparse_gptq.hpp>
#include <anybit/prune/wanda.hpp>
#include <anybit/recipe/activation_scale.hpp>
#include <anybit/recipe/recipe.hpp>
#include <anybit/scheme/double_quant.hpp>
#include <anybit/scheme/mixed_widths.hpp>
#include <anybit/scheme/presets.hpp>
#include <anybit/scheme/scale_e5m3.hpp>
#include <anybit/scheme/scale_e8m0.hpp>
#include <anybit/scheme/scheme.hpp>
#include <anybit/scheme/two_of_four.hpp>
#include <anybit/tensor/pack.hpp>
#include <anybit/tensor/pack_nearest.hpp>
#include <anybit/tensor/quantize.hpp>
#include <anybit/tensor/requantize.hpp>
#include <anybit/transform/awq.hpp>
#include <anybit/transform/hadamard.hpp>
#include <anybit/transform/smooth_quant.hpp>
#include <anybit/version.hpp>
