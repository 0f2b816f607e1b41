// 2:4 sparse tensors multiply to the bit like bit streams of the same codes, through every entrance.

#include <anybit/format/formats.hpp>
#include <anybit/kernel/any_packed.hpp>
#include <anybit/scheme/two_of_four.hpp>

#include <random>
#include <string>

#include "support/catch.hpp"

using namespace anybit;

namespace {

template <class F>
void check(Extents e, Index tokens) {
  using Sparse = Scheme<F, PerGroup<64>, ScaleF16, TwoOfFourFor<F>>;
  using Dense = Scheme<F, PerGroup<64>, ScaleF16>;
  INFO(Sparse::name.view() << ", " << e.rows << " x " << e.cols << ", " << tokens << " tokens");
  std::mt19937 random(static_cast<unsigned>(e.cols));
  QuantizedMatrix<Sparse> q(e);
  QuantizedMatrix<Dense> same(e);
  std::fill(q.codes.begin(), q.codes.end(), static_cast<typename Sparse::code>(F::encode(0)));
  for (Index r = 0; r < e.rows; ++r)
    for (Index c = 0; c < e.cols; c += 4)
      for (int i = 0; i < 2; ++i)
        q.row(r)[static_cast<std::size_t>(c) + random() % static_cast<unsigned>(std::min<Index>(4, e.cols - c))] =
            static_cast<typename Sparse::code>(random() % (1u << F::bits));
  for (Affine& a : q.affines) a.scale = f16_to_f32(f32_to_f16(static_cast<float>(random() % 1000) * 0.001f));
  same.codes = q.codes;
  same.affines = q.affines;
  REQUIRE(check_packable(q).ok());
  const auto packed = pack(q);
  CHECK(packed.bytes().codes().size() == static_cast<std::size_t>(e.rows * ceil_div(ceil_div(e.cols, 4) * (2 * F::bits + 3), 8)));

  SchemeRegistry registry;
  registry.add<Sparse>();
  auto read = PackedBytes::copy(packed.bytes().bytes());
  REQUIRE(read.ok());
  auto opened = registry.open(*std::move(read));
  REQUIRE(opened.ok());
  AnyPacked sparse = *std::move(opened), dense = pack(same);

  Matrix x(tokens, e.cols), a(tokens, e.rows), b(tokens, e.rows);
  for (Index i = 0; i < x.extents().size(); ++i) x.data()[i] = static_cast<float>(random() % 2001) * 0.001f - 1;
  Workspace workspace;
  const auto equal = [&](Compute compute) {
    sparse.matmul(x.view(), a.view(), compute, {}, workspace);
    dense.matmul(x.view(), b.view(), compute, {}, workspace);
    CHECK(std::equal(a.data(), a.data() + a.extents().size(), b.data()));
  };
  equal(Compute::f32);
  if constexpr (has_integer_dot_v<F>) {
    equal(Compute::int8_per_token);
    sparse.prepare(Compute::int8_per_token);  // the kernel layout
    equal(Compute::int8_per_token);
  }
  const Matrix weights = dequantize(pack(same));
  std::vector<float> row(static_cast<std::size_t>(e.cols));
  for (Index r = 0; r < e.rows; ++r) {
    sparse.dequantize_row(r, row);
    CHECK(std::equal(row.begin(), row.end(), weights.view().row(r).begin()));
  }
}

}  // namespace

TEST_CASE("2:4 tensors multiply like bit streams of the same codes") {
  for (const auto& [rows, cols, tokens] :
       {std::array<Index, 3>{1, 1, 1}, {3, 31, 2}, {17, 64, 1}, {5, 130, 3}, {33, 516, 9}, {4, 1100, 1}}) {
    check<SInt<4>>({rows, cols}, tokens);
    check<Superfloat<3>>({rows, cols}, tokens);
    check<SInt<8>>({rows, cols}, tokens);
    check<Nf4>({rows, cols}, tokens);
  }
}
