#include "open_model.hpp"

#include <algorithm>
#include <thread>

#include "convert/packed_codes.hpp"
#include "printable.hpp"
#include "recipes/catalog.hpp"

namespace tool {

using namespace anybit;

namespace {

model::LoadOptions load_options(const std::string& tokenizer) {
  return {
      .tokenizer = tokenizer, .schemes = catalog().registry(), .pack = [](const io::CheckpointLinear& l) -> Result<AnyPacked> {
        ANYBIT_TRY(PackedBytes bytes, packed_exactly(l));
        return catalog().registry().open(std::move(bytes));
      }};
}

}  // namespace

Result<model::Model> open_model(const std::string& path, const std::string& tokenizer, Runs runs) {
  ANYBIT_TRY(model::Model m, model::load_model(path, load_options(tokenizer)));
  if (runs == Runs::decoders || m.decoder.config.encoder.empty()) ANYBIT_TRY_STATUS(model::check_is_decoder(m.decoder, path));
  m.name = utf8(m.name);
  return m;
}

Result<model::Decoder> open_decoder(const std::string& path) { return model::load_decoder(path, load_options({})); }

Index thread_count(Index asked) {
  return asked > 0 ? asked : std::max<Index>(1, static_cast<Index>(std::thread::hardware_concurrency()));
}

void round_activations(model::Decoder& d) {
  model::for_each_linear(d, [](const std::string&, nn::Linear& l) {
    if (l.packed() && !rounds_to_int8(l.compute())) l = l.with_weights(nn::Linear(*l.packed(), Compute::int8_per_token));
  });
}

}  // namespace tool
