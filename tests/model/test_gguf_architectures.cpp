// The same tiny models as GGUF files, put together as gguf.json says: its metadata, its names, its digests of every tensor.

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include <anybit/io/gguf.hpp>
#include <anybit/io/gguf_writer.hpp>
#include <anybit/io/json.hpp>
#include <anybit/io/safetensors.hpp>
#include <anybit/model/arch/architectures.hpp>
#include <anybit/model/load.hpp>
#include <anybit/model/to_gguf.hpp>

#include "support/catch.hpp"
#include "support/largest_difference.hpp"
#include "support/sha256.hpp"
#include "support/test_data.hpp"

using namespace anybit;
using namespace anybit::model;

namespace {

std::string file_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// The file that gguf.json describes.
std::string gguf_of(const Decoder& d, const io::JsonObject& described) {
  io::GgufWriter w;
  const io::JsonObject metadata = described.object("metadata").value(), tensors = described.object("tensors").value();
  for (const std::string_view key : metadata.keys()) {
    const io::JsonValue& value = *metadata.find(key);
    const bool real = key.find("epsilon") != key.npos || key.find("freq_base") != key.npos || key.find("factor") != key.npos ||
                      key.find("softcapping") != key.npos;
    if (const auto* text = value.as<std::string>())
      w.add_metadata(key, *text);
    else if (const auto* flag = value.as<bool>())
      w.add_metadata(key, *flag);
    else if (real)
      w.add_metadata(key, static_cast<float>(*value.as<double>()));
    else
      w.add_metadata(key, static_cast<std::uint32_t>(*value.as<double>()));
  }
  const std::vector<GgufTensor> ours = gguf_tensors(d);
  CHECK(ours.size() == tensors.keys().size());
  for (const GgufTensor& t : ours) {
    CAPTURE(t.name);
    REQUIRE(tensors.find(t.name));
    const auto& entry = *tensors.find(t.name)->as<io::JsonValue::Array>();
    std::vector<Index> shape;
    for (const io::JsonValue& extent : *entry[0].as<io::JsonValue::Array>())
      shape.insert(shape.begin(), static_cast<Index>(*extent.as<double>()));
    CHECK(t.shape == shape);
    const Matrix values = read_gguf_tensor(d, d.weights, t);
    const std::vector<float> flat(values.data(), values.data() + values.extents().size());
    // The converter computes frequencies in other steps.
    if (t.name != "rope_freqs.weight") {
      CHECK(test_support::sha256(std::as_bytes(std::span(flat))).substr(0, 16) == *entry[1].as<std::string>());
    }
    w.add_f32(t.name, t.shape, flat);
    if (t.weights.empty() || t.bias || !d.blueprint->weights[t.weights.front()].multiplies()) continue;
    Matrix other(values.view());  // put back, other values stand where they came from
    for (Index i = 0; i < other.extents().size(); ++i) other.data()[i] = static_cast<float>(i % 8191) - other.data()[i];
    Decoder changed = d;
    set_gguf_tensor(changed, t, other.view());
    const Matrix again = read_gguf_tensor(changed, changed.weights, t);
    CHECK(std::equal(again.data(), again.data() + again.extents().size(), other.data()));
  }
  return w.bytes();
}

}  // namespace

TEST_CASE("architectures: GGUF has the same tensors by digest and gives the same model") {
  ANYBIT_TEST_DATA_OR_SKIP(vectors, "vectors/arch");
  int models = 0;
  for (const char* const name :
       {"llama", "llama3", "rope_linear", "rope_yarn", "rope_dynamic", "mistral", "qwen2", "qwen3", "mixtral", "qwen2_moe",
        "gemma", "gemma2", "gemma3", "phi3", "gpt2", "gpt_neox", "phi2", "falcon_7b", "falcon_40b"}) {
    CAPTURE(name);
    const std::string folder = vectors + "/" + name;
    if (!std::filesystem::exists(folder + "/gguf.json")) continue;
    const Decoder d = load_decoder(folder).value();
    const std::string text = file_text(folder + "/gguf.json");
    const auto json = io::parse_json(text);
    REQUIRE(json);
    const std::string bytes = gguf_of(d, io::JsonObject(*json, "gguf.json"));
    const auto file = io::GgufFile::parse(std::as_bytes(std::span(bytes.data(), bytes.size())), name);
    REQUIRE(file);
    auto g = decoder_from_gguf(*file);
    INFO((g ? std::string() : g.error().message));
    REQUIRE(g);
    CHECK(g->has_head() == d.has_head());

    // Keys that GGUF does not have.
    const std::string model = name;
    DecoderConfig& c = g->config;
    if (model == "mistral") c.form.window = d.config.form.window;
    if (model == "gemma2" || model == "gemma3") c.form.attention_scale = d.config.form.attention_scale;
    if (model == "gemma3") c.form.windowed = d.config.form.windowed;
    if (model == "rope_dynamic") c.rope_dynamic = d.config.rope_dynamic;
    if (model.starts_with("falcon")) c.context = d.config.context;
    CHECK(c.rope_order == g->blueprint->architecture->gguf_order);
    DecoderConfig other = d.config;
    other.rope_order = c.rope_order;
    CHECK(other == c);

    const auto golden = io::SafetensorsFile::open(folder + "/golden.safetensors").value();
    for (const std::string prompt : {"p0", "p1", "p2"}) {
      CAPTURE(prompt);
      const auto ids = golden.read<std::int32_t>(prompt + ".ids").value();
      nn::KvCache cache(cache_shape(c), static_cast<Index>(ids.size()));
      const Matrix logits = forward(*g, ids, cache).value();
      CHECK(test_support::largest_difference(logits.view(), golden.read_f32(prompt + ".logits").value().view()) < 2e-4);
    }
    ++models;
  }
  CHECK(models >= 17);
}

// llama.cpp's converter writes no file of a model in which some blocks are dense, so this one is put together here.
TEST_CASE("architectures: experts from GGUF in stacks of all or one tensor for each and damaged stacks") {
  ANYBIT_TEST_DATA_OR_SKIP(folder, "vectors/arch/qwen3_moe");
  const Decoder d = load_decoder(folder).value();
  const DecoderConfig& c = d.config;
  enum class Stored { stacked, apart, cut };
  const auto file = [&](Stored stored, Index count, Index used) {
    io::GgufWriter w;
    w.add_metadata("general.architecture", std::string("qwen3moe"));
    const auto number = [&](const char* key, Index value) {
      w.add_metadata(std::string("qwen3moe.") + key, static_cast<std::uint32_t>(value));
    };
    number("embedding_length", c.dim), number("feed_forward_length", c.hidden), number("block_count", c.blocks);
    number("attention.head_count", c.heads), number("attention.head_count_kv", c.kv_heads), number("context_length", c.context);
    number("attention.key_length", c.head_dim), number("attention.value_length", c.head_dim);
    number("expert_count", count), number("expert_used_count", used);
    number("expert_feed_forward_length", c.form.experts.hidden);
    w.add_metadata("qwen3moe.attention.layer_norm_rms_epsilon", c.norm_epsilon);
    for (const GgufTensor& t : gguf_tensors(d)) {
      const Matrix m = read_gguf_tensor(d, d.weights, t);
      const auto rows = [&](Index begin, Index end) {
        return std::vector<float>(m.data() + begin * m.cols(), m.data() + end * m.cols());
      };
      if (t.shape.size() < 3 || stored == Stored::stacked) {
        w.add_f32(t.name, t.shape, rows(0, m.rows()));
        continue;
      }
      const Index each = t.shape[1];
      if (stored == Stored::cut) w.add_f32(t.name, {each, m.cols()}, rows(0, each));
      const std::string base = t.name.substr(0, t.name.find("_exps"));
      for (Index e = 0; stored == Stored::apart && e < t.shape[0]; ++e)
        w.add_f32(base + "." + std::to_string(e) + ".weight", {each, m.cols()}, rows(e * each, (e + 1) * each));
    }
    return w.bytes();
  };
  const auto opened = [](const std::string& bytes) {
    const auto parsed = io::GgufFile::parse(std::as_bytes(std::span(bytes.data(), bytes.size())), "made");
    REQUIRE(parsed);
    return decoder_from_gguf(*parsed);
  };
  const auto golden = io::SafetensorsFile::open(folder + "/golden.safetensors").value();
  const auto ids = golden.read<std::int32_t>("p2.ids").value();
  for (const Stored stored : {Stored::stacked, Stored::apart}) {
    const std::string bytes = file(stored, 6, 2);
    const auto g = opened(bytes);
    INFO((g ? std::string() : g.error().message));
    REQUIRE(g);
    CHECK(g->config.form == c.form);
    nn::KvCache cache(cache_shape(c), static_cast<Index>(ids.size()));
    const Matrix logits = forward(*g, ids, cache).value();
    CHECK(test_support::largest_difference(logits.view(), golden.read_f32("p2.logits").value().view()) < 2e-4);
  }
  const auto refused = [&](const std::string& bytes, const std::string& part) {
    const auto g = opened(bytes);
    REQUIRE_FALSE(g);
    INFO(g.error().message);
    CHECK(g.error().message.find(part) != std::string::npos);
    CHECK(g.error().message.find('\n') == std::string::npos);
  };
  refused(file(Stored::stacked, 6, 7), "7 experts are used per token, not 1 to the 6 that there are");
  refused(file(Stored::stacked, 5, 2), "tensor blk.0.ffn_gate_inp.weight is 6 x 32, the configuration needs 5 x 32");
  refused(file(Stored::cut, 6, 2), "tensor 'blk.0.ffn_gate_exps.weight' has 20 outputs, its parts need 120");
}

TEST_CASE("architectures: encoders from GGUF have the same tensors by digest and give the same model") {
  ANYBIT_TEST_DATA_OR_SKIP(vectors, "vectors/arch");
  for (const std::string name : {"t5", "flan_t5", "bert"}) {
    CAPTURE(name);
    const std::string folder = vectors + "/" + name;
    Decoder d = load_decoder(folder).value();
    if (name == "bert") d[d.weight("pooler.weight")].linear = {};  // which the converter leaves out
    const std::string text = file_text(folder + "/gguf.json");
    const auto json = io::parse_json(text);
    REQUIRE(json);
    const std::string bytes = gguf_of(d, io::JsonObject(*json, "gguf.json"));
    auto g = decoder_from_gguf(io::GgufFile::parse(std::as_bytes(std::span(bytes.data(), bytes.size())), name).value());
    INFO((g ? std::string() : g.error().message));
    REQUIRE(g);
    CHECK(g->blueprint->architecture == d.blueprint->architecture);
    CHECK(g->has_head() == d.has_head());
    // The longest distance has no key: 128 is what all published models have.
    if (name != "bert") {
      CHECK(g->config.form.relative_distance == 128);
      g->config.form.relative_distance = g->config.encoder.front().form.relative_distance = 20;
    }
    CHECK(g->config == d.config);
    const auto golden = io::SafetensorsFile::open(folder + "/golden.safetensors").value();
    for (const std::string prompt : {"p0", "p1", "p2"}) {
      CAPTURE(prompt);
      const auto ids = golden.read<std::int32_t>(prompt + ".ids").value();
      nn::KvCache cache(cache_shape(d.config), static_cast<Index>(ids.size()));
      if (name == "bert") {
        const auto types = golden.read<std::int32_t>(prompt + ".types").value();
        const Matrix states = hidden_states(*g, ids, cache, {.types = types}).value();
        CHECK(test_support::largest_difference(states.view(), golden.read_f32(prompt + ".h.2").value().view()) < 1e-4);
        continue;
      }
      const auto source = golden.read<std::int32_t>(prompt + ".src").value();
      Encoded encoded = encode(*g, {.ids = source}).value();
      const Matrix logits = forward(*g, ids, cache, {.encoded = &encoded}).value();
      CHECK(test_support::largest_difference(logits.view(), golden.read_f32(prompt + ".logits").value().view()) < 2e-4);
    }
  }
}

TEST_CASE("architectures: metadata written for GGUF are the converter's and are read as the same model") {
  ANYBIT_TEST_DATA_OR_SKIP(vectors, "vectors/arch");
  int models = 0;
  for (const std::string name :
       {"llama",   "llama3",    "rope_linear", "rope_yarn", "rope_dynamic", "mistral", "qwen2", "qwen3",
        "mixtral", "qwen2_moe", "gemma",       "gemma2",    "gemma3",       "phi3",    "gpt2",  "gpt_neox",
        "phi2",    "falcon_7b", "falcon_40b",  "t5",        "flan_t5",      "bert"}) {
    CAPTURE(name);
    const std::string folder = vectors + "/" + name;
    if (!std::filesystem::exists(folder + "/gguf.json")) continue;
    Decoder d = load_decoder(folder).value();
    const std::vector<GgufTensor> tensors = gguf_tensors(d);
    const auto written = [&](io::GgufWriter& w) { return write_gguf_metadata(w, d, name, tensors); };
    const auto refused = [&](std::string_view part) {
      io::GgufWriter w;
      const Status status = written(w);
      REQUIRE(!status.ok());
      INFO(status.error().message);
      CHECK(status.error().message.find(part) != std::string::npos);
    };
    // What GGUF has no keys for is refused, and what is left out then is written.
    if (name == "mistral")
      refused("cannot say the window of 8 positions in block 0 of this model: choose a context of at most 8");
    if (name == "mistral") limit_context(d.config, d.config.form.window);
    if (name == "rope_dynamic") refused("cannot say the dynamic scaling of rotary positions of this model: choose");
    if (name == "rope_dynamic") limit_context(d.config, d.config.context);
    if (name == "gemma2" || name == "gemma3") {
      refused("cannot say the scale of attention scores");
      d.config.form.attention_scale = 0;
    }
    if (name.ends_with("t5")) {
      refused("cannot say the form of the blocks");  // a longest distance of 20
      d.config.form.relative_distance = d.config.encoder.front().form.relative_distance = 128;
    }
    io::GgufWriter w;
    const Status status = written(w);
    INFO((status ? std::string() : status.error().message));
    REQUIRE(status.ok());
    const std::string bytes = w.bytes();
    const auto file = io::GgufFile::parse(std::as_bytes(std::span(bytes.data(), bytes.size())), "written");
    REQUIRE(file.ok());

    const std::string text = file_text(folder + "/gguf.json");
    const io::JsonValue json = *io::parse_json(text);
    const io::JsonObject metadata = io::JsonObject(json, "gguf.json").object("metadata").value();
    for (const std::string_view key : metadata.keys()) {
      CAPTURE(std::string(key));
      // The converter writes 2048 and 4 times the width for every Falcon; the others are said above.
      if (name.starts_with("falcon") && (key.ends_with("context_length") || key.ends_with("feed_forward_length"))) continue;
      if (name == "mistral" && key.ends_with("context_length")) continue;
      REQUIRE(file->has(key));
      const io::JsonValue& value = *metadata.find(key);
      if (const auto* expected = value.as<std::string>())
        CHECK(*file->get_string(key) == *expected);
      else if (const auto* flag = value.as<bool>())
        CHECK(*file->get_bool(key) == *flag);
      else
        CHECK(*file->get_f64(key) == Approx(*value.as<double>()).epsilon(1e-6));
    }
    ++models;
  }
  CHECK(models >= 15);
}

TEST_CASE("architectures: SHA-256 of the standard's examples") {
  const auto digest = [](std::string_view text) {
    return test_support::sha256(std::as_bytes(std::span(text.data(), text.size())));
  };
  CHECK(digest("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(digest("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}
