#pragma once
// Labelled statements and questions with answers from CSV files.

#include <cstdint>
#include <string>
#include <vector>

#include <anybit/steer/stimuli.hpp>

namespace tool {

/// The columns `statement` and `label` (0 or 1) of a file with a header; fields may be quoted as in RFC 4180.
anybit::Result<anybit::steer::Stimuli> read_statements(const std::string& path);

/// At most `most` statements of each label, the first ones; all if it is 0.
anybit::steer::Stimuli first_of_each(const anybit::steer::Stimuli& all, anybit::Index most);

/// Statements of a file in pairs: the first `most` of each label, of which the share `train` fits (steer::pair_statements).
anybit::Result<anybit::steer::SplitStimuli> read_pairs(const std::string& path, anybit::Index most, double train,
                                                       std::uint64_t seed);

/// One question of TruthfulQA. Every answer ends with a full stop, as its authors score them.
struct Question {
  std::string text, best;
  std::vector<std::string> correct, incorrect;
};

/// The columns Question, Best Answer, Correct Answers and Incorrect Answers of a file with a header; answers stand apart by ";".
anybit::Result<std::vector<Question>> read_questions(const std::string& path);

}  // namespace tool
