#pragma once
// The state of a training run on disk, one safetensors file: the trained values, the optimizer's state, the losses so far, and
// facts that tell this run from any other. A run that goes on from it gives the same bytes as one that was never interrupted.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <anybit/io/safetensors_writer.hpp>
#include <anybit/train/optimizer.hpp>

namespace anybit::train {
inline namespace ANYBIT_CODE {

/// One step, as on_step is told it.
struct TrainStep {
  Index step = 0, steps = 0;  ///< from 0; of the whole run
  double loss = 0;            ///< mean over the predictions of the batch, before the step
  double gradient_norm = 0;   ///< before clipping
  double rate = 0;
  bool resumed = false;  ///< taken before this run, which went on from a checkpoint
};

/// Where a run keeps its checkpoints: one file, replaced as a whole each time.
struct Checkpoints {
  std::string path{};   ///< empty: none
  Index every = 0;      ///< steps; 0: only behind the last step of the run
  bool resume = false;  ///< goes on from the file; where there is none, the run starts from the beginning
  /// Writes the file; empty: io::write_safetensors.
  std::function<Status(const std::string& path, std::span<const io::TensorInfo>, const std::map<std::string, std::string>&)>
      write{};
};

/// What a run is, by name: "model", "examples", "batch size", .. A checkpoint belongs to a run that has all of them alike.
using RunFacts = std::map<std::string, std::string>;

namespace detail {

inline constexpr std::string_view checkpoint_format = "anybit training run 1", fact_prefix = "run.", value_prefix = "value/";

template <class Optimizer>
Status save_checkpoint(const Checkpoints& where, const RunFacts& facts, std::span<const TrainStep> steps,
                       std::span<const Parameter> stepped, Optimizer& optimizer) {
  std::vector<double> log;
  for (const TrainStep& s : steps) log.insert(log.end(), {s.loss, s.gradient_norm, s.rate});
  std::vector<io::TensorInfo> tensors{
      io::tensor_of<double>("steps", {static_cast<Index>(steps.size()), 3}, std::span<const double>(log))};
  for (const Parameter& p : stepped)
    tensors.push_back(io::tensor_of<float>(std::string(value_prefix) + p.name, {static_cast<Index>(p.values.size())}, p.values));
  for (const StateSpan& s : optimizer.state()) tensors.push_back({s.name, "U8", {static_cast<Index>(s.bytes.size())}, s.bytes});
  std::map<std::string, std::string> metadata{{"format", std::string(checkpoint_format)}};
  for (const auto& [name, value] : facts) metadata.emplace(std::string(fact_prefix) + name, value);
  return where.write ? where.write(where.path, tensors, metadata) : io::write_safetensors(where.path, tensors, metadata);
}

/// The first fact that differs, of the file or of this run.
inline Status check_facts(const std::string& path, const std::map<std::string, std::string>& metadata, const RunFacts& facts) {
  using io::detail::text, io::detail::shown;
  for (const auto& [name, value] : facts) {
    const auto found = metadata.find(std::string(fact_prefix) + name);
    if (found != metadata.end() && found->second == value) continue;
    return {ErrorCode::invalid_argument,
            text(path, ": is a checkpoint of another run: its ", name, " is ",
                 found == metadata.end() ? std::string("not given") : shown(found->second), ", here it is ", shown(value),
                 ": go on with the model, examples and options of that run, or name another file")};
  }
  return Ok{};
}

/// The steps so far; stepped values and the optimizer's state are those behind the last of them.
template <class Optimizer>
Result<std::vector<TrainStep>> load_checkpoint(const std::string& path, const RunFacts& facts, std::span<const Parameter> stepped,
                                               Optimizer& optimizer) {
  using io::detail::text, io::detail::shown;
  ANYBIT_TRY(const io::SafetensorsFile file, io::SafetensorsFile::open(path));
  const auto format = file.metadata().find("format");
  if (format == file.metadata().end() || format->second != checkpoint_format)
    return {ErrorCode::invalid_argument, path + ": is no checkpoint of a training run: name one, or another file"};
  ANYBIT_TRY_STATUS(check_facts(path, file.metadata(), facts));
  // All is checked before the first value changes.
  std::vector<std::pair<std::span<std::byte>, std::span<const std::byte>>> copies;
  const auto need = [&](const std::string& name, std::string_view dtype, std::span<std::byte> to) -> Status {
    const io::TensorInfo* const t = file.find(name);
    if (!t)
      return {ErrorCode::corrupt_data, text(path, ": has no tensor ", shown(name), ", which this run needs: name another file")};
    if (t->dtype != dtype || t->bytes.size() != to.size())
      return {ErrorCode::corrupt_data, text(path, ": tensor ", shown(name), " holds ", t->bytes.size(), " bytes of ", t->dtype,
                                            ", this run's ", to.size(), " of ", dtype, ": name another file")};
    copies.emplace_back(to, t->bytes);
    return Ok{};
  };
  for (const Parameter& p : stepped)
    ANYBIT_TRY_STATUS(need(std::string(value_prefix) + p.name, "F32", std::as_writable_bytes(p.values)));
  for (const StateSpan& s : optimizer.state()) ANYBIT_TRY_STATUS(need(s.name, "U8", s.bytes));
  ANYBIT_TRY(const std::vector<double> log, file.template read<double>("steps"));
  if (log.size() % 3 != 0)
    return {ErrorCode::corrupt_data, path + ": tensor steps has no three numbers per step: name another file"};
  for (const auto& [to, from] : copies)
    if (!to.empty()) std::memcpy(to.data(), from.data(), to.size());
  std::vector<TrainStep> steps;
  for (std::size_t i = 0; i < log.size(); i += 3)
    steps.push_back({static_cast<Index>(i / 3), 0, log[i], log[i + 1], log[i + 2], true});
  optimizer.set_steps(static_cast<Index>(steps.size()));
  return steps;
}

}  // namespace detail

}  // namespace ANYBIT_CODE
}  // namespace anybit::train

#include <anybit/core/macros_end.hpp>
