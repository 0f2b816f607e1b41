#pragma once
// The next token from logits.

#include <cstdint>
#include <random>
#include <span>
#include <string>
#include <vector>

#include <anybit/core/result.hpp>
#include <anybit/core/types.hpp>

namespace tool {

struct SamplerOptions {
  double temperature = 0;   ///< 0: always the most likely token
  anybit::Index top_k = 0;  ///< only the k most likely; 0: all
  double top_p = 1;         ///< of those only the most likely whose probabilities reach p together
  std::uint64_t seed = 0;
};

/// An error names the option that is out of range.
anybit::Status check(const SamplerOptions& o);

/// The same tokens for the same seed on every machine that computes the same logits.
class Sampler {
 public:
  explicit Sampler(const SamplerOptions& options) : options_(options), random_(options.seed) {}

  /// Of equally likely tokens the first. Logits hold no NaN.
  anybit::Index next(std::span<const float> logits);

 private:
  struct Candidate {
    float logit;
    anybit::Index token;
  };
  SamplerOptions options_;
  std::mt19937_64 random_;
  std::vector<Candidate> candidates_;
};

/// Bytes that arrive token by token, given out in whole characters.
class Utf8Stream {
 public:
  /// The text that can be shown now that `bytes` have come; bytes that cannot become a character are given out as U+FFFD.
  std::string feed(std::string_view bytes);
  /// The rest, when no more bytes will come.
  std::string finish();

 private:
  std::string waiting_;
};

}  // namespace tool
