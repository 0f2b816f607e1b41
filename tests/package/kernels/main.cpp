// Prints which architecture's kernels ran and a hash of all bits that are the same on each.
#include "engine_kernels.hpp"

#include <cmath>
#include <cstdio>
#include <cstring>
#include <string>

#include <anybit/tensor/quantize.hpp>

using namespace anybit;

namespace {

std::uint64_t hash = 1469598103934665603u;
void add(const void* p, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) hash = (hash ^ static_cast<const unsigned char*>(p)[i]) * 1099511628211u;
}

int failures = 0;
void check(bool right, const char* what) {
  if (right) return;
  std::printf("wrong: %s\n", what);
  ++failures;
}

/// Rows of one segment: their sums are integers, scaled twice, and so the same bits everywhere.
void products(AnyPacked& w, Compute compute, bool same_bits) {
  constexpr Index tokens = 19;
  Matrix x(tokens, w.extents().cols), y(tokens, w.extents().rows), weights(w.extents().rows, w.extents().cols);
  for (Index t = 0; t < tokens; ++t)
    for (Index k = 0; k < x.cols(); ++k) x(t, k) = std::sin(static_cast<float>(t * 31 + k * k % 97));
  for (Index r = 0; r < weights.rows(); ++r) w.dequantize_row(r, weights.view().row(r));
  Workspace workspace;
  Serial serial;
  for (int prepared = 0; prepared < 2; ++prepared) {
    w.matmul(x.view(), y.view(), compute, serial, workspace);
    for (Index t = 0; t < tokens; ++t)
      for (Index r = 0; r < weights.rows(); ++r) {
        double exact = 0;
        for (Index k = 0; k < x.cols(); ++k) exact += static_cast<double>(weights(r, k)) * static_cast<double>(x(t, k));
        const double allowed = compute == Compute::f32 ? 1e-4 : 0.1 * static_cast<double>(x.cols()) / 127;
        check(std::fabs(exact - static_cast<double>(y(t, r))) <= allowed, "a product is too far from the exact one");
      }
    if (same_bits) add(y.data(), sizeof(float) * static_cast<std::size_t>(tokens * weights.rows()));
    w.prepare(compute, serial);
  }
}

}  // namespace

int main() {
  const engine::Kernels& kernels = engine::engine_kernels();
  check(active_isa() == kernels.isa(), "the kernels are not those of active_isa()");
  check(active_isa() == engine::engine_sums().isa(), "two tables are of different architectures");
  check(engine::engine_sums().sum({1, 2, 3.5}) == 6.5, "a sum");

  Matrix w(37, 509);
  for (Index r = 0; r < w.rows(); ++r)
    for (Index k = 0; k < w.cols(); ++k) w(r, k) = std::cos(static_cast<float>(3 * r * w.cols() + k)) / 16;
  AnyPacked packed = kernels.compress(w.view());
  products(packed, Compute::int8_per_token, true);
  products(packed, Compute::f32, false);

  // What this file packs for itself, without the kernels' flags, the kernels' registry opens.
  const auto open = [&]<AnyScheme S>(std::type_identity<S>, bool same_bits) {
    PackedTensor<S> own = pack(quantize_nearest<S>(w.view()).value());
    add(own.bytes().bytes().data(), own.bytes().bytes().size());
    auto opened = kernels.schemes().open(PackedBytes(std::move(own).bytes()));
    check(opened.ok(), "the registry does not open a tensor");
    if (!opened) return;
    AnyPacked any = std::move(opened).value();
    products(any, Compute::int8_per_token, same_bits);
    products(any, Compute::f32, false);
  };
  open(std::type_identity<Scheme<UInt<8>, PerRow, ScaleF32>>(), true);
  open(std::type_identity<Scheme<Superfloat<5>, PerGroup<32>>>(), false);

  std::printf("%s\n%016llx\n", std::string(active_isa()).c_str(), static_cast<unsigned long long>(hash));
  return failures == 0 ? 0 : 1;
}
