// Bits per weight of a model's matrices without loss, and the time to pack, to check and to decode them, one thread:
//   lossless_bf16 MODEL [round]    `round`: values that are no bfloat16 are rounded to one first; else such a matrix is left out
// ctest: skip

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <string>
#include <string_view>
#include <vector>

#include <anybit/model/file_tensors.hpp>
#include <anybit/model/load.hpp>
#include <anybit/tensor/pack_lossless_bf16.hpp>

using namespace anybit;

namespace {

/// Of the processor, so that other programs do not matter.
double seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

/// The least time of several.
template <class F>
double least(F&& f) {
  double best = 1e9;
  for (int i = 0; i < 5; ++i) {
    const double start = seconds();
    f();
    best = std::min(best, seconds() - start);
  }
  return best;
}

struct Sum {
  double weights = 0, bytes = 0, pack = 0, check = 0, decode = 0, copy = 0, left_out = 0;
};

void add(Sum& sum, const Matrix& w) {
  const double start = seconds();
  const auto packed = pack_lossless_bf16(w.view());
  if (!packed) {
    ++sum.left_out;
    return;
  }
  sum.pack += seconds() - start;
  sum.check += least([&] {
    if (!PackedTensor<LosslessBf16>::check(packed->bytes())) sum.left_out = 1e9;
  });
  Matrix out(w.rows(), w.cols());
  sum.decode += least([&] { dequantize_rows(*packed, 0, w.rows(), out.view()); });
  if (std::memcmp(out.data(), w.data(), static_cast<std::size_t>(w.rows() * w.cols()) * sizeof(float)) != 0) sum.left_out = 1e9;
  sum.copy += least([&] { std::memcpy(out.data(), w.data(), static_cast<std::size_t>(w.rows() * w.cols()) * sizeof(float)); });
  sum.weights += static_cast<double>(w.rows() * w.cols());
  sum.bytes += static_cast<double>(packed->bytes().payload_bytes());
}

}  // namespace

int main(int argc, char** argv) {
  const bool round = argc > 2 && std::string_view(argv[2]) == "round";
  if (argc < 2) return std::fprintf(stderr, "lossless_bf16 MODEL [round]\n"), 2;
  const auto m = model::load_model(argv[1]);
  if (!m) return std::fprintf(stderr, "%s\n", m.error().message.c_str()), 1;
  Sum sum;
  model::for_each_linear(m->decoder, [&](const std::string&, const nn::Linear& linear) {
    if (!linear.dense()) return;
    Matrix w(linear.dense()->view());
    if (round)
      for (Index i = 0; i < w.rows() * w.cols(); ++i) w.data()[i] = lossless::nearest_bf16(w.data()[i]);
    add(sum, w);
  });
  std::printf("%.1f million weights, %.3f bits per weight, %.0f matrices left out\n", sum.weights * 1e-6,
              8 * sum.bytes / sum.weights, sum.left_out);
  std::printf("million weights a second: pack %.0f, check %.0f, decode to float %.0f, memcpy of the floats %.0f\n",
              sum.weights / sum.pack * 1e-6, sum.weights / sum.check * 1e-6, sum.weights / sum.decode * 1e-6,
              sum.weights / sum.copy * 1e-6);
}
