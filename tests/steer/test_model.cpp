// Reading and steering of a small decoder: what taps do equals what changed weights do.

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include <anybit/format/integer.hpp>
#include <anybit/model/arch/llama.hpp>
#include <anybit/model/run.hpp>
#include <anybit/steer/mechanism.hpp>
#include <anybit/steer/projection.hpp>
#include <anybit/steer/steering_file.hpp>
#include <anybit/tensor/pack_nearest.hpp>

#include "model/random_decoder.hpp"
#include "support/catch.hpp"
#include "support/largest_difference.hpp"
#include "support/same_bits.hpp"
#include "support/temporary_folder.hpp"

using namespace anybit;
using namespace anybit::steer;
using model::Point;
using model::Tap;
using test_support::largest_difference;
using test_support::random_decoder;
using test_support::same_bits;

namespace {

std::vector<model::TokenId> prompt(Index tokens, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<model::TokenId> out(static_cast<std::size_t>(tokens));
  for (auto& id : out) id = static_cast<model::TokenId>(random() % 61);
  return out;
}

std::vector<std::vector<model::TokenId>> prompts(std::size_t count) {
  std::vector<std::vector<model::TokenId>> out;
  for (unsigned i = 0; i < count; ++i) out.push_back(prompt(3 + static_cast<Index>(i % 5), i));
  return out;
}

Matrix steered(const model::Decoder& d, std::span<const Tap> taps, Index tokens = 12) {
  nn::KvCache cache(cache_shape(d.config), tokens);
  return forward(d, prompt(tokens, 99), cache, {.taps = taps}).value();
}

Intervention some_shifts() {
  Intervention s{.head_dim = 8};
  for (const auto& [block, head] : {std::pair<Index, Index>{0, 1}, {1, 3}, {1, 0}})
    s.heads.push_back(
        {.block = block, .head = head, .theta = random_unit(8, static_cast<std::uint64_t>(block * 4 + head)), .sigma = 0.1});
  return s;
}

using Coarse = Scheme<SInt<4>, PerGroup<8>, ScaleF32>;

/// The writers of the residual stream in 4 bits.
model::Decoder with_packed_writers(model::Decoder d) {
  for (const model::WeightId id : residual_writers(*d.blueprint))
    d[id].linear = d[id].linear.with_weights(nn::Linear(AnyPacked(pack_nearest<Coarse>(d[id].linear.dense()->view()).value())));
  return d;
}

}  // namespace

TEST_CASE("states of a position equal the rows of the whole prompt and the model goes on unchanged") {
  const model::Decoder d = random_decoder(2);
  const auto texts = prompts(6);
  for (const Point point : {Point::residual, Point::head_out, Point::mlp_hidden, Point::k}) {
    for (const Index position : {Index{-1}, Index{-3}, Index{0}, Index{2}}) {
      const auto read = states(d, texts, {.point = point, .position = position}).value();
      REQUIRE(read.size() == 2);
      for (std::size_t p = 0; p < texts.size(); ++p) {
        const auto whole = prompt_states(d, texts[p], {.point = point}).value();
        const Index at = position < 0 ? static_cast<Index>(texts[p].size()) + position : position;
        for (std::size_t b = 0; b < 2; ++b) {
          REQUIRE(read[b].cols() == width_at(d, point));
          CHECK(largest_difference(std::as_const(read[b]).view().row_range(static_cast<Index>(p), static_cast<Index>(p) + 1),
                                   std::as_const(whole[b]).view().row_range(at, at + 1)) == 0);
        }
      }
    }
  }
  CHECK(states(d, texts, {.position = 3}).error().message ==
        "steer: prompt 0 has 3 tokens, position 3 is outside: choose a position that every prompt has");
  CHECK(states(d, texts, {.position = -4}).error().code == ErrorCode::invalid_argument);
  CHECK(states(d, texts, {.point = Point::logits}).error().code == ErrorCode::invalid_argument);
  CHECK(prompt_states(d, prompt(65, 1)).error().message ==
        "steer: a prompt of 65 tokens, the model's context holds 64: shorten the text");
}

TEST_CASE("a template and pairs: one place for the text and mixed order and nothing in both halves") {
  CHECK(fill_template("Say {} twice", "{}").value() == "Say {} twice");
  CHECK_FALSE(fill_template("no place", "x").ok());
  CHECK(fill_template("{} and {}", "x").error().message == "steer: the template '{} and {}' must hold {} once, for the text");
  Stimuli all;
  for (int i = 0; i < 21; ++i) all.texts.push_back("text " + std::to_string(i)), all.labels.push_back(i % 3 == 0);
  const SplitStimuli split = pair_statements(all, 0.5, 7).value();
  CHECK(split.train.size() == 6);  // 7 texts have label 1
  CHECK(split.test.size() == 8);
  std::vector<std::string> seen;
  for (const Stimuli* part : {&split.train, &split.test}) {
    std::ptrdiff_t first = 0;
    for (std::size_t i = 0; i < part->size(); i += 2) {
      CHECK(part->labels[i] + part->labels[i + 1] == 1);
      first += part->labels[i];
    }
    CHECK(first >= static_cast<std::ptrdiff_t>(part->size() / 4));
    CHECK(first <= static_cast<std::ptrdiff_t>(part->size() / 4 + 1));
    for (std::size_t i = 0; i < part->size(); ++i) {
      seen.push_back(part->texts[i]);
      CHECK(part->labels[i] == (std::stoi(part->texts[i].substr(5)) % 3 == 0));
    }
  }
  std::sort(seen.begin(), seen.end());
  CHECK(std::unique(seen.begin(), seen.end()) == seen.end());
  all.texts.resize(4), all.labels.resize(4);
  CHECK(pair_statements(all).error().code == ErrorCode::insufficient_data);
}

TEST_CASE("control reaches its block and positions and nothing else") {
  const model::Decoder d = random_decoder(2);
  const std::vector<BlockDirection> one{{1, {.vector = random_unit(32, 3), .center = std::vector<double>(32)}}};
  const auto taps = control_taps(d, one, {.coefficient = 2, .positions = {5, 7}}).value();
  Matrix before, after;
  std::vector<Tap> all{{1, Point::residual, [&](MutableMatrix x, model::TokenRange) { before = Matrix(x); }}};
  all.insert(all.end(), taps.begin(), taps.end());
  all.push_back({1, Point::residual, [&](MutableMatrix x, model::TokenRange) { after = Matrix(x); }});
  const Matrix logits = steered(d, all), plain = steered(d, {});
  for (Index t = 0; t < 12; ++t) {
    std::vector<double> change;
    for (Index j = 0; j < 32; ++j) change.push_back(static_cast<double>(after(t, j)) - static_cast<double>(before(t, j)));
    CHECK(norm(change) == Approx(t == 5 || t == 6 ? 2 : 0).margin(1e-5));
    // The last block reaches no other position.
    const auto rows = [t](const Matrix& m) { return m.view().row_range(t, t + 1); };
    CHECK((largest_difference(rows(logits), rows(plain)) == 0) == (t != 5 && t != 6));
  }
  // The same in steps: positions count from the start of the sequence.
  nn::KvCache cache(cache_shape(d.config), 12);
  const auto ids = prompt(12, 99);
  Matrix last;
  for (Index t = 0; t < 12; t += 3)
    last = forward(d, std::span(ids).subspan(static_cast<std::size_t>(t), 3), cache, {.taps = taps}).value();
  CHECK(largest_difference(last.view(), logits.view().row_range(9, 12)) < 1e-4);
  // Projection of every block's output leaves nothing along the direction.
  std::vector<BlockDirection> both{one[0], one[0]};
  both[0].block = 0;
  std::vector<Tap> projected = control_taps(d, both, {.op = Operator::projection}).value();
  double most = 0;
  projected.push_back({Tap::every_block, Point::residual, [&](MutableMatrix x, model::TokenRange) {
                         for (Index t = 0; t < x.rows; ++t)
                           most = std::max(most, std::abs(dot(x.row(t), one[0].direction.vector)));
                       }});
  steered(d, projected);
  CHECK(most < 1e-5);
}

TEST_CASE("directions that do not fit are errors") {
  const model::Decoder d = random_decoder(2);
  const auto taps = [&](Direction direction, Index block = 0, double coefficient = 1) {
    const BlockDirection one{block, std::move(direction)};
    return control_taps(d, {&one, 1}, {.coefficient = coefficient});
  };
  CHECK(taps({.vector = {1, 2}}).error().message ==
        "steer: the direction of block 0 has 2 values, activations at residual have 32: it was read from another model or point, "
        "read it again");
  CHECK(taps({.vector = std::vector<double>(32)}).error().code == ErrorCode::invalid_argument);
  CHECK(taps({.vector = std::vector<double>(32, std::nan(""))}).error().code == ErrorCode::not_finite);
  CHECK(taps({.vector = random_unit(32, 1)}, 2).error().message ==
        "forward: a tap is in block 2, the model has 2, counted from 0");
  CHECK(taps({.vector = random_unit(32, 1)}, 0, std::nan("")).error().code == ErrorCode::not_finite);
}

TEST_CASE("an intervention in the biases gives the logits of the taps at all positions") {
  const model::Decoder d = random_decoder(2);
  const Intervention s = some_shifts();
  const Matrix tapped = steered(d, intervention_taps(d, s, 15, 0).value());
  model::Decoder baked = d;
  REQUIRE(bake(baked, s, 15).ok());
  CHECK(largest_difference(tapped.view(), steered(baked, {}).view()) < 1e-4);
  CHECK(largest_difference(tapped.view(), steered(d, {}).view()) > 1e-2);
  CHECK(check(baked).ok());
  CHECK((*baked.blueprint)[baked.weight(1, "attn_output")].bias == "blk.1.attn_output.bias");
  // Packed weights and an adapter count too.
  model::Decoder packed = with_packed_writers(d);
  auto low = std::make_shared<nn::LowRank>();
  low->a = Matrix(1, 32), low->b = Matrix(32, 1), low->scale = 0.5f;
  for (Index j = 0; j < 32; ++j) low->a(0, j) = low->b(j, 0) = 0.1f * static_cast<float>(j % 7);
  packed.linear(1, "attn_output").set_adapter(low);
  const Matrix packed_tapped = steered(packed, intervention_taps(packed, s, 15, 0).value());
  REQUIRE(bake(packed, s, 15).ok());
  CHECK(largest_difference(packed_tapped.view(), steered(packed, {}).view()) < 1e-4);
  // From the last token of the prompt on, the logits before it are those of the plain model.
  const Matrix late = steered(d, intervention_taps(d, s, 15, 11).value()), plain = steered(d, {});
  CHECK(largest_difference(late.view().row_range(0, 11), plain.view().row_range(0, 11)) == 0);
  CHECK(largest_difference(late.view(), plain.view()) > 0);
  Intervention far = s;
  far.heads[0].head = 4;
  CHECK(intervention_taps(d, far, 15, 0).error().message ==
        "steer: a shift of block 0 head 4, the model has 2 blocks of 4 heads: it was fitted on another model, fit again");
  far.head_dim = 4;
  CHECK_FALSE(bake(baked, far, 15).ok());
}

TEST_CASE("projected weights give the logits of projected activations and leak nothing until they are quantized") {
  for (const bool own_head : {false, true}) {
    const model::Decoder d = random_decoder(2, own_head);
    const std::vector<double> r = random_unit(32, 11);
    const std::vector<float> c(r.begin(), r.end());
    const auto everywhere = [&](Point p) { return control_tap(Tap::every_block, c, {.op = Operator::projection, .point = p}); };
    const Tap taps[] = {everywhere(Point::embedding), everywhere(Point::attn_out), everywhere(Point::mlp_out)};
    model::Decoder projected = d;
    std::vector<double> longer(r);
    for (double& x : longer) x *= 3;
    REQUIRE(project_out(projected, longer).ok());
    CHECK(largest_difference(steered(d, taps).view(), steered(projected, {}).view()) < 1e-4);
    for (const WeightLeakage& l : leakage(projected, r).value()) CHECK(l.relative < 1e-6);
    for (const WeightLeakage& l : leakage(d, r).value()) CHECK(l.relative > 1e-2);

    const model::Decoder packed = with_packed_writers(projected);
    double most = 0;
    for (const WeightLeakage& l : leakage(packed, r).value()) most = std::max(most, l.relative);
    CHECK(most > 1e-4);
    model::Decoder again = packed;
    REQUIRE(reproject(again, r).ok());
    REQUIRE(reproject(again, r).ok());  // beside the first adapter: nothing is left to take
    for (const WeightLeakage& l : leakage(again, r).value()) CHECK(l.relative < 1e-6);
    double along = 0;
    const Tap look{Tap::every_block, Point::attn_out, [&](MutableMatrix x, model::TokenRange) {
                     for (Index t = 0; t < x.rows; ++t) along = std::max(along, std::abs(dot(x.row(t), r)));
                   }};
    steered(again, {&look, 1});
    CHECK(along < 1e-5);
    model::Decoder refused = packed;
    CHECK(project_out(refused, r).error().message ==
          "steer: blk.0.attn_output.weight is packed: project the float model, then quantize, or reproject() what is quantized");
    CHECK(project_out(projected, std::vector<double>(31, 1)).error().code == ErrorCode::shape_mismatch);
    CHECK(project_out(projected, std::vector<double>(32, 0)).error().code == ErrorCode::invalid_argument);
  }
}

TEST_CASE("what is saved is read back and belongs to its model alone") {
  const model::Decoder d = random_decoder(2);
  test_support::TemporaryFolder folder;
  const std::string path = folder / "directions.safetensors";
  SteeringFile s{.model = "random", .fingerprint = model_fingerprint(d), .pattern = "A {} B", .method = "pca", .position = -2};
  for (const Index b : {Index{0}, Index{1}})
    s.directions.push_back({b,
                            {.vector = random_unit(32, static_cast<std::uint64_t>(b)),
                             .center = random_unit(32, 7),
                             .sign = b == 0 ? 1.0 : -1.0,
                             .threshold = 0.25,
                             .explained = 0.5},
                            0.75});
  s.probes.push_back({1, {random_unit(32, 5), -0.125}, 0.625});
  s.intervention = some_shifts();
  REQUIRE(save_steering(path, s).ok());
  const SteeringFile back = load_steering(path).value();
  CHECK((back.model == "random" && back.pattern == "A {} B" && back.method == "pca" && back.position == -2));
  CHECK(back.point == Point::residual);
  REQUIRE(back.directions.size() == 2);
  CHECK(back.directions[1].direction.vector == s.directions[1].direction.vector);
  CHECK(back.directions[1].direction.center == s.directions[1].direction.center);
  CHECK((back.directions[1].direction.sign == -1 && back.directions[1].accuracy == 0.75));
  CHECK((back.probes[0].probe.weight == s.probes[0].probe.weight && back.probes[0].probe.intercept == -0.125));
  REQUIRE(back.intervention.heads.size() == 3);
  CHECK((back.intervention.heads[1].block == 1 && back.intervention.heads[1].head == 3));
  CHECK(back.intervention.heads[1].theta == s.intervention.heads[1].theta);
  CHECK(check_belongs(back, d).ok());
  CHECK(check_belongs(back, with_packed_writers(d)).ok());
  model::Decoder other = d;
  other.output_norm()[0] += 1;
  CHECK(check_belongs(back, other).error().message == "steer: this was read from 'random', fingerprint '" + model_fingerprint(d) +
                                                          "', the model has " + model_fingerprint(other) +
                                                          ": read it again from this model");
  s.directions[0].direction.vector[3] = std::nan("");
  REQUIRE(save_steering(path, s).ok());
  CHECK(load_steering(path).error().code == ErrorCode::not_finite);
  SteeringFile empty;
  REQUIRE(save_steering(path, empty).ok());
  CHECK(load_steering(path).error().code == ErrorCode::insufficient_data);
  REQUIRE(io::write_safetensors(path, {}, {{"format", "other"}}).ok());
  CHECK(load_steering(path).error().code == ErrorCode::unsupported);
}

TEST_CASE("the lens ends with the prediction and attribution adds up and patching all gives the clean run") {
  for (const bool own_head : {false, true}) {
    const model::Decoder d = random_decoder(2, own_head);
    const auto ids = prompt(9, 3), corrupted = prompt(9, 4);
    nn::KvCache cache(cache_shape(d.config), 9);
    const Matrix logits = forward(d, ids, cache, {.last_only = true}).value();
    const Matrix lens = logit_lens(d, ids).value();
    REQUIRE((lens.extents() == Extents{3, 61}));
    CHECK(largest_difference(lens.view().row_range(2, 3), logits.view()) < 1e-5);

    const TokenPair pair{7, 30};
    const double whole = logit_difference(d, ids, pair).value();
    CHECK(whole == Approx(static_cast<double>(logits(0, 7)) - static_cast<double>(logits(0, 30))).margin(1e-5));
    const LogitAttribution parts = attribute_logits(d, ids, pair).value();
    CHECK(parts.total == Approx(whole).margin(1e-5));
    CHECK(std::abs(parts.unexplained) < 1e-4);
    REQUIRE((parts.attention.size() == 2 && parts.mlp.size() == 2));
    // Without the last MLP the stream is what the others wrote, at another scale: the sign of the sum is that run's.
    const double others = parts.embedding + parts.attention[0] + parts.attention[1] + parts.mlp[0];
    const Tap zero{1, Point::mlp_out, [](MutableMatrix x, model::TokenRange) {
                     for (Index t = 0; t < x.rows; ++t) std::fill(x.row(t).begin(), x.row(t).end(), 0.0f);
                   }};
    const double without = logit_difference(d, ids, pair, {&zero, 1}).value();
    CHECK((others > 0) == (without > 0));

    // Behind the last block the last position decides alone; before it the first positions matter too.
    const Index positions[] = {0, 8};
    const Matrix patched = patch_activations(d, ids, corrupted, pair, positions).value();
    CHECK(patched(1, 1) == Approx(whole).margin(1e-4));
    CHECK(patched(1, 0) == Approx(logit_difference(d, corrupted, pair).value()).margin(1e-5));
    CHECK_FALSE(patch_activations(d, ids, prompt(8, 1), pair, positions).ok());

    const Matrix heads = ablate_heads(d, ids, pair).value();
    REQUIRE((heads.extents() == Extents{2, 4}));
    model::Decoder cut = d;
    Matrix o(d.linear(1, "attn_output").dense()->view());
    for (Index r = 0; r < 32; ++r)
      for (Index j = 16; j < 24; ++j) o(r, j) = 0;
    cut.linear(1, "attn_output") = nn::Linear(std::move(o));
    CHECK(heads(1, 2) == Approx(logit_difference(cut, ids, pair).value() - whole).margin(1e-5));
    CHECK(logit_difference(d, ids, {61, 0}).error().code == ErrorCode::invalid_argument);
  }
}

TEST_CASE("a direction planted in a model is read and steers it in order of the coefficient") {
  // The concept: the last token is 2 and not 3. Their embeddings lie on both sides of a direction.
  model::Decoder d = random_decoder(2);
  Matrix embedding(d.token_embedding().dense()->view());
  const std::vector<double> planted = random_unit(32, 17);
  for (std::size_t j = 0; j < 32; ++j) {
    embedding(2, static_cast<Index>(j)) = embedding(3, static_cast<Index>(j)) + static_cast<float>(20 * planted[j]);
    embedding(3, static_cast<Index>(j)) -= static_cast<float>(20 * planted[j]);
  }
  d.token_embedding() = nn::Linear(std::move(embedding));
  std::vector<std::vector<model::TokenId>> train, test;
  std::vector<Label> train_labels, test_labels;
  std::mt19937 random(5);
  for (unsigned i = 0; i < 160; ++i) {
    const Label first = static_cast<Label>(random() % 2);
    for (const Label label : {first, 1 - first}) {
      auto ids = prompt(4, 1000 + i);
      ids.back() = static_cast<model::TokenId>(label == 1 ? 2 : 3);
      (i < 100 ? train : test).push_back(ids);
      (i < 100 ? train_labels : test_labels).push_back(label);
    }
  }
  const auto fit = states(d, train).value(), rest = states(d, test).value();
  for (const ReadingMethod method : {ReadingMethod::pca, ReadingMethod::mean_difference}) {
    const auto blocks = read_blocks(method, fit, train_labels, rest, test_labels).value();
    REQUIRE(blocks.size() == 2);
    for (const BlockReading& b : blocks) CHECK(b.test_pairs == 1);
    double before = -1e30;
    for (double coefficient = -2; coefficient <= 2; coefficient += 0.5) {
      const BlockDirection one = blocks[1].direction;
      const auto taps = control_taps(d, {&one, 1}, {.coefficient = coefficient}).value();
      // At the last block along its own direction the stream moves straight: scores rise with the coefficient.
      std::vector<Tap> all(taps);
      double score = 0;
      all.push_back({1, Point::residual, [&](MutableMatrix x, model::TokenRange) {
                       score = scores(one.direction, x.row_range(x.rows - 1, x.rows)).front();
                     }});
      steered(d, all);
      CHECK(score > before);
      before = score;
    }
  }
  // The logit difference of two tokens rises with the coefficient along the difference of their rows of the head.
  std::vector<double> rows(32);
  for (std::size_t j = 0; j < 32; ++j)
    rows[j] = static_cast<double>((*d.token_embedding().dense())(2, static_cast<Index>(j))) -
              static_cast<double>((*d.token_embedding().dense())(3, static_cast<Index>(j)));
  const BlockDirection towards{1, {.vector = rows, .center = std::vector<double>(32)}};
  double before = -1e30;
  for (double coefficient = -1; coefficient <= 1; coefficient += 0.25) {
    const auto taps = control_taps(d, {&towards, 1}, {.coefficient = coefficient}).value();
    const double difference = logit_difference(d, train[0], {2, 3}, taps).value();
    CHECK(difference > before);
    before = difference;
  }
  const auto random_blocks = read_blocks(ReadingMethod::random, fit, train_labels, rest, test_labels).value();
  CHECK(random_blocks[0].test_pairs >= 0);
}
