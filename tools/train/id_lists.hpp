#pragma once
// Token ids of examples as JSON, and a loss and gradients of them.

#include <string>
#include <vector>

#include <anybit/core/result.hpp>
#include <anybit/train/loss.hpp>

namespace tool {

/// A list of lists of ids.
anybit::Result<std::vector<std::vector<anybit::model::TokenId>>> read_id_lists(const std::string& path);

/// Views of them; all tokens count.
std::vector<anybit::train::Example> examples_of(const std::vector<std::vector<anybit::model::TokenId>>& ids);

}  // namespace tool
