#pragma once
// Labelled statements from a CSV file.

#include <string>

#include <anybit/steer/stimuli.hpp>

namespace tool {

/// The columns `statement` and `label` (0 or 1) of a file with a header; fields may be quoted as in RFC 4180.
anybit::Result<anybit::steer::Stimuli> read_statements(const std::string& path);

/// At most `most` statements of each label, the first ones; all if it is 0.
anybit::steer::Stimuli first_of_each(const anybit::steer::Stimuli& all, anybit::Index most);

}  // namespace tool
