// Points that a model with experts has not for every token.

#include <string>
#include <vector>

#include <anybit/steer/states.hpp>

#include "model/random_experts.hpp"
#include "support/catch.hpp"

using namespace anybit;

TEST_CASE("states and control: points of single experts are refused") {
  const model::Decoder d = test_support::random_experts();
  const std::vector<std::vector<model::TokenId>> prompts{{3, 1, 4}, {1, 5}};
  for (const model::Point p : {model::Point::expert_in, model::Point::expert_hidden, model::Point::mlp_hidden}) {
    const auto read = steer::states(d, prompts, {.point = p});
    REQUIRE_FALSE(read);
    CHECK(read.error().message.find(std::string(model::name(p)) + " has not a row of one width for every token") !=
          std::string::npos);
  }
  CHECK(steer::states(d, prompts, {.point = model::Point::mlp_in}).ok());
  CHECK_FALSE(steer::states(d, prompts, {.point = model::Point::router}).ok());  // block 1 is dense
}
