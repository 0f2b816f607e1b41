// Quantize with calibration data: three matrices that share one input, by recipes from nearest rounding to AWQ and GPTQ.

#include <cstdio>
#include <random>
#include <vector>

#include <anybit/anybit.hpp>

using namespace anybit;

template <class R>
int show(const char* name, const R& recipe, std::span<const ConstMatrix> siblings, const Stats& stats) {
  const auto result = quantize_siblings(recipe, siblings, stats);
  if (!result) return std::fprintf(stderr, "%s: %s\n", name, result.error().message.c_str()), 1;
  std::printf("%-20s", name);
  for (const auto& q : result->matrices) std::printf("  %6.2f %%", 100 * q.report.output_error.value_or(0));
  std::printf("   %.3f bits per weight\n", result->matrices.front().report.bits_per_weight);
  for (const std::string& fallback : result->matrices.front().report.fallbacks)
    std::printf("  not as asked: %s\n", fallback.c_str());
  return 0;
}

int main() {
  // Activations of 512 tokens whose channels are correlated and of different size, as a transformer's are.
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  const Index inputs = 192;
  Matrix x(512, inputs);
  for (Index t = 0; t < x.rows(); ++t)
    for (Index j = 0; j < inputs; ++j)
      x(t, j) =
          (j % 16 == 0 ? 8.0f : 1.0f) * (normal(random) + (j > 0 ? 0.7f * x(t, j - 1) / (j % 16 == 1 ? 8.0f : 1.0f) : 0.0f));
  Matrix q(96, inputs), k(48, inputs), v(48, inputs);
  for (Matrix* m : {&q, &k, &v})
    for (Index i = 0; i < m->extents().size(); ++i) m->data()[i] = 0.05f * normal(random);
  const std::vector<ConstMatrix> siblings{q.view(), k.view(), v.view()};

  Stats stats(inputs, Needs::abs_max | Needs::mean_abs | Needs::hessian | Needs::samples);
  if (const Status seen = stats.accumulate(x.view()); !seen) return std::fprintf(stderr, "%s\n", seen.error().message.c_str()), 1;

  std::printf("error of the outputs: q, k, v\n");
  int failed = show("nearest", Nearest<UInt<3>, PerGroup<64>>{}, siblings, stats);
  failed += show("awq", Awq{} | Nearest<UInt<3>, PerGroup<64>>{}, siblings, stats);
  failed += show("gptq", Gptq<UInt<3>, PerGroup<64>>{}, siblings, stats);
  failed += show("gptq, act-order", Gptq<UInt<3>, PerGroup<64>>{.act_order = true}, siblings, stats);
  failed += show("awq | gptq", Awq{} | Gptq<UInt<3>, PerGroup<64>>{}, siblings, stats);
  failed += show("gptq superfloat 4", Gptq<Superfloat<4>, PerGroup<64>>{.damp = 0.02f}, siblings, stats);
  return failed;
}
