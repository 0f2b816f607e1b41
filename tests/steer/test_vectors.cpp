// Directions, operators, probes and interventions against numpy and scikit-learn.

#include <cmath>
#include <cstdlib>
#include <string>
#include <vector>

#include <anybit/io/safetensors.hpp>
#include <anybit/steer/intervention.hpp>
#include <anybit/steer/projection.hpp>

#include "support/catch.hpp"
#include "support/test_data.hpp"

using namespace anybit;
using namespace anybit::steer;

namespace {

Matrix read_matrix(const io::SafetensorsFile& f, const std::string& name, Index cols) {
  const std::vector<float> values = f.read<float>(name).value();
  Matrix m(static_cast<Index>(values.size()) / cols, cols);
  std::copy(values.begin(), values.end(), m.data());
  return m;
}

double worst(std::span<const double> a, std::span<const double> b) {
  REQUIRE(a.size() == b.size());
  double most = 0;
  for (std::size_t i = 0; i < a.size(); ++i) most = std::max(most, std::abs(a[i] - b[i]));
  return most;
}

}  // namespace

TEST_CASE("reading equals numpy: component and sign and scores and mean difference") {
  ANYBIT_TEST_DATA_OR_SKIP(path, "vectors/steer.safetensors");
  const auto f = io::SafetensorsFile::open(path).value();
  const Matrix h = read_matrix(f, "reading.h", 48);
  const std::vector<Label> labels = f.read<std::int32_t>("reading.label").value();
  const Direction d = pca_direction(h.view(), labels).value();
  std::vector<double> signed_vector(d.vector);
  for (double& x : signed_vector) x *= d.sign;
  CHECK(cosine(signed_vector, f.read<double>("reading.pca").value()) >= 1 - 1e-6);
  CHECK(worst(signed_vector, f.read<double>("reading.pca").value()) < 1e-6);
  CHECK(worst(d.center, f.read<double>("reading.mean").value()) < 1e-6);
  CHECK(worst(scores(d, h.view()), f.read<double>("reading.scores").value()) < 1e-6);
  CHECK(pair_accuracy(scores(d, h.view()), labels) == 1);
  const std::vector<double> singular = f.read<double>("reading.singular_values").value();
  double all = 0;
  for (const double s : singular) all += s * s;
  CHECK(d.explained == Approx(singular[0] * singular[0] / all).epsilon(1e-9));
  CHECK(worst(mean_difference(h.view(), labels).value().vector, f.read<double>("reading.mean_difference").value()) < 1e-6);
}

TEST_CASE("control operators and projection of weights equal numpy") {
  ANYBIT_TEST_DATA_OR_SKIP(path, "vectors/steer.safetensors");
  const auto f = io::SafetensorsFile::open(path).value();
  const std::vector<double> x = f.read<double>("control.x").value(), c = f.read<double>("control.c").value();
  const std::vector<float> cf(c.begin(), c.end());
  const auto applied = [&](Operator op, bool keep_norm) {
    std::vector<float> h(x.begin(), x.end());
    for (std::size_t r = 0; r < 5; ++r) apply(op, std::span(h).subspan(48 * r, 48), cf, keep_norm);
    return std::vector<double>(h.begin(), h.end());
  };
  CHECK(worst(applied(Operator::linear, false), f.read<double>("control.linear").value()) < 1e-6);
  CHECK(worst(applied(Operator::piecewise, false), f.read<double>("control.piecewise").value()) < 1e-6);
  CHECK(worst(applied(Operator::projection, false), f.read<double>("control.projection").value()) < 1e-6);
  CHECK(worst(applied(Operator::linear, true), f.read<double>("control.linear_norm_kept").value()) < 1e-6);

  const std::vector<double> w = f.read<double>("project.W").value(), r = f.read<double>("project.r").value();
  Matrix m(48, 21);
  std::copy(w.begin(), w.end(), m.data());
  project_columns(m.view(), unit(r, 48).value());
  const std::vector<double> after(m.data(), m.data() + 48 * 21);
  CHECK(worst(after, f.read<double>("project.W_after").value()) < 1e-6);
  CHECK(norm(along_outputs(nn::Linear(Matrix(m.view())), unit(r, 48).value())) < 1e-6 * norm(w));
}

TEST_CASE("probes and intervention equal scikit-learn: coefficients and accuracies and sigma and bias") {
  ANYBIT_TEST_DATA_OR_SKIP(path, "vectors/steer.safetensors");
  const auto f = io::SafetensorsFile::open(path).value();
  const std::vector<Matrix> x = [&] {
    std::vector<Matrix> blocks;
    blocks.push_back(read_matrix(f, "iti.X", 48));
    return blocks;
  }();
  const std::vector<Label> labels = f.read<std::int32_t>("iti.y").value();
  std::vector<Split> split;
  for (const std::int32_t s : f.read<std::int32_t>("iti.split").value()) split.push_back(static_cast<Split>(s));
  const auto probes = fit_head_probes(x, labels, split, 8).value();
  REQUIRE(probes.size() == 6);
  const std::vector<double> coef = f.read<double>("iti.coef").value(), intercept = f.read<double>("iti.intercept").value();
  const double accuracies[] = {1, 21.0 / 37, 23.0 / 37, 1, 24.0 / 37, 21.0 / 37};
  for (std::size_t h = 0; h < 6; ++h) {
    CHECK(worst(probes[h].probe.weight, std::span(coef).subspan(8 * h, 8)) < 1e-3);
    CHECK(std::abs(probes[h].probe.intercept - intercept[h]) < 1e-3);
    CHECK(probes[h].accuracy == Approx(accuracies[h]).epsilon(1e-12));
  }
  const Intervention s = fit_intervention(x, labels, split, probes, 8, {.heads = 3}).value();
  const std::vector<double> theta = f.read<double>("iti.theta").value(), sigma = f.read<double>("iti.sigma").value();
  const Index best[] = {0, 3, 4};
  for (std::size_t i = 0; i < 3; ++i) {
    const auto h = static_cast<std::size_t>(best[i]);
    REQUIRE(s.heads[i].head == best[i]);
    CHECK(worst(s.heads[i].theta, std::span(theta).subspan(8 * h, 8)) < 1e-6);
    CHECK(std::abs(s.heads[i].sigma - sigma[h]) < 1e-6);
  }
  const std::vector<double> shift = displacement(s, 0, 48, 15);
  CHECK(worst(shift, f.read<double>("iti.displacement").value()) < 1e-5);  // activations are floats
  const std::vector<double> w = f.read<double>("iti.W_o").value();
  Matrix o(48, 48);
  std::copy(w.begin(), w.end(), o.data());
  CHECK(worst(times(nn::Linear(std::move(o)), shift), f.read<double>("iti.bias").value()) < 1e-5);
}
