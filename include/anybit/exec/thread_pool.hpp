#pragma once
// A pool of waiting threads. Starting a loop costs a few microseconds, so that single tokens profit, too.

#include <anybit/core/macros_begin.hpp>

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include <anybit/exec/executor.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

/// The calling thread works too, so ThreadPool(n) starts n - 1 threads. Slices are claimed one by one: a thread that the
/// operating system has set aside delays nobody unless it holds a slice. Several threads may call parallel_for of one pool;
/// while one call is under way the others, and calls from inside a body, run serially. A body that throws ends the program.
class ThreadPool {
 public:
  /// As many threads as the machine runs at once. (Templates, so that only programs that start threads compile how.)
  template <class = void>
  ThreadPool() : ThreadPool(static_cast<Index>(std::thread::hardware_concurrency())) {}
  template <class = void>
  explicit ThreadPool(Index threads) {
    for (Index i = 1; i < threads; ++i) workers_.emplace_back([this](const std::stop_token& stop) { work(stop); });
  }
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  ~ThreadPool() {
    for (auto& w : workers_) w.request_stop();
    loops_begun_.fetch_add(1, std::memory_order_release);
    loops_begun_.notify_all();
  }

  Index concurrency() const { return static_cast<Index>(workers_.size()) + 1; }

  template <class Body>
  void parallel_for(Index n, Index grain, Body&& body) {
    if (n <= 0) return;
    // A body that throws would leave its loop half done and the pool busy for good. It ends the program, on whichever thread.
    const auto run = [&body](Index begin, Index end) noexcept { body(begin, end); };
    const Index length = slice_length(n, grain, concurrency()), slices = ceil_div(n, length);
    if (slices == 1 || slices > max_slices || workers_.empty() || busy_.exchange(true, std::memory_order_acquire)) {
      run(Index{0}, n);
      return;
    }
    const BodyRef reference(run);
    body_ = &reference;
    n_ = n;
    length_ = length;
    unfinished_.store(static_cast<std::uint32_t>(slices), std::memory_order_relaxed);
    unclaimed_.store(static_cast<std::uint32_t>(slices), std::memory_order_release);
    loops_begun_.fetch_add(1, std::memory_order_release);
    loops_begun_.notify_all();
    while (claim_one()) {
    }
    for (int spins = 0;; ++spins) {
      const std::uint32_t left = unfinished_.load(std::memory_order_acquire);
      if (left == 0) break;
      if (spins < patience)
        relax();
      else
        unfinished_.wait(left, std::memory_order_acquire);
    }
    busy_.store(false, std::memory_order_release);
  }

 private:
  static constexpr Index max_slices = Index{1} << 30;
  static constexpr int patience = 2000;  // times a pause of some 10 ns to 40 ns, about as long as sleeping and waking would take

  static void relax() {
#if defined(__x86_64__) && defined(__GNUC__)
    asm volatile("pause" ::: "memory");
#elif defined(__aarch64__) && defined(__GNUC__)
    asm volatile("yield" ::: "memory");
#endif
  }

  // Whoever lowers unclaimed_ owns that slice, and the loop's description stays put until the slice is finished. So a
  // thread reads the description only after its claim, and one that comes late finds nothing to claim or a whole new loop.
  bool claim_one() {
    std::uint32_t left = unclaimed_.load(std::memory_order_acquire);
    do {
      if (left == 0) return false;
    } while (!unclaimed_.compare_exchange_weak(left, left - 1, std::memory_order_acq_rel, std::memory_order_acquire));
    const Index begin = static_cast<Index>(left - 1) * length_;
    (*body_)(begin, std::min(begin + length_, n_));
    if (unfinished_.fetch_sub(1, std::memory_order_acq_rel) == 1) unfinished_.notify_all();
    return true;
  }

  void work(const std::stop_token& stop) {
    std::uint32_t seen = 0;
    while (!stop.stop_requested()) {
      for (int spins = 0; loops_begun_.load(std::memory_order_acquire) == seen; ++spins) {
        if (spins < patience)
          relax();
        else
          loops_begun_.wait(seen, std::memory_order_acquire);
      }
      seen = loops_begun_.load(std::memory_order_acquire);
      while (claim_one()) {
      }
    }
  }

  alignas(64) std::atomic<std::uint32_t> loops_begun_{0};
  alignas(64) std::atomic<std::uint32_t> unclaimed_{0};
  alignas(64) std::atomic<std::uint32_t> unfinished_{0};
  alignas(64) std::atomic<bool> busy_{false};
  const BodyRef* body_ = nullptr;
  Index n_ = 0, length_ = 0;
  std::vector<std::jthread> workers_;  // last: joined before anything else goes
};

}  // namespace ANYBIT_ABI
}  // namespace anybit

#include <anybit/core/macros_end.hpp>
