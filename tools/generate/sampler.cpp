#include "sampler.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include <anybit/model/tokenizer/unicode.hpp>

#include "shared/printable.hpp"

namespace tool {

using namespace anybit;

Status check(const SamplerOptions& o) {
  const auto wrong = [](const std::string& message) { return Error{ErrorCode::invalid_argument, message}; };
  if (!(o.temperature >= 0 && o.temperature <= 100))
    return wrong("--temperature is " + std::to_string(o.temperature) + "; it must be 0 to 100");
  if (o.top_k < 0) return wrong("--top-k is " + std::to_string(o.top_k) + "; it must be 1 or more, or 0 for all");
  if (!(o.top_p > 0 && o.top_p <= 1)) return wrong("--top-p is " + std::to_string(o.top_p) + "; it must be above 0, at most 1");
  return Ok{};
}

Index Sampler::next(std::span<const float> logits) {
  if (options_.temperature == 0) return static_cast<Index>(std::max_element(logits.begin(), logits.end()) - logits.begin());
  candidates_.clear();
  for (std::size_t i = 0; i < logits.size(); ++i) candidates_.push_back({logits[i], static_cast<Index>(i)});
  const auto likelier = [](const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
  };
  auto end = candidates_.end();
  if (options_.top_k > 0 && options_.top_k < static_cast<Index>(candidates_.size())) end = candidates_.begin() + options_.top_k;
  std::partial_sort(candidates_.begin(), end, candidates_.end(), likelier);
  candidates_.erase(end, candidates_.end());

  std::vector<double> weight;
  double sum = 0;
  for (const Candidate& c : candidates_) {
    weight.push_back(std::exp((double{c.logit} - double{candidates_[0].logit}) / options_.temperature));
    sum += weight.back();
  }
  double kept = 0;
  std::size_t count = 0;
  while (count < weight.size() && (count == 0 || kept < options_.top_p * sum)) kept += weight[count++];
  // 53 bits, not a distribution of the standard library, whose results differ between libraries.
  double left = static_cast<double>(random_() >> 11) * 0x1p-53 * kept;
  for (std::size_t i = 0; i + 1 < count; ++i) {
    left -= weight[i];
    if (left < 0) return candidates_[i].token;
  }
  return candidates_[count - 1].token;
}

std::string Utf8Stream::feed(std::string_view bytes) {
  waiting_ += bytes;
  std::string_view rest = waiting_;
  while (!rest.empty()) {
    const auto c = model::decode_utf8(rest);
    // A sequence that is cut may still be finished: at most three bytes, a lead and continuations.
    const bool cut =
        !c.valid && rest.size() < 4 && static_cast<unsigned char>(rest[0]) >= 0xC2 &&
        static_cast<unsigned char>(rest[0]) < 0xF5 &&
        rest.size() < (static_cast<unsigned char>(rest[0]) < 0xE0   ? 2u
                       : static_cast<unsigned char>(rest[0]) < 0xF0 ? 3u
                                                                    : 4u) &&
        std::all_of(rest.begin() + 1, rest.end(), [](char x) { return (static_cast<unsigned char>(x) & 0xC0) == 0x80; });
    if (cut) break;
    rest.remove_prefix(c.bytes);
  }
  const std::string out = utf8(std::string_view(waiting_).substr(0, waiting_.size() - rest.size()));
  waiting_.erase(0, waiting_.size() - rest.size());
  return out;
}

std::string Utf8Stream::finish() { return utf8(std::exchange(waiting_, {})); }

}  // namespace tool
