// AWQ and SmoothQuant of reference/: worked examples and the published scales, losses and clip steps.

#include <string>
#include <vector>

#include <anybit/reference/activations.hpp>
#include <anybit/reference/awq.hpp>
#include <anybit/reference/awq_clip.hpp>
#include <anybit/reference/smooth_quant.hpp>

#include "reference/vectors.hpp"

using namespace anybit;
using namespace reference_tests;

namespace {

double mean_square(const ref::Matrix& a, const ref::Matrix& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.values.size(); ++i) sum += (a.values[i] - b.values[i]) * (a.values[i] - b.values[i]);
  return sum / static_cast<double>(a.values.size());
}

}  // namespace

TEST_CASE("reference: AWQ's scales, by hand") {
  CHECK(ref::awq_scale({4, 1, 0.25}, 0) == ref::Vector{1, 1, 1});
  const ref::Vector half = ref::awq_scale({4, 1, 0.25}, 0.5), last = ref::awq_scale({4, 1, 0.25}, 0.95);
  CHECK((half[0] == Approx(2) && half[1] == Approx(1) && half[2] == Approx(0.5)));
  CHECK((last[0] == Approx(3.7321).epsilon(1e-4) && last[2] == Approx(0.26794).epsilon(1e-4)));
  const auto g = ref::awq_grid({2, 5}, 2);  // from 2 to 5, without 0
  CHECK((g.scale == 1 && g.zero == 0));
}

TEST_CASE("reference: AWQ chooses the published scales and clips at the published steps") {
  ANYBIT_TEST_DATA_OR_SKIP(path, "vectors/awq.safetensors");
  const auto file = io::SafetensorsFile::open(path);
  REQUIRE(file.ok());
  const ref::Matrix gate = read(*file, "W_gate"), up = read(*file, "W_up"), down = read(*file, "W_down");
  const auto mlp = [&](const ref::Matrix& x, const ref::Matrix& g, const ref::Matrix& u) {
    return ref::times_transposed(ref::gated(ref::times_transposed(x, g), ref::times_transposed(x, u), ref::silu), down);
  };
  for (const int bits : {3, 4})
    for (const Index group : {Index{64}, Index{128}}) {
      const std::string kind = ".b" + std::to_string(bits) + ".g" + std::to_string(group);
      const auto check = [&](const std::string& id, const ref::AwqChoice& choice) {
        INFO(id);
        const auto losses = *file->read<double>(id + ".losses");
        const auto scale = *file->read<float>(id + ".scales");
        for (std::size_t i = 0; i < 20; ++i) CHECK(choice.losses.values[i] == Approx(losses[i]).epsilon(1e-4));
        for (std::size_t j = 0; j < scale.size(); ++j) CHECK(choice.scale.values[j] == Approx(scale[j]).epsilon(1e-5));
      };
      const ref::Matrix x = read(*file, "X_down"), exact = ref::times_transposed(x, down);
      check("scale.down" + kind, ref::awq_search(ref::mean_abs(x), [&](const ref::Vector& s) {
              return mean_square(exact, ref::times_transposed(x, ref::awq_rounded(down, s, bits, group)));
            }));
      if (bits == 3 && group == 64) {
        const ref::Matrix x_mlp = read(*file, "X_mlp"), y = mlp(x_mlp, gate, up);
        check("scale.mlp_gate_up" + kind, ref::awq_search(ref::mean_abs(x_mlp), [&](const ref::Vector& s) {
                return mean_square(y, mlp(x_mlp, ref::awq_rounded(gate, s, bits, group), ref::awq_rounded(up, s, bits, group)));
              }));
      }
      ref::Matrix some(96, x.cols);  // every fourth token
      for (Index t = 0; t < 96; ++t)
        for (Index j = 0; j < x.cols; ++j) some(t, j) = x(4 * t, j);
      const ref::Matrix limits = ref::awq_clip(down, some, bits, group);
      const auto expected = *file->read<float>("clip.down" + kind + ".n96");
      Index wrong = 0;
      for (std::size_t i = 0; i < expected.size(); ++i) wrong += static_cast<float>(limits.values[i]) != expected[i];
      CHECK(wrong == 0);
    }
}

TEST_CASE("reference: SmoothQuant, by hand and as published") {
  ref::Matrix w(1, 3);
  w.values = {0.5, -1, 2};
  const ref::Vector half = ref::smooth_quant({8, 1, 0.5}, {w}, 0.5);
  CHECK((half[0] == Approx(4) && half[1] == Approx(1) && half[2] == Approx(0.5)));
  CHECK(ref::smooth_quant({8, 1, 0.5}, {w}, 0.8)[0] == Approx(6.0629).epsilon(1e-4));
  const ref::Matrix x = some_matrix(4, 3, 1), y = ref::times_transposed(x, w);
  const ref::Matrix same = ref::times_transposed(ref::divided_columns(x, half), ref::scaled_columns(w, half));
  for (std::size_t i = 0; i < y.values.size(); ++i) CHECK(same.values[i] == Approx(y.values[i]));

  ANYBIT_TEST_DATA_OR_SKIP(path, "vectors/smoothquant.safetensors");
  const auto file = io::SafetensorsFile::open(path);
  REQUIRE(file.ok());
  const ref::Vector most = ref::column_abs_max(read(*file, "X"));
  const std::vector<ref::Matrix> qkv{read(*file, "W_q"), read(*file, "W_k"), read(*file, "W_v")};
  for (const int alpha : {30, 50, 75, 90}) {
    INFO(alpha);
    const auto all = *file->read<float>("a" + std::to_string(alpha) + ".qkv.scales"),
               alone = *file->read<float>("a" + std::to_string(alpha) + ".k.scales");
    const ref::Vector s = ref::smooth_quant(most, qkv, alpha / 100.0), k = ref::smooth_quant(most, {qkv[1]}, alpha / 100.0);
    for (std::size_t j = 0; j < all.size(); ++j) {
      CHECK(s.values[j] == Approx(all[j]).epsilon(2e-6));
      CHECK(k.values[j] == Approx(alone[j]).epsilon(2e-6));
    }
  }
}
