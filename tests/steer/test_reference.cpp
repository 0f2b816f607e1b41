// The fast forms against the readable twins, at odd sizes.

#include <cmath>
#include <random>
#include <vector>

#include <anybit/reference/steering.hpp>
#include <anybit/steer/direction.hpp>
#include <anybit/steer/probe.hpp>

#include "support/catch.hpp"

using namespace anybit;
namespace ref = anybit::reference;

namespace {

struct Labelled {
  Matrix x;
  ref::Matrix same;
  std::vector<steer::Label> labels;
  ref::Row<int> same_labels;
};

/// Pairs around a direction of their own; one channel is large.
Labelled pairs(Index count, Index width, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  Labelled out{Matrix(2 * count, width), ref::Matrix(2 * count, width), {}, ref::Row<int>(2 * count)};
  std::vector<float> direction(static_cast<std::size_t>(width));
  for (float& d : direction) d = normal(random);
  for (Index i = 0; i < count; ++i) {
    const int first = i < 2 ? static_cast<int>(i) : static_cast<int>(random() % 2);
    for (Index r = 2 * i; r < 2 * i + 2; ++r) {
      const int label = r == 2 * i ? first : 1 - first;
      out.labels.push_back(label), out.same_labels[r] = label;
      for (Index j = 0; j < width; ++j) {
        const float value =
            (j % 7 == 2 ? 5.f : 0.5f) * normal(random) + (label == 1 ? 1.f : -1.f) * direction[static_cast<std::size_t>(j)];
        out.x(r, j) = value, out.same(r, j) = static_cast<double>(value);
      }
    }
  }
  return out;
}

}  // namespace

TEST_CASE("principal component and sign equal the readable twin at odd sizes") {
  for (const auto& [count, width] : {std::pair<Index, Index>{5, 3}, {7, 31}, {33, 9}, {20, 1}, {2, 17}, {65, 65}}) {
    CAPTURE(count, width);
    const Labelled data = pairs(count, width, static_cast<unsigned>(count + 100 * width));
    const auto d = steer::pca_direction(data.x.view(), data.labels);
    REQUIRE(d.ok());
    const ref::Matrix differences = ref::pair_differences(data.same);
    const ref::Vector v = ref::principal_component(differences);
    CHECK(std::abs(steer::cosine(d->vector, v.values)) > 1 - 1e-9);
    const ref::Vector own(d->vector);
    CHECK(d->sign == ref::direction_sign(data.same, data.same_labels, own, ref::mean_row(differences)));
  }
}

TEST_CASE("probes equal the readable twin at odd sizes and penalties") {
  for (const auto& [count, width, c] : {std::tuple<Index, Index, double>{9, 1, 1}, {6, 13, 1}, {40, 5, 0.01}, {25, 33, 3}}) {
    CAPTURE(count, width, c);
    const Labelled data = pairs(count, width, static_cast<unsigned>(7 * count + width));
    const auto probe = steer::fit_probe(data.x.view(), data.labels, {.c = c});
    REQUIRE(probe.ok());
    const ref::Vector w = ref::logistic_probe(data.same, data.same_labels, c);
    for (Index j = 0; j < width; ++j) CHECK(probe->weight[static_cast<std::size_t>(j)] == Approx(w[j]).margin(1e-6));
    CHECK(probe->intercept == Approx(w[width]).margin(1e-6));
  }
}
