#pragma once
// A failed check of the library becomes an exception, which the functions of the C interface catch: nothing aborts a caller.
// Comes before every header of anybit.

namespace anybit::c {
struct FailedCheck {
  const char* message;
};
}  // namespace anybit::c

#define ANYBIT_CHECK(condition, message) ((condition) ? static_cast<void>(0) : throw ::anybit::c::FailedCheck{message})
