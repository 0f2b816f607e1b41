#include <anybit/exec/executor.hpp>
#include <anybit/exec/openmp.hpp>
#include <anybit/exec/thread_pool.hpp>

#include <atomic>
#include <vector>

#include "support/catch.hpp"

using namespace anybit;

static_assert(Executor<Serial> && Executor<const Serial&> && Executor<ThreadPool&> && Executor<ExecutorRef>);
static_assert(!Executor<int>);

namespace {

template <class E>
void covers_every_index_once(E&& executor) {
  for (const Index n : {0, 1, 2, 3, 7, 16, 17, 64, 1000, 4097})
    for (const Index grain : {1, 2, 16, 5000}) {
      std::vector<std::atomic<int>> visits(static_cast<std::size_t>(n));
      std::atomic<bool> aligned{true}, sane{true};
      executor.parallel_for(n, grain, [&](Index begin, Index end) {
        if (begin % grain != 0) aligned = false;
        if (begin >= end || end > n) sane = false;
        for (Index i = begin; i < end; ++i) ++visits[static_cast<std::size_t>(i)];
      });
      REQUIRE(aligned);
      REQUIRE(sane);
      for (const auto& v : visits) REQUIRE(v == 1);
    }
}

}  // namespace

TEST_CASE("every executor covers every index once, in slices that start at multiples of the grain") {
  covers_every_index_once(Serial{});
  for (const Index threads : {0, 1, 2, 3, 8}) {
    ThreadPool pool(threads);
    REQUIRE(pool.concurrency() == std::max<Index>(threads, 1));
    covers_every_index_once(pool);
    ExecutorRef reference(pool);
    REQUIRE(reference.concurrency() == pool.concurrency());
    covers_every_index_once(reference);
  }
  covers_every_index_once(ExecutorRef());
  REQUIRE(ExecutorRef().concurrency() == 1);
#if defined(_OPENMP)
  covers_every_index_once(OpenMP{});
  covers_every_index_once(OpenMP{3});
  REQUIRE(OpenMP{3}.concurrency() == 3);
#endif
}

TEST_CASE("a loop inside a loop runs, serially") {
  ThreadPool pool(3);
  std::atomic<Index> sum{0};
  pool.parallel_for(40, 1, [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) pool.parallel_for(10, 1, [&](Index b, Index e) { sum += e - b; });
  });
  REQUIRE(sum == 400);
}

TEST_CASE("a pool serves many short loops in a row") {
  ThreadPool pool(2);
  std::atomic<Index> sum{0};
  for (int round = 0; round < 20000; ++round) pool.parallel_for(round % 9, 1, [&](Index b, Index e) { sum += e - b; });
  REQUIRE(sum == 20000 / 9 * 36 + 1);
}

TEST_CASE("several threads may share a pool") {
  ThreadPool pool(3);
  std::atomic<Index> sum{0};
  {
    std::vector<std::jthread> callers;
    for (int c = 0; c < 3; ++c)
      callers.emplace_back([&] {
        for (int round = 0; round < 500; ++round) pool.parallel_for(20, 1, [&](Index b, Index e) { sum += e - b; });
      });
  }
  REQUIRE(sum == 3 * 500 * 20);
}

TEST_CASE("writes made in a loop are seen after it") {
  ThreadPool pool(8);
  std::vector<int> values(5000);
  for (int round = 1; round <= 200; ++round) {
    pool.parallel_for(5000, 1, [&](Index b, Index e) {
      for (Index i = b; i < e; ++i) values[static_cast<std::size_t>(i)] += 1;
    });
    REQUIRE(std::all_of(values.begin(), values.end(), [&](int v) { return v == round; }));
  }
}
