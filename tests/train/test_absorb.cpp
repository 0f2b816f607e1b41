// Scale absorption: the same function before rounding, the vectors' codes after it, and folded against unfolded.

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include <anybit/io/safetensors.hpp>
#include <anybit/model/arch/llama.hpp>
#include <anybit/train/decoder_tape.hpp>
#include <anybit/train/wasq/absorb.hpp>

#include "support/catch.hpp"
#include "support/test_data.hpp"
#include "train/small_decoder.hpp"

using namespace anybit;
using namespace train_tests;
namespace wasq = anybit::train::wasq;
using wasq::Absorption, wasq::AbsorbedScale, wasq::SuperfloatGrid;

namespace {

const std::vector<model::TokenId> some_ids{1, 4, 9, 0, 3, 10, 2};

Absorption mode_of(const std::string& name) {
  return name == "none"     ? Absorption::none
         : name == "ln"     ? Absorption::norms
         : name == "ln_all" ? Absorption::all
                            : Absorption::exact;
}

/// The block of the vectors as a decoder of one block.
model::Decoder block_of(const io::SafetensorsFile& file) {
  model::DecoderConfig c;
  c.vocabulary = 11, c.dim = 32, c.hidden = 48, c.blocks = 1, c.heads = 4, c.kv_heads = 2, c.head_dim = c.rotary_dim = 8;
  c.context = 32, c.norm_epsilon = 1e-5f, c.rope_base = 1e4f, c.rope_order = nn::RopeOrder::halves;
  model::Decoder d = make_decoder(model::llama_architecture, c);
  d.token_embedding() = nn::Linear(some(1, 11, 32));
  d.output_norm().assign(32, 1.0f);
  const auto read = [&](const std::string& name) {
    auto m = file.read_f32(name);
    REQUIRE(m.ok());
    return *std::move(m);
  };
  const std::pair<const char*, const char*> linears[] = {{"attn_q", "q"},      {"attn_k", "k"},      {"attn_v", "v"},
                                                         {"attn_output", "o"}, {"ffn_gate", "gate"}, {"ffn_up", "up"},
                                                         {"ffn_down", "down"}};
  for (const auto& [name, short_name] : linears) d.linear(0, name) = nn::Linear(read(std::string("blk.W.") + short_name));
  for (const auto& [name, short_name] : {std::pair{"attn_norm", "n1"}, {"ffn_norm", "n2"}}) {
    const Matrix gain = read(std::string("blk.gain.") + short_name);
    d.values(0, name).assign(gain.data(), gain.data() + gain.extents().size());
  }
  REQUIRE(check(d).ok());
  return d;
}

Matrix block_output(const model::Decoder& d, Matrix x) {
  train::DecoderTape tape(d, {x.rows()}, {}, {}, {});
  train::BlockTape kept;
  tape.forward(0, x.view(), kept);
  return x;
}

}  // namespace

TEST_CASE("absorb: every mode but the unfolded ones keeps the function and fills the range") {
  const model::Decoder original = small_decoder(model::qwen2_architecture, true, 12, qwen2_form());
  for (const Absorption mode : {Absorption::none, Absorption::norms, Absorption::exact})
    for (const AbsorbedScale rule : {AbsorbedScale::largest, AbsorbedScale::largest_on_grid, AbsorbedScale::power_of_two}) {
      model::Decoder d = original;
      const SuperfloatGrid grid{6};
      const auto absorbed = wasq::absorb(d, mode, rule, grid);
      REQUIRE(absorbed.ok());
      CHECK(*wasq::largest_difference(d, original, some_ids) < 1e-4f);
      if (mode != Absorption::exact) continue;
      // What is scaled last is within the range; v and up have taken rows since.
      for (const char* name : {"attn_q", "attn_k", "attn_v", "ffn_gate", "ffn_up"}) {
        const Matrix& w = *d.linear(1, name).dense();
        float most = 0;
        for (Index i = 0; i < w.extents().size(); ++i) most = std::max(most, std::abs(w.data()[i]));
        CHECK(most <= (rule == AbsorbedScale::largest_on_grid ? grid.largest() * 1.000001f : 1.0f));
      }
    }
}

TEST_CASE("absorb: the folded model is the unfolded one, and the published fold is not") {
  const model::Decoder original = small_decoder(model::llama_architecture, true, 12);
  const SuperfloatGrid grid{6};
  for (const Absorption mode : {Absorption::none, Absorption::norms, Absorption::exact}) {
    model::Decoder folded = original;
    const auto absorbed = wasq::absorb(folded, mode, AbsorbedScale::largest, grid);
    REQUIRE(absorbed.ok());
    const auto report = wasq::round_to_grid(folded, *absorbed, grid);
    CHECK(report.size() == 14);
    for (const wasq::GridReport& r : report) CHECK(r.off_grid == 0);
    const model::Decoder other = wasq::unfolded(folded, *absorbed, original);
    CHECK(*wasq::largest_difference(folded, other, some_ids) < 1e-4f);
    if (mode == Absorption::exact)
      CHECK(other.linear(0, "attn_v").dense()->data()[0] != folded.linear(0, "attn_v").dense()->data()[0]);
  }
  model::Decoder scaled = original, published = original;
  const auto a = wasq::absorb(scaled, Absorption::all, AbsorbedScale::largest, grid),
             b = wasq::absorb(published, Absorption::all_as_published, AbsorbedScale::largest, grid);
  REQUIRE((a.ok() && b.ok()));
  wasq::round_to_grid(scaled, *a, grid), wasq::round_to_grid(published, *b, grid);
  CHECK(*wasq::largest_difference(scaled, original, some_ids) < 0.5f);
  CHECK(*wasq::largest_difference(published, scaled, some_ids) > 0.05f);
}

TEST_CASE("absorb: packed weights are refused with their name") {
  model::Decoder d = small_decoder(model::llama_architecture, true, 12);
  d.linear(1, "ffn_up") = nn::Linear();
  const auto absorbed = wasq::absorb(d, Absorption::norms, AbsorbedScale::largest, SuperfloatGrid{6});
  REQUIRE(!absorbed.ok());
  CHECK(absorbed.error().message.find("blk.1.ffn_up.weight") != std::string::npos);
}

TEST_CASE("absorb: scales and codes and outputs of the published block") {
  ANYBIT_TEST_DATA_OR_SKIP(path, "vectors/superfloat_2026.safetensors");
  const auto opened = io::SafetensorsFile::open(path);
  REQUIRE(opened.ok());
  const io::SafetensorsFile& file = *opened;
  const model::Decoder original = block_of(file);
  const auto x = file.read_f32("blk.X");
  REQUIRE(x.ok());
  const auto same_output = [&](const model::Decoder& d, const std::string& name) {
    const Matrix y = block_output(d, *x);
    const auto want = file.read<double>(name);
    REQUIRE(want.ok());
    double most = 0, difference = 0;
    for (std::size_t i = 0; i < want->size(); ++i) {
      most = std::max(most, std::abs((*want)[i]));
      difference = std::max(difference, std::abs(static_cast<double>(y.data()[i]) - (*want)[i]));
    }
    INFO(name);
    CHECK(difference <= 2e-4 * most);
  };
  same_output(original, "blk.y.float");
  const std::pair<const char*, const char*> linears[] = {{"attn_q", "q"},      {"attn_k", "k"},      {"attn_v", "v"},
                                                         {"attn_output", "o"}, {"ffn_gate", "gate"}, {"ffn_up", "up"},
                                                         {"ffn_down", "down"}};
  for (const std::string mode : {"none", "ln", "ln_all", "ln_all_exact"})
    for (const int bits : {2, 4, 6, 8}) {
      const SuperfloatGrid grid{bits};
      model::Decoder d = original;
      const auto absorbed = wasq::absorb(d, mode_of(mode), AbsorbedScale::largest, grid);
      REQUIRE(absorbed.ok());
      for (const auto& [site, name] :
           {std::pair{"attn_q", "qkv"}, {"attn_output", "o"}, {"ffn_gate", "gate_up"}, {"ffn_down", "down"}}) {
        const std::string key = "blk." + mode + ".g." + name;
        const std::vector<float>& g = absorbed->scales[model::place(d.site(0, site))];
        if (file.find(key)) CHECK(g == *file.read<float>(key));
        CHECK(g.empty() == !file.find(key));
      }
      for (const auto& [norm, name] : {std::pair{"attn_norm", "n1"}, {"ffn_norm", "n2"}})
        if (const std::string key = "blk." + mode + ".gain." + name; file.find(key))
          CHECK(d.values(0, norm) == *file.read<float>(key));
      for (const auto& [linear, name] : linears) {
        const auto k = file.read<std::int8_t>("blk." + mode + ".b" + std::to_string(bits) + "." + name);
        REQUIRE(k.ok());
        const Matrix& w = *d.linear(0, linear).dense();
        Index wrong = 0;
        for (std::size_t i = 0; i < k->size(); ++i) wrong += grid.to_int(w.data()[i]) != (*k)[i];
        INFO(mode << " " << bits << " " << name);
        CHECK(wrong == 0);
      }
      wasq::round_to_grid(d, *absorbed, grid);
      same_output(d, "blk." + mode + ".b" + std::to_string(bits) + ".y");
    }
}
