// Products on an executor that slices loops as it likes: the same bits as in one slice.

#include <cmath>

#include <anybit/format/codebook.hpp>
#include <anybit/format/integer.hpp>
#include <anybit/format/minifloat.hpp>
#include <anybit/format/superfloat.hpp>
#include <anybit/kernel/any_packed.hpp>
#include <anybit/tensor/pack.hpp>
#include <anybit/tensor/quantize.hpp>

#include "support/catch.hpp"
#include "support/hostile_executor.hpp"
#include "support/same_bits.hpp"

using namespace anybit;

namespace {

Matrix waves(Index rows, Index cols, float step) {
  Matrix m(rows, cols);
  for (Index i = 0; i < rows * cols; ++i) m.data()[i] = std::sin(step * static_cast<float>(i)) * static_cast<float>(1 + i % 5);
  return m;
}

template <AnyScheme S>
void same_on_any_executor() {
  CAPTURE(std::string(S::name.view()));
  const Index rows = 75, cols = 131;
  const Matrix weights = waves(rows, cols, 0.37f);
  for (const Compute compute : {Compute::f32, Compute::int8_per_token, Compute::int8_per_block, Compute::bf16})
    for (const bool prepared : {false, true})
      for (const Index tokens : {1, 2, 3, 9, 19, 37}) {
        CAPTURE(static_cast<int>(compute), prepared, tokens);
        const Matrix x = waves(tokens, cols, 0.11f);
        AnyPacked w(pack(*quantize_nearest<S>(weights.view())));
        Workspace workspace, other_workspace;
        test_support::HostileExecutor hostile(static_cast<unsigned>(tokens));
        if (prepared) w.prepare(compute, hostile);
        Matrix expected(tokens, rows), y(tokens, rows);
        AnyPacked plain(pack(*quantize_nearest<S>(weights.view())));
        if (prepared) plain.prepare(compute, Serial{});
        plain.matmul(x.view(), expected.view(), compute, Serial{}, workspace);
        w.matmul(x.view(), y.view(), compute, hostile, other_workspace);
        REQUIRE(test_support::same_bits(y, expected));
      }
}

}  // namespace

TEST_CASE("products have the same bits however an executor cuts the loop", "[kernel]") {
  same_on_any_executor<Scheme<UInt<4>, PerGroup<32>>>();
  same_on_any_executor<Scheme<Superfloat<5>, PerGroup<64>>>();
  same_on_any_executor<Scheme<SInt<8>, PerRow, ScaleF32>>();
  same_on_any_executor<Scheme<Minifloat<2, 1>, PerGroup<32>>>();
}
