#pragma once
// The grid of the WASQ evaluation: one base model trained on pieces of several lengths of a text, for each number of bits and
// each method, and saved behind every epoch.

#include <cstdint>
#include <string>
#include <vector>

#include <anybit/core/result.hpp>
#include <anybit/exec/executor.hpp>

#include "train/wasq_options.hpp"

namespace tool {

struct TrainedGrid {
  std::string base, tokenizer, text, teacher;  ///< base empty: nothing is trained
  std::string folder;
  std::vector<anybit::Index> contexts{128, 256};
  std::vector<std::string> species{"sf4_fpm"};  ///< "sf{bits}_{method}"
  anybit::Index epochs = 3;
  anybit::Index step_tokens = 4096;  ///< the same for every context, so that all take as many steps for a text
  anybit::Index checkpoint_every = 50;
  double rate = 1e-4;
  std::uint64_t seed = 0;
};

/// Bits and method of "sf4_fpm" or "sf8_opt-published"; an error that says what is wrong with others.
anybit::Result<WasqOptions> species_of(const std::string& name);

/// sf{bits}_{context}_{epochs}_{method}.safetensors of every cell, in the order of contexts, species, epochs.
std::vector<std::string> cell_files(const TrainedGrid& grid);

/// Trains what is not there yet: a cell whose file exists is taken as it is, and a run that was cut off goes on from its
/// checkpoint. The rate is constant, so a model behind e epochs is that of a run of e epochs.
anybit::Status train_cells(const TrainedGrid& grid, anybit::ExecutorRef executor);

}  // namespace tool
