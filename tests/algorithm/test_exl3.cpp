// Quantizing to EXL3: what is written is read back, errors are those of a trellis, and padding is the format's.

#include <anybit/algorithm/exl3.hpp>

#include <cmath>
#include <cstring>
#include <vector>

#include <anybit/algorithm/ldlq.hpp>
#include <anybit/exec/thread_pool.hpp>
#include <anybit/kernel/any_packed.hpp>

#include "algorithm/random_layers.hpp"
#include "support/catch.hpp"

using namespace anybit;

namespace {

using test_layers::correlated, test_layers::random_matrix;

template <PackedScheme S>
Matrix restored(const PackedTensor<S>& t) {
  const AnyPacked any(t);
  Matrix out(t.rows(), t.cols());
  for (Index r = 0; r < t.rows(); ++r) any.dequantize_row(r, out.view().row(r));
  return out;
}
double relative(ConstMatrix a, ConstMatrix b) {
  double off = 0, all = 0;
  for (Index r = 0; r < a.rows; ++r)
    for (Index c = 0; c < a.cols; ++c) off += std::pow(double{a(r, c)} - double{b(r, c)}, 2), all += std::pow(double{a(r, c)}, 2);
  return off / all;
}

}  // namespace

TEST_CASE("exl3: weights are as near as a trellis code of that many bits comes") {
  // Rows and columns of many sizes, which the scales take up.
  Matrix w = random_matrix(128, 256, 1);
  for (Index r = 0; r < 128; ++r)
    for (Index c = 0; c < 256; ++c) w(r, c) *= (r % 5 == 0 ? 3.0f : 0.5f) * (c % 7 == 0 ? 2.0f : 1.0f) * 0.01f;
  const auto two = NearestExl3<2>{}.quantize(w.view(), Stats{});
  REQUIRE(two);
  CHECK(two->report.as_requested());
  CHECK(two->report.done == "nearest exl3/2/mul1");
  CHECK(std::pow(two->report.weight_error, 2) < 0.078);
  CHECK(relative(w.view(), restored(two->tensor).view()) == Approx(std::pow(two->report.weight_error, 2)).epsilon(1e-4));
  const auto four = NearestExl3<4, Mcg>{}.quantize(w.view(), Stats{});
  REQUIRE(four);
  CHECK(std::pow(four->report.weight_error, 2) < 0.0062);
  CHECK(four->report.bits_per_weight == 4 + 16.0 * (128 + 256) / (128 * 256));
}

TEST_CASE("exl3: feedback lowers the error of the outputs, at padded extents, for any number of threads") {
  const Matrix w = random_matrix(40, 150, 2, 0.02f), x = correlated(600, 150, 3);
  Stats stats(150, Needs::hessian);
  REQUIRE(stats.accumulate(x.view()));
  const auto plain = NearestExl3<2>{}.quantize(w.view(), Stats{});
  const auto one = LdlqExl3<2>{}.quantize(w.view(), stats);
  REQUIRE(one);
  ThreadPool pool(3);
  const auto many = LdlqExl3<2>{}.quantize(w.view(), stats, {.executor = pool});
  REQUIRE(many);
  CHECK(one->tensor == many->tensor);
  CHECK(one->tensor.extents() == w.extents());
  CHECK(one->tensor.provenance() == "ldlq(damp=0.025)");
  const auto error = [&](const Matrix& q) { return test_layers::rel_err(w, q, x); };
  CHECK(error(restored(one->tensor)) < 0.7 * error(restored(plain->tensor)));
  CHECK(*one->report.output_error == Approx(std::sqrt(error(restored(one->tensor)))).epsilon(0.02));
  // Padded outputs are 0 in the file.
  const auto svh = one->tensor.bytes().section(section_tags::output_scales);
  for (std::size_t i = 40; i < 128; ++i) {
    std::uint16_t half;
    std::memcpy(&half, svh.data() + 2 * i, 2);
    CHECK((half & 0x7fff) == 0);
  }
}

TEST_CASE("exl3: zeros stay zeros, and what cannot be held is refused") {
  Matrix w = random_matrix(30, 128, 4);
  for (Index c = 0; c < 128; ++c) w(3, c) = 0;
  const auto q = NearestExl3<1>{}.quantize(w.view(), Stats{});
  REQUIRE(q);
  const Matrix back = restored(q->tensor);
  for (Index c = 0; c < 128; ++c) CHECK(back(3, c) == 0);
  CHECK(relative(Matrix(2, 128).view(), Matrix(2, 128).view()) != relative(w.view(), back.view()));
  const auto zeros = NearestExl3<2>{}.quantize(Matrix(2, 128).view(), Stats{});
  REQUIRE(zeros);
  const Matrix nothing = restored(zeros->tensor);
  for (Index c = 0; c < 256; ++c) CHECK(nothing.data()[c] == 0);
  for (Index c = 0; c < 128; ++c) w(5, c) = 1e30f;
  const auto large = NearestExl3<1>{}.quantize(w.view(), Stats{});
  REQUIRE_FALSE(large);
  CHECK(large.error().code == ErrorCode::unsupported);
  w(5, 5) = std::numeric_limits<float>::quiet_NaN();
  CHECK(NearestExl3<1>{}.quantize(w.view(), Stats{}).error().code == ErrorCode::not_finite);
  CHECK(LdlqExl3<1>{.damp = 0}.quantize(random_matrix(3, 128, 1).view(), Stats(128, Needs::hessian)).error().code ==
        ErrorCode::insufficient_data);
}
