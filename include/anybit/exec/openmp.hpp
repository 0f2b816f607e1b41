#pragma once
// The threads of OpenMP, for programs that already use them. Empty unless compiled with OpenMP.

#include <anybit/core/macros_begin.hpp>

#if defined(_OPENMP)

#include <omp.h>

#include <anybit/exec/executor.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

class OpenMP {
 public:
  /// 0: what omp_get_max_threads() says.
  explicit OpenMP(int threads = 0) : threads_(threads > 0 ? threads : omp_get_max_threads()) {}
  Index concurrency() const { return threads_; }

  template <class Body>
  void parallel_for(Index n, Index grain, Body&& body) const {
    if (n <= 0) return;
    const auto run = [&body](Index begin, Index end) noexcept { body(begin, end); };  // as ThreadPool
    const Index length = slice_length(n, grain, threads_), slices = ceil_div(n, length);
    if (slices == 1 || omp_in_parallel()) {
      run(Index{0}, n);
      return;
    }
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads_)
    for (Index i = 0; i < slices; ++i) run(i * length, std::min(n, (i + 1) * length));
  }

 private:
  int threads_;
};

}  // namespace ANYBIT_ABI
}  // namespace anybit

#endif

#include <anybit/core/macros_end.hpp>
