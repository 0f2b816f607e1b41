#pragma once
// Stats as bytes, so that calibration can be resumed or shared. Include calibrate/stats.hpp instead.

#include <array>
#include <cstdint>
#include <cstring>

#include <anybit/calibrate/stats.hpp>
#include <anybit/core/checked.hpp>
#include <anybit/core/finite.hpp>

namespace anybit::calibrate {
inline namespace ANYBIT_CODE {

/// Followed by the fingerprint, then abs_max (f32), sum_abs, sum_square, the triangle, the drift (f64) and the samples (f32), as
/// far as `needs` has them.
struct StatsHeader {
  std::array<char, 8> magic{'A', 'N', 'Y', 'B', 'S', 'T', 'A', 'T'};
  std::uint32_t version = 1, needs = 0;
  std::uint64_t inputs = 0, tokens = 0, sample_cap = 0, sample_stride = 0, sample_values = 0, fingerprint_bytes = 0;
};
static_assert(sizeof(StatsHeader) == 64);

inline std::vector<std::byte> stats_to_bytes(const Stats& s) {
  StatsHeader h;
  h.needs = static_cast<std::uint32_t>(s.needs_);
  h.inputs = static_cast<std::uint64_t>(s.inputs_);
  h.tokens = static_cast<std::uint64_t>(s.tokens_);
  h.sample_cap = static_cast<std::uint64_t>(s.sample_cap_);
  h.sample_stride = static_cast<std::uint64_t>(s.sample_stride_);
  h.sample_values = s.samples_.size();
  h.fingerprint_bytes = s.fingerprint.size();
  std::vector<std::byte> out;
  const auto append = [&out](const void* data, std::size_t bytes) {
    const auto* p = static_cast<const std::byte*>(data);
    out.insert(out.end(), p, p + bytes);
  };
  append(&h, sizeof h);
  append(s.fingerprint.data(), s.fingerprint.size());
  append(s.abs_max_.data(), s.abs_max_.size() * sizeof(float));
  for (const auto* v : {&s.sum_abs_, &s.sum_square_, &s.sum_product_, &s.sum_drift_})
    append(v->data(), v->size() * sizeof(double));
  append(s.samples_.data(), s.samples_.size() * sizeof(float));
  return out;
}

inline Result<Stats> stats_from_bytes(std::span<const std::byte> bytes, std::string_view where) {
  const auto bad = [where](ErrorCode code, std::string what) {
    return in_context(Error{code, "statistics: " + std::move(what)}, where);
  };
  StatsHeader h;
  if (bytes.size() < sizeof h)
    return bad(ErrorCode::corrupt_data, "only " + std::to_string(bytes.size()) + " bytes; the file is truncated");
  std::memcpy(&h, bytes.data(), sizeof h);
  if (h.magic != StatsHeader{}.magic)
    return bad(ErrorCode::corrupt_data, "does not start with ANYBSTAT; this is not a statistics file");
  if (h.version != 1) return bad(ErrorCode::unsupported, "version " + std::to_string(h.version) + "; this build reads version 1");
  if (h.needs > 63) return bad(ErrorCode::corrupt_data, "unknown statistics in the set " + std::to_string(h.needs));
  const auto needs = static_cast<Needs>(h.needs);
  const auto take = [needs](Needs which, CheckedSize size) { return covers(needs, which) ? size : CheckedSize(0); };
  const CheckedSize n = h.inputs;
  const CheckedSize total = CheckedSize(sizeof h) + h.fingerprint_bytes + take(Needs::abs_max, n * 4) +
                            take(Needs::mean_abs, n * 8) + take(Needs::mean_square, n * 8) +
                            take(Needs::hessian, n * (n + 1) * 4) + take(Needs::input_drift, n * n * 8) +
                            CheckedSize(h.sample_values) * 4;
  if (!total.get() || static_cast<std::uint64_t>(*total.get()) != bytes.size())
    return bad(ErrorCode::corrupt_data, "has " + std::to_string(bytes.size()) + " bytes, but its header of " +
                                            std::to_string(h.inputs) +
                                            " inputs speaks of another size; the file is truncated or damaged");
  constexpr std::uint64_t most = std::uint64_t{1} << 62;
  if (h.tokens > most || h.sample_cap < 1 || h.sample_cap > most || h.sample_stride < 1 || h.sample_stride > most ||
      (h.inputs == 0 ? h.sample_values != 0 : h.sample_values % h.inputs != 0) ||
      (h.sample_values != 0 && !covers(needs, Needs::samples)))
    return bad(ErrorCode::corrupt_data, "counts of tokens or samples contradict each other");
  if (h.inputs > bytes.size() && needs != Needs::none && needs != Needs::samples)
    return bad(ErrorCode::corrupt_data, std::to_string(h.inputs) + " inputs in " + std::to_string(bytes.size()) + " bytes");
  if (h.inputs > most) return bad(ErrorCode::corrupt_data, std::to_string(h.inputs) + " inputs");

  Stats s(static_cast<Index>(h.inputs), needs, static_cast<Index>(h.sample_cap));
  s.tokens_ = static_cast<Index>(h.tokens);
  s.sample_stride_ = static_cast<Index>(h.sample_stride);
  s.samples_.resize(h.sample_values);
  s.fingerprint.resize(h.fingerprint_bytes);
  const std::byte* at = bytes.data() + sizeof h;
  const auto read = [&at](void* out, std::size_t size) {
    if (size > 0) std::memcpy(out, at, size);
    at += size;
  };
  read(s.fingerprint.data(), s.fingerprint.size());
  read(s.abs_max_.data(), s.abs_max_.size() * sizeof(float));
  for (auto* v : {&s.sum_abs_, &s.sum_square_, &s.sum_product_, &s.sum_drift_}) read(v->data(), v->size() * sizeof(double));
  read(s.samples_.data(), s.samples_.size() * sizeof(float));

  const auto in_range = [](const auto& v) { return is_finite(v) && v >= 0; };
  bool sane = true;
  for (const float& v : s.abs_max_) sane = sane && in_range(v);
  for (const float& v : s.samples_) sane = sane && is_finite(v);
  for (const auto* sums : {&s.sum_abs_, &s.sum_square_})
    for (const double& v : *sums) sane = sane && in_range(v);
  for (const auto* sums : {&s.sum_product_, &s.sum_drift_})
    for (const double& v : *sums) sane = sane && is_finite(v);
  if (!sane) return bad(ErrorCode::not_finite, "holds a NaN, an infinity or a negative magnitude; the file is damaged");
  return s;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::calibrate
