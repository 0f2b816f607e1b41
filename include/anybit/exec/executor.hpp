#pragma once
// Executors run the parts of a loop. Kernels never start threads: the caller hands an executor to the function that divides.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <concepts>
#include <memory>
#include <type_traits>

#include <anybit/core/types.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

/// A reference to a callable `void(Index begin, Index end)` that must outlive it; two words, no allocation.
class BodyRef {
 public:
  template <class F>
    requires(!std::same_as<std::remove_cvref_t<F>, BodyRef> && std::is_invocable_v<F&, Index, Index>)
  BodyRef(F&& body)  // NOLINT(google-explicit-constructor)
      : object_(const_cast<void*>(static_cast<const void*>(std::addressof(body)))),
        call_([](void* object, Index begin, Index end) { (*static_cast<std::remove_reference_t<F>*>(object))(begin, end); }) {}
  ANYBIT_INLINE void operator()(Index begin, Index end) const { call_(object_, begin, end); }

 private:
  void* object_;
  void (*call_)(void*, Index, Index);
};

/// concurrency()                  how many slices may run at once, at least 1
/// parallel_for(n, grain, body)   calls body(begin, end) for slices that cover 0 .. n - 1 once each, in any order and on any
///                                thread, and returns when all are done. Called from inside a body it runs serially. Slices
///                                that begin at multiples of grain >= 1 are faster; nothing here comes out wrong if they do not.
/// A body must not throw: on a thread of its own nobody could catch it. ThreadPool and OpenMP end the program then
/// (std::terminate). A body that may fail keeps its error and the caller looks after the loop.
template <class E>
concept Executor = requires(std::remove_reference_t<E>& e, Index n, BodyRef body) {
  { e.concurrency() } -> std::convertible_to<Index>;
  e.parallel_for(n, n, body);
};

struct Serial {
  static constexpr Index concurrency() { return 1; }
  template <class Body>
  ANYBIT_INLINE void parallel_for(Index n, Index, Body&& body) const {
    if (n > 0) body(Index{0}, n);
  }
};

/// A non-owning reference to any executor, for run-time interfaces; itself an executor. The default is Serial.
class ExecutorRef {
 public:
  ANYBIT_INLINE ExecutorRef()
      : object_(nullptr), concurrency_([](void*) { return Index{1}; }), parallel_for_([](void*, Index n, Index, BodyRef body) {
          if (n > 0) body(0, n);
        }) {}
  template <class E>
    requires(!std::same_as<std::remove_cvref_t<E>, ExecutorRef> && Executor<E>)
  ANYBIT_INLINE ExecutorRef(E&& executor)  // NOLINT(google-explicit-constructor)
      : object_(const_cast<void*>(static_cast<const void*>(std::addressof(executor)))),
        concurrency_([](void* e) { return static_cast<Index>(static_cast<std::remove_reference_t<E>*>(e)->concurrency()); }),
        parallel_for_([](void* e, Index n, Index grain, BodyRef body) {
          static_cast<std::remove_reference_t<E>*>(e)->parallel_for(n, grain, body);
        }) {}

  ANYBIT_INLINE Index concurrency() const { return concurrency_(object_); }
  template <class Body>
  ANYBIT_INLINE void parallel_for(Index n, Index grain, Body&& body) const {
    parallel_for_(object_, n, grain, BodyRef(body));
  }

 private:
  void* object_;
  Index (*concurrency_)(void*);
  void (*parallel_for_)(void*, Index, Index, BodyRef);
};

/// body(begin, end) where every begin is a multiple of `tile` and every end too, or n: for loops whose tiles belong together,
/// however the executor slices them. What one thread does anyway it does without the executor.
template <Executor E, class Body>
ANYBIT_INLINE void parallel_tiles(E&& executor, Index n, Index tile, Body&& body) {
  if (n <= tile || executor.concurrency() == 1) {
    if (n > 0) body(Index{0}, n);
    return;
  }
  executor.parallel_for(ceil_div(n, tile), 1,
                        [n, tile, &body](Index begin, Index end) { body(begin * tile, end * tile < n ? end * tile : n); });
}

/// Length of the slices of a loop: about four a thread, so that a delayed thread holds up little, and a multiple of grain.
constexpr ANYBIT_INLINE Index slice_length(Index n, Index grain, Index threads) {
  return round_up(std::max(ceil_div(n, threads * 4), Index{1}), std::max(grain, Index{1}));
}

}  // namespace ANYBIT_ABI
}  // namespace anybit

#include <anybit/core/macros_end.hpp>
