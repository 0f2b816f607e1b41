#pragma once
// `anybit convert --to gguf`: a model, or another GGUF file, in one of llama.cpp's mixes, or with the types that serve it best at
// a size.

#include <map>
#include <string>
#include <utility>
#include <vector>

#include <anybit/core/result.hpp>
#include <anybit/core/types.hpp>
#include <anybit/io/ggml_encoders.hpp>
#include <anybit/io/gguf_mix.hpp>

namespace tool {

/// A size to choose types for.
struct GgufTarget {
  std::string name;                          ///< as it was asked for
  double bits = 0;                           ///< > 0: so many bits a weight of all matrices
  std::size_t bytes = 0;                     ///< else > 0: a file of at most so many bytes
  const anybit::io::GgufMix* mix = nullptr;  ///< else: one no larger than in this mix
};

struct GgufRequest {
  std::string in, out;
  const anybit::io::GgufMix* mix = nullptr;  ///< with targets: one for the matrices whose type is not chosen
  std::vector<GgufTarget> targets;           ///< all of bits or all of files; several: `out` is a folder of files NAME.gguf
  anybit::Index context = 0;                 ///< > 0: the model is for texts of so many tokens at most
  anybit::Index threads = 0;
  std::string calibrate;  ///< a text: tensors are rounded for the error of their outputs; empty: to the nearest
  anybit::Index calibration_tokens = 8192;
  std::string importance;  ///< an importance matrix to weigh errors by, in place of a text
  std::string imatrix;     ///< where the importance matrix of the text is to be written; empty: nowhere
  bool strict = false;     ///< a tensor whose rows the type of the mix does not divide is an error

  /// Of target `i`, or without targets of 0.
  std::string path(std::size_t i) const { return targets.size() > 1 ? out + "/" + targets[i].name + ".gguf" : out; }
};

struct GgufOutcome {
  std::map<std::string, std::size_t> types;                                ///< tensors by type
  std::map<std::pair<std::string, std::string>, std::size_t> substituted;  ///< by the type of the mix and the one taken
  std::size_t exact = 0, rounded = 0;                                      ///< matrices
  std::size_t calibrated = 0;       ///< of the rounded ones, those that the text was asked about
  std::size_t rounded_twice = 0;    ///< of those, the ones that were quantized before
  anybit::io::RoundingError error;  ///< over `values`
  anybit::Index values = 0;
  std::string worst;  ///< tensor of the largest error
  std::vector<std::string> remarks;
  std::size_t bytes = 0;  ///< of the file
};

/// One file, or one a target, each whole or not at all.
anybit::Result<std::vector<GgufOutcome>> convert_to_gguf(const GgufRequest& request);

}  // namespace tool
