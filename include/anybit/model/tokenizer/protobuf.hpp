#pragma once
// Fields of a protocol buffers message, as far as SentencePiece's models use them.

#include <anybit/core/macros_begin.hpp>

#include <bit>
#include <cstdint>
#include <cstring>
#include <string_view>

#include <anybit/core/result.hpp>
#include <anybit/io/detail/text.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {
namespace detail {

/// One field of a message. A number of 32 or 64 bits has its bits in `number`.
struct ProtobufField {
  std::uint32_t tag = 0;
  bool is_bytes = false;
  std::uint64_t number = 0;
  std::string_view bytes{};

  float as_float() const { return std::bit_cast<float>(static_cast<std::uint32_t>(number)); }
};

/// Reads the fields of `message` one after the other; every length is held against what is left.
class ProtobufReader {
 public:
  explicit ProtobufReader(std::string_view message) : message_(message) {}

  bool done() const { return at_ == message_.size(); }

  Result<ProtobufField> next() {
    ProtobufField out;
    const std::size_t begin = at_;
    ANYBIT_TRY(const std::uint64_t key, varint());
    out.tag = static_cast<std::uint32_t>(key >> 3);
    if (out.tag == 0 || key >> 32 != 0) return bad(begin, io::detail::text("a field has the number ", key >> 3));
    switch (key & 7u) {
      case 0: {
        ANYBIT_TRY(out.number, varint());
        return out;
      }
      case 1: return fixed(out, 8);
      case 5: return fixed(out, 4);
      case 2: {
        ANYBIT_TRY(const std::uint64_t size, varint());
        if (size > message_.size() - at_)
          return bad(begin, io::detail::text("a field of ", size, " bytes, but ", message_.size() - at_, " are left"));
        out.is_bytes = true;
        out.bytes = message_.substr(at_, static_cast<std::size_t>(size));
        at_ += static_cast<std::size_t>(size);
        return out;
      }
      default: return bad(begin, io::detail::text("a field of the unknown type ", key & 7u));
    }
  }

 private:
  Result<ProtobufField> fixed(ProtobufField out, std::size_t size) {
    if (size > message_.size() - at_) return bad(at_, "the message ends inside a number");
    std::memcpy(&out.number, message_.data() + at_, size);
    at_ += size;
    return out;
  }
  Result<std::uint64_t> varint() {
    std::uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      if (at_ == message_.size()) return bad(at_, "the message ends inside a number");
      const auto byte = static_cast<unsigned char>(message_[at_++]);
      value |= std::uint64_t{byte & 127u} << shift;
      if (byte < 128) return value;
    }
    return bad(at_, "a number has more than 64 bits");
  }
  static Error bad(std::size_t at, std::string_view why) {
    return {ErrorCode::corrupt_data, io::detail::text("protobuf at byte ", at, ": ", why)};
  }

  std::string_view message_;
  std::size_t at_ = 0;
};

}  // namespace detail
}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
