#pragma once
// Examples to learn from: token ids as JSON, a text cut into pieces of one length, conversations as JSON lines.

#include <string>
#include <vector>

#include <anybit/core/result.hpp>
#include <anybit/model/model.hpp>
#include <anybit/train/instructions.hpp>

namespace tool {

/// Examples that own their ids.
struct Examples {
  std::vector<anybit::train::MaskedExample> all;
  std::vector<std::string> remarks;  ///< what of the file is not among them: one line each

  /// Good while this lives unchanged.
  std::vector<anybit::train::Example> views() const;
};

/// A list of lists of ids; all count.
anybit::Result<Examples> read_id_lists(const std::string& path);

/// Pieces of `context` tokens; all count.
anybit::Result<Examples> read_plain_text(const std::string& path, const anybit::model::Model& m, anybit::Index context);

/// Conversations as shared/conversations.hpp reads them, of which the assistant's tokens count. Those without an assistant's
/// token in `context` are left out with a remark; an error where that are all.
anybit::Result<Examples> learn_conversations(const std::string& path, const anybit::model::Model& m,
                                             const anybit::model::ChatTemplate& chat, anybit::Index context);

}  // namespace tool
