// Somebody else's program: quantizes a matrix, packs it, and multiplies with the packed form.
#include <anybit/anybit.hpp>

#include <cmath>
#include <cstdio>
#include <vector>

using Sf5 = anybit::Scheme<anybit::Superfloat<5>, anybit::PerGroup<32>, anybit::ScaleF16>;

int main() {
  constexpr anybit::Index rows = 5, cols = 77;  // the last group of a row is ragged
  anybit::Matrix w(rows, cols);
  std::vector<float> x(cols), y(rows);
  for (anybit::Index r = 0; r < rows; ++r)
    for (anybit::Index c = 0; c < cols; ++c) w(r, c) = std::sin(static_cast<float>(r * cols + c));
  for (std::size_t c = 0; c < x.size(); ++c) x[c] = std::cos(static_cast<float>(c));

  const auto quantized = anybit::Nearest<Sf5>{}.quantize(w.view());
  if (!quantized) {
    std::printf("%s\n", quantized.error().message.c_str());
    return 1;
  }
  const anybit::PackedTensor<Sf5> packed = anybit::pack(quantized->matrix);
  anybit::matvec(packed, std::span<const float>(x), std::span<float>(y));

  // Against the float product: a weight is at most half a step of its group (here below 1/30) away.
  float worst = 0, bound = 0;
  for (std::size_t c = 0; c < x.size(); ++c) bound += std::fabs(x[c]) / 30;
  for (anybit::Index r = 0; r < rows; ++r) {
    float exact = 0;
    for (anybit::Index c = 0; c < cols; ++c) exact += w(r, c) * x[static_cast<std::size_t>(c)];
    worst = std::fmax(worst, std::fabs(exact - y[static_cast<std::size_t>(r)]));
  }
  std::printf("anybit %d.%d: %.3f bits per weight, largest error of a product %.4f\n", ANYBIT_VERSION_MAJOR, ANYBIT_VERSION_MINOR,
              packed.bits_per_weight(), static_cast<double>(worst));
  return worst > 0 && worst < bound && anybit::pack(anybit::unpack(packed)) == packed ? 0 : 1;
}
