// Every architecture against the answers of its reference implementation: logits, residual streams and inputs of linears.

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include <anybit/io/safetensors.hpp>
#include <anybit/model/arch/architectures.hpp>
#include <anybit/model/load_tensors.hpp>
#include <anybit/model/run.hpp>

#include "support/catch.hpp"
#include "support/largest_difference.hpp"
#include "support/test_data.hpp"

using namespace anybit;
using namespace anybit::model;
using namespace anybit::nn;

namespace {

/// Tensors of a Hugging Face file under GGUF's names; those without one keep their own.
class GgufNames {
 public:
  GgufNames(const io::SafetensorsFile& file, const Architecture& a, const DecoderConfig& c) : name_(file.name()) {
    const Blueprint b = a.blueprint(c);
    std::map<std::string, std::string> names;
    for (const WeightSpec& w : b.weights)
      for (const std::string& gguf : {w.name, w.bias})
        if (!gguf.empty()) names[hugging_face_name(a, gguf)] = gguf;
    for (io::TensorInfo t : file.tensors()) {
      if (const auto found = names.find(t.name); found != names.end()) t.name = found->second;
      tensors_.add(std::move(t));
    }
  }
  const std::string& name() const { return name_; }
  const std::vector<io::TensorInfo>& tensors() const { return tensors_.all(); }
  const io::TensorInfo* find(std::string_view tensor) const { return tensors_.find(tensor); }
  Result<Matrix> read_f32(std::string_view tensor) const { return tensors_.read_f32(tensor, name_); }

 private:
  std::string name_;
  io::TensorList tensors_;
};

/// Checks `d` against golden.safetensors of `folder`.
void check_golden(const Decoder& d, const std::string& folder) {
  const auto golden = io::SafetensorsFile::open(folder + "/golden.safetensors").value();
  for (const std::string prompt : {"p0", "p1", "p2"}) {
    CAPTURE(prompt);
    const auto ids = golden.read<std::int32_t>(prompt + ".ids").value();
    const auto tokens = static_cast<Index>(ids.size());
    const Matrix logits = golden.read_f32(prompt + ".logits").value();
    std::vector<Tap> taps;
    int seen = 0;
    const auto compare = [&](Index block, Point point, const std::string& name) {
      if (!golden.find(name)) return;
      taps.push_back({block, point, [&, name](MutableMatrix x, TokenRange positions) {
                        CAPTURE(name);
                        CHECK(test_support::largest_difference(x, golden.read_f32(name).value().view()) < 1e-4);
                        CHECK(positions.end - positions.begin == tokens);
                        ++seen;
                      }});
    };
    compare(Tap::every_block, Point::embedding, prompt + ".h.0");
    for (Index i = 0; i < d.config.blocks; ++i) compare(i, Point::residual, prompt + ".h." + std::to_string(i + 1));
    compare(Tap::every_block, Point::final_norm, prompt + ".h.norm");
    const std::string in = prompt + ".in.model.layers.1.";
    compare(1, Point::attn_in, in + "self_attn.q_proj"), compare(1, Point::head_out, in + "self_attn.o_proj");
    compare(1, Point::mlp_in, in + "mlp.gate_proj"), compare(1, Point::mlp_hidden, in + "mlp.down_proj");

    KvCache cache(cache_shape(d.config), tokens);
    const auto whole = forward(d, ids, cache, {.taps = taps});
    REQUIRE(whole);
    CHECK(seen == static_cast<int>(taps.size()));
    CHECK(seen >= 1);
    CHECK(test_support::largest_difference(whole->view(), logits.view()) < 1e-4);
    cache.clear();
    for (Index t = 0; t < tokens; ++t) {
      const auto one = forward(d, std::span(ids).subspan(static_cast<std::size_t>(t), 1), cache);
      REQUIRE(one);
      CHECK(test_support::largest_difference(one->view(), logits.view().row_range(t, t + 1)) < 1e-4);
    }
  }
}

Decoder hugging_face_decoder(const io::SafetensorsFile& file, const Architecture& a, DecoderConfig c) {
  c.rope_order = RopeOrder::halves;
  auto d = model::detail::read_decoder(GgufNames(file, a, c), a, c);
  INFO((d ? std::string() : d.error().message));
  REQUIRE(d);
  return *std::move(d);
}

/// What both tiny models have in common.
DecoderConfig tiny() {
  DecoderConfig c;
  c.vocabulary = 80, c.dim = 48, c.hidden = 60, c.blocks = 2, c.kv_heads = 2, c.context = 64;
  return c;
}

}  // namespace

TEST_CASE("llama: golden logits, residual streams and inputs") {
  ANYBIT_TEST_DATA_OR_SKIP(path, "vectors/arch/llama/model.safetensors");
  DecoderConfig c = tiny();
  c.heads = 6, c.head_dim = c.rotary_dim = 10, c.norm_epsilon = 1e-5f, c.rope_base = 10000;
  const Decoder d = hugging_face_decoder(io::SafetensorsFile::open(path).value(), llama_architecture, c);
  CHECK(d.has_head());
  check_golden(d, std::filesystem::path(path).parent_path().string());
}

TEST_CASE("qwen2: golden logits, residual streams and inputs, with weights in two files") {
  ANYBIT_TEST_DATA_OR_SKIP(path, "vectors/arch/qwen2/model.safetensors.index.json");
  DecoderConfig c = tiny();
  c.heads = 4, c.head_dim = c.rotary_dim = 12, c.norm_epsilon = 1e-6f, c.rope_base = 1e6f;
  const auto file = io::SafetensorsFile::open(path).value();
  const Decoder d = hugging_face_decoder(file, qwen2_architecture, c);
  CHECK_FALSE(d.has_head());
  CHECK(d.linear(1, "attn_k").bias().size() == 24);
  check_golden(d, std::filesystem::path(path).parent_path().string());

  // A llama of these tensors would leave the biases out: the first of them is named.
  c.rope_order = RopeOrder::halves;
  const auto llama = model::detail::read_decoder(GgufNames(file, llama_architecture, c), llama_architecture, c);
  REQUIRE_FALSE(llama);
  CHECK(llama.error().message.find("self_attn.k_proj.bias") != std::string::npos);
  CHECK(llama.error().message.find("is no part of the llama architecture") != std::string::npos);
  // A shape that the configuration does not have names tensor, both shapes and file.
  c.hidden = 64;
  const auto wide = model::detail::read_decoder(GgufNames(file, qwen2_architecture, c), qwen2_architecture, c);
  REQUIRE_FALSE(wide);
  CHECK(wide.error().message.find("tensor blk.0.ffn_gate.weight is 60 x 48, the configuration needs 64 x 48") !=
        std::string::npos);
  CHECK(wide.error().message.find(file.name()) == 0);
}
