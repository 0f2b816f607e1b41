// The same tiny models as GGUF files, put together as gguf.json says: its metadata, its names, its digests of every tensor.

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

#include "support/catch.hpp"
#include "support/largest_difference.hpp"
#include "support/sha256.hpp"
#include "support/test_data.hpp"

using namespace anybit;
using namespace anybit::model;

namespace {

/// Rows of a matrix or values of a vector, one behind the other.
struct FlatTensor {
  std::vector<float> values;
  Index rows = 0;
};

class GgufOf {
 public:
  explicit GgufOf(const Decoder& d) : d_(d) {}

  /// What llama.cpp's converter writes under this name.
  FlatTensor tensor(const std::string& name) const {
    const DecoderConfig& c = d_.config;
    if (name == "rope_freqs.weight" || name == "rope_factors_short.weight") return {c.rope_factors, 1};
    if (name == "rope_factors_long.weight") return {c.rope_long_factors, 1};
    const std::size_t dot = name.rfind('.'), before = name.starts_with("blk.") ? name.find('.', 4) + 1 : 0;
    const std::string prefix = name.substr(0, before), part = name.substr(before, dot - before), kind = name.substr(dot);
    const bool two_norms = c.form.order == BlockOrder::parallel_two && d_.blueprint->architecture == &falcon_architecture;
    if (part == "attn_qkv") return stacked({prefix + "attn_q" + kind, prefix + "attn_k" + kind, prefix + "attn_v" + kind});
    if (part == "ffn_up" && d_.blueprint->architecture == &phi3_architecture)
      return stacked({prefix + "ffn_gate" + kind, prefix + "ffn_up" + kind});
    if (two_norms && part == "attn_norm_2") return weight(prefix + "attn_norm" + kind);
    if (two_norms && part == "attn_norm") return weight(prefix + "ffn_norm" + kind);
    FlatTensor t = weight(name);
    if ((part == "attn_q" || part == "attn_k") && d_.blueprint->architecture == &llama_architecture) permute(t);
    return t;
  }

 private:
  FlatTensor weight(const std::string& name) const {
    for (std::size_t i = 0; i < d_.weights.size(); ++i) {
      const WeightSpec& spec = d_.blueprint->weights[i];
      const Weight& w = d_.weights[i];
      if (spec.name == name && !spec.multiplies()) return {w.values, 1};
      if (spec.bias == name) return {w.linear.bias(), static_cast<Index>(w.linear.bias().size())};
      if (spec.name == name) {
        const Matrix& m = *w.linear.dense();
        return {{m.data(), m.data() + m.extents().size()}, m.rows()};
      }
    }
    FAIL("no weight " << name);
    return {};
  }
  FlatTensor stacked(const std::vector<std::string>& names) const {
    FlatTensor out;
    for (const std::string& name : names) {
      const FlatTensor t = weight(name);
      out.values.insert(out.values.end(), t.values.begin(), t.values.end());
      out.rows += t.rows;
    }
    return out;
  }
  /// Pairs of neighbours instead of halves of a head.
  void permute(FlatTensor& t) const {
    const auto e = static_cast<std::size_t>(d_.config.head_dim), cols = t.values.size() / static_cast<std::size_t>(t.rows);
    const std::vector<float> from = t.values;
    for (std::size_t r = 0; r < static_cast<std::size_t>(t.rows); ++r) {
      const std::size_t in_head = r % e, source = r - in_head + in_head % 2 * e / 2 + in_head / 2;
      std::copy_n(from.data() + source * cols, cols, t.values.data() + r * cols);
    }
  }

  const Decoder& d_;
};

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
  for (const std::string_view name : tensors.keys()) {
    CAPTURE(name);
    const auto& entry = *tensors.find(name)->as<io::JsonValue::Array>();
    std::vector<Index> shape;
    for (const io::JsonValue& extent : *entry[0].as<io::JsonValue::Array>())
      shape.insert(shape.begin(), static_cast<Index>(*extent.as<double>()));
    const FlatTensor t = GgufOf(d).tensor(std::string(name));
    // The converter computes frequencies in other steps.
    if (name != "rope_freqs.weight") {
      CHECK(test_support::sha256(std::as_bytes(std::span(t.values))).substr(0, 16) == *entry[1].as<std::string>());
    }
    w.add_f32(name, shape, t.values);
  }
  return w.bytes();
}

}  // namespace

TEST_CASE("architectures: GGUF has the same tensors by digest and gives the same model") {
  ANYBIT_TEST_DATA_OR_SKIP(vectors, "vectors/arch");
  int models = 0;
  for (const char* const name : {"llama", "llama3", "rope_linear", "rope_yarn", "rope_dynamic", "mistral", "qwen2", "qwen3",
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
  CHECK(models >= 15);
}

TEST_CASE("architectures: SHA-256 of the standard's examples") {
  const auto digest = [](std::string_view text) {
    return test_support::sha256(std::as_bytes(std::span(text.data(), text.size())));
  };
  CHECK(digest("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(digest("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}
