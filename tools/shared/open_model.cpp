#include "open_model.hpp"

#include <algorithm>
#include <thread>

#include "printable.hpp"
#include "recipes/catalog.hpp"

namespace tool {

using namespace anybit;

Result<model::Model> open_model(const std::string& path, const std::string& tokenizer) {
  ANYBIT_TRY(model::Model m, model::load_model(path, {.tokenizer = tokenizer, .schemes = catalog().registry()}));
  m.name = utf8(m.name);
  return m;
}

Result<model::Decoder> open_decoder(const std::string& path) {
  return model::load_decoder(path, {.schemes = catalog().registry()});
}

Index thread_count(Index asked) {
  return asked > 0 ? asked : std::max<Index>(1, static_cast<Index>(std::thread::hardware_concurrency()));
}

void round_activations(model::Decoder& d) {
  model::for_each_linear(d, [](const std::string&, nn::Linear& l) {
    if (l.packed() && !rounds_to_int8(l.compute())) l = l.with_weights(nn::Linear(*l.packed(), Compute::int8_per_token));
  });
}

}  // namespace tool
