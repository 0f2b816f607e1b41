#pragma once
// A hash map of 64-bit keys for tables of a million entries: one array, neighbours in place of chains.

#include <anybit/core/macros_begin.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <anybit/core/config.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

/// Keys are below 2^64 - 1. Entries stay for good.
template <class Value>
class FlatMap {
 public:
  explicit FlatMap(std::size_t expected = 0) { resize(std::bit_ceil(2 * expected + 4)); }

  /// The value of `key`, which is `value` if there was none.
  Value& insert(std::uint64_t key, const Value& value) {
    if (2 * (size_ + 1) > slots_.size()) grow();
    Slot& s = slot(key);
    if (s.key == empty) s = {key, value}, ++size_;
    return s.value;
  }
  /// Null if there is none.
  const Value* find(std::uint64_t key) const {
    const Slot& s = const_cast<FlatMap&>(*this).slot(key);
    return s.key == empty ? nullptr : &s.value;
  }
  std::size_t size() const { return size_; }

 private:
  static constexpr std::uint64_t empty = ~std::uint64_t{0};
  struct Slot {
    std::uint64_t key = empty;
    Value value{};
  };

  Slot& slot(std::uint64_t key) {
    const std::uint64_t mixed = key * 0x9E3779B97F4A7C15u;
    for (std::size_t i = static_cast<std::size_t>(mixed >> shift_);; i = (i + 1) & (slots_.size() - 1))
      if (slots_[i].key == key || slots_[i].key == empty) return slots_[i];
  }
  void resize(std::size_t slots) {
    slots_.assign(slots, Slot{});
    shift_ = 64 - std::countr_zero(slots);
  }
  void grow() {
    std::vector<Slot> old = std::move(slots_);
    resize(2 * old.size());
    for (const Slot& s : old)
      if (s.key != empty) slot(s.key) = s;
  }

  std::vector<Slot> slots_;
  std::size_t size_ = 0;
  int shift_ = 0;
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
