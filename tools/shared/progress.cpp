#include "progress.hpp"

#include <algorithm>
#include <cstdio>

#include "command.hpp"
#include "printable.hpp"

namespace tool {

std::string duration_text(double seconds) {
  char text[48];
  const long whole = static_cast<long>(std::max(0.0, seconds) + 0.5);
  if (whole >= 60)
    std::snprintf(text, sizeof text, "%ld min %02ld s", whole / 60, whole % 60);
  else
    std::snprintf(text, sizeof text, "%ld s", whole);
  return text;
}

Progress::Progress() : terminal_(is_terminal(stderr)) {}

Progress::~Progress() { clear(); }

void Progress::begin(std::string step, double share, double expected_total) {
  const std::lock_guard lock(mutex_);
  step_ = std::move(step);
  share_ = share;
  total_ = std::max(expected_total, finished_ + share);
  fraction_ = 0;
  show();
}

void Progress::update(anybit::Index done, anybit::Index total) {
  const std::lock_guard lock(mutex_);
  fraction_ = total > 0 ? std::clamp(static_cast<double>(done) / static_cast<double>(total), 0.0, 1.0) : 0;
  show();
}

void Progress::end() {
  const std::lock_guard lock(mutex_);
  finished_ += share_;
  share_ = fraction_ = 0;
}

void Progress::clear() {
  const std::lock_guard lock(mutex_);
  if (terminal_ && shown_width_ > 0) std::fprintf(stderr, "\r%*s\r", static_cast<int>(shown_width_), "");
  shown_width_ = 0;
}

void Progress::show() {
  if (!terminal_) return;
  const double now = watch_.seconds();
  if (now < 2 || now - shown_at_ < 0.2) return;
  shown_at_ = now;
  const double part = std::clamp((finished_ + share_ * fraction_) / total_, 0.0, 1.0);
  char text[32];
  std::snprintf(text, sizeof text, "[%3.0f %%] ", 100 * part);
  std::string line = text + printable(step_);
  if (part > 0.01) line += ", " + duration_text(now * (1 - part) / part) + " left";
  const std::size_t width = line.size();
  if (width < shown_width_) line.append(shown_width_ - width, ' ');
  std::fprintf(stderr, "\r%s", line.c_str());
  std::fflush(stderr);
  shown_width_ = width;
}

}  // namespace tool
