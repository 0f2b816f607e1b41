// Linears of one input: the bits of each alone, however they share its rounding.

#include <anybit/format/integer.hpp>
#include <anybit/nn/linear.hpp>
#include <anybit/tensor/pack.hpp>
#include <anybit/tensor/quantize.hpp>

#include "support/catch.hpp"
#include "support/hostile_executor.hpp"
#include "support/same_bits.hpp"

using namespace anybit;

namespace {

Matrix scattered(Index rows, Index cols, unsigned seed) {
  Matrix m(rows, cols);
  for (Index i = 0; i < rows * cols; ++i) {
    seed = seed * 1664525u + 1013904223u;
    m.data()[i] = static_cast<float>(seed >> 8) * 0x1p-23f - 1;
  }
  return m;
}

template <AnyScheme S>
nn::Linear packed(Index rows, Index cols, unsigned seed, ActivationMode mode) {
  return nn::Linear(AnyPacked(pack(*quantize_nearest<S>(scattered(rows, cols, seed).view()))), mode);
}

void same_as_alone(const std::vector<nn::Linear>& linears) {
  for (const Index tokens : {1, 3, 40}) {
    CAPTURE(tokens);
    const Matrix x = scattered(tokens, 160, 9);
    std::vector<Matrix> y;
    for (const nn::Linear& l : linears) y.emplace_back(tokens, l.extents().rows);
    std::vector<nn::Sibling> siblings;
    for (std::size_t i = 0; i < linears.size(); ++i) siblings.push_back({linears[i], y[i].view()});
    test_support::HostileExecutor hostile(static_cast<unsigned>(tokens));
    Workspace workspace;
    nn::apply_siblings(siblings, x.view(), hostile, workspace);
    for (std::size_t i = 0; i < linears.size(); ++i) {
      Matrix expected(tokens, linears[i].extents().rows);
      linears[i].apply(x.view(), expected.view(), {}, workspace);
      CHECK(test_support::same_bits(y[i], expected));
    }
  }
}

}  // namespace

TEST_CASE("siblings give what each linear gives alone") {
  using Int4 = Scheme<SInt<4>, PerGroup<32>>;
  using Int5 = Scheme<SInt<5>, PerGroup<32>>;
  using Rows8 = Scheme<SInt<8>, PerRow, ScaleF32>;
  for (const ActivationMode mode :
       {ActivationMode(Compute::f32), ActivationMode(Compute::int8_per_token), ActivationMode(Compute::int8_per_block),
        ActivationMode(Compute::bf16), ActivationMode::int8_static(0.01f)}) {
    CAPTURE(std::string(name(mode.compute())));
    auto q = packed<Int4>(150, 160, 1, mode), k = packed<Int4>(17, 160, 2, mode), v = packed<Int5>(64, 160, 3, mode);
    v.set_bias(std::vector<float>(64, 0.5f));
    same_as_alone({q, k, v});
    same_as_alone({q, k});
    same_as_alone({q, packed<Rows8>(33, 160, 4, mode), v});    // groups of another length
    same_as_alone({nn::Linear(scattered(20, 160, 5)), q, k});  // one in floats
    same_as_alone({q, packed<Int4>(30, 160, 6, Compute::f32), packed<Int4>(30, 160, 7, Compute::bf16)});
    same_as_alone({q});
    nn::LowRank adapter{scattered(2, 160, 8), scattered(150, 2, 9), 0.5f};
    q.set_adapter(std::make_shared<const nn::LowRank>(std::move(adapter)));
    same_as_alone({k, q});
  }
}
