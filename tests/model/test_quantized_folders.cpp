// Quantized checkpoints as models: their linears run on the codes of the file, and the logits are those of the tools' weights.

#include <cmath>
#include <filesystem>
#include <string>

#include <anybit/io/checkpoint_pack.hpp>
#include <anybit/io/safetensors.hpp>
#include <anybit/model/load.hpp>
#include <anybit/model/run.hpp>

#include "support/catch.hpp"
#include "support/largest_difference.hpp"
#include "support/test_data.hpp"

using namespace anybit;
using namespace anybit::model;

namespace {

LoadOptions packing_options() {
  LoadOptions o;
  for_each_exl3([&]<class S>(S) {
    if constexpr (std::is_same_v<typename S::codebook, Mul1>) o.schemes.add<S>();
  });
  o.pack = [](const io::CheckpointLinear& l) -> Result<AnyPacked> {
    static const SchemeRegistry registry = preset_registry<io::CheckpointSchemes>();
    ANYBIT_TRY(PackedBytes bytes, io::pack_checkpoint(l, "test"));
    return registry.open(std::move(bytes));
  };
  return o;
}

}  // namespace

TEST_CASE("quantized folders run packed, with the logits of the weights that their tools restore") {
  ANYBIT_TEST_DATA_OR_SKIP(root, "vectors/checkpoints");
  for (const auto& entry : std::filesystem::directory_iterator(root)) {
    const std::string folder = entry.path().string(), name = entry.path().filename().string();
    CAPTURE(name);
    const auto packed = load_decoder(folder, packing_options());
    INFO((packed ? "" : packed.error().message));
    REQUIRE(packed.ok());
    const Decoder floats = load_decoder(folder).value();
    // HQQ's zero points are fractions, which no scheme has.
    int linears = 0, kept = 0;
    for_each_linear(*packed, [&](const std::string& weight, const nn::Linear& l) {
      linears += weight.starts_with("blk.");
      kept += l.packed() != nullptr;
    });
    CHECK(linears == 14);
    CHECK(kept == (name.starts_with("hqq") ? 0 : name.starts_with("exl3") ? 15 : 14));  // EXL3 has quantized the head, too
    for_each_linear(floats, [&](const std::string&, const nn::Linear& l) { CHECK(l.packed() == nullptr); });
    const auto golden = io::SafetensorsFile::open(folder + "/expected/logits.safetensors").value();
    for (const std::string prompt : {"prompt0", "prompt1"}) {
      const auto ids = golden.read<std::int32_t>(prompt + ".ids").value();
      const Matrix expected = golden.read_f32(prompt + ".logits").value();
      double largest = 1;
      for (Index i = 0; i < expected.extents().size(); ++i)
        largest = std::max(largest, std::fabs(static_cast<double>(expected.data()[i])));
      for (const Decoder* d : {&*packed, &floats}) {
        nn::KvCache cache(cache_shape(d->config), static_cast<Index>(ids.size()));
        const Matrix got = forward(*d, std::vector<TokenId>(ids.begin(), ids.end()), cache).value();
        REQUIRE(got.extents() == expected.extents());
        CHECK(test_support::largest_difference(got.view(), expected.view()) < 1e-4 * largest);
      }
    }
  }
}
