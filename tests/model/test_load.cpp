#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>

#include <anybit/algorithm/compiled_methods.hpp>
#include <anybit/algorithm/nearest.hpp>
#include <anybit/format/integer.hpp>
#include <anybit/format/superfloat.hpp>
#include <anybit/io/anybit_file.hpp>
#include <anybit/io/gguf.hpp>
#include <anybit/io/gguf_writer.hpp>
#include <anybit/model/container.hpp>
#include <anybit/model/load.hpp>

#include "model/naive_decoder.hpp"
#include "model/random_ids.hpp"
#include "support/catch.hpp"
#include "support/same_bits.hpp"
#include "support/temporary_folder.hpp"
#include "support/test_data.hpp"

using namespace anybit;
using namespace anybit::model;
using namespace anybit::nn;
using test_support::logits_of;
using test_support::read_file;
using test_support::same_bits;
using test_support::TemporaryFolder;

namespace {

/// What one test changes about a good file.
struct Change {
  std::string without{};  ///< a key or tensor that is left out
  std::string key{};      ///< a number that becomes `value`
  std::uint32_t value = 0;
  std::string text_key{}, text{};
  std::string tensor{};    ///< gets one more row
  std::string poisoned{};  ///< tensor whose last value is NaN
  std::string extra{};     ///< a tensor more
  std::vector<float> rope_factors{};
  std::vector<std::pair<std::string, float>> floats{};  ///< keys more
  std::vector<std::pair<std::string, bool>> bools{};
  std::string name{};
};

/// dim 6, 3 heads of 4 (wider than dim / heads), one KV head, 5 tokens: small enough to see through.
std::string gguf(const Change& change = {}) {
  io::GgufWriter w;
  const auto number = [&](const std::string& key, std::uint32_t value) {
    if (key != change.without) w.add_metadata(key, key == change.key ? change.value : value);
  };
  const auto text = [&](const std::string& key, const std::string& value) {
    if (key != change.without) w.add_metadata(key, key == change.text_key ? change.text : value);
  };
  text("general.architecture", "llama");
  number("llama.embedding_length", 6), number("llama.feed_forward_length", 7), number("llama.block_count", 2);
  number("llama.attention.head_count", 3), number("llama.attention.head_count_kv", 1), number("llama.attention.key_length", 4);
  number("llama.attention.value_length", 4), number("llama.rope.dimension_count", 4), number("llama.context_length", 32);
  if (change.key == "llama.expert_count") w.add_metadata("llama.expert_count", change.value);
  for (const auto& [key, value] : change.floats) w.add_metadata(key, value);
  for (const auto& [key, value] : change.bools) w.add_metadata(key, value);
  if (!change.name.empty()) w.add_metadata("general.name", change.name);
  if (change.text_key == "llama.rope.scaling.type") text(change.text_key, "");
  if (!change.rope_factors.empty())
    w.add_f32("rope_freqs.weight", {static_cast<Index>(change.rope_factors.size())}, change.rope_factors);
  w.add_metadata("llama.attention.layer_norm_rms_epsilon", 1e-6f);
  w.add_metadata("llama.rope.freq_base", change.key == "llama.rope.freq_base" ? -1.0f : 500.0f);
  text("tokenizer.ggml.model", "gpt2");
  text("tokenizer.ggml.pre", "gpt-2");
  std::vector<std::string> tokens{"<end>", "a", "b", "ab", "c"};
  if (change.key == "tokens") tokens.resize(change.value, "more");
  w.add_metadata("tokenizer.ggml.tokens", tokens);
  std::vector<std::int32_t> types(tokens.size(), 1);
  types[0] = 3;
  w.add_metadata("tokenizer.ggml.token_type", types);
  w.add_metadata("tokenizer.ggml.merges", std::vector<std::string>{"a b"});
  std::uint32_t seed = 9;
  const auto tensor = [&](const std::string& name, Index rows, Index cols) {
    if (name == change.without) return;
    if (name == change.tensor) ++rows;
    std::vector<float> values;
    for (Index i = 0; i < rows * cols; ++i) {
      seed = seed * 1664525u + 1013904223u;
      values.push_back(static_cast<float>(seed >> 8) * 0x1p-23f - 1.0f);
    }
    if (name == change.poisoned) values.back() = std::nanf("");
    if (rows == 1)
      w.add_f32(name, {cols}, values);
    else
      w.add_f32(name, {rows, cols}, values);
  };
  tensor("token_embd.weight", 5, 6);
  for (const std::string block : {"blk.0.", "blk.1."}) {
    tensor(block + "attn_norm.weight", 1, 6), tensor(block + "attn_q.weight", 12, 6), tensor(block + "attn_k.weight", 4, 6);
    tensor(block + "attn_v.weight", 4, 6), tensor(block + "attn_output.weight", 6, 12), tensor(block + "ffn_norm.weight", 1, 6);
    tensor(block + "ffn_gate.weight", 7, 6), tensor(block + "ffn_up.weight", 7, 6), tensor(block + "ffn_down.weight", 6, 7);
  }
  tensor("output_norm.weight", 1, 6);
  if (!change.extra.empty()) tensor(change.extra, 1, 6);
  return w.bytes();
}

Result<Model> parse(const std::string& bytes) {
  ANYBIT_TRY(const io::GgufFile file, io::GgufFile::parse(std::as_bytes(std::span(bytes)), "m.gguf"));
  return model_from_gguf(file);
}

void write_file(const std::string& path, std::string_view bytes) {
  std::ofstream file(path, std::ios::binary);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}
}  // namespace

TEST_CASE("a llama model out of GGUF") {
  for (const auto& factors : {std::vector<float>{}, std::vector<float>{1, 4}}) {
    const auto m = parse(gguf({.rope_factors = factors}));
    INFO((m ? "" : m.error().message));
    REQUIRE(m);
    const DecoderConfig& c = m->decoder.config;
    CHECK(c.vocabulary == 5);
    CHECK(c.head_dim == 4);
    CHECK(c.kv_heads == 1);
    CHECK(c.norm_epsilon == 1e-6f);
    CHECK(c.rope_base == 500.0f);
    CHECK(c.rope_factors == factors);
    CHECK(m->name == "m");
    CHECK_FALSE(m->decoder.has_head());
    const auto ids = m->tokenizer.encode("abc");
    CHECK(*ids == std::vector<TokenId>{3, 4});
    const std::vector<TokenId> longer{3, 4, 0, 1, 2, 4};
    const Matrix logits = logits_of(m->decoder, longer);
    const auto truth = test_support::naive_forward(m->decoder, longer);
    for (Index t = 0; t < logits.rows(); ++t)
      for (Index j = 0; j < logits.cols(); ++j)
        CHECK(std::abs(static_cast<double>(logits(t, j)) - truth[static_cast<std::size_t>(t)][static_cast<std::size_t>(j)]) <
              1e-4);
  }
}

TEST_CASE("models that are wrong in one place are errors that name it") {
  struct Case {
    Change change;
    std::vector<std::string> in_message;
  };
  const std::vector<Case> cases{
      {{.without = "general.architecture"}, {"general.architecture"}},
      {{.text_key = "general.architecture", .text = "mamba"},
       {"general.architecture is 'mamba'", "llama", "nearest in name: 'llama'"}},
      {{.without = "llama.embedding_length"}, {"llama.embedding_length"}},
      {{.without = "llama.block_count"}, {"llama.block_count"}},
      {{.key = "llama.block_count", .value = 0}, {"llama.block_count is 0"}},
      {{.key = "llama.block_count", .value = 3}, {"blk.2.attn_norm.weight"}},
      {{.key = "llama.block_count", .value = 1}, {"tensor 'blk.1.", "no part of the llama architecture"}},
      {{.key = "llama.block_count", .value = 0x7FFFFFFF}, {"2147483647 blocks", "only 20 tensors"}},
      {{.key = "llama.block_count", .value = 0xFFFFFFFF}, {"llama.block_count is 4294967295"}},
      {{.key = "llama.attention.head_count_kv", .value = 2}, {"head count 3", "key-value head count 2"}},
      {{.key = "llama.attention.head_count", .value = 4}, {"blk.0.attn_q.weight is 12 x 6", "16 x 6"}},
      {{.key = "llama.attention.value_length", .value = 5}, {"value_length is 5", "4"}},
      {{.without = "llama.attention.key_length", .key = "llama.attention.head_count", .value = 4},
       {"head_count is 4", "does not divide", "6"}},
      {{.key = "llama.rope.dimension_count", .value = 3}, {"rotary length 3"}},
      {{.key = "llama.rope.freq_base"}, {"rope base is -1"}},
      {{.text_key = "llama.rope.scaling.type", .text = "yarn"}, {"llama.rope.scaling.type is 'yarn'"}},
      {{.key = "llama.expert_count", .value = 8}, {"'llama.expert_used_count'", "convert the model again"}},
      {{.floats = {{"llama.rope.scaling.attn_factor", 1.5f}}}, {"llama.rope.scaling.attn_factor is 1.5", "only with 1 here"}},
      {{.floats = {{"llama.attention.sliding_window", 16}}}, {"llama.attention.sliding_window is 16"}},
      {{.floats = {{"llama.attention.scale", 0.25f}}}, {"'llama.attention.scale' is no key that anybit applies"}},
      {{.bools = {{"llama.attention.causal", false}}}, {"llama.attention.causal is 0", "only with 1 here"}},
      {{.bools = {{"llama.use_parallel_residual", true}}}, {"llama.use_parallel_residual is 1"}},
      {{.text_key = "llama.rope.scaling.type", .text = "linear", .floats = {{"llama.rope.scale_linear", -4}}},
       {"rope scale is -4"}},
      {{.without = "token_embd.weight"}, {"token_embd.weight"}},
      {{.without = "blk.1.ffn_up.weight"}, {"blk.1.ffn_up.weight"}},
      {{.tensor = "blk.1.ffn_up.weight"}, {"blk.1.ffn_up.weight is 8 x 6", "7 x 6"}},
      {{.tensor = "output_norm.weight"}, {"output_norm.weight is 2 x 6", "1 x 6"}},
      {{.poisoned = "blk.0.attn_v.weight"}, {"blk.0.attn_v.weight is nan at row 3, column 5"}},
      {{.poisoned = "output_norm.weight"}, {"output_norm.weight is nan"}},
      {{.extra = "blk.0.attn_q.bias"}, {"'blk.0.attn_q.bias'", "use a model without it"}},
      {{.rope_factors = {1, 2, 3}}, {"rope_freqs.weight is 1 x 3", "1 x 2"}},
      {{.rope_factors = {1, 0}}, {"rope factor is 0"}},
      {{.without = "tokenizer.ggml.model"}, {"tokenizer.ggml.model"}},
      {{.key = "tokens", .value = 6}, {"the vocabulary has 6 tokens, but the embedding only 5 rows"}},
  };
  for (const auto& [change, in_message] : cases) {
    const auto m = parse(gguf(change));
    REQUIRE_FALSE(m);
    for (const std::string& part : in_message) {
      CAPTURE(part, m.error().message);
      CHECK(m.error().message.find(part) != std::string::npos);
    }
    CHECK(m.error().message.starts_with("m.gguf: "));
    CHECK(m.error().message.find('\n') == std::string::npos);
  }
}

TEST_CASE("linear rope scaling under its key and its older one") {
  const std::string factor = "llama.rope.scaling.factor", older = "llama.rope.scale_linear", type = "llama.rope.scaling.type";
  const auto scale_of = [](const Change& change) {
    const auto m = parse(gguf(change));
    INFO((m ? "" : m.error().message));
    REQUIRE(m);
    return m->decoder.config.rope_scale;
  };
  CHECK(scale_of({}) == 1);
  CHECK(scale_of({.floats = {{older, 4}}}) == 4);
  CHECK(scale_of({.floats = {{factor, 2}}}) == 2);
  CHECK(scale_of({.floats = {{older, 4}, {factor, 2}}}) == 2);
  CHECK(scale_of({.floats = {{older, 0}}}) == 1);
  CHECK(scale_of({.floats = {{factor, 0}, {older, 4}}}) == 1);
  CHECK(scale_of({.text_key = type, .text = "linear", .floats = {{older, 4}}}) == 4);
  CHECK(scale_of({.text_key = type, .text = "linear", .floats = {{factor, 2}}}) == 2);
  CHECK(scale_of({.text_key = type, .text = "linear"}) == 1);
  CHECK(scale_of({.text_key = type, .text = "none", .floats = {{factor, 2}}}) == 1);
}

TEST_CASE("keys of the architecture that change nothing are allowed") {
  const auto m = parse(gguf({.key = "llama.expert_count",
                             .value = 0,
                             .floats = {{"llama.rope.scaling.attn_factor", 1},
                                        {"llama.attention.sliding_window", 0},
                                        {"llama.rope.scaling.original_context_length", 16},
                                        {"llama.vocab_size", 7},
                                        {"other.attention.scale", 3}},
                             .bools = {{"llama.attention.causal", true}, {"llama.rope.scaling.finetuned", true}}}));
  INFO((m ? "" : m.error().message));
  CHECK(m);
}

TEST_CASE("rows of the embedding without a token are carried along as unused tokens") {
  const auto m = parse(gguf({.key = "tokens", .value = 4}));
  INFO((m ? "" : m.error().message));
  REQUIRE(m);
  CHECK(m->decoder.config.vocabulary == 5);
  REQUIRE(m->tokenizer.size() == 5);
  CHECK(m->tokenizer.vocabulary().kinds[4] == TokenKind::unused);
  CHECK(*m->tokenizer.encode("ab") == std::vector<TokenId>{3});
  CHECK_FALSE(m->tokenizer.encode("[PAD4]"));  // it has no token for these characters
  const TemporaryFolder folder;
  REQUIRE(save_model(folder / "padded", *m));
  const auto back = load_model(folder / "padded");
  REQUIRE(back);
  CHECK(back->tokenizer.vocabulary().kinds == m->tokenizer.vocabulary().kinds);
  const std::vector<TokenId> ids{1, 2, 0};
  CHECK(same_bits(logits_of(back->decoder, ids), logits_of(m->decoder, ids)));
}

TEST_CASE("no terminal obeys the name of a model") {
  const auto m = parse(gguf({.name = "a\x1B[31mb\n\x7F\xC2\x9B c"}));
  REQUIRE(m);
  CHECK(m->name == "a\\x1b[31mb\\x0a\\x7f\\x9b c");
}

TEST_CASE("names that are not UTF-8 are made so, and the model can be saved") {
  const auto m = parse(gguf({.name = "mod\xE9le \xF0\x9F\x98\x80 \xC3"}));
  REQUIRE(m);
  CHECK(m->name == "mod\xEF\xBF\xBDle \xF0\x9F\x98\x80 \xEF\xBF\xBD");
  const TemporaryFolder folder;
  REQUIRE(save_model(folder / "m", *m, {.recipe = "r\xFF", .source = "m\xE9.gguf"}));
  const auto container = io::AnybitFile::open(folder / "m");
  REQUIRE(container);
  CHECK(container->metadata().at("general.name") == m->name);
  CHECK(container->metadata().at("general.source") == "m\xEF\xBF\xBD.gguf");
}

TEST_CASE("the content decides how a file is read") {
  const TemporaryFolder folder;
  write_file(folder / "model.bin", gguf());
  REQUIRE(load_model(folder / "model.bin"));
  CHECK_FALSE(load_model(folder / "absent.gguf"));
  write_file(folder / "empty", "");
  CHECK_FALSE(load_model(folder / "empty"));
  write_file(folder / "text", "These are words and no weights, whatever the name says.");
  CHECK(load_model(folder / "text").error().message.find("text") != std::string::npos);
  write_file(folder / "header", std::string("\x02\0\0\0\0\0\0\0{}", 10));
  CHECK(load_model(folder / "header").error().message.find("anybit.version") != std::string::npos);
}

TEST_CASE("llama2.c checkpoints need their tokenizer") {
  ANYBIT_TEST_DATA_OR_SKIP(path, "data/stories260K.bin");
  ANYBIT_TEST_DATA_OR_SKIP(tokenizer, "data/tok512.bin");
  const TemporaryFolder folder;
  write_file(folder / "stories.bin", read_file(path));
  CHECK(load_model(folder / "stories.bin").error().message.find("tok512.bin") != std::string::npos);
  CHECK(load_model(folder / "stories.bin", {.tokenizer = tokenizer}));
  write_file(folder / "tokenizer.bin", read_file(tokenizer));
  const auto beside = load_model(folder / "stories.bin");
  REQUIRE(beside);
  CHECK(beside->name == "stories");
  const std::string all = read_file(tokenizer);
  write_file(folder / "tok512.bin", std::string_view(all).substr(0, all.size() - 8 - 3));  // without the last token
  CHECK(load_model(folder / "stories.bin").error().message.find("511 tokens, the model 512") != std::string::npos);
}

TEST_CASE("a saved model loads alone and computes the same bits") {
  using Sf5 = Scheme<Superfloat<5>, PerGroup<4>, ScaleF16, BitStream>;
  using Int8 = Scheme<SInt<8>, PerRow, ScaleF32>;
  const TemporaryFolder folder;
  auto m = parse(gguf({.rope_factors = {1, 4}}));
  REQUIRE(m);
  const std::vector<TokenId> ids{3, 4, 0, 1, 2, 4};
  const auto quantized = [](const Linear& from, auto scheme) {
    using S = decltype(scheme);
    const auto q = Nearest<S>{}.quantize(from.dense()->view());
    REQUIRE(q);
    return pack(q->matrix);
  };
  std::size_t i = 0;
  for_each_linear(m->decoder, [&](const std::string&, Linear& l) {
    switch (i++ % 3) {
      case 0: l = Linear(quantized(l, Sf5{})); break;
      case 1: l = Linear(quantized(l, Int8{}), Compute::int8_per_token); break;
      default: break;  // stays in floats
    }
  });
  REQUIRE(save_model(folder / "m.anybit", *m, {.recipe = "a mixture", .source = "m.gguf"}));
  CHECK(folder.files() == 1);

  SchemeRegistry schemes;
  schemes.add<Sf5>();
  CHECK(load_model(folder / "m.anybit").error().message.find("scheme") != std::string::npos);
  CHECK_FALSE(load_model(folder / "m.anybit", {.schemes = schemes}));
  schemes.add<Int8>();
  const auto back = load_model(folder / "m.anybit", {.schemes = schemes});
  INFO((back ? "" : back.error().message));
  REQUIRE(back);
  CHECK(back->name == "m");
  CHECK(back->decoder.config == m->decoder.config);
  CHECK(same_bits(logits_of(back->decoder, ids), logits_of(m->decoder, ids)));
  CHECK(back->decoder.linear(0, "attn_q").compute() == Compute::int8_per_token);
  for (const std::string text : {"abcab", "<end>a", ""})
    CHECK(*back->tokenizer.encode(text, Specials::parsed) == *m->tokenizer.encode(text, Specials::parsed));
  const auto container = io::AnybitFile::open(folder / "m.anybit");
  CHECK(container->metadata().at("general.recipe") == "a mixture");

  const std::string bytes = read_file(folder / "m.anybit");
  const auto open = [&](std::string_view part) -> Result<Model> {
    const std::string copy(part);  // of its own, so that a sanitizer sees its end
    ANYBIT_TRY(const io::AnybitFile file, io::AnybitFile::parse(std::as_bytes(std::span(copy.data(), copy.size())), "part"));
    return model_from_container(file, schemes);
  };
  REQUIRE(open(bytes));
  for (std::size_t size = 0; size < bytes.size(); size += 97) CHECK_FALSE(open(std::string_view(bytes).substr(0, size)));
  // One byte changed anywhere: an error or another model, never a crash.
  std::uint32_t seed = 4;
  for (int round = 0; round < 300; ++round) {
    std::string damaged = bytes;
    seed = seed * 1664525u + 1013904223u;
    damaged[seed % damaged.size()] = static_cast<char>(seed >> 24);
    const auto loaded = open(damaged);
    if (loaded) CHECK(check(loaded->decoder));
  }
}

TEST_CASE("a container with contradictory metadata is an error that names the key") {
  const TemporaryFolder folder;
  const auto m = parse(gguf());
  REQUIRE(m);
  REQUIRE(save_model(folder / "good", *m));
  const std::string good = read_file(folder / "good");
  const auto with = [&](std::string_view from, std::string_view to) {  // of equal length, so that offsets stay
    REQUIRE(from.size() == to.size());
    std::string changed = good;
    const auto at = changed.find(from);
    REQUIRE(at != std::string::npos);
    changed.replace(at, from.size(), to);
    write_file(folder / "changed", changed);
    const auto loaded = load_model(folder / "changed");
    return loaded ? std::string("no error") : loaded.error().message;
  };
  const auto has = [](const std::string& message, std::string_view part) {
    CAPTURE(message, part);
    CHECK(message.find(part) != std::string::npos);
  };
  has(with("\"llama.block_count\":\"2\"", "\"llama.block_count\":\"x\""), "llama.block_count is 'x'");
  has(with("\"llama.block_count\":\"2\"", "\"llama.block_coumt\":\"2\""), "no metadata key 'llama.block_count'");
  has(with("\"llama.vocab_size\":\"5\"", "\"llama.vocab_size\":\"6\""),
      "token_embd.weight is 5 x 6, the configuration needs 6 x 6");
  has(with("\"tokenizer.kind\":\"byte_bpe\"", "\"tokenizer.kind\":\"wordlist\""), "tokenizer.kind is 'wordlist'");
  has(with("\"tokenizer.pre\":\"gpt-2\"", "\"tokenizer.pre\":\"gpt-9\""), "the pre-tokenizer is 'gpt-9'");
  has(with("\"general.architecture\":\"llama\"", "\"general.architecture\":\"lamas\""), "general.architecture is 'lamas'");
  has(with("\"general.architecture\":\"llama\"", "\"general.architecture\":\"lamas\""), "nearest in name: 'llama'");
  has(with("blk.1.ffn_up.weight\":{", "blk.1.ffn_ub.weight\":{"), "blk.1.ffn_up.weight");
}
