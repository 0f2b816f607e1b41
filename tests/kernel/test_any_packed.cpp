#include <anybit/exec/thread_pool.hpp>
#include <anybit/kernel/any_packed.hpp>

#include <random>

#include "kernel/packed_reference.hpp"
#include "support/catch.hpp"

using namespace anybit;

namespace {

template <AnyScheme S>
QuantizedMatrix<S> half_scaled_weights(Extents e) {
  std::mt19937 random(1);
  QuantizedMatrix<S> q(e);
  for (auto& c : q.codes) c = static_cast<typename S::code>(random() % static_cast<unsigned>(code_count_v<typename S::format>));
  std::vector<float> scales(q.affines.size(), 0.5f);
  S::scale_store::round_trip(scales);
  for (std::size_t i = 0; i < scales.size(); ++i) q.affines[i].scale = scales[i];
  return q;
}

}  // namespace

TEST_CASE("a handle multiplies like the tensor it was made of, for every preset") {
  for_each_type(Presets{}, []<class S>() {
    CAPTURE(std::string(S::name.view()));
    const auto tensor = pack(half_scaled_weights<S>({23, 150}));
    const AnyPacked any(tensor);
    REQUIRE(any.extents() == Extents{23, 150});
    REQUIRE(any.scheme_name() == S::name.view());
    REQUIRE(any.bits_per_weight() == tensor.bits_per_weight());
    REQUIRE(any.payload_bytes() == tensor.bytes().payload_bytes());
    Matrix x(3, 150), y(3, 23);
    for (Index i = 0; i < 450; ++i) x.data()[i] = static_cast<float>(i % 11) - 5;
    Workspace workspace;
    ThreadPool pool(2);
    any.matmul(x.view(), y.view(), Compute::f32, pool, workspace);
    const auto expected = packed_reference::matmul(tensor, x.view());
    for (std::size_t i = 0; i < expected.size(); ++i)
      REQUIRE(static_cast<double>(y.data()[i]) == Approx(expected[i]).margin(2e-3));
    const Matrix w = dequantize(tensor);
    std::vector<float> row(150);
    for (Index r = 0; r < 23; ++r) {
      any.dequantize_row(r, row);
      REQUIRE(std::equal(row.begin(), row.end(), w.view().row(r).begin()));
    }
  });
}

TEST_CASE("a prepared handle gives the same bits, and its copies share what was prepared") {
  for_each_type(Presets{}, []<class S>() {
    CAPTURE(std::string(S::name.view()));
    AnyPacked any(pack(half_scaled_weights<S>({37, 150})));
    Matrix x(5, 150), plain(5, 37), prepared(5, 37);
    for (Index i = 0; i < 750; ++i) x.data()[i] = static_cast<float>(i % 11) - 5;
    Workspace workspace;
    any.matmul(x.view(), plain.view(), Compute::int8_per_token, Serial{}, workspace);
    ThreadPool pool(2);
    any.prepare(Compute::f32);
    any.prepare(Compute::int8_per_token, pool);
    any.prepare(Compute::int8_per_token);
    const AnyPacked copy = any;
    copy.matmul(x.view(), prepared.view(), Compute::int8_per_token, pool, workspace);
    REQUIRE(std::equal(plain.data(), plain.data() + 5 * 37, prepared.data()));
  });
}

TEST_CASE("prepare says what it made, or why nothing") {
  const auto handle = []<class S>() { return AnyPacked(pack(half_scaled_weights<S>({37, 150}))); };
  auto int4 = handle.operator()<Scheme<UInt<4>, PerGroup<32>>>();
  CHECK_FALSE(int4.prepared());
  kernel::Prepared made = int4.prepare(Compute::int8_per_token);
  CHECK(made.tiled);
  CHECK(made.compute == Compute::int8_per_token);
  CHECK(made.bytes >= 37 * 150 / 2);
  CHECK(made.why_not.empty());
  CHECK(int4.prepare(Compute::int8_per_token).bytes == made.bytes);
  made = int4.prepare(Compute::f32);
  CHECK_FALSE(made);
  CHECK(made.why_not.find("activations in float") != std::string_view::npos);
  CHECK(int4.prepared().tiled);  // the layout for int8 is still there
  made = int4.prepare(Compute::int8_per_block);
  CHECK((made && made.compute == Compute::int8_per_block));
  CHECK(int4.prepared().compute == Compute::int8_per_block);

  auto codebook = handle.operator()<Scheme<Nf4, PerGroup<32>>>();
  made = codebook.prepare(Compute::int8_per_token);
  CHECK_FALSE(made);
  CHECK(made.bytes == 0);
  CHECK(made.why_not.find("allow them a level_error") != std::string_view::npos);
  CHECK(codebook.prepare(Compute::int8_per_token, {}, 1e-5f).why_not.find("within level_error") != std::string_view::npos);
  made = codebook.prepare(Compute::int8_per_token, {}, 0.004f);
  CHECK((made && made.level_error == 0.004f && made.bytes > 0));
  CHECK_FALSE(codebook.prepare(Compute::int8_per_token, {}, 1e-5f));  // another bound is another order, here none
  CHECK(handle.operator()<Scheme<UInt<9>, PerGroup<32>>>().prepare(Compute::int8_per_token).why_not.find("more than 8 bits") !=
        std::string_view::npos);
}

TEST_CASE("the handle undoes a column order") {
  using S = Scheme<UInt<4>, PerGroup<32>>;
  const Extents e{9, 70};
  auto q = half_scaled_weights<S>(e);
  std::vector<std::uint32_t> order(70);
  for (std::uint32_t j = 0; j < 70; ++j) order[j] = j * 13 % 70;
  q.column_order = order;
  AnyPacked any(pack(q));
  any.prepare(Compute::int8_per_token);
  const Matrix w = dequantize(q);  // original order
  std::vector<float> row(70);
  any.dequantize_row(5, row);
  REQUIRE(std::equal(row.begin(), row.end(), w.view().row(5).begin()));
  for (const Index tokens : {1, 4})
    for (const Compute compute : {Compute::f32, Compute::int8_per_token}) {
      Matrix x(tokens, 70), y(tokens, 9);
      for (Index i = 0; i < tokens * 70; ++i)
        x.data()[i] = static_cast<float>(i * 37 % 255) - 127;  // whole: rounding changes little
      Workspace workspace;
      any.matmul(x.view(), y.view(), compute, Serial{}, workspace);
      for (Index t = 0; t < tokens; ++t)
        for (Index r = 0; r < 9; ++r) {
          double sum = 0;
          for (Index k = 0; k < 70; ++k) sum += static_cast<double>(w(r, k)) * static_cast<double>(x(t, k));
          REQUIRE(static_cast<double>(y(t, r)) == Approx(sum).margin(compute == Compute::f32 ? 0.01 : 70.0));
        }
    }
}

TEST_CASE("the registry opens bytes by the name they carry") {
  const SchemeRegistry registry = preset_registry();
  REQUIRE(registry.names().size() == Presets::size);
  const auto tensor = pack(half_scaled_weights<presets::Nf4Plain>({5, 64}));
  auto opened = registry.open(*PackedBytes::copy(tensor.bytes().bytes()));
  REQUIRE(opened);
  REQUIRE(opened->scheme_name() == presets::Nf4Plain::name.view());

  using Own = Scheme<UInt<5>, PerGroup<48>, ScaleBF16>;
  const auto own = pack(half_scaled_weights<Own>({5, 64}));
  const auto unknown = registry.open(*PackedBytes::copy(own.bytes().bytes()));
  REQUIRE(!unknown);
  REQUIRE(unknown.error().code == ErrorCode::unsupported);
  REQUIRE(unknown.error().message.find("uint5/g48/bf16/bits") != std::string::npos);
  SchemeRegistry extended = preset_registry();
  extended.add<Own>();
  extended.add<Own>();
  REQUIRE(extended.names().size() == Presets::size + 1);
  REQUIRE(extended.open(*PackedBytes::copy(own.bytes().bytes())));
}

TEST_CASE("a copy of a handle shares the bytes, an empty one says so") {
  AnyPacked a;
  REQUIRE(a.empty());
  a = AnyPacked(pack(half_scaled_weights<presets::Int<4>>({3, 8})));
  const AnyPacked b = a;
  REQUIRE(&a.bytes() == &b.bytes());
}
