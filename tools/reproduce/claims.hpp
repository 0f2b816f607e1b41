#pragma once
// The papers' claims, from claims.json.

#include <optional>
#include <string>
#include <vector>

#include "experiment.hpp"

namespace reproduce {

struct ClaimRow {
  std::string setting;                        ///< of the experiment; of rows that are not run only a label
  std::vector<std::optional<double>> values;  ///< one a model of the table
  std::string not_run;                        ///< why not; empty: it is run
};

/// A table of a paper: the same settings for several models.
struct ClaimTable {
  std::string name, experiment, paper, table, measure;
  std::vector<std::string> models;
  std::string not_at_hand;  ///< why these models are not run here
  std::string baseline;     ///< the setting that figures are compared with, because models differ
  std::vector<ClaimRow> rows;
};

/// A sentence of a paper as a relation between perplexities of settings, in one of three forms.
struct Statement {
  std::string name, experiment, paper, text;
  std::string lower, than;  ///< perplexity of `lower` times `by` is below that of `than`
  double by = 1;
  std::string equal, to;  ///< the two differ by a share of `within` at most
  double within = 0;
  std::vector<std::string> best, among;  ///< the least perplexity `among` these is one of `best`

  std::vector<std::string> settings() const;
};

struct Claims {
  std::vector<ClaimTable> tables;
  std::vector<Statement> statements;
};

/// Every field must be there, and experiments and settings known. Errors name the entry.
anybit::Result<Claims> read_claims(const std::string& path, const std::vector<Experiment>& known);

}  // namespace reproduce
