#pragma once
// How errors in the tensors of a GGUF file are weighed: by Hessians of a text, block by block, or by an importance matrix.

#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <anybit/algorithm/feedback/factor.hpp>
#include <anybit/core/result.hpp>
#include <anybit/exec/thread_pool.hpp>
#include <anybit/io/imatrix.hpp>
#include <anybit/model/model.hpp>
#include <anybit/model/to_gguf.hpp>
#include <anybit/quantize/model_stats.hpp>

#include "shared/progress.hpp"

namespace tool {

/// A ggml type by the name of the tensor.
using TensorTypes = std::map<std::string, std::string, std::less<>>;
/// Blocks by the name of the tensor.
using TensorBytes = std::map<std::string, std::vector<std::byte>, std::less<>>;

/// Shares of the progress: of running the text, of type_costs() in three parts, of rounding.
struct CalibrationWork {
  static constexpr double text = 1, errors = 4, outside = 4, worth = 8, rounding = 4;
  std::size_t targets = 0;  ///< that types are chosen for
  double all() const {
    return targets == 0 ? text + rounding : text + errors + outside + worth + rounding * static_cast<double>(targets);
  }
};

/// How errors in the rows of a matrix are weighed.
struct OutputError {
  anybit::gptq::Factor factor;
  anybit::Matrix hessian{};  ///< that `factor` is of, with its damping; empty where only costs of columns are known
};

/// Of the Hessian in `stats`, columns in their order; nothing where it has no factor.
std::optional<OutputError> output_error(const anybit::Stats& stats);

/// Without feedback, for of an importance matrix only the costs of the columns are known. Nothing where it does not know the
/// tensor; an error where it has other columns.
anybit::Result<std::optional<OutputError>> output_error(const anybit::io::Imatrix& importance, const std::string& tensor,
                                                        anybit::Index columns);

/// A model and the text that it is run on.
class GgufCalibration {
 public:
  /// A matrix of the file, and what it is in the model.
  struct Matrix {
    anybit::model::GgufTensor tensor;
    std::optional<anybit::model::SiteId> site;  ///< of linears of the blocks: whose Hessian it is weighed by
    std::vector<std::size_t> linears{};         ///< likewise: their places in Blueprint::linears
    bool embedding = false, head = false;       ///< both where the embedding is the head
  };

  /// Opens the model at `model` and at most `tokens` tokens of the text file, in windows of 512, and runs it once.
  static anybit::Result<GgufCalibration> make(const std::string& model, const std::string& text, anybit::Index tokens,
                                              CalibrationWork work, anybit::ThreadPool& pool, Progress& progress);

  /// Means of squares of what entered the linears of the float model, as llama.cpp's tools read them.
  anybit::io::Imatrix importance() const;

  /// Rounds tensors to types, has_ggml_gptq() of all of them: those of a block for the error of their outputs on what the rounded
  /// blocks before them give, a head for that of its own. Left out are tensors that the type holds exactly, those that anybit's
  /// model does not have, and an embedding with a separate head, which is rounded to the nearest. The same bytes for any number
  /// of threads.
  anybit::Result<TensorBytes> round(const TensorTypes& types, anybit::ThreadPool& pool, Progress& progress) const;

  const CalibrationWork& work() const { return work_; }
  const anybit::model::Decoder& decoder() const { return model_->decoder; }
  const std::vector<anybit::model::TokenId>& ids() const { return ids_; }
  const std::vector<Matrix>& matrices() const { return matrices_; }
  const Matrix* find(const std::string& tensor) const;
  /// Of what enters the head of the float model.
  const anybit::Stats& head() const { return *seen_.head(); }

  /// Calls f(block, statistics of what enters the linears of the block) for the blocks in turn. `d` is the model as it runs: f
  /// may change the weights of the block before the text goes through it.
  anybit::Status for_blocks(anybit::model::Decoder& d, anybit::ThreadPool& pool,
                            const std::function<anybit::Status(anybit::Index, const anybit::model::ModelStats&)>& f) const;

 private:
  std::vector<std::span<const anybit::model::TokenId>> windows() const;

  CalibrationWork work_;
  std::unique_ptr<anybit::model::Model> model_;
  std::vector<Matrix> matrices_;
  std::vector<anybit::model::TokenId> ids_;
  anybit::Index window_ = 0;
  std::string text_;
  anybit::model::ModelStats seen_;  ///< of the float model
};

/// Rounds the values of a matrix to `type`, for the error of the outputs if there is one, else to the nearest; `d` gets the
/// rounded values, the caller their bytes. Nothing where the type holds them exactly.
anybit::Result<std::optional<std::vector<std::byte>>> put_rounded(anybit::model::Decoder& d, const GgufCalibration::Matrix& m,
                                                                  anybit::ConstMatrix values, const anybit::io::DType& type,
                                                                  const OutputError* weigh, anybit::ThreadPool& pool);

}  // namespace tool
