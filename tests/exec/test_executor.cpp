#include <anybit/exec/executor.hpp>
#include <anybit/exec/openmp.hpp>
#include <anybit/exec/thread_pool.hpp>

#include <atomic>
#include <exception>
#include <stdexcept>
#include <vector>

#include "support/catch.hpp"
#include "support/hostile_executor.hpp"

#if __has_include(<sys/wait.h>) && __has_include(<unistd.h>)
#include <sys/wait.h>
#include <unistd.h>
#define CAN_FORK
#endif

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

TEST_CASE("tiles stay whole on an executor that looks at no grain") {
  for (const Index n : {0, 1, 7, 8, 9, 64, 1000})
    for (const Index tile : {1, 3, 8, 2000}) {
      std::vector<int> visits(static_cast<std::size_t>(n));
      test_support::HostileExecutor hostile(static_cast<unsigned>(n + tile));
      parallel_tiles(hostile, n, tile, [&](Index begin, Index end) {
        REQUIRE(begin % tile == 0);
        REQUIRE((end == n || end % tile == 0));
        REQUIRE(begin < end);
        for (Index i = begin; i < end; ++i) ++visits[static_cast<std::size_t>(i)];
      });
      for (const int v : visits) REQUIRE(v == 1);
    }
}

#if defined(CAN_FORK)
namespace {
/// What becomes of a process whose body throws at one index: 3 if the program ends by std::terminate, 0 if the caller catches it.
template <class MakeExecutor>
int end_of_thrower(MakeExecutor make, Index at) {
  const pid_t child = fork();
  if (child == 0) {
    std::set_terminate([] { _exit(3); });
    try {
      auto executor = make();
      executor.parallel_for(100, 1, [&](Index begin, Index end) {
        if (begin <= at && at < end) throw std::runtime_error("a body that fails");
      });
    } catch (...) {
      _exit(0);
    }
    _exit(1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}
struct Pool {  // a ThreadPool does not move
  explicit Pool(Index threads) : pool(std::make_unique<ThreadPool>(threads)) {}
  template <class Body>
  void parallel_for(Index n, Index grain, Body&& body) {
    pool->parallel_for(n, grain, body);
  }
  std::unique_ptr<ThreadPool> pool;
};
}  // namespace

TEST_CASE("a body that throws ends the program, on whichever thread and in whichever slice") {
  for (const Index threads : {1, 2, 4})
    for (const Index at : {0, 50, 99}) {
      CAPTURE(threads, at);
      CHECK(end_of_thrower([&] { return Pool(threads); }, at) == 3);
    }
  CHECK(end_of_thrower([] { return Serial{}; }, 50) == 0);
}
#endif
