// Weights that stay exact: what is refused, what is rounded, and that models' recipes, files and products take the result.

#include <anybit/algorithm/lossless.hpp>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include <anybit/exec/thread_pool.hpp>
#include <anybit/io/anybit_file.hpp>
#include <anybit/kernel/any_packed.hpp>
#include <anybit/kernel/matvec.hpp>
#include <anybit/quantize/any_recipe.hpp>

#include "algorithm/random_layers.hpp"
#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

using namespace anybit;

namespace {

Matrix rounded_matrix(Index rows, Index cols, unsigned seed) {
  Matrix w = test_layers::random_matrix(rows, cols, seed, 0.02f);
  for (Index i = 0; i < rows * cols; ++i) w.data()[i] = lossless::nearest_bf16(w.data()[i]);
  return w;
}

bool same_bytes(const Matrix& a, const Matrix& b) {
  return a.extents() == b.extents() &&
         std::memcmp(a.data(), b.data(), static_cast<std::size_t>(a.rows() * a.cols()) * sizeof(float)) == 0;
}

Matrix restored_rows(const AnyPacked& any) {
  Matrix out(any.extents().rows, any.extents().cols);
  for (Index r = 0; r < out.rows(); ++r) any.dequantize_row(r, out.view().row(r));
  return out;
}

}  // namespace

TEST_CASE("lossless: exact keeps every bit and refuses what it cannot keep") {
  Matrix w = rounded_matrix(9, 600, 1);
  w(3, 5) = -0.0f, w(8, 599) = std::numeric_limits<float>::infinity(), w(0, 0) = 0x1p-133f;
  const std::uint32_t nan = 0xFFA50000u;
  std::memcpy(w.data() + 700, &nan, 4);
  const auto q = Exact{}.quantize(w.view(), Stats{});
  REQUIRE(q);
  CHECK(q->report.as_requested());
  CHECK(q->report.done == "exact lossless_bf16");
  CHECK(q->report.weight_error == 0);
  CHECK(!q->report.output_error);
  CHECK(q->report.bits_per_weight == q->tensor.bits_per_weight());
  CHECK(q->tensor.provenance() == "exact");
  CHECK(same_bytes(restored_rows(AnyPacked(q->tensor)), w));

  w(4, 7) = 0.3f;
  const auto refused = Exact{}.quantize(w.view(), Stats{});
  REQUIRE(!refused);
  CHECK(refused.error().message.find("row 4, column 7 is 0.300000012") != std::string::npos);
  CHECK(refused.error().message.find("rounding") != std::string::npos);
  const Matrix limits(9, 1);
  CHECK(Exact{}.quantize(w.view(), Stats{}, {.clip_limits = limits.view()}).error().code == ErrorCode::unsupported);
}

TEST_CASE("lossless: nearest rounds, says how far, and refuses what is no number") {
  Matrix w = test_layers::random_matrix(6, 300, 2, 0.02f);
  Stats stats(300, Needs::hessian);
  REQUIRE(stats.accumulate(test_layers::random_matrix(50, 300, 3).view()));
  const auto q = NearestBf16{}.quantize(w.view(), stats);
  REQUIRE(q);
  const Matrix back = restored_rows(AnyPacked(q->tensor));
  double off = 0, all = 0;
  for (Index i = 0; i < 1800; ++i) {
    const double x = static_cast<double>(w.data()[i]), y = static_cast<double>(back.data()[i]);
    REQUIRE(std::fabs(x - y) <= std::ldexp(std::fabs(x), -8));
    off += (x - y) * (x - y), all += x * x;
  }
  CHECK(q->report.weight_error == Approx(std::sqrt(off / all)));
  CHECK(q->report.output_error);
  CHECK(*q->report.output_error > 0);
  CHECK(*q->report.output_error < 0.01);
  CHECK(Exact{}.quantize(back.view(), stats)->report.output_error == 0.0);
  w(1, 2) = std::numeric_limits<float>::quiet_NaN();
  CHECK(NearestBf16{}.quantize(w.view(), stats).error().code == ErrorCode::not_finite);
}

TEST_CASE("lossless: through a recipe, a file and a registry; products are those of the floats") {
  const model::ModelRecipe recipe = model::model_recipe("embedding", Exact{});
  CHECK(recipe.description == "exact");
  CHECK(recipe.scheme->name == "lossless_bf16");
  CHECK(recipe.bits_per_weight({4096, 4096}) > 16);  // at most: what it takes the weights decide
  for (const Extents e : {Extents{1, 1}, Extents{33, 1030}, Extents{70, 576}}) {
    const Matrix w = rounded_matrix(e.rows, e.cols, 5);
    const ConstMatrix one[] = {w.view()};
    const auto done = recipe.quantize(model::Upstream::norm, one, Stats(e.cols, Needs::none), {});
    REQUIRE(done);
    const test_support::TemporaryFolder folder;
    io::AnybitWriter writer;
    writer.add("w", done->packed[0].bytes());
    REQUIRE(writer.write(folder / "w.safetensors"));
    const auto file = io::AnybitFile::open(folder / "w.safetensors");
    REQUIRE(file);
    SchemeRegistry registry;
    registry.add<LosslessBf16>();
    const auto any = registry.open(*file->packed("w"));
    REQUIRE(any);
    CHECK(any->bits_per_weight() == done->reports[0].bits_per_weight);
    CHECK(same_bytes(restored_rows(*any), w));
    CHECK(recipe.open(*file->packed("w")));
    CHECK(recipe.blank(e).payload_bytes() >= any->payload_bytes());

    ThreadPool pool(3);
    for (const Index tokens : {1, 3, 40})
      for (const Compute compute : {Compute::f32, Compute::int8_per_token}) {
        const Matrix x = test_layers::random_matrix(tokens, e.cols, 7);
        Matrix y(tokens, e.rows), parallel(tokens, e.rows);
        Workspace workspace;
        AnyPacked prepared = *any;
        CHECK_FALSE(prepared.prepare(compute));
        prepared.matmul(x.view(), y.view(), compute, {}, workspace);
        prepared.matmul(x.view(), parallel.view(), compute, pool, workspace);
        CHECK(same_bytes(y, parallel));
        double off = 0, all = 0;
        for (Index t = 0; t < tokens; ++t)
          for (Index r = 0; r < e.rows; ++r) {
            double sum = 0;
            for (Index c = 0; c < e.cols; ++c) sum += double{x(t, c)} * double{w(r, c)};
            off += std::pow(sum - double{y(t, r)}, 2), all += sum * sum;
          }
        CHECK(std::sqrt(off) <= (compute == Compute::f32 ? 1e-6 : 0.02) * std::sqrt(all));
      }
  }
}
