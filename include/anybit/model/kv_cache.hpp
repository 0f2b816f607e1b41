#pragma once

#include <cstddef>
#include <vector>

#include <anybit/core/matrix.hpp>
#include <anybit/model/config.hpp>

namespace anybit::model::inline ANYBIT_CODE {

/// Keys (rotated) and values of the positions seen so far, in float: one row of kv_heads * head_dim a position, for each block.
class KvCache {
 public:
  /// Room for `capacity` positions of one sequence.
  KvCache(const DecoderConfig& c, Index capacity) : capacity_(capacity) {
    for (Index b = 0; b < c.blocks; ++b) {
      keys_.emplace_back(capacity, c.kv_width());
      values_.emplace_back(capacity, c.kv_width());
    }
  }

  Index capacity() const { return capacity_; }
  Index length() const { return length_; }
  Index blocks() const { return static_cast<Index>(keys_.size()); }
  Index width() const { return keys_.empty() ? 0 : keys_.front().cols(); }

  /// Forgets all positions from `length` on.
  void truncate(Index length) {
    ANYBIT_CHECK(length >= 0 && length <= length_, "KvCache::truncate: longer than it is");
    length_ = length;
  }
  void clear() { length_ = 0; }

  /// For the forward pass: rows up to capacity, and that rows were filled in every block.
  MutableMatrix keys(Index block) { return keys_[static_cast<std::size_t>(block)].view(); }
  MutableMatrix values(Index block) { return values_[static_cast<std::size_t>(block)].view(); }
  void advance(Index tokens) {
    ANYBIT_CHECK(tokens >= 0 && tokens <= capacity_ - length_, "KvCache::advance: past its capacity");
    length_ += tokens;
  }

 private:
  Index capacity_ = 0, length_ = 0;
  std::vector<Matrix> keys_, values_;
};

}  // namespace anybit::model::inline ANYBIT_CODE
