// Every way to multiply against plain loops, on cases drawn from a seed.
//   fuzz_kernels SECONDS [SEED]   cases from SEED on (default: from the clock) until the time is over
//   fuzz_kernels 0 SEED           that case alone
// A failure prints the seed that replays it. Build it with -fsanitize=address,undefined: what is read and written stands in
// allocations that end where the data ends.
//
// Sums of integers must be equal bit for bit in every vocabulary and on every path; products in float must be within their
// rounding of sums in double.

#include <anybit/scheme/scale_e5m3.hpp>
#include <anybit/scheme/scale_e8m0.hpp>

#include "kernel/every_arch.hpp"
#include "kernel/products.hpp"

#include <chrono>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

using namespace anybit;

namespace {

/// Written by the process that multiplies, read by the one that waits for it, which tells it however that one ends.
volatile std::uint64_t* current_seed = nullptr;

using Random = std::mt19937_64;

enum class Codes { random, lowest, highest, alternating };
enum class Scales { ordinary, powers_of_two, subnormal, huge, zero, mixed };

struct Case {
  const char* scheme = "";
  Extents e;
  Index tokens, gap;
  Codes codes;
  Scales scales;
  Index begin, end;  // rows
};

[[noreturn]] void fail(const Case& c, const char* path, const char* what, Index token, Index row, double found, double expected) {
  std::printf(
      "%s, %s: token %td row %td is %.9g (%a), not %.9g (%a)\n"
      "%s, %td rows x %td columns, %td tokens, codes %d, scales %d, rows %td .. %td\n",
      path, what, token, row, found, found, expected, expected, c.scheme, c.e.rows, c.e.cols, c.tokens, static_cast<int>(c.codes),
      static_cast<int>(c.scales), c.begin, c.end);
  std::fflush(stdout);
  std::exit(1);
}

template <class T>
T one_of(Random& random, std::initializer_list<T> list) {
  return list.begin()[random() % list.size()];
}

/// Mostly small, at times up to `most`, and often beside a power of two.
Index draw_size(Random& random, Index most) {
  Index n = static_cast<Index>(random() % static_cast<unsigned>(random() % 3 == 0 ? most : std::min<Index>(most, 48))) + 1;
  if (random() % 3 == 0)
    for (Index p = 8; p <= most; p *= 2)
      if (n < 2 * p) {
        n = std::clamp<Index>(p + static_cast<Index>(random() % 3) - 1, 1, most);
        break;
      }
  return n;
}

template <AnyScheme S>
QuantizedMatrix<S> draw_weights(Random& random, const Case& c) {
  using F = typename S::format;
  QuantizedMatrix<S> q(c.e);
  std::vector<Code> finite;
  for (int code = 0; code < code_count_v<F>; ++code)
    if (std::isfinite(F::decode(static_cast<Code>(code)))) finite.push_back(static_cast<Code>(code));
  const auto less = [](Code a, Code b) { return F::decode(a) < F::decode(b); };
  const Code low = *std::min_element(finite.begin(), finite.end(), less),
             high = *std::max_element(finite.begin(), finite.end(), less);
  std::size_t at = 0;
  for (auto& code : q.codes) {
    Code v = finite[random() % finite.size()];
    if (c.codes == Codes::lowest || (c.codes == Codes::alternating && at % 2 == 0)) v = low;
    if (c.codes == Codes::highest || (c.codes == Codes::alternating && at % 2 == 1)) v = high;
    code = static_cast<typename S::code>(v);
    ++at;
  }
  std::vector<float> scales(q.affines.size());
  for (float& s : scales) {
    const Scales kind = c.scales == Scales::mixed ? static_cast<Scales>(random() % 5) : c.scales;
    const float part = static_cast<float>(random() % 1000 + 1) * 0.001f;
    switch (kind) {
      case Scales::powers_of_two: s = std::ldexp(1.0f, static_cast<int>(random() % 9) - 6); break;
      case Scales::subnormal: s = part * one_of(random, {6e-5f, 6e-8f, 1e-39f, 1e-44f}); break;
      case Scales::huge: s = part * one_of(random, {65504.0f, 1e30f}); break;
      case Scales::zero: s = 0; break;
      default: s = part; break;
    }
  }
  S::scale_store::round_trip(scales);
  for (std::size_t i = 0; i < scales.size(); ++i) {
    q.affines[i].scale = scales[i];
    if (S::has_zero_point)
      q.affines[i].zero = static_cast<float>(c.codes == Codes::random ? random() % (1u << S::bits)
                                             : random() % 2 != 0      ? (1u << S::bits) - 1
                                                                      : 0);
  }
  return q;
}

/// At an odd place in memory that ends where the bytes end.
template <AnyScheme S>
PackedTensor<S> unaligned(const PackedTensor<S>& t, std::vector<std::byte>& memory, std::size_t offset) {
  const auto bytes = t.bytes().bytes();
  memory.resize(offset + bytes.size());
  memory.shrink_to_fit();
  std::memcpy(memory.data() + offset, bytes.data(), bytes.size());
  auto view = PackedBytes::view(std::span<const std::byte>(memory).subspan(offset));
  if (!view) std::printf("%s\n", view.error().message.c_str()), std::exit(1);
  auto tensor = PackedTensor<S>::from(std::move(view).value());
  if (!tensor) std::printf("%s\n", tensor.error().message.c_str()), std::exit(1);
  return std::move(tensor).value();
}

bool same_bits(float a, float b) {
  return std::memcmp(&a, &b, sizeof a) == 0 || (std::isnan(a) && std::isnan(b)) || (a == 0 && b == 0);
}

/// The exact integers of each segment, and float multiply-adds with one rounding in the order of segments: what every vocabulary
/// must give where the hardware rounds a multiply-add once, and all of them where scales are powers of two.
template <AnyScheme S>
std::vector<float> exact_products(const PackedTensor<S>& w, ConstMatrix x, Compute compute) {
  using F = typename S::format;
  const Index group = S::granularity::group_cols(w.cols());
  const auto rounded = packed_reference::round_activations(x, compute, group);
  std::vector<float> y(static_cast<std::size_t>(x.rows * w.rows()));
  for (Index r = 0; r < w.rows(); ++r) {
    const auto codes = packed_reference::row_codes(w, r);
    for (Index t = 0; t < x.rows; ++t) {
      float total = 0;
      for (kernel::Segment s(w.cols(), group, kernel::segment_columns(group, compute)); !s.done(); s.next()) {
        const Affine affine = w.affine(r, s.group);
        std::int64_t sum = 0;
        for (Index k = s.first; k < s.end(); ++k)
          sum +=
              (level_grid_v<F>.nearest(F::decode(codes[static_cast<std::size_t>(k)])) - static_cast<std::int64_t>(affine.zero)) *
              rounded.codes(t, k);
        const float scale = affine.scale * level_grid_v<F>.step, block = rounded.scales(t, s.first);
        total = std::fma(static_cast<float>(sum), compute == Compute::int8_per_block ? scale * block : scale, total);
      }
      if (compute == Compute::int8_per_token) total *= rounded.scales(t, 0);
      y[static_cast<std::size_t>(t * w.rows() + r)] = total;
    }
  }
  return y;
}

/// y has to be `expected` in rows c.begin .. c.end - 1 and untouched elsewhere.
template <class Expected, class Same>
void compare(const Case& c, const char* path, products::Guarded& y, const Expected& expected, Same same) {
  if (!y.intact()) fail(c, path, "wrote past an end", 0, 0, 0, 0);
  for (Index t = 0; t < c.tokens; ++t)
    for (Index r = c.begin; r < c.end; ++r) {
      const auto i = static_cast<std::size_t>(t * c.e.rows + r);
      if (!same(y.view()(t, r), expected[i], i))
        fail(c, path, "product", t, r, static_cast<double>(y.view()(t, r)), static_cast<double>(expected[i]));
    }
}

template <AnyScheme S>
void integer_paths(const Case& c, const PackedTensor<S>& w, ConstMatrix x, Compute compute) {
  using F = typename S::format;
  const auto expected = exact_products(w, x, compute);
  const auto bits = [](float a, float b, std::size_t) { return same_bits(a, b); };
  const kernel::PackedRows source = kernel::PackedRows(w);
  const kernel::TiledWeights tiled = kernel::tile_weights(w, compute);
  Workspace workspace;
  const auto rounded = kernel::round_activations(x, source.group, compute, workspace, Serial{});
  every_arch::for_each([&]<class Arch>(std::type_identity<Arch>, const char* name) {
    // Plain loops round a multiply-add twice where the processor has none.
    const bool exact = compute == Compute::int8_per_token && (c.scales == Scales::zero || c.scales == Scales::powers_of_two);
    if (std::is_same_v<Arch, kernel::Generic> && !exact) return;
    char path[64];
    const auto check = [&](const char* what, auto multiply) {
      std::snprintf(path, sizeof path, "%s %s", name, what);
      products::Guarded y(c.tokens, c.e.rows, c.gap);
      multiply(y.view());
      compare(c, path, y, expected, bits);
    };
    using Stored = kernel::tile_codes_t<F>;
    check("packed", [&](MutableMatrix y) { kernel::int8_rows<Arch>(source, rounded, y, c.begin, c.end); });
    const auto grouped = kernel::tile_activations<Arch>(rounded, tiled, workspace, Serial{});
    check("tiled", [&](MutableMatrix y) { kernel::tiled_rows<Stored, Arch>(tiled, grouped, y, c.begin, c.end); });
    check("tiled, direct",
          [&](MutableMatrix y) { kernel::detail::tiled_rows_direct<Arch, Stored>(tiled, grouped, y, c.begin, c.end); });
    check("tiled, blocked",
          [&](MutableMatrix y) { kernel::detail::tiled_rows_blocked<Arch, Stored>(tiled, grouped, y, c.begin, c.end); });
  });
}

template <AnyScheme S>
void run(Case c, Random& random) {
  c.scheme = S::name.view().data();
  const auto quantized = draw_weights<S>(random, c);
  std::vector<std::byte> memory, again;
  const PackedTensor<S> w = unaligned(pack(quantized), memory, random() % 64);
  const products::InputAtOddPlace x(c.tokens, c.e.cols, c.gap, static_cast<unsigned>(random()));
  const auto size = products::magnitudes(quantized, x.view);

  if constexpr (has_integer_dot_v<typename S::format>)
    if (c.e.cols > 0)
      for (const Compute compute : {Compute::int8_per_token, Compute::int8_per_block}) integer_paths(c, w, x.view, compute);

  AnyPacked any(unaligned(w, again, random() % 64));
  const AnyPacked plain = any;
  ThreadPool pool(3);
  c.begin = 0, c.end = c.e.rows;
  Workspace workspace;
  Serial serial;
  for (const Compute compute : {Compute::f32, Compute::int8_per_token, Compute::int8_per_block}) {
    any.prepare(compute, pool);
    const bool rounded = rounds_to_int8(compute);
    const auto expected = rounded ? packed_reference::matmul_int8(w, x.view, compute) : packed_reference::matmul(w, x.view);
    const auto near = [&](float found, double exact, std::size_t i) {
      const double bound = (size[i] * 1.01) * 2e-6 + (rounded ? 0.01 * size[i] * 1e-4 : 0) + 1e-37;
      return size[i] > 1e37 || std::fabs(static_cast<double>(found) - exact) <= bound + (rounded ? 1e-6 * std::fabs(exact) : 0);
    };
    products::Guarded y(c.tokens, c.e.rows, c.gap), threads(c.tokens, c.e.rows, 1), prepared(c.tokens, c.e.rows, 0);
    plain.matmul(x.view, y.view(), compute, serial, workspace);
    if (!rounded) compare(c, "f32", y, expected, near);
    plain.matmul(x.view, threads.view(), compute, pool, workspace);
    any.matmul(x.view, prepared.view(), compute, pool, workspace);
    std::vector<float> first;
    for (Index t = 0; t < c.tokens; ++t)
      for (const float v : y.view().row(t)) first.push_back(v);
    const auto bits = [](float a, float b, std::size_t) { return same_bits(a, b); };
    compare(c, rounded ? "int8, threads" : "f32, threads", threads, first, bits);
    compare(c, rounded ? "int8, prepared" : "f32, prepared", prepared, first, bits);
  }
}

using Schemes =
    TypeList<Scheme<SInt<1>, PerGroup<32>, ScaleF32>, Scheme<UInt<1>, PerGroup<33>>, Scheme<UInt<2>, PerGroup<64>, ScaleE5M3>,
             Scheme<SInt<3>, PerRow, ScaleF32>, Scheme<UInt<4>, PerGroup<32>>, Scheme<SInt<4>, PerGroup<128>, ScaleF32>,
             Scheme<UInt<5>, PerGroup<7>, ScaleF32>, Scheme<SInt<6>, PerTensor, ScaleF32>, Scheme<UInt<7>, PerGroup<100>>,
             Scheme<UInt<8>, PerGroup<32>, ScaleF32>, Scheme<SInt<8>, PerRow, ScaleF32>, Scheme<Superfloat<3>, PerGroup<50>>,
             Scheme<Superfloat<8>, PerGroup<128>, ScaleF32>, Scheme<Ternary, PerGroup<128>, ScaleF16, Base3>,
             Scheme<Nf4, PerGroup<64>, DoubleQuant<256>>, Scheme<Minifloat<2, 1>, PerGroup<32>, ScaleE8M0>,
             Scheme<Minifloat<2, 3>, PerGroup<100>, ScaleF32>>;

void run(std::uint64_t seed) {
  *current_seed = seed;
  Random random(seed);
  Case c{.e = {draw_size(random, 130), draw_size(random, 700)},
         .tokens = draw_size(random, 70),
         .gap = static_cast<Index>(random() % 4),
         .codes = static_cast<Codes>(random() % 4),
         .scales = static_cast<Scales>(random() % 6),
         .begin = 0,
         .end = 0};
  if (random() % 2 != 0) c.begin = static_cast<Index>(random() % static_cast<unsigned>(c.e.rows));
  c.end = c.begin + 1 + static_cast<Index>(random() % static_cast<unsigned>(c.e.rows - c.begin));
  std::size_t which = random() % Schemes::size, at = 0;
  for_each_type(Schemes{}, [&]<class S>() {
    if (at++ == which) run<S>(c, random);
  });
}

}  // namespace

int main(int count, char** words) {
  if (count < 2) {
    std::puts("fuzz_kernels SECONDS [SEED]");
    return 2;
  }
  using Clock = std::chrono::steady_clock;
  const auto begin = Clock::now();
  const double seconds = std::atof(words[1]);
  std::uint64_t seed = count > 2 ? std::strtoull(words[2], nullptr, 10)
                                 : static_cast<std::uint64_t>(std::chrono::system_clock::now().time_since_epoch().count());
  if (*every_arch::left_out() != '\0') std::printf("left out: %s\n", every_arch::left_out());
  std::printf("from seed %" PRIu64 "\n", seed);
  std::fflush(stdout);
  current_seed = static_cast<volatile std::uint64_t*>(
      mmap(nullptr, sizeof(std::uint64_t), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  const pid_t worker = fork();
  if (worker == 0) {
    std::uint64_t cases = 0;
    do {
      run(seed++);
      ++cases;
    } while (std::chrono::duration<double>(Clock::now() - begin).count() < seconds);
    std::printf("%" PRIu64 " cases, all right\n", cases);
    return 0;
  }
  int status = 0;
  if (worker < 0 || waitpid(worker, &status, 0) != worker) return 2;
  if (status == 0) return 0;
  std::printf("replay: fuzz_kernels 0 %" PRIu64 "\n", *current_seed);
  return 1;
}
