#pragma once
// One line on stderr that says what is being done and how long it will still take.

#include <chrono>
#include <mutex>
#include <string>

#include <anybit/core/types.hpp>

namespace tool {

/// Seconds since construction.
class Stopwatch {
 public:
  double seconds() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point start_ = Clock::now();
};

/// "1 min 05 s", "12 s".
std::string duration_text(double seconds);

/// The line is rewritten in place, and appears after two seconds. Where stderr is no terminal there is none. May be told from any
/// thread.
class Progress {
 public:
  Progress();
  ~Progress();
  Progress(const Progress&) = delete;

  /// A step of the whole work begins: `share` is its part of everything, of any unit, and `expected_total` the sum of all shares.
  void begin(std::string step, double share, double expected_total);
  /// done of total within the step.
  void update(anybit::Index done, anybit::Index total);
  /// The step is over: its share counts as done.
  void end();
  /// Takes the line away, for other output.
  void clear();

 private:
  void show();

  std::mutex mutex_;
  Stopwatch watch_;
  bool terminal_ = false;
  std::string step_;
  double finished_ = 0, share_ = 0, fraction_ = 0, total_ = 1;
  double shown_at_ = 0;
  std::size_t shown_width_ = 0;
};

}  // namespace tool
