// Convolution along frames, against its definition.

#include <random>
#include <vector>

#include <anybit/nn/convolution.hpp>

#include "support/catch.hpp"

using namespace anybit;
using namespace anybit::nn;

TEST_CASE("convolution: every width and stride and padding by definition") {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  const auto filled = [&](Index rows, Index cols) {
    Matrix m(rows, cols);
    for (Index i = 0; i < m.extents().size(); ++i) m.data()[i] = normal(random);
    return m;
  };
  for (const Index frames : {1, 2, 3, 28, 29})
    for (const Conv1dShape& s :
         {Conv1dShape{}, Conv1dShape{3, 2, 1}, Conv1dShape{5, 3, 0}, Conv1dShape{1, 1, 0}, Conv1dShape{4, 2, 3}}) {
      CAPTURE(frames, s.width, s.stride, s.padding);
      constexpr Index in = 3, out = 5;
      const Matrix w = filled(out, in * s.width), x = filled(frames, in);
      Linear linear{Matrix(w.view())};
      const std::vector<float> bias{0.5f, -1, 2, 0, 0.25f};
      linear.set_bias(bias);
      Index outputs = 0;  // windows that fit
      while (outputs * s.stride + s.width <= frames + 2 * s.padding) ++outputs;
      REQUIRE(s.outputs(frames) == outputs);
      Matrix y(outputs, out);
      Workspace workspace;
      conv1d(linear, s, x.view(), y.view(), {}, workspace);
      double worst = 0;
      for (Index t = 0; t < outputs; ++t)
        for (Index o = 0; o < out; ++o) {
          double sum = static_cast<double>(bias[static_cast<std::size_t>(o)]);
          for (Index c = 0; c < in; ++c)
            for (Index k = 0; k < s.width; ++k) {
              const Index frame = t * s.stride + k - s.padding;
              if (frame >= 0 && frame < frames)
                sum += static_cast<double>(w(o, c * s.width + k)) * static_cast<double>(x(frame, c));
            }
          worst = std::max(worst, std::abs(sum - static_cast<double>(y(t, o))));
        }
      CHECK(worst < 1e-5);
    }
}
