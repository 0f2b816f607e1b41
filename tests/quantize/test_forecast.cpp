#include <filesystem>
#include <string>
#include <vector>

#include <anybit/algorithm/gptq.hpp>
#include <anybit/algorithm/ldlq.hpp>
#include <anybit/format/formats.hpp>
#include <anybit/model/container.hpp>
#include <anybit/quantize/forecast.hpp>

#include "model/letters.hpp"
#include "model/random_decoder.hpp"
#include "support/catch.hpp"

using namespace anybit;
using namespace anybit::model;

TEST_CASE("the forecast names the size of the file to the byte") {
  const Model source{"small", test_support::random_decoder(2), test_support::letters()};
  std::vector<TokenId> ids(100);
  for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<TokenId>(i * 7 % 61);
  const std::span<const TokenId> windows[] = {std::span(ids).first(60), std::span(ids).last(40)};

  Gptq<UInt<3>, PerGroup<16>> ordered;
  ordered.act_order = true;
  ordered.drift = 0.25f;
  const ModelRecipe plain = model_recipe("plain", Gptq<SInt<4>, PerGroup<24>>{}), act = model_recipe("act", ordered),
                    light = model_recipe("light", Nearest<SInt<8>, PerRow, ScaleF32>{}, Compute::int8_per_token),
                    fixed = model_recipe("fixed", Nearest<SInt<8>, PerRow, ScaleF32>{}, Compute::int8_static),
                    trellis = model_recipe("trellis", Ldlq<Trellis<6, 2, ByteSum>>{}, Compute::int8_per_token);
  ModelPlan mixed = uniform_plan(plain, source.decoder);
  mixed.linears[3] = &act, mixed.linears[9] = &light, mixed.linears[11] = &trellis;
  const PackedEmbedding embedding = pack_embedding(source.decoder).value();
  const std::string path = (std::filesystem::temp_directory_path() / "anybit_forecast.safetensors").string();
  for (const ModelPlan& plan :
       {uniform_plan(plain, source.decoder), uniform_plan(act, source.decoder), uniform_plan(light, source.decoder),
        uniform_plan(fixed, source.decoder), uniform_plan(trellis, source.decoder), mixed}) {
    INFO(plan.name);
    const Provenance provenance{.recipe = plan.linears[0]->description, .source = "nowhere"};
    const Forecast cost = forecast(source, plan, windows, embedding, provenance).value();
    const LayerWiseModel done = quantize_layer_wise(source.decoder, plan, windows, embedding).value();
    REQUIRE(save_model(path, Model{source.name, done.quantized.decoder, source.tokenizer}, provenance).ok());
    CHECK(cost.file_bytes == static_cast<Index>(std::filesystem::file_size(path)));
    CHECK(cost.seconds > 0);
    CHECK(cost.memory_bytes > cost.file_bytes);
  }
  std::filesystem::remove(path);
  CHECK(forecast(source, mixed, {}, embedding, {}).error().message.find("no windows") != std::string::npos);
}
