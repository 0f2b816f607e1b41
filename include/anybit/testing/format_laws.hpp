#pragma once
// The laws of a number format. check_format_laws<F>() checks all of them; a format that breaks one on purpose (truncation) is
// checked law by law, `check_monotone(facts_of<F>())`.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>

#include <anybit/core/finite.hpp>
#include <anybit/format/format.hpp>
#include <anybit/testing/violation.hpp>

namespace anybit::testing {
inline namespace ANYBIT_CODE {

/// A format as values, so that the laws are compiled once and not for every format.
struct FormatFacts {
  std::string_view name;
  int bits = 0, code_count = 0;
  bool has_zero_point = false;
  Code (*encode)(float) = nullptr;
  float (*decode)(Code) = nullptr;
  Code (*encode_around)(float, float) = nullptr;  ///< formats with a zero point
  std::int32_t (*to_int)(Code) = nullptr;         ///< uniform formats
  float step = 0;
  Affine (*fit)(std::span<const float>) = nullptr;
  float (*there_and_back)(float, Affine) = nullptr;  ///< dequantize_value(quantize_value(w))
  std::vector<float> levels;                         ///< finite levels that encode() may choose, ascending; around zero point 0
};

template <Format F>
FormatFacts facts_of() {
  FormatFacts f;
  f.name = F::name;
  f.bits = F::bits;
  f.code_count = code_count_v<F>;
  f.has_zero_point = has_zero_point_v<F>;
  f.encode = [](float x) { return F::encode(x); };
  f.decode = [](Code c) { return F::decode(c); };
  if constexpr (has_zero_point_v<F>) f.encode_around = [](float x, float zero) { return F::encode_around(x, zero); };
  if constexpr (UniformFormat<F>) {
    f.to_int = [](Code c) { return F::to_int(c); };
    f.step = F::step;
  }
  f.fit = [](std::span<const float> g) { return F::fit(g); };
  f.there_and_back = [](float w, Affine a) { return dequantize_value<F>(quantize_value<F>(w, a), a); };
  for (int c = 0; c < f.code_count; ++c)
    if (const float v = f.decode(static_cast<Code>(c)); is_finite(v)) f.levels.push_back(v);
  std::sort(f.levels.begin(), f.levels.end());
  return f;
}

/// Values at which rounding can go wrong: levels, the middles between them and their neighbours in float, beyond both ends,
/// and values of every magnitude. Ascending. Of more than 8192 levels every 13th is taken.
inline std::vector<float> probes(const FormatFacts& f) {
  const std::vector<float>& levels = f.levels;
  std::vector<float> x{0.0f, -0.0f, std::numeric_limits<float>::denorm_min(), -std::numeric_limits<float>::denorm_min()};
  const auto add = [&x](float v) {
    const float infinity = std::numeric_limits<float>::infinity();
    for (const float probe : {v, std::nextafter(v, -infinity), std::nextafter(v, infinity)}) x.push_back(probe);
  };
  for (std::size_t i = 0; i < levels.size(); i += levels.size() > 8192 ? 13u : 1u) {
    add(levels[i]);
    if (i > 0) add(levels[i - 1] / 2 + levels[i] / 2);
  }
  add(levels.back());
  Numbers numbers(1);
  const double low = static_cast<double>(levels.front()), high = static_cast<double>(levels.back()),
               huge = static_cast<double>(std::numeric_limits<float>::max());
  for (int i = 0; i < 4000; ++i)
    x.push_back(
        static_cast<float>(std::clamp(low + (high - low) * static_cast<double>(numbers.uniform(-0.125f, 1.125f)), -huge, huge)));
  for (int e = -140; e < 127; ++e) {
    const float v = std::ldexp(numbers.uniform(1, 2), e);
    x.push_back(v);
    x.push_back(-v);
  }
  std::sort(x.begin(), x.end());
  return x;
}

/// The name can stand in a file, and encode, decode and fit work in constant expressions.
template <Format F>
Violation check_name_and_constexpr() {
  [[maybe_unused]] constexpr float level = F::decode(F::encode(0.0f));
  [[maybe_unused]] constexpr Affine affine = F::fit(std::span<const float>{});
  const std::string_view name = F::name;
  if (name.empty()) return "the name is empty";
  for (const char c : name)
    if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.' || c == '+'))
      return "the name '" + std::string(name) + "' has the character '" + c + "': use lower case letters, digits and _-.+";
  return {};
}

/// Codes stay below code_count; finite levels exist; levels are step * to_int where the format says so.
inline Violation check_codes(const FormatFacts& f) {
  for (const float x : probes(f))
    if (const Code c = f.encode(x); c >= f.code_count)
      return "encode(" + shown(x) + ") = " + shown(c) + ", but codes end below " + shown(f.code_count);
  if (f.to_int) {
    for (int c = 0; c < (1 << f.bits); ++c) {
      const float level = f.decode(static_cast<Code>(c)), product = static_cast<float>(f.to_int(static_cast<Code>(c))) * f.step;
      if (level != product)
        return "code " + shown(c) + " decodes to " + shown(level) + ", but step * to_int is " + shown(product);
    }
  }
  return {};
}

/// Every finite level is encoded as itself (or as another code of the same level).
inline Violation check_levels_are_fixed(const FormatFacts& f) {
  for (int c = 0; c < (1 << f.bits); ++c) {
    const float level = f.decode(static_cast<Code>(c));
    if (!is_finite(level)) continue;
    const float again = f.decode(f.encode(level));
    if (again != level)
      return "code " + shown(c) + " has level " + shown(level) + ", which encodes and decodes to " + shown(again);
  }
  return {};
}

/// A larger value never gets a smaller level.
inline Violation check_monotone(const FormatFacts& f) {
  float before = -std::numeric_limits<float>::infinity(), x_before = before;
  for (const float x : probes(f)) {
    const float level = f.decode(f.encode(x));
    if (!(level >= before))
      return shown(x_before) + " is encoded as " + shown(before) + ", but the larger " + shown(x) + " as " + shown(level);
    before = level;
    x_before = x;
  }
  return {};
}

/// No level is nearer than the chosen one. Ties are free. Encoders compute in float, so a tie is told to 2^-16 of the distance
/// between the two levels, or to 2^-23 of the levels if that is more.
inline Violation check_nearest(const FormatFacts& f) {
  const std::vector<float>& levels = f.levels;
  const auto distance = [](float a, float b) { return std::abs(static_cast<double>(a) - static_cast<double>(b)); };
  for (const float x : probes(f)) {
    const float chosen = f.decode(f.encode(x));
    const auto above = std::lower_bound(levels.begin(), levels.end(), x);
    float best = above == levels.end() ? levels.back() : *above;
    if (above != levels.begin() && distance(*(above - 1), x) < distance(best, x)) best = *(above - 1);
    const double slack = std::max(0x1p-16 * distance(chosen, best),
                                  0x1p-23 * std::max(std::abs(static_cast<double>(chosen)), std::abs(static_cast<double>(best))));
    if (!(distance(chosen, x) <= distance(best, x) + slack))
      return shown(x) + " is encoded as level " + shown(chosen) + ", but " + shown(best) + " is nearer";
  }
  return {};
}

/// Values beyond the range, infinities included, get the outermost finite levels.
inline Violation check_saturation(const FormatFacts& f) {
  const std::vector<float>& levels = f.levels;
  const float infinity = std::numeric_limits<float>::infinity(), huge = std::numeric_limits<float>::max();
  for (const float x : {huge, infinity})
    for (const float sign : {1.0f, -1.0f}) {
      const float level = f.decode(f.encode(sign * x)), end = sign > 0 ? levels.back() : levels.front();
      if (level != end) return shown(sign * x) + " is encoded as level " + shown(level) + ", not as the outermost " + shown(end);
    }
  return {};
}

/// NaN and -0 are encoded as the level of 0.
inline Violation check_nan_and_negative_zero(const FormatFacts& f) {
  const float zero = f.decode(f.encode(0.0f)), nan = std::numeric_limits<float>::quiet_NaN();
  for (const float x : {nan, -nan, -0.0f})
    if (const float level = f.decode(f.encode(x)); level != zero)
      return shown(x) + " is encoded as level " + shown(level) + ", but 0 as " + shown(zero);
  return {};
}

/// encode_around(x, zero) is the level nearest to x + zero, saturating, and zero points are whole and in range.
inline Violation check_zero_point(const FormatFacts& f) {
  if (f.has_zero_point) {
    const std::vector<float>& levels = f.levels;
    Numbers numbers(2);
    const int tries = levels.size() > 4096 ? 100 : 2000;
    for (int i = 0; i < tries; ++i) {
      const float zero = static_cast<float>(numbers.below(std::size_t{1} << f.bits));
      const float x =
          i == 0 ? std::numeric_limits<float>::quiet_NaN() : numbers.uniform(levels.front() - zero - 2, levels.back() - zero + 2);
      const float chosen = f.decode(f.encode_around(x, zero)) - zero, target = i == 0 ? 0.0f : x;
      for (const float level : levels)
        if (std::abs(level - zero - target) < std::abs(chosen - target))
          return shown(x) + " around zero point " + shown(zero) + " is encoded as " + shown(chosen) + ", but " +
                 shown(level - zero) + " is nearer";
    }
  }
  return {};
}

/// The affine that fit() gives can be stored, quantizes without NaN, and gives back zeros for zeros.
inline Violation check_fit(const FormatFacts& f) {
  Numbers numbers(3);
  const float huge = std::numeric_limits<float>::max(), tiny = std::numeric_limits<float>::denorm_min();
  std::vector<std::vector<float>> groups{{},     {0},     {0, 0, -0.0f}, {1},    {-1},        {huge, -huge},
                                         {huge}, {-huge}, {tiny, -tiny}, {tiny}, {0, 1e-30f}, {0.5f, 0.5f, 0.5f}};
  for (const std::size_t n : {2u, 31u, 128u, 129u})
    for (const float shift : {0.0f, 0.3f, -5.0f}) {
      std::vector<float> g(n);
      for (float& v : g) v = numbers.normal() * 0.02f + shift;
      groups.push_back(std::move(g));
    }
  for (const auto& g : groups) {
    const Affine a = f.fit(g);
    const std::string group =
        "a group of " + shown(static_cast<double>(g.size())) + " weights" + (g.empty() ? "" : ", the first " + shown(g[0]) + ",");
    if (!is_finite(a.scale) || a.scale < 0) return group + " gets the scale " + shown(a.scale);
    if (f.has_zero_point ? !(a.zero >= 0 && a.zero < static_cast<float>(1 << f.bits) && a.zero == std::floor(a.zero))
                         : a.zero != 0)
      return group + " gets the zero point " + shown(a.zero);
    const bool all_zero = std::all_of(g.begin(), g.end(), [](float v) { return v == 0; });
    for (const float w : g) {
      const float back = f.there_and_back(w, a);
      if (is_nan(back)) return group + " turns weight " + shown(w) + " into NaN";
      if (all_zero && back != 0) return "a group of zeros comes back as " + shown(back);
    }
    if (f.has_zero_point && f.there_and_back(0, a) != 0) return group + " cannot represent 0";
  }
  return {};
}

/// All of the above.
inline Violation check_all(const FormatFacts& f) {
  for (const auto law : {check_codes, check_levels_are_fixed, check_monotone, check_nearest, check_saturation,
                         check_nan_and_negative_zero, check_zero_point, check_fit})
    if (Violation v = law(f); !v.empty()) return v;
  return {};
}
template <Format F>
Violation check_format_laws() {
  Violation v = check_name_and_constexpr<F>();
  if (v.empty()) v = check_all(facts_of<F>());
  return v.empty() ? v : std::string(std::string_view(F::name)) + ": " + v;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::testing

#include <anybit/core/macros_end.hpp>
