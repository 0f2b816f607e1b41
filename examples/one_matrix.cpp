// Quantize one matrix, pack it, multiply with it: what an engine does with each of its weights.

#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include <anybit/anybit.hpp>

using namespace anybit;

template <AnyScheme S>
void show(ConstMatrix weights, std::span<const float> x, std::span<const double> exact) {
  const PackedTensor<S> packed = pack(quantize_nearest<S>(weights).value());
  std::vector<float> y(static_cast<std::size_t>(weights.rows));
  matvec(packed, x, std::span<float>(y));

  double error = 0, size = 0;
  for (std::size_t i = 0; i < y.size(); ++i) {
    error += std::pow(static_cast<double>(y[i]) - exact[i], 2);
    size += exact[i] * exact[i];
  }
  std::printf("%-28s %6.3f bits per weight  %6.2f %% error of the product\n", std::string(S::name.view()).c_str(),
              packed.bits_per_weight(), 100 * std::sqrt(error / size));
}

int main() {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, 0.02f);
  Matrix w(300, 1000);  // outputs, inputs: any shape
  std::vector<float> x(1000);
  for (Index i = 0; i < w.extents().size(); ++i) w.data()[i] = normal(random);
  for (float& v : x) v = normal(random);
  std::vector<double> exact(300);
  for (Index r = 0; r < 300; ++r)
    for (Index c = 0; c < 1000; ++c)
      exact[static_cast<std::size_t>(r)] += static_cast<double>(w(r, c)) * static_cast<double>(x[static_cast<std::size_t>(c)]);

  show<Scheme<Superfloat<8>, PerGroup<128>>>(w.view(), x, exact);
  show<Scheme<Superfloat<5>, PerGroup<128>>>(w.view(), x, exact);
  show<Scheme<UInt<4>, PerGroup<96>, ScaleBF16>>(w.view(), x, exact);
  show<Scheme<Nf4, PerGroup<64>, DoubleQuant<256>>>(w.view(), x, exact);
  show<Scheme<Minifloat<2, 1>, PerGroup<32>, ScaleE8M0>>(w.view(), x, exact);
  show<Scheme<SInt<3>, PerGroup<64>>>(w.view(), x, exact);
  show<Scheme<Ternary, PerTensor, ScaleF32, Base3>>(w.view(), x, exact);
}
