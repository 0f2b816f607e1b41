#pragma once
// `anybit perplexity --by-turn`: conversations with the KV cache at several widths, by number of the turn.

#include <string>
#include <vector>

#include <anybit/model/load.hpp>

namespace tool {

struct ByTurnOptions {
  std::string model, text, chat_template, json;  ///< `text`: conversations in JSON lines
  std::vector<int> bits;                         ///< of the cache, one width after the other
  bool hadamard = false;                         ///< of caches below 16 bits
  anybit::Index tokens = 0;                      ///< of all conversations; 0: all
  anybit::Index window = 0;                      ///< most tokens of a conversation; 0: the model's context
  anybit::Index threads = 0;
};

/// Prints for every turn and width the mean loss and the mean KL from the same model with a cache of 16 bits. The exit code.
int perplexity_by_turn(const anybit::model::Model& m, const ByTurnOptions& o);

}  // namespace tool
