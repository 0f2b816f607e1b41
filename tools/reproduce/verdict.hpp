#pragma once
// Whether what a paper states holds here.

#include <map>
#include <string>

#include <anybit/evaluate/statistics.hpp>

#include "claims.hpp"
#include "measured.hpp"

namespace reproduce {

/// The perplexities by setting.
using Results = std::map<std::string, Measured>;

enum class Outcome { holds, does_not_hold, too_close };
const char* name(Outcome o);

struct Verdict {
  Outcome outcome{};
  std::string figures;  ///< the perplexities and how sure their ratio is
};

/// ln of perplexity b over a: mean and standard error of the differences, prediction by prediction.
anybit::evaluate::Estimate log_ratio(const Measured& a, const Measured& b);

/// Beyond two standard errors either way, or too close to tell. All settings of the statement are in the results.
Verdict judge(const Statement& s, const Results& results);

}  // namespace reproduce
