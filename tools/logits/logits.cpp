#include "logits.hpp"

#include <cstdio>
#include <deque>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <anybit/io/safetensors_writer.hpp>
#include <anybit/model/pooling.hpp>

#include "shared/file_roles.hpp"
#include "shared/open_model.hpp"
#include "shared/outputs.hpp"
#include "shared/parse.hpp"
#include "shared/prompts.hpp"

namespace tool {

using namespace anybit;

namespace {

struct LogitsOptions {
  std::string model, ids, out;
  bool inputs = false;
  Index threads = 0;
};

/// Tensors that the file will have. They stay where they are.
class Recording {
 public:
  void add(std::string name, ConstMatrix values) { tensors_.push_back({std::move(name), Matrix(values), false}); }
  void add(std::string name, std::span<const float> values) {
    tensors_.push_back({std::move(name), Matrix(ConstMatrix(values.data(), 1, static_cast<Index>(values.size()))), true});
  }
  void add(std::string name, std::vector<Index> shape, std::vector<std::int32_t> values) {
    numbers_.push_back({std::move(name), std::move(shape), std::move(values)});
  }
  Status write(const std::string& path) const {
    std::vector<io::TensorInfo> all;
    for (const auto& [name, values, is_vector] : tensors_) {
      const auto shape = is_vector ? std::vector<Index>{values.cols()} : std::vector<Index>{values.rows(), values.cols()};
      all.push_back(
          io::tensor_of<float>(name, shape, std::span(values.data(), static_cast<std::size_t>(values.extents().size()))));
    }
    for (const Numbers& n : numbers_) all.push_back(io::tensor_of<std::int32_t>(n.name, n.shape, n.values));
    return io::write_safetensors(path, all);
  }

 private:
  struct Numbers {
    std::string name;
    std::vector<Index> shape;
    std::vector<std::int32_t> values;
  };
  struct Recorded {
    std::string name;
    Matrix values;
    bool is_vector = false;
  };
  std::deque<Recorded> tensors_;
  std::deque<Numbers> numbers_;
};

/// "model.layers.1.self_attn.q_proj": the module of a weight as Hugging Face calls it, else as GGUF does.
std::string module_name(const model::Decoder& d, model::WeightId id) {
  const std::string& weight = (*d.blueprint)[id].name;
  std::string name = model::hugging_face_name(*d.blueprint->architecture, d.config, weight);
  if (name.empty()) name = weight;
  return name.ends_with(".weight") ? name.substr(0, name.size() - 7) : name;
}

/// A router's logits, and the experts and weights that follow from them.
void record_router(const model::ExpertForm& experts, ConstMatrix logits, const std::string& name, Recording& to) {
  nn::Routing routing;
  routing.choose(logits, experts.used, experts.weights);
  std::vector<std::int32_t> chosen;
  Matrix weights(logits.rows, experts.used);
  for (Index t = 0; t < logits.rows; ++t) {
    for (const Index e : routing.experts(t)) chosen.push_back(static_cast<std::int32_t>(e));
    std::copy(routing.weights(t).begin(), routing.weights(t).end(), weights.view().row(t).begin());
  }
  to.add(name + ".logits", logits), to.add(name + ".weights", weights.view());
  to.add(name + ".experts", {logits.rows, experts.used}, std::move(chosen));
}

/// Taps that record the streams and, if wanted, what enters each linear. Streams of an encoder in front of a decoder are
/// "encoder.h.0", .., and those of the decoder "decoder.h.0", ..; else "h.0", ..
std::vector<model::Tap> recording_taps(const model::Decoder& d, const std::string& prefix, bool inputs, Recording& to) {
  std::vector<model::Tap> taps;
  const auto record = [&](Index block, model::Point point, std::string name, Index expert = model::Tap::every_expert) {
    taps.push_back(
        {block, point, [&to, name = std::move(name)](MutableMatrix x, model::TokenRange) { to.add(name, x); }, expert});
  };
  const Index encoder = d.config.encoder_blocks();
  const std::string last = prefix + (encoder > 0 ? "decoder.h." : "h."), first = prefix + "encoder.h.";
  if (encoder > 0) {
    record(model::Tap::every_block, model::Point::encoder_embedding, first + "0");
    for (Index i = 0; i < encoder; ++i) record(i, model::Point::residual, first + std::to_string(i + 1));
    if (d.config.encoder.front().form.final_norm) record(model::Tap::every_block, model::Point::encoder_out, first + "norm");
    record(model::Tap::every_block, model::Point::encoder_out, prefix + "encoder.out");
  }
  record(model::Tap::every_block, model::Point::embedding, last + "0");
  for (Index i = encoder; i < d.config.blocks; ++i) record(i, model::Point::residual, last + std::to_string(i - encoder + 1));
  if (d.config.form.final_norm) record(model::Tap::every_block, model::Point::final_norm, last + "norm");
  const model::ExpertForm& experts = d.config.form.experts;
  for (Index i = 0; i < d.config.blocks; ++i)
    if (experts.in(i))
      taps.push_back({i, model::Point::router,
                      [&to, experts, name = prefix + "router." + std::to_string(i)](MutableMatrix x, model::TokenRange) {
                        record_router(experts, x, name, to);
                      }});
  if (!inputs) return taps;
  for (const model::SiteSpec& site : d.blueprint->sites) {
    std::set<std::string> modules;  // q, k and v may be one
    for (const model::WeightId reader : site.readers)
      if (std::string module = module_name(d, reader); modules.insert(module).second)
        record(site.block, site.point, prefix + "in." + module, site.routed ? site.expert : model::Tap::every_expert);
    if (!site.float_readers.empty())
      record(site.block, site.point,
             prefix + "in." + std::string(d.blueprint->architecture->hugging_face_block) + std::to_string(site.block) + ".mlp");
  }
  return taps;
}

/// Runs one prompt and adds what is recorded behind the taps: logits, or an encoder's vectors.
Status record(const model::Decoder& d, const Prompt& p, const std::string& prefix, const model::Run& run, Recording& out) {
  const bool paired = !d.config.encoder.empty();
  if (!paired && (!p.source.empty() || p.features.rows() > 0))
    return Error{ErrorCode::invalid_argument, "a source is given, but " + std::string(d.blueprint->architecture->name) +
                                                  " has no encoder in front of a decoder: give ids alone"};
  if (paired && p.source.empty() && p.features.rows() == 0)
    return Error{ErrorCode::insufficient_data,
                 std::string("it has no source: add \"") +
                     (d.config.encoder.front().form.feature_bins > 0 ? "features\", bins by frames" : "src\", a list of ids")};
  nn::KvCache cache(model::cache_shape(d.config), static_cast<Index>(p.ids.size()));
  model::Run how = run;
  how.types = p.types;
  std::optional<model::Encoded> encoded;
  if (paired) {
    ANYBIT_TRY(encoded, model::encode(d, p.as_source(), run));
    how.encoded = &*encoded;
  }
  if (!d.config.form.head) {
    ANYBIT_TRY(const Matrix states, model::hidden_states(d, p.ids, cache, how));
    if (const auto vector = model::pooled(d, states.view(), run.executor); !vector.empty()) out.add(prefix + "pooled", vector);
    out.add(prefix + "mean_unit", model::mean_unit(states.view()));
    return Ok{};
  }
  ANYBIT_TRY(const Matrix logits, model::forward(d, p.ids, cache, how));
  out.add(prefix + "logits", logits.view());
  return Ok{};
}

Result<Recording> record(const model::Decoder& d, const std::vector<Prompt>& prompts, const LogitsOptions& o) {
  ThreadPool pool(static_cast<unsigned>(thread_count(o.threads)));
  Recording out;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    const std::string prefix = "p" + std::to_string(i) + ".";
    const std::vector<model::Tap> taps = recording_taps(d, prefix, o.inputs, out);
    if (const auto done = record(d, prompts[i], prefix, {.executor = pool, .taps = taps}, out); !done)
      return in_context(done.error(), "prompt " + std::to_string(i));
  }
  return out;
}

int logits(int argc, const char* const* argv) {
  LogitsOptions o;
  CLI::App app(
      "Runs a model on token ids and writes its logits and hidden states, for comparison with other implementations.\n"
      "Of prompt N the file has pN.logits (tokens, vocabulary), pN.h.0 to pN.h.L (the stream before each block and behind the\n"
      "last), pN.h.norm (behind the last norm), with experts pN.router.LAYER.logits, .experts and .weights (tokens, experts or\n"
      "experts per token), and with --inputs pN.in.MODULE (what enters that linear). Encoder-decoders have\n"
      "these as pN.encoder.h.* and pN.decoder.h.*, and pN.encoder.out; encoders have no logits, but pN.pooled and pN.mean_unit.",
      "anybit logits");
  add_model(app, o.model);
  app.add_option(
         "--ids", o.ids,
         "JSON: a list of prompts, each {\"ids\": [..]}, for encoder-decoders with \"src\": [..] or \"features\": [[..]] (bins x\n"
         "frames), for encoders with \"types\": [..] where wanted")
      ->type_name("FILE")
      ->required();
  app.add_option("--out", o.out, "The safetensors file to write")->type_name("FILE")->required();
  app.add_flag("--inputs", o.inputs, "Write the inputs of all linears too");
  add_threads(app, o.threads);
  if (const auto end = parse(app, argc, argv, "anybit logits MODEL --ids prompts.json --out logits.safetensors")) return *end;
  if (o.out == "-") return wrong_use("logits", "--out cannot be standard output: name a file");
  std::vector<FileRole> inputs = model_inputs(o.model, {});
  inputs.push_back({"--ids", o.ids});
  if (const auto end = check_files("logits", inputs, {{"--out", o.out}})) return *end;
  const auto prompts = read_prompts(o.ids);
  if (!prompts) return fail("logits", bad_input, prompts.error());
  const auto decoder = open_decoder(o.model);
  if (!decoder) return fail("logits", bad_input, decoder.error());
  const auto recorded = record(*decoder, *prompts, o);
  if (!recorded) return fail("logits", bad_input, recorded.error());
  const Uninterrupted whole;
  if (const auto written = recorded->write(o.out); !written) return fail("logits", cannot_write, written.error());
  return success;
}

}  // namespace

int run_logits(int argc, const char* const* argv) {
  return run_command([&] { return logits(argc, argv); });
}

}  // namespace tool
