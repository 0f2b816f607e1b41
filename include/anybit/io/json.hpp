#pragma once
// A JSON document as a read-only tree, and lookups by key whose errors name the file, the path of keys, the value and a remedy.
// For small files that people write and edit (config.json): what is large is read with the pull reader (detail/json_subset.hpp).

#include <anybit/core/macros_begin.hpp>

#include <array>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <anybit/core/result.hpp>
#include <anybit/core/types.hpp>
#include <anybit/io/detail/json_subset.hpp>
#include <anybit/io/detail/text.hpp>
#include <anybit/io/detail/utf8.hpp>

namespace anybit::io {
inline namespace ANYBIT_CODE {

/// Bytes that parse_json() takes at most. A tree takes up to thirty times its text.
inline constexpr std::size_t json_limit = std::size_t{16} << 20;

/// One value with all below it.
struct JsonValue {
  using Array = std::vector<JsonValue>;
  using Object = std::vector<std::pair<std::string, JsonValue>>;  ///< in the order of the text; no key twice

  std::variant<std::monostate, bool, double, std::string, Array, Object> value{};  ///< monostate: null

  template <class T>
  const T* as() const {
    return std::get_if<T>(&value);
  }
  bool null() const { return std::holds_alternative<std::monostate>(value); }
  /// The member of an object; null where this is no object or has no such key.
  const JsonValue* find(std::string_view key) const {
    if (const Object* const members = as<Object>())
      for (const auto& [name, member] : *members)
        if (name == key) return &member;
    return nullptr;
  }
};

namespace detail {

inline Result<JsonValue> read_json_value(JsonReader& json, int depth) {
  if (depth == 0) return json.fail("values are nested too deep");
  JsonValue out;
  switch (json.next()) {
    case '{': {
      JsonValue::Object members;
      ANYBIT_TRY_STATUS(json.object([&](std::string key) -> Status {
        ANYBIT_TRY(JsonValue member, read_json_value(json, depth - 1));
        members.emplace_back(std::move(key), std::move(member));
        return Ok{};
      }));
      out.value = std::move(members);
      return out;
    }
    case '[': {
      JsonValue::Array elements;
      ANYBIT_TRY_STATUS(json.array([&]() -> Status {
        ANYBIT_TRY(JsonValue element, read_json_value(json, depth - 1));
        elements.push_back(std::move(element));
        return Ok{};
      }));
      out.value = std::move(elements);
      return out;
    }
    case '"': {
      ANYBIT_TRY(out.value, json.string());
      return out;
    }
    case 't':
    case 'f': {
      ANYBIT_TRY(out.value, json.boolean());
      return out;
    }
    case 'n':
      if (json.null()) return out;
      return json.fail("a value must stand here");
    default: {
      ANYBIT_TRY(out.value, json.number());
      return out;
    }
  }
}

/// The value on one short line, for messages.
inline std::string shown(const JsonValue& v) {
  if (v.null()) return "null";
  if (const bool* const b = v.as<bool>()) return *b ? "true" : "false";
  if (const double* const number = v.as<double>()) {
    std::array<char, 32> out{};
    return {out.data(), std::to_chars(out.data(), out.data() + out.size(), *number).ptr};
  }
  if (const std::string* const s = v.as<std::string>()) return shown(*s);
  if (const JsonValue::Array* const a = v.as<JsonValue::Array>()) return text("an array of ", a->size());
  const std::size_t keys = v.as<JsonValue::Object>()->size();
  return text("an object with ", keys, keys == 1 ? " key" : " keys");
}

}  // namespace detail

/// A whole document: UTF-8, at most json_limit bytes, nested at most 32 deep, no key twice in an object. Errors do not name the
/// file.
inline Result<JsonValue> parse_json(std::string_view text) {
  if (text.size() > json_limit)
    return {ErrorCode::corrupt_data, detail::text("holds ", text.size(), " bytes, more than the ", json_limit,
                                                  " that are read as JSON here: check that this is the right file")};
  if (!detail::is_utf8(text)) return {ErrorCode::corrupt_data, "is not UTF-8: fetch it again, or save it as UTF-8"};
  detail::JsonReader json(text);
  auto value = detail::read_json_value(json, 32);
  Status end = value ? json.end() : Status(value.error());
  if (!end) return {ErrorCode::corrupt_data, end.error().message + ": correct the file or fetch it again"};
  return value;
}

/// An object of a document and where it stands, for lookups of members that must have a certain type. A member that is null
/// counts as absent, as in Hugging Face's own configurations. The document and the file's name outlive it.
class JsonObject {
 public:
  /// An object without members.
  JsonObject() = default;
  JsonObject(const JsonValue& value, std::string file, std::string path = {})
      : value_(&value), file_(std::move(file)), path_(std::move(path)) {}

  const std::string& file() const { return file_; }
  /// "rope_scaling.factor" for "factor".
  /// Where a member stands, for messages: "rope_scaling.factor".
  std::string path(std::string_view key) const {
    return detail::text(path_, path_.empty() ? "" : ".", detail::escaped(key), detail::mark_of_cut(key));
  }
  const JsonValue* find(std::string_view key) const {
    const JsonValue* const found = value_ ? value_->find(key) : nullptr;
    return found && !found->null() ? found : nullptr;
  }
  bool has(std::string_view key) const { return find(key) != nullptr; }
  /// Keys in the order of the file, those of null members included.
  std::vector<std::string_view> keys() const {
    std::vector<std::string_view> out;
    if (const auto* const members = value_ ? value_->as<JsonValue::Object>() : nullptr)
      for (const auto& member : *members) out.push_back(member.first);
    return out;
  }

  Result<std::string> text(std::string_view key) const { return typed<std::string>(key, "a string"); }
  Result<bool> boolean(std::string_view key) const { return typed<bool>(key, "true or false"); }
  Result<double> number(std::string_view key) const { return typed<double>(key, "a number"); }
  /// A whole number, 8192.0 included.
  Result<std::int64_t> integer(std::string_view key) const {
    constexpr double limit = 9007199254740992.0;  // 2^53: beyond it doubles are not exact
    const JsonValue* const found = find(key);
    const double* const number = found ? found->as<double>() : nullptr;
    if (!number || std::trunc(*number) != *number || std::fabs(*number) > limit) return wrong(key, "a whole number");
    return static_cast<std::int64_t>(*number);
  }
  Result<JsonObject> object(std::string_view key) const {
    const JsonValue* const found = find(key);
    if (!found || !found->as<JsonValue::Object>()) return wrong(key, "an object");
    return JsonObject(*found, file_, path(key));
  }
  Result<std::vector<double>> numbers(std::string_view key) const { return elements<double>(key, "an array of numbers"); }
  Result<std::vector<std::string>> texts(std::string_view key) const { return elements<std::string>(key, "an array of strings"); }

  /// "config.json: rope_scaling.factor is 'two', not a number: correct the file or fetch it again"
  Error wrong(std::string_view key, std::string_view needed) const {
    const JsonValue* const found = find(key);
    return {found ? ErrorCode::corrupt_data : ErrorCode::invalid_argument,
            detail::text(file_, ": ", path(key), found ? " is " : " is absent, ", found ? detail::shown(*found) : "",
                         found ? ", not " : "it must be ", needed, ": correct the file or fetch it again")};
  }

 private:
  template <class T>
  Result<T> typed(std::string_view key, std::string_view needed) const {
    const JsonValue* const found = find(key);
    const T* const value = found ? found->as<T>() : nullptr;
    if (!value) return wrong(key, needed);
    return *value;
  }
  template <class T>
  Result<std::vector<T>> elements(std::string_view key, std::string_view needed) const {
    const JsonValue* const found = find(key);
    const JsonValue::Array* const array = found ? found->as<JsonValue::Array>() : nullptr;
    if (!array) return wrong(key, needed);
    std::vector<T> out;
    for (const JsonValue& element : *array) {
      const T* const value = element.as<T>();
      if (!value)
        return {ErrorCode::corrupt_data, detail::text(file_, ": ", path(key), " holds ", detail::shown(element), ", it must be ",
                                                      needed, ": correct the file or fetch it again")};
      out.push_back(*value);
    }
    return out;
  }

  const JsonValue* value_ = nullptr;
  std::string file_, path_;
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::io

#include <anybit/core/macros_end.hpp>
