#pragma once
// Memory for weights and activations: aligned to 64 bytes, on large pages where it is large.

#include <cstddef>
#include <cstring>
#include <new>
#include <span>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <anybit/core/types.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

/// Pages of memory that the system has on request. If it refuses, pages are small: slower, not wrong.
struct LargePages {
  static constexpr std::size_t size = std::size_t{2} << 20;
  static void ask_for([[maybe_unused]] void* data, [[maybe_unused]] std::size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    ::madvise(data, bytes, MADV_HUGEPAGE);
#endif
  }
};

/// Owned bytes, aligned to 64 in every translation unit whatever its -m flags. New bytes are zero.
/// There is no slack at the end: kernels mask their tails. Large buffers lie on large pages where the system has them.
class AlignedBuffer {
 public:
  static constexpr std::size_t alignment = 64;

  AlignedBuffer() = default;
  explicit AlignedBuffer(std::size_t bytes) : AlignedBuffer(bytes, Uninitialized{}) {
    if (bytes > 0) std::memset(data_, 0, bytes);
  }
  /// The same without the zeros.
  struct Uninitialized {};
  AlignedBuffer(std::size_t bytes, Uninitialized) : size_(bytes) {
    if (bytes == 0) return;
    data_ = static_cast<std::byte*>(::operator new(bytes, alignment_of(bytes)));
    if (bytes >= large) LargePages::ask_for(data_, bytes);
  }
  AlignedBuffer(const AlignedBuffer& other) : AlignedBuffer(other.size_, Uninitialized{}) {
    if (size_) std::memcpy(data_, other.data_, size_);
  }
  AlignedBuffer(AlignedBuffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  AlignedBuffer& operator=(AlignedBuffer other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~AlignedBuffer() {
    if (data_) ::operator delete(data_, alignment_of(size_));
  }

  std::byte* data() { return data_; }
  const std::byte* data() const { return data_; }
  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  std::span<std::byte> bytes() { return {data_, size_}; }
  std::span<const std::byte> bytes() const { return {data_, size_}; }
  template <class T>
  T* as() {
    return reinterpret_cast<T*>(data_);
  }
  template <class T>
  const T* as() const {
    return reinterpret_cast<const T*>(data_);
  }

 private:
  static constexpr std::size_t large = 2 * LargePages::size;
  static constexpr std::align_val_t alignment_of(std::size_t bytes) {
    return std::align_val_t{bytes >= large ? LargePages::size : alignment};
  }
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace ANYBIT_ABI
}  // namespace anybit
