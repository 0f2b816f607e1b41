#pragma once
// How errors in the tensors of a GGUF file are weighed: by Hessians of a text, or by an importance matrix.

#include <map>
#include <memory>
#include <optional>
#include <string>

#include <anybit/algorithm/feedback/factor.hpp>
#include <anybit/core/result.hpp>
#include <anybit/exec/thread_pool.hpp>
#include <anybit/io/imatrix.hpp>
#include <anybit/quantize/model_stats.hpp>

namespace tool {

class GgufCalibration {
 public:
  /// Runs the model at `model` on at most `tokens` tokens of the text file, in windows of 512.
  static anybit::Result<GgufCalibration> make(const std::string& model, const std::string& text, anybit::Index tokens,
                                              anybit::ThreadPool& pool);
  /// The importance matrix at `path`: factors without feedback.
  static anybit::Result<GgufCalibration> read(const std::string& path);

  /// The factor of the Hessian of a tensor's inputs, with `columns` columns in the tensor's order; null where calibration has no
  /// Hessian (embedding, head) or the Hessian no factor. It lives until the next call.
  anybit::Result<const anybit::gptq::Factor*> factor(const std::string& tensor, anybit::Index columns);
  /// The diagonals, as llama.cpp's tools read them.
  anybit::io::Imatrix importance() const;
  anybit::Index tokens() const { return tokens_; }

 private:
  anybit::Result<const anybit::gptq::Factor*> factor_of_importance(const std::string& tensor, anybit::Index columns);

  std::optional<anybit::io::Imatrix> given_;  ///< an importance matrix, used instead of the statistics below
  anybit::model::ModelStats stats_;
  std::map<std::string, anybit::model::SiteId> sites_;  ///< by the name of the tensor
  std::string text_;
  anybit::Index tokens_ = 0, windows_ = 0;
  anybit::model::SiteId at_{};
  std::unique_ptr<anybit::gptq::Factor> factor_;  ///< of the site `at_`
};

}  // namespace tool
