#include "logits.hpp"

#include <cstdio>
#include <deque>
#include <fstream>
#include <limits>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <anybit/io/safetensors_writer.hpp>

#include "shared/file_roles.hpp"
#include "shared/open_model.hpp"
#include "shared/outputs.hpp"
#include "shared/parse.hpp"

namespace tool {

using namespace anybit;

namespace {

struct LogitsOptions {
  std::string model, ids, out;
  bool inputs = false;
  Index threads = 0;
};

Result<std::vector<std::vector<model::TokenId>>> read_prompts(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  if (!file) return Error{ErrorCode::io, path + ": cannot be read: check the path and its permissions"};
  const auto bad = [&](const std::string& why) {
    return Error{ErrorCode::corrupt_data, path + ": " + why + R"(: give a list of prompts, each {"ids": [1, 2, 3]})"};
  };
  const auto json = nlohmann::json::parse(text.str(), nullptr, false);
  if (!json.is_array()) return bad(json.is_discarded() ? "is not JSON" : "is not a list");
  std::vector<std::vector<model::TokenId>> prompts;
  for (std::size_t i = 0; i < json.size(); ++i) {
    const std::string which = "prompt " + std::to_string(i);
    if (!json[i].is_object() || !json[i].contains("ids") || !json[i]["ids"].is_array()) return bad(which + " has no list of ids");
    std::vector<model::TokenId>& ids = prompts.emplace_back();
    for (const auto& id : json[i]["ids"]) {
      const auto value = id.is_number_integer() ? id.get<std::int64_t>() : std::int64_t{-1};
      if (value < 0 || value > std::numeric_limits<model::TokenId>::max()) return bad(which + " has the id " + id.dump());
      ids.push_back(static_cast<model::TokenId>(value));
    }
    if (ids.empty()) return bad(which + " has no ids");
  }
  return prompts;
}

/// Tensors that the file will have. They stay where they are.
class Recording {
 public:
  void add(std::string name, ConstMatrix values) { tensors_.push_back({std::move(name), Matrix(values)}); }
  Status write(const std::string& path) const {
    std::vector<io::TensorInfo> all;
    for (const auto& [name, values] : tensors_)
      all.push_back(io::tensor_of<float>(name, {values.rows(), values.cols()},
                                         std::span(values.data(), static_cast<std::size_t>(values.extents().size()))));
    return io::write_safetensors(path, all);
  }

 private:
  std::deque<std::pair<std::string, Matrix>> tensors_;
};

/// "model.layers.1.self_attn.q_proj": the module of a weight as Hugging Face calls it, else as GGUF does.
std::string module_name(const model::Decoder& d, model::WeightId id) {
  const std::string& weight = (*d.blueprint)[id].name;
  std::string name = model::hugging_face_name(*d.blueprint->architecture, d.config, weight);
  if (name.empty()) name = weight;
  return name.ends_with(".weight") ? name.substr(0, name.size() - 7) : name;
}

/// Taps that record the streams and, if wanted, what enters each linear.
std::vector<model::Tap> recording_taps(const model::Decoder& d, const std::string& prefix, bool inputs, Recording& to) {
  std::vector<model::Tap> taps;
  const auto record = [&](Index block, model::Point point, std::string name) {
    taps.push_back({block, point, [&to, name = std::move(name)](MutableMatrix x, model::TokenRange) { to.add(name, x); }});
  };
  record(model::Tap::every_block, model::Point::embedding, prefix + "h.0");
  for (Index i = 0; i < d.config.blocks; ++i) record(i, model::Point::residual, prefix + "h." + std::to_string(i + 1));
  if (d.config.form.final_norm) record(model::Tap::every_block, model::Point::final_norm, prefix + "h.norm");
  if (!inputs) return taps;
  for (const model::SiteSpec& site : d.blueprint->sites) {
    std::set<std::string> modules;  // q, k and v may be one
    for (const model::WeightId reader : site.readers)
      if (std::string module = module_name(d, reader); modules.insert(module).second)
        record(site.block, site.point, prefix + "in." + module);
  }
  return taps;
}

Result<Recording> record(const model::Decoder& d, const std::vector<std::vector<model::TokenId>>& prompts,
                         const LogitsOptions& o) {
  ThreadPool pool(static_cast<unsigned>(thread_count(o.threads)));
  Recording out;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    const std::string prefix = "p" + std::to_string(i) + ".";
    const std::vector<model::Tap> taps = recording_taps(d, prefix, o.inputs, out);
    nn::KvCache cache(model::cache_shape(d.config), static_cast<Index>(prompts[i].size()));
    auto logits = model::forward(d, prompts[i], cache, {.executor = pool, .taps = taps});
    if (!logits) return in_context(logits.error(), "prompt " + std::to_string(i));
    out.add(prefix + "logits", logits->view());
  }
  return out;
}

int logits(int argc, const char* const* argv) {
  LogitsOptions o;
  CLI::App app(
      "Runs a model on token ids and writes its logits and hidden states, for comparison with other implementations.\n"
      "Of prompt N the file has pN.logits (tokens, vocabulary), pN.h.0 to pN.h.L (the stream before each block and behind the\n"
      "last), pN.h.norm (behind the last norm), and with --inputs pN.in.MODULE (what enters that linear).",
      "anybit logits");
  app.add_option("MODEL", o.model, "A Hugging Face folder, GGUF, or what anybit has written")->required();
  app.add_option("--ids", o.ids, "JSON: a list of prompts, each {\"ids\": [..]}")->type_name("FILE")->required();
  app.add_option("--out", o.out, "The safetensors file to write")->type_name("FILE")->required();
  app.add_flag("--inputs", o.inputs, "Write the inputs of all linears too");
  app.add_option("--threads", o.threads, "Default: as many as the machine runs at once. Results do not depend on it")
      ->type_name("N");
  if (const auto end = parse(app, argc, argv, "anybit logits MODEL --ids prompts.json --out logits.safetensors")) return *end;
  if (o.out == "-") return wrong_use("logits", "--out cannot be standard output: name a file");
  if (const auto apart = check_roles({{"the model", o.model}, {"--ids", o.ids}}, {{"--out", o.out}}); !apart)
    return fail("logits", usage, apart.error());
  const auto prompts = read_prompts(o.ids);
  if (!prompts) return fail("logits", bad_input, prompts.error());
  const auto decoder = open_decoder(o.model);
  if (!decoder) return fail("logits", bad_input, decoder.error());
  if (const auto writable = check_writable(o.out); !writable) return fail("logits", cannot_write, writable.error());
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
