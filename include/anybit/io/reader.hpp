#pragma once
// "Span or error": the only access of anybit's parsers to the bytes of a file.

#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <type_traits>

#include <anybit/core/result.hpp>
#include <anybit/io/detail/text.hpp>

namespace anybit::io {
inline namespace ANYBIT_CODE {

/// Reads little-endian values one after the other. Every size is compared with what is left before it is used, by
/// subtraction, so no declared length can wrap. `what` ("number of tensors") goes into the message.
class ByteReader {
 public:
  explicit ByteReader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  std::size_t position() const { return position_; }
  std::size_t remaining() const { return bytes_.size() - position_; }

  Result<std::span<const std::byte>> take(std::uint64_t size, std::string_view what) {
    if (size > remaining()) return truncated(size, what);
    const auto taken = bytes_.subspan(position_, static_cast<std::size_t>(size));
    position_ += taken.size();
    return taken;
  }

  template <class T>
    requires(std::is_arithmetic_v<T> && !std::is_same_v<T, bool>)
  Result<T> number(std::string_view what) {
    if (sizeof(T) > remaining()) return truncated(sizeof(T), what);
    T value;
    std::memcpy(&value, bytes_.data() + position_, sizeof(T));
    position_ += sizeof(T);
    return value;
  }

  /// A length of type `Length`, then that many bytes.
  template <class Length>
    requires(std::is_unsigned_v<Length>)
  Result<std::string_view> string(std::string_view what) {
    ANYBIT_TRY(const Length size, number<Length>(what));
    ANYBIT_TRY(const std::span<const std::byte> bytes, take(size, what));
    return std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }

 private:
  Error truncated(std::uint64_t size, std::string_view what) const {
    return {ErrorCode::corrupt_data, detail::text(what, " at byte ", position_, " needs ", size, " bytes, but only ", remaining(),
                                                  " are left: the file is truncated or damaged, fetch it again")};
  }

  std::span<const std::byte> bytes_;
  std::size_t position_ = 0;
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::io
