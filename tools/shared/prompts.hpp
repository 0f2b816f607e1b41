#pragma once
// Prompts as token ids, with the sources of encoder-decoders: a JSON list of objects.

#include <string>
#include <vector>

#include <anybit/model/run.hpp>

namespace tool {

/// {"ids": [..]}, for encoder-decoders with "src": [..] or "features": [[..]] (bins by frames), for encoders with "types": [..].
struct Prompt {
  std::vector<anybit::model::TokenId> ids, types, source;
  anybit::Matrix features;  ///< (frames, bins)

  anybit::model::Source as_source() const { return {.ids = source, .features = features.view()}; }
};

anybit::Result<std::vector<Prompt>> read_prompts(const std::string& path);

}  // namespace tool
