// Learned rounding of whole blocks: never above its start, by the block's own output; the same bytes for any number of threads.

#include <string>
#include <vector>

#include <anybit/algorithm/gptq.hpp>
#include <anybit/algorithm/ldlq.hpp>
#include <anybit/exec/thread_pool.hpp>
#include <anybit/format/formats.hpp>
#include <anybit/quantize/block_by_block.hpp>
#include <anybit/train/learned_blocks.hpp>
#include <anybit/transform/awq.hpp>

#include "model/random_decoder.hpp"
#include "model/random_ids.hpp"
#include "quantize/model_bytes.hpp"
#include "support/catch.hpp"

using namespace anybit;
using namespace anybit::model;
using test_support::bytes_of;
using test_support::ids;
using test_support::random_decoder;
using train::LearnedBlocks;

namespace {

using TwoBits = Nearest<UInt<2>, PerGroup<16>>;

/// Windows of unequal length.
struct BlockText {
  std::vector<std::vector<TokenId>> tokens{ids(48, 1), ids(48, 2), ids(31, 3), ids(48, 4)};
  std::vector<std::span<const TokenId>> windows{tokens.begin(), tokens.end()};
};

LayerWiseModel block_learned(const Decoder& d, const ModelRecipe& recipe, const LayerWiseOptions& options = {}) {
  const BlockText text;
  auto done = quantize_layer_wise(d, uniform_plan(recipe, d), text.windows, pack_embedding(d).value(), options);
  INFO((done ? std::string() : done.error().message));
  REQUIRE(done.ok());
  return *std::move(done);
}

/// Of the first block's output from that of the float model, over the windows: squares summed.
double first_block_error(const Decoder& source, const Decoder& quantized) {
  const BlockText text;
  double sum = 0;
  for (const auto& window : text.windows) {
    const auto output = [&](const Decoder& d, const Decoder& block) {
      Decoder one = d;
      one.set_block(0, block.block(0));
      std::vector<float> out;
      const Tap tap[] = {{0, Point::residual, [&](MutableMatrix x, TokenRange) {
                            for (Index t = 0; t < x.rows; ++t) out.insert(out.end(), x.row(t).begin(), x.row(t).end());
                          }}};
      train::DecoderTape tape(one, {static_cast<Index>(window.size())}, {}, tap, {});
      Matrix x(static_cast<Index>(window.size()), one.config.dim);
      one.blueprint->architecture->embed(one, StackInput{.stack = Stack::last, .ids = window}, x.view(), {});
      train::BlockTape kept;
      tape.forward(0, x.view(), kept);
      return out;
    };
    const std::vector<float> exact = output(source, source), rounded = output(quantized, quantized);
    for (std::size_t i = 0; i < exact.size(); ++i) {
      const double e = double{exact[i]} - double{rounded[i]};
      sum += e * e;
    }
  }
  return sum;
}

}  // namespace

TEST_CASE("learned blocks: no iterations change nothing, some leave less error of the block") {
  const Decoder d = random_decoder(2);
  const ModelRecipe nearest = model_recipe("nearest", TwoBits{});
  const LayerWiseModel before = block_learned(d, nearest);
  const LayerWiseModel same = block_learned(d, train::learned_blocks("blocks", nearest, {.iterations = 0}).value());
  CHECK(bytes_of(same.quantized.decoder) == bytes_of(before.quantized.decoder));
  const LayerWiseModel after = block_learned(d, train::learned_blocks("blocks", nearest, {.iterations = 60}).value());
  CHECK(first_block_error(d, after.quantized.decoder) < 0.8 * first_block_error(d, before.quantized.decoder));
  CHECK(after.quantized.layers[0].report.remarks.back().find("times the squared output error of the block") != std::string::npos);
}

TEST_CASE("learned blocks: behind GPTQ and AWQ, for any number of threads") {
  const Decoder d = random_decoder(2);
  const ModelRecipe gptq = model_recipe("gptq", Gptq<UInt<2>, PerGroup<16>>::best());
  const ModelRecipe learned = train::learned_blocks("blocks", gptq, {.iterations = 24, .batch = 2}).value();
  CHECK(learned.description.starts_with("blocks_learned(iterations=24, batch=2) | gptq("));
  ThreadPool two(2);
  const LayerWiseModel one = block_learned(d, learned);
  CHECK(bytes_of(one.quantized.decoder) == bytes_of(block_learned(d, learned, {.executor = two}).quantized.decoder));
  CHECK(first_block_error(d, one.quantized.decoder) < first_block_error(d, block_learned(d, gptq).quantized.decoder));

  const ModelRecipe awq = model_recipe("awq", Awq{} | Nearest<SInt<3>, PerGroup<16>>{});
  CHECK(
      first_block_error(d, block_learned(d, train::learned_blocks("blocks", awq, {.iterations = 40}).value()).quantized.decoder) <
      first_block_error(d, block_learned(d, awq).quantized.decoder));
}

TEST_CASE("learned blocks: what they refuse") {
  const auto message = [](const ModelRecipe& r, const LearnedBlocks& o = {}) {
    return train::learned_blocks("blocks", r, o).error().message;
  };
  CHECK(message(model_recipe("ldlq", Ldlq<Trellis<6, 2, ByteSum>>{})) ==
        "blocks_learned: recipe ldlq has no codes of single weights");
  CHECK(message(model_recipe("act", Gptq<UInt<4>, PerGroup<16>>{.act_order = true})).find("leave out act_order") !=
        std::string::npos);
  const Decoder d = random_decoder(2);
  const ModelRecipe learned = train::learned_blocks("blocks", model_recipe("nearest", TwoBits{}), {}).value();
  const auto at_once = quantize_model(d, ModelStats(d, learned.needs), learned, pack_embedding(d).value());
  REQUIRE(!at_once.ok());
  CHECK(at_once.error().message == "recipe blocks learns whole blocks: quantize block by block (quantize_layer_wise)");
  CHECK(message(model_recipe("nearest", TwoBits{}), {.batch = 0}) == "blocks_learned: batch is 0; it must be at least 1");
}
