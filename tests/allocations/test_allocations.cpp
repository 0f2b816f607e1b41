// Products and attention allocate nothing once their workspace is warm: operator new and, where the C library lets it, malloc
// are counted.

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <new>

#include <anybit/exec/thread_pool.hpp>
#include <anybit/kernel/gated_rows.hpp>
#include <anybit/kernel/matvec.hpp>
#include <anybit/nn/attention.hpp>
#include <anybit/scheme/presets.hpp>
#include <anybit/tensor/pack.hpp>
#include <anybit/tensor/quantize.hpp>

#include "support/catch.hpp"
#include "support/sanitizers.hpp"

namespace {
std::atomic<bool> counting{false};
std::atomic<long> allocations{0};
void count() {
  if (counting.load(std::memory_order_relaxed)) allocations.fetch_add(1, std::memory_order_relaxed);
}
}  // namespace

#if defined(__GLIBC__) && !defined(TEST_SANITIZED)
extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);
void* malloc(std::size_t n) {
  count();
  return __libc_malloc(n);
}
void* calloc(std::size_t n, std::size_t size) {
  count();
  return __libc_calloc(n, size);
}
void* realloc(void* p, std::size_t n) {
  count();
  return __libc_realloc(p, n);
}
void* aligned_alloc(std::size_t alignment, std::size_t n) {
  count();
  return __libc_memalign(alignment, n);
}
int posix_memalign(void** p, std::size_t alignment, std::size_t n) {
  count();
  *p = __libc_memalign(alignment, n);
  return *p == nullptr ? 12 : 0;  // ENOMEM
}
}
#endif

// The forms for arrays call these. Not inlined, or g++ sees malloc and delete where new and delete match.
#if defined(__GNUC__)
#define NOT_INLINED [[gnu::noinline]]
#else
#define NOT_INLINED
#endif
NOT_INLINED void* operator new(std::size_t n) {
  count();
  if (void* p = std::malloc(n > 0 ? n : 1)) return p;
  std::abort();
}
NOT_INLINED void* operator new(std::size_t n, std::align_val_t alignment) {
  count();
  const auto a = static_cast<std::size_t>(alignment);
  if (void* p = std::aligned_alloc(a, (n + a - 1) / a * a)) return p;
  std::abort();
}
// A sanitizer's own would not go with the delete below.
NOT_INLINED void* operator new(std::size_t n, const std::nothrow_t&) noexcept { return operator new(n); }
NOT_INLINED void operator delete(void* p) noexcept { std::free(p); }
NOT_INLINED void operator delete(void* p, std::size_t) noexcept { std::free(p); }
NOT_INLINED void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
NOT_INLINED void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }

using namespace anybit;
using namespace anybit::presets;

namespace {

template <class F>
long allocations_of(F&& f) {
  allocations = 0;
  counting = true;
  f();
  counting = false;
  return allocations;
}

Matrix waves(Index rows, Index cols, float step) {
  Matrix m(rows, cols);
  for (Index i = 0; i < rows * cols; ++i) m.data()[i] = std::sin(step * static_cast<float>(i));
  return m;
}

template <AnyScheme S>
void products_allocate_nothing(ExecutorRef executor) {
  CAPTURE(std::string(S::name.view()));
  const Index rows = 70, cols = 256;
  Matrix weights = waves(rows, cols, 0.37f);
  for (Index i = 0; i < rows * cols; ++i)
    if (i % 4 > 1) weights.data()[i] = 0;  // as the layout TwoOfFour wants it
  AnyPacked w(pack(*quantize_nearest<S>(weights.view())));
  for (const bool prepared : {false, true})
    for (const Compute compute : {Compute::f32, Compute::bf16, Compute::int8_per_token, Compute::int8_per_block}) {
      if (prepared) w.prepare(compute, executor, 0.1f);
      for (const Index tokens : {1, 3, 40}) {
        CAPTURE(prepared, static_cast<int>(compute), tokens);
        const Matrix x = waves(tokens, cols, 0.11f);
        Matrix y(tokens, rows);
        Workspace workspace;
        w.matmul(x.view(), y.view(), compute, executor, workspace);
        CHECK(allocations_of([&] { w.matmul(x.view(), y.view(), compute, executor, workspace); }) == 0);
        // Rounded once, by row range, into lists and sums and gates.
        const std::vector<std::int32_t> list(static_cast<std::size_t>(tokens), 0);
        const auto steps = [&] {
          ActivationPlan plan = w.plan(compute);
          plan.join(w.plan(compute));
          const Activations a = round_activations(InputTokens(x.view()).at(list), plan, workspace, executor);
          w.matmul_rows(a, y.view(), 3, 41);
          w.matmul_rows(a, OutputTokens(y.view()).at(list).added(), 0, rows);
          gated_rows(w, w, a, y.view(), 0, rows);
        };
        steps();
        CHECK(allocations_of(steps) == 0);
      }
    }
  std::vector<float> row(static_cast<std::size_t>(cols));
  CHECK(allocations_of([&] { w.dequantize_row(3, row); }) == 0);
}

template <class Executor>
void all_products(Executor&& executor) {
  products_allocate_nothing<AsymmetricInt4Group32>(executor);
  products_allocate_nothing<ScaledSuperfloat<5>>(executor);
  products_allocate_nothing<Int8PerRow>(executor);
  products_allocate_nothing<Nf4DoubleQuant>(executor);
  products_allocate_nothing<Mxfp4>(executor);
  products_allocate_nothing<Scheme<Minifloat<4, 3>, PerGroup<32>>>(executor);
  products_allocate_nothing<TernaryGroup128>(executor);
  products_allocate_nothing<SparseInt<4>>(executor);
}

}  // namespace

TEST_CASE("what is counted: new, aligned new and malloc") {
  CHECK(allocations_of([] {
          int* volatile p = new int(1);  // a compiler may leave out what nobody can see
          delete p;
        }) >= 1);
  CHECK(allocations_of([] { AlignedBuffer b(100); }) >= 1);
#if defined(COUNT_MALLOC)
  CHECK(allocations_of([] {
          void* volatile p = std::malloc(10);
          std::free(p);
        }) == 1);
#endif
}

TEST_CASE("products allocate nothing once the workspace is warm") {
  all_products(Serial{});
  ThreadPool pool(2);
  all_products(pool);
}

TEST_CASE("the products of a packed tensor's own type allocate nothing") {
  const auto w = pack(*quantize_nearest<AsymmetricInt4Group32>(waves(70, 256, 0.37f).view()));
  std::vector<float> x(256, 0.5f), y(70);
  CHECK(allocations_of([&] { matvec(w, x, y); }) == 0);
  CHECK(allocations_of([&] { matvec_rows(w, x, y, 3, 41); }) == 0);
}

TEST_CASE("attention and the KV cache allocate nothing once they are warm") {
  const nn::AttentionShape c{4, 2, 64};
  for (const int bits : {32, 16, 8, 4, 3, 2})
    for (const bool hadamard : {false, true})
      for (const Index piece : {1, 40}) {
        CAPTURE(bits, hadamard, piece);
        nn::KvCacheConfig kv;
        kv.bits = bits, kv.hadamard = hadamard;
        nn::KvCache cache({1, c.kv_heads, c.head_dim}, 2000, kv);
        const Matrix q = waves(piece, 256, 0.3f);
        Matrix k = waves(piece, 128, 0.2f), v = waves(piece, 128, 0.1f), out(piece, 256);
        const auto step = [&] {
          cache.append(0, k.view(), v.view(), ExecutorRef());
          attention(c, q.view(), cache, 0, out.view(), ExecutorRef());
          cache.settle(0, piece);
          cache.advance(piece);
        };
        for (Index i = 0; i < 800; i += piece) step();
        CHECK(allocations_of([&] {
                for (Index i = 0; i < 400; i += piece) step();
              }) == 0);
      }
}
