#pragma once
// safetensors, writing. The data is ordered so that every tensor can be used in place when the file is mapped.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <bit>
#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <anybit/core/stable_sort.hpp>
#include <anybit/io/atomic_write.hpp>
#include <anybit/io/detail/json_subset.hpp>
#include <anybit/io/safetensors.hpp>
#include <anybit/io/tensor_info.hpp>

namespace anybit::io {
inline namespace ANYBIT_CODE {

/// Header and data order of a safetensors file; see plan_safetensors.
struct SafetensorsPlan {
  std::string head;                      ///< length, JSON, and spaces up to a multiple of 64
  std::vector<const TensorInfo*> order;  ///< of the data that follows
};

/// Where each tensor goes. Tensors are ordered by the largest power of two (up to 64) that divides their size in bytes, so
/// each starts at a multiple of it, and so of its element size: the format allows no padding between tensors.
/// `tensors` must outlive the plan. Where the bytes come later, type and shape alone are planned.
template <class = void>
Result<SafetensorsPlan> plan_safetensors(std::span<const TensorInfo> tensors, const std::map<std::string, std::string>& metadata,
                                         bool bytes_come_later = false) {
  constexpr std::size_t page = 64;
  SafetensorsPlan plan;
  std::set<std::string_view> names;
  for (const TensorInfo& t : tensors) {
    const auto bad = [&](std::string_view why) {
      return Error{ErrorCode::invalid_argument, detail::text("tensor ", detail::shown(t.name), ": ", why)};
    };
    const DType* const dtype = find_dtype(t.dtype);
    if (!dtype || !dtype->in_safetensors) return bad("safetensors has no type " + detail::shown(t.dtype) + ": convert it");
    const auto bytes = tensor_bytes(*dtype, t.shape);
    if (!bytes) return bad(bytes.error().message);
    if (!bytes_come_later && *bytes != t.bytes.size())
      return bad(detail::text("type ", t.dtype, " and shape need ", *bytes, " bytes, not ", t.bytes.size()));
    if (t.name == "__metadata__" || !detail::is_utf8(t.name)) return bad("a name must be UTF-8 and not __metadata__: rename it");
    if (!names.insert(t.name).second) return bad("the name comes twice: rename one");
    plan.order.push_back(&t);
  }
  anybit::stable_sort(plan.order.begin(), plan.order.end(), [](const TensorInfo* a, const TensorInfo* b) {
    const auto alignment = [](const TensorInfo& t) {
      return std::countr_zero(*tensor_bytes(*find_dtype(t.dtype), t.shape) | page);
    };
    return alignment(*a) > alignment(*b);
  });

  std::string json = "{";
  const auto separate = [&] { json += json.size() > 1 ? "," : ""; };
  if (!metadata.empty()) {
    std::string pairs;
    for (const auto& [key, value] : metadata) {
      if (!detail::is_utf8(key) || !detail::is_utf8(value))
        return {ErrorCode::invalid_argument, "metadata " + detail::shown(key) + " is not UTF-8: encode it"};
      pairs += (pairs.empty() ? "" : ",") + detail::json_quoted(key) + ":" + detail::json_quoted(value);
    }
    json += "\"__metadata__\":{" + pairs + "}";
  }
  std::size_t begin = 0;
  for (const TensorInfo* t : plan.order) {
    separate();
    json += detail::json_quoted(t->name) + ":{\"dtype\":\"" + t->dtype + "\",\"shape\":[";
    for (std::size_t i = 0; i < t->shape.size(); ++i) json += (i ? "," : "") + std::to_string(t->shape[i]);
    const std::size_t end = begin + *tensor_bytes(*find_dtype(t->dtype), t->shape);
    json += detail::text("],\"data_offsets\":[", begin, ",", end, "]}");
    begin = end;
  }
  json += "}";
  json.resize((json.size() + 8 + page - 1) / page * page - 8, ' ');
  if (json.size() > safetensors_header_limit)
    return {ErrorCode::invalid_argument,
            detail::text("the header takes ", json.size(), " bytes, more than safetensors allows: write several files")};
  const std::uint64_t size = json.size();
  plan.head.assign(reinterpret_cast<const char*>(&size), sizeof size);
  plan.head += json;
  return plan;
}

/// Writes a whole file or nothing.
template <class = void>
Status write_safetensors(const std::string& path, std::span<const TensorInfo> tensors,
                         const std::map<std::string, std::string>& metadata = {}) {
  const auto plan = plan_safetensors(tensors, metadata);
  if (!plan) return in_context(plan.error(), path);
  ANYBIT_TRY(AtomicFile file, AtomicFile::create(path));
  ANYBIT_TRY_STATUS(file.write(plan->head));
  for (const TensorInfo* t : plan->order) ANYBIT_TRY_STATUS(file.write(t->bytes));
  return file.commit();
}

/// Writes a whole file or nothing, with one tensor in memory at a time: `make(const TensorInfo&)` gives the bytes of each, in the
/// plan's order, as a Result of something with bytes().
template <class Make>
Status write_safetensors_streamed(const std::string& path, std::span<const TensorInfo> tensors, Make&& make,
                                  const std::map<std::string, std::string>& metadata = {}) {
  const auto plan = plan_safetensors(tensors, metadata, true);
  if (!plan) return in_context(plan.error(), path);
  ANYBIT_TRY(AtomicFile file, AtomicFile::create(path));
  ANYBIT_TRY_STATUS(file.write(plan->head));
  for (const TensorInfo* t : plan->order) {
    ANYBIT_TRY(const auto made, make(*t));
    const std::span<const std::byte> bytes = made.bytes();
    ANYBIT_CHECK(bytes.size() == *tensor_bytes(*find_dtype(t->dtype), t->shape),
                 "write_safetensors_streamed: other bytes than planned");
    ANYBIT_TRY_STATUS(file.write(bytes));
  }
  return file.commit();
}

/// A TensorInfo over values that the caller keeps until it is written.
template <class T>
TensorInfo tensor_of(std::string name, std::vector<Index> shape, std::span<const T> values) {
  static_assert(!dtype_name_v<T>.empty(), "anybit: safetensors has no such type; give float, double or a fixed-width integer");
  return {std::move(name), std::string(dtype_name_v<T>), std::move(shape), std::as_bytes(values)};
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::io

#include <anybit/core/macros_end.hpp>
