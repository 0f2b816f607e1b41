#pragma once
// The findings of a run, as text and as JSON.

#include <string>
#include <vector>

#include "verdict.hpp"

namespace reproduce {

/// The results of one experiment, and the errors of settings that failed.
struct Found {
  const Experiment* experiment = nullptr;
  Results results;
  std::map<std::string, std::string> failed;
};

struct Report {
  std::string model;  ///< its own name
  std::string model_file, evaluated, calibrated, as;
  anybit::Index predictions = 0, window = 0, calibration_tokens = 0;
  std::vector<Found> found;
  std::vector<const ClaimTable*> tables;
  std::vector<const Statement*> statements;

  const Found& of(const std::string& experiment) const;
};

/// All settings of the experiment with what was measured.
std::string measured_text(const Found& f);
/// Claim, ours and difference for one column of the table: that of the model `as`, or the first with a value. Then what was not
/// run and why.
std::string table_text(const Report& r, const ClaimTable& t);
std::string statements_text(const Report& r, const std::string& experiment);
std::string to_json(const Report& r);
/// Which tables there are, and the settings of each experiment.
std::string list_text(const Claims& claims, const std::vector<Experiment>& known);

}  // namespace reproduce
