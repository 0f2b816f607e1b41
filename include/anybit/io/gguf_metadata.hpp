#pragma once
// The key-value pairs of a GGUF file: checked once when parsed, converted when read.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <anybit/core/result.hpp>
#include <anybit/io/detail/text.hpp>
#include <anybit/io/reader.hpp>

namespace anybit::io {
inline namespace ANYBIT_CODE {

/// Views on the file's bytes: valid while those are. (Here as in the other readers, members are templates without need so that
/// only programs that call them compile them.)
class GgufMetadata {
 public:
  /// `count` pairs from `reader`.
  template <class = void>
  static Result<GgufMetadata> parse(ByteReader& reader, std::uint64_t count) {
    constexpr std::uint64_t smallest_pair = 8 + 1 + 4 + 1;  // length, one character, type, one byte
    if (count > reader.remaining() / smallest_pair)
      return {ErrorCode::corrupt_data, detail::text("declares ", count, " metadata pairs, more than its ", reader.remaining(),
                                                    " bytes can hold: the file is damaged, fetch it again")};
    GgufMetadata out;
    for (std::uint64_t i = 0; i < count; ++i) {
      ANYBIT_TRY(const std::string_view key, reader.string<std::uint64_t>("a metadata key"));
      if (key.empty() || key.size() > 65535)
        return {ErrorCode::corrupt_data,
                detail::text("a metadata key has ", key.size(), " bytes, not 1 to 65535: the file is damaged, fetch it again")};
      auto value = parse_value(reader);
      if (!value) return in_context(value.error(), "key " + detail::shown(key));
      if (!out.values_.emplace(std::string(key), *value).second)
        return {ErrorCode::corrupt_data,
                "key " + detail::shown(key) + " comes twice: the file is damaged, convert the model again"};
    }
    return out;
  }

  bool has(std::string_view key) const { return values_.find(key) != values_.end(); }
  template <class = void>
  std::vector<std::string> keys() const {
    std::vector<std::string> out;
    for (const auto& [key, value] : values_) out.push_back(key);
    return out;
  }

  /// A value as its file has it, behind its type: what GgufWriter::add_raw_metadata takes.
  struct RawValue {
    std::uint32_t type;
    std::string bytes;
  };
  template <class = void>
  Result<RawValue> raw(std::string_view key) const {
    ANYBIT_TRY(const Value v, need(key, "a value"));
    RawValue out{static_cast<std::uint32_t>(v.type), {}};
    const auto put = [&out](auto number) { out.bytes.append(reinterpret_cast<const char*>(&number), sizeof number); };
    if (v.type == Type::array) put(static_cast<std::uint32_t>(v.element)), put(static_cast<std::uint64_t>(v.count));
    if (v.type == Type::string) put(static_cast<std::uint64_t>(v.bytes.size()));
    out.bytes.append(reinterpret_cast<const char*>(v.bytes.data()), v.bytes.size());
    return out;
  }

  /// Integers of any width; a negative one is an error.
  template <class = void>
  Result<std::uint64_t> get_u64(std::string_view key) const {
    ANYBIT_TRY(const Value v, need(key, "an integer"));
    std::uint64_t out = 0;
    bool negative = false;
    const bool integer = visit_number(v.type, v.bytes.data(), [&](auto n) {
      if constexpr (std::is_integral_v<decltype(n)>) {
        negative = n < 0;
        out = static_cast<std::uint64_t>(n);
      }
      return std::is_integral_v<decltype(n)>;
    });
    if (!integer) return wrong_type(key, v, "an integer");
    if (negative)
      return {ErrorCode::corrupt_data, detail::text("key ", detail::shown(key), " is ", static_cast<std::int64_t>(out),
                                                    "; it must not be negative: convert the model again")};
    return out;
  }
  /// Any number.
  template <class = void>
  Result<double> get_f64(std::string_view key) const {
    ANYBIT_TRY(const Value v, need(key, "a number"));
    double out = 0;
    if (!visit_number(v.type, v.bytes.data(), [&](auto n) { return out = static_cast<double>(n), true; }))
      return wrong_type(key, v, "a number");
    return out;
  }
  Result<bool> get_bool(std::string_view key) const {
    ANYBIT_TRY(const Value v, need(key, "a bool"));
    if (v.type != Type::boolean) return wrong_type(key, v, "a bool");
    return std::to_integer<int>(v.bytes[0]) != 0;
  }
  Result<std::string> get_string(std::string_view key) const {
    ANYBIT_TRY(const Value v, need(key, "a string"));
    if (v.type != Type::string) return wrong_type(key, v, "a string");
    return std::string(reinterpret_cast<const char*>(v.bytes.data()), v.bytes.size());
  }
  template <class = void>
  Result<std::vector<std::string>> get_strings(std::string_view key) const {
    ANYBIT_TRY(const Value v, need(key, "an array of strings"));
    if (v.type != Type::array || v.element != Type::string) return wrong_type(key, v, "an array of strings");
    std::vector<std::string> out;
    out.reserve(v.count);
    ByteReader reader(v.bytes);
    for (std::size_t i = 0; i < v.count; ++i) {
      ANYBIT_TRY(const std::string_view s, reader.string<std::uint64_t>("an array element"));
      out.emplace_back(s);
    }
    return out;
  }
  template <class = void>
  Result<std::vector<float>> get_floats(std::string_view key) const {
    return get_numbers<float>(key, "an array of numbers");
  }
  /// Integers of any width; one that 32 signed bits cannot hold is an error.
  template <class = void>
  Result<std::vector<std::int32_t>> get_ints(std::string_view key) const {
    return get_numbers<std::int32_t>(key, "an array of integers");
  }

 private:
  enum class Type : std::uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 };

  struct Value {
    Type type, element;  ///< `element` of an array, else the same as `type`
    std::size_t count;
    std::span<const std::byte> bytes;  ///< of the number, the characters, or all elements
  };

  static constexpr std::string_view type_name(Type t) {
    constexpr std::string_view names[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                          "bool", "string", "array", "u64", "i64", "f64"};
    return names[static_cast<std::size_t>(t)];
  }
  /// 0 for strings and arrays.
  static constexpr std::size_t type_size(Type t) {
    constexpr unsigned char sizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return sizes[static_cast<std::size_t>(t)];
  }

  static Result<Type> parse_type(ByteReader& reader) {
    ANYBIT_TRY(const std::uint32_t t, reader.number<std::uint32_t>("a value type"));
    if (t > static_cast<std::uint32_t>(Type::f64))
      return {ErrorCode::unsupported,
              detail::text("value type ", t, " is unknown: the file is newer than GGUF v3 or damaged, convert the model again")};
    return static_cast<Type>(t);
  }

  template <class = void>
  static Result<Value> parse_value(ByteReader& reader) {
    ANYBIT_TRY(const Type type, parse_type(reader));
    if (type == Type::array) return parse_array(reader);
    if (type == Type::string) {
      ANYBIT_TRY(const std::string_view s, reader.string<std::uint64_t>("a string"));
      return Value{type, type, 1, std::as_bytes(std::span(s.data(), s.size()))};
    }
    ANYBIT_TRY(const std::span<const std::byte> bytes, reader.take(type_size(type), "a value"));
    ANYBIT_TRY_STATUS(check_bools(type, bytes));
    return Value{type, type, 1, bytes};
  }

  template <class = void>
  static Result<Value> parse_array(ByteReader& reader) {
    ANYBIT_TRY(const Type element, parse_type(reader));
    if (element == Type::array) return {ErrorCode::unsupported, "an array of arrays, which no known model uses: remove the key"};
    ANYBIT_TRY(const std::uint64_t count, reader.number<std::uint64_t>("the length of an array"));
    const std::size_t smallest = element == Type::string ? 8 : type_size(element);
    if (count > reader.remaining() / smallest)
      return {ErrorCode::corrupt_data,
              detail::text("an array declares ", count, " elements of type ", type_name(element), ", but only ",
                           reader.remaining(), " bytes are left: the file is truncated or damaged, fetch it again")};
    if (element != Type::string) {
      ANYBIT_TRY(const std::span<const std::byte> bytes, reader.take(count * smallest, "an array"));
      ANYBIT_TRY_STATUS(check_bools(element, bytes));
      return Value{Type::array, element, static_cast<std::size_t>(count), bytes};
    }
    ByteReader walk = reader;
    for (std::uint64_t i = 0; i < count; ++i) {
      auto s = walk.string<std::uint64_t>("a string of an array");
      if (!s) return s.error();
    }
    ANYBIT_TRY(const std::span<const std::byte> bytes, reader.take(walk.position() - reader.position(), "an array"));
    return Value{Type::array, element, static_cast<std::size_t>(count), bytes};
  }

  template <class = void>
  static Status check_bools(Type t, std::span<const std::byte> bytes) {
    if (t == Type::boolean)
      for (const std::byte b : bytes)
        if (std::to_integer<int>(b) > 1)
          return {ErrorCode::corrupt_data, detail::text("a bool has the value ", std::to_integer<int>(b),
                                                        ", not 0 or 1: the file is damaged, fetch it again")};
    return Ok{};
  }

  /// `f(number)` for a numeric type, false for others.
  template <class F>
  static bool visit_number(Type type, const std::byte* at, F&& f) {
    const auto as = [&](auto number) {
      std::memcpy(&number, at, sizeof number);
      return f(number);
    };
    switch (type) {
      case Type::u8: return as(std::uint8_t{});
      case Type::i8: return as(std::int8_t{});
      case Type::u16: return as(std::uint16_t{});
      case Type::i16: return as(std::int16_t{});
      case Type::u32: return as(std::uint32_t{});
      case Type::i32: return as(std::int32_t{});
      case Type::u64: return as(std::uint64_t{});
      case Type::i64: return as(std::int64_t{});
      case Type::f32: return as(float{});
      case Type::f64: return as(double{});
      case Type::boolean:
      case Type::string:
      case Type::array: break;
    }
    return false;
  }

  template <class T>
  Result<std::vector<T>> get_numbers(std::string_view key, std::string_view wanted) const {
    ANYBIT_TRY(const Value v, need(key, wanted));
    const bool numbers = v.type == Type::array && type_size(v.element) != 0 && v.element != Type::boolean;
    const bool fractions = v.element == Type::f32 || v.element == Type::f64;
    if (!numbers || (fractions && std::is_integral_v<T>)) return wrong_type(key, v, wanted);
    std::vector<T> out(v.count);
    for (std::size_t i = 0; i < v.count; ++i) {
      const bool fits = visit_number(v.element, v.bytes.data() + i * type_size(v.element), [&](auto n) {
        if constexpr (std::is_integral_v<T> && std::is_integral_v<decltype(n)>) {
          if (!std::in_range<T>(n)) return false;
        }
        out[i] = static_cast<T>(n);
        return true;
      });
      if (!fits)
        return {ErrorCode::corrupt_data,
                detail::text("key ", detail::shown(key), ": element ", i, " exceeds 32 signed bits: convert the model again")};
    }
    return out;
  }

  template <class = void>
  Result<Value> need(std::string_view key, std::string_view wanted) const {
    const auto found = values_.find(key);
    if (found == values_.end())
      return {ErrorCode::invalid_argument,
              detail::text("no key ", detail::shown(key), " (", wanted,
                           ") in the metadata: the file is incomplete or of another architecture, convert the model again")};
    return found->second;
  }
  template <class = void>
  static Error wrong_type(std::string_view key, const Value& v, std::string_view wanted) {
    std::string found(type_name(v.type));
    if (v.type == Type::array) found += detail::text(" of ", v.count, " ", type_name(v.element));
    return {ErrorCode::corrupt_data,
            detail::text("key ", detail::shown(key), " has type ", found, "; ", wanted, " is needed: convert the model again")};
  }

  std::map<std::string, Value, std::less<>> values_;
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::io

#include <anybit/core/macros_end.hpp>
