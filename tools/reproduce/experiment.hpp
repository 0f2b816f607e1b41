#pragma once
// One experiment of a paper: its settings, each a row of one or more tables. claims.json names them.

#include <functional>
#include <string>
#include <vector>

#include <anybit/core/result.hpp>

namespace reproduce {

class Lab;
struct Changed;

struct Setting {
  std::string name, description;
  std::function<anybit::Result<Changed>(const Lab&)> make;
};

/// The setting "float", the model as it is, belongs to every experiment and stands in none of the lists.
inline constexpr const char* float_setting = "float";

struct Experiment {
  std::string name, title;
  std::vector<Setting> settings;
};

Experiment gptq_experiment();
Experiment awq_experiment();
Experiment smoothquant_experiment();
Experiment qlora_experiment();
Experiment pruning_experiment();

inline std::vector<Experiment> experiments() {
  return {gptq_experiment(), awq_experiment(), smoothquant_experiment(), qlora_experiment(), pruning_experiment()};
}

}  // namespace reproduce
