#include <anybit/recipe/activation_scale.hpp>

#include <limits>

#include <anybit/calibrate/accumulate.hpp>

#include "support/catch.hpp"

using namespace anybit;

TEST_CASE("the static scale of activations: the largest calibrated magnitude / 127, after the division of the inputs") {
  Matrix x(2, 3);
  x(0, 0) = 8, x(0, 1) = -1, x(0, 2) = 0.5f, x(1, 0) = -2, x(1, 1) = 3, x(1, 2) = -12;
  const auto stats = accumulate<Needs::abs_max>(x.view()).value();
  CHECK(static_activation_scale(stats).value() == 12.0f / 127);
  const float s[] = {0.5f, 1, 4};
  CHECK(static_activation_scale(stats, s).value() == 16.0f / 127);
  CHECK(static_activation_scale(accumulate<Needs::abs_max>(Matrix(4, 3).view()).value()).value() == 1e-5f / 127);

  const auto message = [](const Result<float>& r) { return r ? std::string("no error") : r.error().message; };
  CHECK(message(static_activation_scale(stats, std::span(s).first(2))).find("of 3 inputs") != std::string::npos);
  CHECK(message(static_activation_scale(Stats(3, Needs::abs_max))).find("0 tokens") != std::string::npos);
  CHECK(message(static_activation_scale(accumulate<Needs::mean_abs>(x.view()).value())).find("needs abs_max") !=
        std::string::npos);
  const float zero[] = {1, 0, 1};
  CHECK(message(static_activation_scale(stats, zero)).find("input 1 reached inf") != std::string::npos);
}
