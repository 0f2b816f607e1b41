// anybit on a whole model: linears of the blocks in one format, embedding and output head at 8 bits, activations at 8 bits.

#include <map>

#include <anybit/evaluate/model.hpp>
#include <anybit/exec/thread_pool.hpp>
#include <anybit/model/load.hpp>
#include <anybit/quantize/one_shot.hpp>
#include <anybit/scheme/presets.hpp>
#include <anybit/tensor/pack.hpp>
#include <anybit/tensor/quantize.hpp>

#include "model_worker.hpp"

namespace {

using namespace anybit;

struct Engine {
  Engine(const std::string& file, const std::string&) {
    auto loaded = model::load_model(file);
    if (!loaded) {
      std::cout << "no " << loaded.error().message << std::endl;
      std::exit(1);
    }
    source = std::move(loaded->decoder);
  }

  template <AnyScheme S>
  static void quantize(nn::Linear& l) {
    l = l.with_weights(nn::Linear(AnyPacked(pack(quantize_nearest<S>(l.dense()->view()).value())), Compute::int8_per_token));
  }

  std::string open(const std::string& format, double& bits) {
    using namespace presets;
    void (*linear)(nn::Linear&) = format == "int8_g32"   ? &quantize<Int8Group32>
                                  : format == "sf6_g128" ? &quantize<ScaledSuperfloat<6>>
                                  : format == "sf5_g128" ? &quantize<ScaledSuperfloat<5>>
                                  : format == "sf4_g128" ? &quantize<ScaledSuperfloat<4>>
                                  : format == "sf4_g32"  ? &quantize<Superfloat4Group32>
                                  : format == "sf3_g128" ? &quantize<ScaledSuperfloat<3>>
                                  : format == "sf2_g128" ? &quantize<ScaledSuperfloat<2>>
                                                         : nullptr;
    if (!linear) return "anybit has no format of that name here";
    model::Decoder d = source;
    quantize<model::EmbeddingScheme>(d.token_embedding());
    if (d.has_head()) quantize<model::EmbeddingScheme>(d.head());
    for (const model::WeightId id : d.blueprint->linears) linear(d[id].linear);
    double bytes = 0, weights = 0;
    const auto norms = static_cast<double>((2 * d.config.blocks + 1) * d.config.dim);
    model::for_each_linear(d, [&](const std::string&, const nn::Linear& l) {
      bytes += static_cast<double>(l.payload_bytes());
      weights += static_cast<double>(l.extents().size());
    });
    bits = 8 * (bytes + 4 * norms) / (weights + norms);
    decoders[format] = std::move(d);
    return "";
  }

  std::string run(const std::string& format, int threads, int prompt, int decode, peers::Speed& speed) {
    ThreadPool pool(threads);
    auto measured =
        evaluate::measure_speed(decoders.at(format), pool, {.prompt_tokens = prompt, .decode_tokens = decode, .repetitions = 1});
    if (!measured) return measured.error().message;
    speed = {measured->prompt_tokens_per_s, measured->decode_tokens_per_s};
    return "";
  }

  model::Decoder source;
  std::map<std::string, model::Decoder> decoders;
};

}  // namespace

int main(int argc, char** argv) { return peers::serve_model<Engine>(argc, argv); }
