// What this machine can do at best, asked for between the products: `read BYTES THREADS`, `dot7 THREADS`, `dot8 THREADS`,
// `f32 THREADS` -> ok BYTES_OR_MACS_A_SECOND.

#include <algorithm>
#include <chrono>
#include <iostream>
#include <map>
#include <memory>
#include <sstream>
#include <string>

#include "../limits.hpp"

namespace {

using namespace bench;

template <class Work>
double seconds_of(int repeats, Work work) {
  std::vector<double> times;
  for (int i = 0; i < repeats; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    work();
    times.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  std::nth_element(times.begin(), times.begin() + repeats / 2, times.end());
  return times[static_cast<std::size_t>(repeats / 2)];
}

/// work(steps) on every thread at once; it returns what one call has done.
template <class Work>
double rate(ThreadPool& pool, Work work) {
  constexpr Index steps = 200000;
  const double seconds = seconds_of(5, [&] {
    pool.parallel_for(pool.concurrency(), 1, [&](Index begin, Index end) {
      for (Index i = begin; i < end; ++i) work(steps);
    });
  });
  return work(1) * static_cast<double>(steps * pool.concurrency()) / seconds;
}

}  // namespace

int main() {
  std::map<Index, std::unique_ptr<ThreadPool>> pools;
  std::unique_ptr<Reading> memory;
  std::cout << "ready" << std::endl;
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream words(line);
    std::string command;
    std::size_t bytes = 0;
    Index threads = 1;
    words >> command;
    if (command == "read") words >> bytes;
    words >> threads;
    auto& pool = pools[threads];
    if (!pool) pool = std::make_unique<ThreadPool>(threads);
    double done = 0;
    if (command == "read") {
      if (!memory || memory->bytes() < bytes) memory = std::make_unique<Reading>(bytes + 4096);
      done = static_cast<double>(memory->bytes()) / seconds_of(3, [&] { (*memory)(*pool); });
    } else if (command == "dot7") {
      done = rate(*pool, [](Index steps) { return dot_products<7>(steps); });
    } else if (command == "dot8") {
      done = rate(*pool, [](Index steps) { return dot_products<8>(steps); });
    } else if (command == "f32") {
      done = rate(*pool, [](Index steps) { return multiply_adds(steps); });
    } else {
      std::cout << "no unknown command " << command << std::endl;
      continue;
    }
    std::cout << "ok " << done << std::endl;
  }
}
