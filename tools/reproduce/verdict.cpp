#include "verdict.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace reproduce {

using anybit::evaluate::Estimate;

namespace {

/// Whether x exceeds the limit.
Outcome exceeds(Estimate x, double limit) {
  if (x.value - limit > 2 * x.plus_minus) return Outcome::holds;
  if (limit - x.value > 2 * x.plus_minus) return Outcome::does_not_hold;
  return Outcome::too_close;
}

std::string figures(const std::string& a, const std::string& b, const Results& results) {
  const Estimate e = log_ratio(results.at(a), results.at(b));
  char text[240];
  std::snprintf(text, sizeof text, "%s %.3f, %s %.3f: ratio %.4f, %.4f to %.4f", a.c_str(), results.at(a).perplexity, b.c_str(),
                results.at(b).perplexity, std::exp(e.value), std::exp(e.value - 2 * e.plus_minus),
                std::exp(e.value + 2 * e.plus_minus));
  return text;
}

std::string least(const std::vector<std::string>& names, const Results& results) {
  return *std::min_element(names.begin(), names.end(), [&](const std::string& a, const std::string& b) {
    return results.at(a).perplexity < results.at(b).perplexity;
  });
}

}  // namespace

const char* name(Outcome o) {
  return o == Outcome::holds ? "holds" : o == Outcome::too_close ? "too close to tell" : "does not hold";
}

Estimate log_ratio(const Measured& a, const Measured& b) {
  std::vector<double> difference(a.nll.size());
  for (std::size_t i = 0; i < difference.size(); ++i) difference[i] = b.nll[i] - a.nll[i];
  return anybit::evaluate::estimate(difference);
}

Verdict judge(const Statement& s, const Results& results) {
  if (!s.lower.empty())
    return {exceeds(log_ratio(results.at(s.lower), results.at(s.than)), std::log(s.by)), figures(s.lower, s.than, results)};
  if (!s.equal.empty()) {
    Estimate e = log_ratio(results.at(s.equal), results.at(s.to));
    e.value = -std::abs(e.value);
    return {exceeds(e, -std::log(1 + s.within)), figures(s.equal, s.to, results)};
  }
  std::vector<std::string> others;
  for (const std::string& name : s.among)
    if (std::find(s.best.begin(), s.best.end(), name) == s.best.end()) others.push_back(name);
  const std::string best = least(s.best, results);
  if (others.empty()) return {Outcome::holds, best};
  const std::string other = least(others, results);
  return {exceeds(log_ratio(results.at(best), results.at(other)), 0), figures(best, other, results)};
}

}  // namespace reproduce
