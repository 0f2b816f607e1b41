#pragma once
// Errors in data as values: Result<T>, Status, and the macros that pass an error on.

#include <anybit/core/macros_begin.hpp>

#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <anybit/core/config.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

enum class ErrorCode {
  invalid_argument,   ///< a value outside its range
  shape_mismatch,     ///< data of another size than its partner's
  corrupt_data,       ///< bytes that contradict themselves: truncated, overlapping, overflowing, wrong magic
  unsupported,        ///< well formed, but nothing here can read or do it
  not_finite,         ///< NaN or infinity where numbers are needed
  insufficient_data,  ///< too few tokens, empty text
  numerical,          ///< a factorization failed for good
  io,                 ///< the operating system said no
  degraded,           ///< strict mode: a fallback would have been taken
  cancelled,          ///< the caller asked to stop
};

constexpr std::string_view name(ErrorCode c) {
  switch (c) {
    case ErrorCode::invalid_argument: return "invalid argument";
    case ErrorCode::shape_mismatch: return "shape mismatch";
    case ErrorCode::corrupt_data: return "corrupt data";
    case ErrorCode::unsupported: return "unsupported";
    case ErrorCode::not_finite: return "not finite";
    case ErrorCode::insufficient_data: return "insufficient data";
    case ErrorCode::numerical: return "numerical";
    case ErrorCode::io: return "input/output";
    case ErrorCode::degraded: return "degraded";
    case ErrorCode::cancelled: return "cancelled";
  }
  return "unknown";
}

/// A data error. `message` is one line that says where (file, tensor), what was wrong (with the value) and what to do.
struct Error {
  ErrorCode code = ErrorCode::invalid_argument;
  std::string message;
  friend bool operator==(const Error&, const Error&) = default;
};

/// The same error with `where` ("model.gguf: tensor blk.0.attn_q") put before its message.
inline Error in_context(Error e, std::string_view where) {
  e.message.insert(0, std::string(where) + ": ");
  return e;
}

/// A value or an Error. Nothing in anybit throws by itself. (An optional and not a variant: there are many types of results, and
/// a variant of each costs several times the compile time.)
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}      // NOLINT(google-explicit-constructor)
  Result(Error error) : error_(std::move(error)) {}  // NOLINT(google-explicit-constructor)
  Result(ErrorCode code, std::string message) : error_{code, std::move(message)} {}

  bool ok() const { return value_.has_value(); }
  explicit operator bool() const { return ok(); }

  T& value() & {
    check();
    return *value_;
  }
  const T& value() const& {
    check();
    return *value_;
  }
  /// By value, so that `for (auto& x : f().value())` does not loop over something that is gone.
  T value() && {
    check();
    return *std::move(value_);
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

  const Error& error() const& {
    ANYBIT_CHECK(!ok(), "Result::error() of a Result that holds a value");
    return error_;
  }

 private:
  void check() const { ANYBIT_CHECK(ok(), error_.message.c_str()); }

  std::optional<T> value_;
  Error error_;  ///< of no meaning beside a value
};

/// For functions that only succeed or fail: `return Ok{};`
struct Ok {
  friend constexpr bool operator==(Ok, Ok) = default;
};
using Status = Result<Ok>;

}  // namespace ANYBIT_ABI
}  // namespace anybit

// Two statements that every caller of a Result would write by hand; without exceptions C++20 has no better spelling.
#define ANYBIT_TRY(declaration, expression) ANYBIT_TRY_(declaration, expression, ANYBIT_CONCAT(anybit_result_, __LINE__))
#define ANYBIT_TRY_(declaration, expression, temporary) \
  auto temporary = (expression);                        \
  if (!temporary) return temporary.error();             \
  declaration = *std::move(temporary)
#define ANYBIT_TRY_STATUS(expression)                                                                        \
  if (auto ANYBIT_CONCAT(anybit_status_, __LINE__) = (expression); !ANYBIT_CONCAT(anybit_status_, __LINE__)) \
  return ANYBIT_CONCAT(anybit_status_, __LINE__).error()

#include <anybit/core/macros_end.hpp>
