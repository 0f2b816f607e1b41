#pragma once
// Memory for weights that are read sequentially again and again, on large pages where the system has them: with pages of 4 KB
// such reading spends much of its time on address translation.

#include <cstddef>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <tuple>
#include <utility>

#include <anybit/core/aligned_buffer.hpp>
#include <anybit/core/types.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

/// Whole pages, large ones from there on, given out from the front. Lives as long as anything in it.
class PageChunk {
 public:
  static constexpr std::size_t small_page = 4096, page = LargePages::size, usual = 8 * page;

  /// Room for `bytes`, and for more of them up to `wanted`, as long as bytes are few.
  explicit PageChunk(std::size_t bytes, std::size_t wanted = usual)
      : size_(bytes > usual / 4 || bytes > wanted ? bytes : wanted), page_(size_ < page ? small_page : page) {
    size_ = (size_ + page_ - 1) / page_ * page_;
    data_ = static_cast<std::byte*>(::operator new(size_, std::align_val_t{page_}));
    if (page_ == page) LargePages::ask_for(data_, size_);
  }
  PageChunk(const PageChunk&) = delete;
  PageChunk& operator=(const PageChunk&) = delete;
  ~PageChunk() { ::operator delete(data_, std::align_val_t{page_}); }

  std::size_t size() const { return size_; }
  std::size_t left() const { return size_ - used_; }
  /// Null if so much is not left.
  std::byte* take(std::size_t bytes) {
    if (bytes > left()) return nullptr;
    return data_ + std::exchange(used_, used_ + bytes);
  }

 private:
  std::size_t size_, page_, used_ = 0;
  std::byte* data_;
};

}  // namespace ANYBIT_ABI

inline namespace ANYBIT_CODE {

/// A chunk with room for this many bytes, and where they are. The chunk that is being filled is shared by all files with the same
/// flags. A new one is as large as all before it together, up to the usual size, so that little takes little.
inline std::pair<std::shared_ptr<PageChunk>, std::byte*> take_pages(std::size_t bytes) {
  static std::mutex mutex;
  static std::weak_ptr<PageChunk> filling;
  static std::size_t taken = 0;
  const std::lock_guard lock(mutex);
  const auto current = filling.lock();
  if (current)
    if (std::byte* p = current->take(bytes)) return {current, p};
  auto chunk = std::make_shared<PageChunk>(bytes, taken < PageChunk::usual ? taken : PageChunk::usual);
  taken += chunk->size();
  std::byte* p = chunk->take(bytes);
  if (!current || chunk->left() > current->left()) filling = chunk;
  return {std::move(chunk), p};
}

}  // namespace ANYBIT_CODE

inline namespace ANYBIT_ABI {

/// Owned bytes aligned to 64, zero at first, which share large pages with other such buffers: what one of them leaves behind is
/// free again when its neighbours are gone too.
class WeightBuffer {
 public:
  WeightBuffer() = default;
  explicit ANYBIT_INLINE WeightBuffer(std::size_t bytes) : size_(bytes) {
    if (bytes == 0) return;
    std::tie(chunk_, data_) = take_pages((bytes + 63) / 64 * 64);
    std::memset(data_, 0, bytes);
  }
  ANYBIT_INLINE WeightBuffer(const WeightBuffer& other) : WeightBuffer(other.size_) {
    if (size_) std::memcpy(data_, other.data_, size_);
  }
  WeightBuffer(WeightBuffer&& other) noexcept
      : chunk_(std::move(other.chunk_)), data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  WeightBuffer& operator=(WeightBuffer other) noexcept {
    std::swap(chunk_, other.chunk_);
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }

  std::byte* data() { return data_; }
  const std::byte* data() const { return data_; }
  std::size_t size() const { return size_; }

 private:
  std::shared_ptr<PageChunk> chunk_;
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace ANYBIT_ABI
}  // namespace anybit
