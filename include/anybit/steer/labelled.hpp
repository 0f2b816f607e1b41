#pragma once
// Checks of what directions and probes are fitted on: rows of activations with labels.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <anybit/core/finite.hpp>
#include <anybit/core/result.hpp>
#include <anybit/core/view.hpp>
#include <anybit/io/detail/text.hpp>

namespace anybit::steer {
inline namespace ANYBIT_ABI {

/// 1: the concept is there (true, honest), 0: it is not.
using Label = std::int32_t;

}  // namespace ANYBIT_ABI
}  // namespace anybit::steer

namespace anybit::steer {
inline namespace ANYBIT_CODE {

/// Least share of the rarer label: below it, a probe that always gives the other label is right nine times of ten.
inline constexpr double least_share = 0.1;

/// One label of 0 or 1 for each row, and finite rows.
inline Status check_rows(std::string_view who, ConstMatrix h, std::span<const Label> labels) {
  using io::detail::text;
  if (static_cast<Index>(labels.size()) != h.rows)
    return {ErrorCode::shape_mismatch,
            text(who, ": ", labels.size(), " labels for ", h.rows, " rows of activations: give one label per row")};
  for (std::size_t i = 0; i < labels.size(); ++i)
    if (labels[i] != 0 && labels[i] != 1)
      return {ErrorCode::invalid_argument, text(who, ": label ", i, " is ", labels[i], ": a label is 0 or 1")};
  if (const auto [r, c] = find_not_finite(h); r >= 0)
    return {ErrorCode::not_finite, text(who, ": row ", r, " of the activations is not finite at channel ", c,
                                        ": the model overflows on this text, leave it out or use another model")};
  return Ok{};
}

/// Also both labels, at least twice each, neither below least_share.
inline Status check_labelled(std::string_view who, ConstMatrix h, std::span<const Label> labels) {
  using io::detail::text;
  ANYBIT_TRY_STATUS(check_rows(who, h, labels));
  const auto ones = static_cast<std::size_t>(std::count(labels.begin(), labels.end(), 1)), all = labels.size();
  const std::size_t rarer = std::min(ones, all - ones);
  if (rarer == 0)
    return {ErrorCode::insufficient_data, text(who, ": all ", all, " labels are ", ones == 0 ? 0 : 1, ": give rows of both")};
  if (rarer < 2)
    return {ErrorCode::insufficient_data,
            text(who, ": one of ", all, " labels is ", ones == 1 ? 1 : 0, ": give at least two rows of each")};
  if (static_cast<double>(rarer) < least_share * static_cast<double>(all))
    return {ErrorCode::invalid_argument, text(who, ": ", rarer, " of ", all, " labels are ", rarer == ones ? 1 : 0,
                                              ", under a tenth: give about as many rows of each label")};
  return Ok{};
}

/// Also rows 2i and 2i+1 a pair of one row of each label, at least two pairs.
inline Status check_pairs(std::string_view who, ConstMatrix h, std::span<const Label> labels) {
  using io::detail::text;
  ANYBIT_TRY_STATUS(check_rows(who, h, labels));
  if (h.rows % 2 != 0)
    return {ErrorCode::shape_mismatch, text(who, ": ", h.rows, " rows are no pairs: rows 2i and 2i + 1 belong together")};
  if (h.rows < 4) return {ErrorCode::insufficient_data, text(who, ": ", h.rows / 2, " pairs: give at least 2")};
  for (std::size_t i = 0; i + 1 < labels.size(); i += 2)
    if (labels[i] == labels[i + 1])
      return {ErrorCode::invalid_argument,
              text(who, ": both rows of pair ", i / 2, " have the label ", labels[i], ": a pair is one row of each label")};
  return Ok{};
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::steer

#include <anybit/core/macros_end.hpp>
