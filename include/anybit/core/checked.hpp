#pragma once
// Overflow-checked arithmetic on sizes that a file declares. Unchecked products are the usual hole in parsers of model files.

#include <anybit/core/macros_begin.hpp>

#include <concepts>
#include <cstdint>
#include <limits>
#include <optional>

#include <anybit/core/types.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

/// An unsigned 64-bit size that remembers whether any step overflowed.
class CheckedSize {
 public:
  constexpr CheckedSize(std::uint64_t value) : value_(value) {}  // NOLINT(google-explicit-constructor)

  friend constexpr CheckedSize operator+(CheckedSize a, CheckedSize b) {
    CheckedSize r(a.value_ + b.value_);
    r.valid_ = a.valid_ && b.valid_ && r.value_ >= a.value_;
    return r;
  }
  friend constexpr CheckedSize operator*(CheckedSize a, CheckedSize b) {
    CheckedSize r(a.value_ * b.value_);
    r.valid_ = a.valid_ && b.valid_ && (a.value_ == 0 || r.value_ / a.value_ == b.value_);
    return r;
  }
  constexpr CheckedSize rounded_up(std::uint64_t multiple) const {
    CheckedSize r = (*this + (multiple - 1));
    r.value_ -= multiple ? r.value_ % multiple : 0;
    r.valid_ = r.valid_ && multiple != 0;
    return r;
  }
  /// The size, if no step overflowed and it fits an Index.
  constexpr std::optional<Index> get() const {
    if (!valid_ || value_ > static_cast<std::uint64_t>(std::numeric_limits<Index>::max())) return std::nullopt;
    return static_cast<Index>(value_);
  }

 private:
  std::uint64_t value_;
  bool valid_ = true;
};

}  // namespace ANYBIT_ABI
}  // namespace anybit

#include <anybit/core/macros_end.hpp>
