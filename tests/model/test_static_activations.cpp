// Compute::int8_static in a whole model: which scales it gets, and that files keep them.

#include <cmath>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include <anybit/algorithm/compiled_methods.hpp>
#include <anybit/algorithm/nearest.hpp>
#include <anybit/exec/thread_pool.hpp>
#include <anybit/io/anybit_file.hpp>
#include <anybit/model/container.hpp>
#include <anybit/quantize/block_by_block.hpp>
#include <anybit/scheme/presets.hpp>
#include <anybit/transform/smooth_quant.hpp>

#include "model/letters.hpp"
#include "model/random_decoder.hpp"
#include "model/random_ids.hpp"
#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

using namespace anybit;
using namespace anybit::model;
using namespace anybit::nn;
using test_support::calibrated;
using test_support::ids;
using test_support::random_decoder;
using test_support::read_file;

namespace {

using W8 = Nearest<presets::Int8PerRow>;

Matrix logits_on(const Decoder& d, ExecutorRef executor = {}) {
  KvCache cache(cache_shape(d.config), 40);
  return forward(d, ids(40, 99), cache, {.executor = executor}).value();
}
bool same(const Matrix& a, const Matrix& b) { return std::equal(a.data(), a.data() + a.extents().size(), b.data()); }

const Linear& linear_of(const Decoder& d, const std::string& name) {
  const Linear* found = nullptr;
  for_each_linear(d, [&](const std::string& n, const Linear& l) {
    if (n == name) found = &l;
  });
  REQUIRE(found);
  return *found;
}

ModelRecipe naive() { return model_recipe("naive", W8{}, Compute::int8_static); }
ModelRecipe searched() {
  return model_recipe("searched", SmoothQuantSearch{.static_activations = true} | W8{}, Compute::int8_static);
}

Model small_model(Decoder d) { return {"small", std::move(d), test_support::letters()}; }

}  // namespace

TEST_CASE("int8_static: siblings multiply with the largest calibrated input / 127, smoothing taken off") {
  const Decoder d = random_decoder(2);
  // By hand: what entered every site of the float model, text by text.
  std::vector<std::vector<float>> largest(8);
  for (unsigned w = 0; w < 4; ++w) {
    KvCache cache(cache_shape(d.config), 48);
    const std::vector<Tap> taps = site_taps(*d.blueprint, [&](SiteId site, ConstMatrix x) {
      auto& to = largest[place(site)];
      to.resize(static_cast<std::size_t>(x.cols));
      for (Index t = 0; t < x.rows; ++t)
        for (Index j = 0; j < x.cols; ++j)
          to[static_cast<std::size_t>(j)] = std::max(to[static_cast<std::size_t>(j)], std::fabs(x(t, j)));
    });
    REQUIRE(forward(d, ids(48, w), cache, {.taps = taps}).ok());
  }
  const PackedEmbedding embedding = pack_embedding(d).value();
  const Matrix exact = logits_on(d);
  const auto size = [](const Matrix& m) {
    double sum = 0;
    for (Index i = 0; i < m.extents().size(); ++i) sum += static_cast<double>(m.data()[i]) * static_cast<double>(m.data()[i]);
    return sum;
  };
  for (const ModelRecipe& recipe : {naive(), searched()}) {
    INFO(recipe.name);
    CHECK(covers(recipe.needs, Needs::abs_max));
    QuantizedModel q = quantize_model(d, calibrated(d, recipe.needs), recipe, embedding).value();
    bool smoothed = false;
    for (const QuantizedLayer& layer : q.layers) {
      INFO(layer.name);
      const auto& maxima = largest[place(layer.site)];
      float most = 0;
      for (std::size_t j = 0; j < maxima.size(); ++j)
        most = std::max(most, layer.input_scale.empty() ? maxima[j] : maxima[j] / layer.input_scale[j]);
      smoothed |= !layer.input_scale.empty();
      const Linear& linear = linear_of(q.decoder, layer.name);
      CHECK(linear.compute() == Compute::int8_static);
      CHECK(linear.activations().scale() == most / 127);
      CHECK(layer.report.remarks.back().find("activations in 8 bits: one scale, for magnitudes up to ") == 0);
    }
    CHECK(smoothed == (recipe.name != "naive"));
    CHECK(q.decoder.output_head().compute() == Compute::f32);
    q.decoder.token_embedding() = d.token_embedding();
    Matrix off = logits_on(q.decoder);
    ThreadPool pool(3);
    CHECK(same(off, logits_on(q.decoder, pool)));
    for (Index i = 0; i < off.extents().size(); ++i) off.data()[i] -= exact.data()[i];
    CHECK(size(off) < (smoothed ? 0.01 : 0.05) * size(exact));
    CHECK(size(off) > 0);
  }
  const auto none = quantize_model(d, ModelStats(d, Needs::none), naive(), embedding);
  REQUIRE_FALSE(none.ok());
  CHECK(none.error().message.find("0 tokens") != std::string::npos);
}

TEST_CASE("int8_static: a file keeps the scales, and broken ones are named") {
  const test_support::TemporaryFolder folder;
  const Decoder d = random_decoder(2);
  const Model m =
      small_model(quantize_model(d, calibrated(d, naive().needs), naive(), pack_embedding(d).value()).value().decoder);
  REQUIRE(save_model(folder / "m", m).ok());
  SchemeRegistry schemes;
  schemes.add<presets::Int8PerRow>();
  schemes.add<EmbeddingScheme>();
  const auto load = [&](const std::string& name) -> Result<Model> {
    ANYBIT_TRY(const io::AnybitFile file, io::AnybitFile::open(folder / name));
    return model_from_container(file, schemes);
  };
  const Model back = load("m").value();
  CHECK(same(logits_on(back.decoder), logits_on(m.decoder)));
  for_each_linear(m.decoder, [&](const std::string& name, const Linear& linear) {
    CHECK(linear_of(back.decoder, name).activations().scale() == linear.activations().scale());
    CHECK(linear_of(back.decoder, name).compute() == linear.compute());
  });

  const std::string good = read_file(folder / "m"), tensor = "blk.1.ffn_up.weight", key = "activation_scale." + tensor,
                    text = "\"" + key + "\":\"";
  const auto changed = [&](const std::string& from, const std::string& to) {  // of equal length, so that offsets stay
    REQUIRE(from.size() == to.size());
    std::string bytes = good;
    const auto at = bytes.find(from);
    REQUIRE(at != std::string::npos);
    bytes.replace(at, from.size(), to);
    std::ofstream(folder / "bad", std::ios::binary) << bytes;
    const auto loaded = load("bad");
    return loaded ? std::string("no error") : loaded.error().message;
  };
  const auto at = good.find(text);
  REQUIRE(at != std::string::npos);
  const std::string value = good.substr(at + text.size(), 14);
  for (const char* bad : {"0.00000000e+00", "-1.2345678e-02", "nan(123456789)"}) {
    const std::string message = changed(text + value, text + bad);
    INFO(message);
    CHECK(message.find("metadata " + key + " is '" + bad + "'; a scale must be finite and above 0") != std::string::npos);
  }
  CHECK(changed(text + value, text + "1.2345678e+99 ").find("no number in range") != std::string::npos);
  CHECK(changed(text, "\"activation_scale.blk.1.ffn_ub.weight\":\"").find("no metadata key '" + key + "'") != std::string::npos);
  // A scale whose linear does not use it, whatever the reason: never read as dynamic in silence.
  const std::string compute = "\"compute." + tensor + "\":\"int8_static\"";
  CHECK(changed(compute, "\"comqute." + tensor + "\":\"int8_static\"").find("is of no tensor that multiplies with it") !=
        std::string::npos);
  CHECK(changed(compute, "\"compute." + tensor + "\":\"int8_statik\"").find("which this build does not know") !=
        std::string::npos);
}

TEST_CASE("int8_static: an interrupted layer-wise run goes on to the same scales") {
  const test_support::TemporaryFolder folder;
  const Decoder d = random_decoder(2);
  const std::vector<std::vector<TokenId>> tokens{ids(48, 1), ids(31, 2)};
  const std::vector<std::span<const TokenId>> windows{tokens.begin(), tokens.end()};
  const PackedEmbedding embedding = pack_embedding(d).value();
  const ModelRecipe recipe = searched();
  const ModelPlan plan = uniform_plan(recipe, d);
  const auto run = [&](const std::string& state, Index stop_at = 99) {
    LayerWiseOptions options;
    options.state = state;
    options.progress = [=](const LayerWiseProgress& p) { return p.block < stop_at; };
    return quantize_layer_wise(d, plan, windows, embedding, options);
  };
  const LayerWiseModel whole = run("").value();
  REQUIRE_FALSE(run(folder / "state", 1).ok());
  const LayerWiseModel resumed = run(folder / "state").value();
  CHECK(resumed.blocks_taken == 1);
  for_each_linear(whole.quantized.decoder, [&](const std::string& name, const Linear& linear) {
    CHECK(linear_of(resumed.quantized.decoder, name).activations().scale() == linear.activations().scale());
  });
  CHECK(same(logits_on(whole.quantized.decoder), logits_on(resumed.quantized.decoder)));

  std::string bytes = read_file(folder / "state/block-0.safetensors");
  const std::string text = "\"activation_scale.blk.0.attn_q.weight\":\"";
  const auto at = bytes.find(text);
  REQUIRE(at != std::string::npos);
  char& digit = bytes[at + text.size()];
  digit = digit == '1' ? '2' : '1';
  std::ofstream(folder / "state/block-0.safetensors", std::ios::binary) << bytes;
  CHECK(run(folder / "state").error().message.find("checksum") != std::string::npos);
}
