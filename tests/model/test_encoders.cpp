// Models with encoders against the answers of their reference implementation, against the readable library, and on bad input.

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <anybit/exec/thread_pool.hpp>
#include <anybit/format/integer.hpp>
#include <anybit/io/anybit_file.hpp>
#include <anybit/io/safetensors.hpp>
#include <anybit/io/safetensors_writer.hpp>
#include <anybit/model/arch/architectures.hpp>
#include <anybit/model/container.hpp>
#include <anybit/model/load.hpp>
#include <anybit/model/pooling.hpp>
#include <anybit/model/rotate.hpp>
#include <anybit/reference/cross_attention.hpp>
#include <anybit/reference/encoder_block.hpp>
#include <anybit/reference/relative_bias.hpp>

#include "model/letters.hpp"
#include "model/random_decoder.hpp"
#include "model/random_encoders.hpp"
#include "model/random_ids.hpp"
#include "support/catch.hpp"
#include "support/largest_difference.hpp"
#include "support/same_bits.hpp"
#include "support/temporary_folder.hpp"
#include "support/test_data.hpp"

using namespace anybit;
using namespace anybit::model;
using test_support::ids;
using test_support::largest_difference;
using test_support::same_bits;

namespace {

/// A prompt of a golden file, with what its tensors are called.
struct GoldenPrompt {
  std::vector<TokenId> tokens, types, source;
  Matrix features;
  Source as_source() const { return {.ids = source, .features = features.view()}; }
};

GoldenPrompt golden_prompt(const io::SafetensorsFile& golden, const std::string& prefix) {
  GoldenPrompt p;
  p.tokens = golden.read<std::int32_t>(prefix + "ids").value();
  if (golden.find(prefix + "types")) p.types = golden.read<std::int32_t>(prefix + "types").value();
  if (const io::TensorInfo* const source = golden.find(prefix + "src"); source && source->dtype == "I32") {
    p.source = golden.read<std::int32_t>(prefix + "src").value();
  } else if (source) {
    const Matrix turned = golden.read_f32(prefix + "src").value();  // (bins, frames)
    p.features = Matrix(turned.cols(), turned.rows());
    for (Index t = 0; t < turned.cols(); ++t)
      for (Index b = 0; b < turned.rows(); ++b) p.features(t, b) = turned(b, t);
  }
  return p;
}

void check_like_golden(ConstMatrix got, const Matrix& want) {
  double largest = 1;
  for (Index i = 0; i < want.extents().size(); ++i) largest = std::max(largest, std::fabs(static_cast<double>(want.data()[i])));
  REQUIRE(got.extents() == want.extents());
  CHECK(largest_difference(got, want.view()) < 1e-4 * largest);
}

/// Taps that compare streams and inputs of linears with the golden ones; `seen` counts them.
std::vector<Tap> golden_taps(const Decoder& d, const io::SafetensorsFile& golden, const std::string& prefix, std::size_t& seen) {
  std::vector<Tap> taps;
  const auto compare = [&](Index block, Point point, const std::string& name) {
    if (!golden.find(name)) return;
    taps.push_back({block, point, [&golden, &seen, name](MutableMatrix x, TokenRange) {
                      CAPTURE(name);
                      check_like_golden(x, golden.read_f32(name).value());
                      ++seen;
                    }});
  };
  const Index encoder = d.config.encoder_blocks();
  const std::string last = prefix + (encoder > 0 ? "decoder.h." : "h."), first = prefix + "encoder.h.";
  if (encoder > 0) compare(Tap::every_block, Point::encoder_embedding, first + "0");
  compare(Tap::every_block, Point::embedding, last + "0");
  for (Index i = 0; i < d.config.blocks; ++i)
    compare(i, Point::residual, i < encoder ? first + std::to_string(i + 1) : last + std::to_string(i - encoder + 1));
  compare(Tap::every_block, Point::encoder_out, prefix + "encoder.out");
  compare(Tap::every_block, Point::final_norm, last + "norm");
  for (const SiteSpec& site : d.blueprint->sites)
    for (const WeightId reader : site.readers) {
      const std::string name = hugging_face_name(*d.blueprint->architecture, d.config, (*d.blueprint)[reader].name);
      compare(site.block, site.point, prefix + "in." + name.substr(0, name.size() - 7));
    }
  return taps;
}

Matrix logits_of_pair(const Decoder& d, const Source& source, std::span<const TokenId> tokens, Index piece,
                      ExecutorRef executor = {}) {
  Encoded encoded = encode(d, source, {executor}).value();
  nn::KvCache cache(cache_shape(d.config), static_cast<Index>(tokens.size()));
  Matrix out(static_cast<Index>(tokens.size()), d.config.vocabulary);
  for (Index at = 0; at < out.rows(); at += piece) {
    const Index end = std::min(at + piece, out.rows());
    const auto some = tokens.subspan(static_cast<std::size_t>(at), static_cast<std::size_t>(end - at));
    const Matrix l = forward(d, some, cache, {.executor = executor, .encoded = &encoded}).value();
    std::copy_n(l.data(), l.extents().size(), out.data() + at * out.cols());
  }
  return out;
}

template <class R>
void check_says(const R& r, const std::string& part) {
  REQUIRE(!r);
  INFO(r.error().message);
  CHECK(r.error().message.find(part) != std::string::npos);
  CHECK(r.error().message.find('\n') == std::string::npos);
}

}  // namespace

TEST_CASE("encoders: golden logits and streams and inputs of linears of encoder-decoders") {
  ANYBIT_TEST_DATA_OR_SKIP(vectors, "vectors/arch");
  for (const auto& [folder, architecture] :
       {std::pair{"t5", &t5_architecture}, std::pair{"flan_t5", &t5_architecture}, std::pair{"whisper", &whisper_architecture},
        std::pair{"bart", &bart_architecture}}) {
    CAPTURE(folder);
    const auto d = load_decoder(vectors + "/" + folder);
    INFO((d ? std::string() : d.error().message));
    REQUIRE(d);
    CHECK(d->blueprint->architecture == architecture);
    const auto golden = io::SafetensorsFile::open(vectors + "/" + folder + "/golden.safetensors").value();
    for (const std::string prefix : {"p0.", "p1.", "p2."}) {
      CAPTURE(prefix);
      const GoldenPrompt p = golden_prompt(golden, prefix);
      std::size_t seen = 0;
      const std::vector<Tap> taps = golden_taps(*d, golden, prefix, seen);
      Encoded encoded = encode(*d, p.as_source(), {.taps = taps}).value();
      nn::KvCache cache(cache_shape(d->config), static_cast<Index>(p.tokens.size()));
      const Matrix logits = forward(*d, p.tokens, cache, {.taps = taps, .encoded = &encoded}).value();
      CHECK(seen == taps.size());
      CHECK(seen >= (prefix == "p1." ? 18u : 3u));
      const Matrix want = golden.read_f32(prefix + "logits").value();
      check_like_golden(logits.view(), want);
      check_like_golden(logits_of_pair(*d, p.as_source(), p.tokens, 1).view(), want);
    }
  }
}

TEST_CASE("encoders: golden streams and vectors of BERT") {
  ANYBIT_TEST_DATA_OR_SKIP(vectors, "vectors/arch");
  const Decoder d = load_decoder(vectors + "/bert").value();
  const auto golden = io::SafetensorsFile::open(vectors + "/bert/golden.safetensors").value();
  for (const std::string prefix : {"p0.", "p1.", "p2."}) {
    CAPTURE(prefix);
    const GoldenPrompt p = golden_prompt(golden, prefix);
    std::size_t seen = 0;
    const std::vector<Tap> taps = golden_taps(d, golden, prefix, seen);
    nn::KvCache cache(cache_shape(d.config), static_cast<Index>(p.tokens.size()));
    const Matrix states = hidden_states(d, p.tokens, cache, {.taps = taps, .types = p.types}).value();
    CHECK(seen == taps.size());
    const auto row = [](const std::vector<float>& v) { return ConstMatrix(v.data(), 1, static_cast<Index>(v.size())); };
    check_like_golden(row(mean_unit(states.view())), golden.read_f32(prefix + "mean_unit").value());
    check_like_golden(row(pooled(d, states.view())), golden.read_f32(prefix + "pooled").value());
  }
}

TEST_CASE("encoders: a block of BERT is the readable one") {
  const Decoder d = test_support::random_bert();
  const auto matrix = [&](const char* name) { return reference::matrix_of(*d.linear(1, name).dense()); };
  const auto bias = [&](const char* name) { return reference::Vector(d.linear(1, name).bias()); };
  const auto norm = [&](const std::string& name) { return reference::Vector(d[d.weight("blk.1." + name)].values); };
  const reference::EncoderBlock b{
      matrix("attn_q"),      matrix("attn_k"), matrix("attn_v"),         matrix("attn_output"),  matrix("ffn_up"),
      matrix("ffn_down"),    bias("attn_q"),   bias("attn_k"),           bias("attn_v"),         bias("attn_output"),
      bias("ffn_up"),        bias("ffn_down"), norm("attn_norm.weight"), norm("attn_norm.bias"), norm("ffn_norm.weight"),
      norm("ffn_norm.bias"), d.config.head_dim};
  for (const Index tokens : {1, 7, 45}) {
    Matrix before, after;
    const Tap taps[] = {{0, Point::residual, [&](MutableMatrix x, TokenRange) { before = Matrix(x); }},
                        {1, Point::residual, [&](MutableMatrix x, TokenRange) { after = Matrix(x); }}};
    nn::KvCache cache(cache_shape(d.config), tokens);
    REQUIRE(hidden_states(d, ids(tokens, 3), cache, {.taps = taps}));
    const reference::Matrix want = encoder_block(b, reference::matrix_of(before), static_cast<double>(d.config.norm_epsilon));
    double worst = 0;
    for (Index t = 0; t < tokens; ++t)
      for (Index j = 0; j < want.cols; ++j) worst = std::max(worst, std::abs(want(t, j) - static_cast<double>(after(t, j))));
    CHECK(worst < 2e-5);
  }
}

TEST_CASE("encoders: cross-attention is the readable one") {
  const Decoder d = test_support::random_whisper();
  const Matrix features = test_support::random_features(27, 10);
  Matrix in, out;
  const Index block = 3;
  const Tap taps[] = {{block, Point::cross_in, [&](MutableMatrix x, TokenRange) { in = Matrix(x); }},
                      {block, Point::cross_out, [&](MutableMatrix x, TokenRange) { out = Matrix(x); }}};
  Encoded encoded = encode(d, {.features = features.view()}).value();
  REQUIRE(encoded.states.rows() == 14);
  nn::KvCache cache(cache_shape(d.config), 9);
  REQUIRE(forward(d, ids(9, 1), cache, {.taps = taps, .encoded = &encoded}));
  const auto matrix = [&](const char* name) { return reference::matrix_of(*d.linear(block, name).dense()); };
  const auto bias = [&](const char* name) { return reference::Vector(d.linear(block, name).bias()); };
  CHECK(d.linear(block, "cross_attn_k").bias().empty());
  const reference::CrossAttention c{matrix("cross_attn_q"),      matrix("cross_attn_k"),    matrix("cross_attn_v"),
                                    matrix("cross_attn_output"), bias("cross_attn_q"),      bias("cross_attn_k"),
                                    bias("cross_attn_v"),        bias("cross_attn_output"), d.config.head_dim};
  const reference::Matrix want = cross_attention(c, reference::matrix_of(in), reference::matrix_of(encoded.states));
  double worst = 0;
  for (Index t = 0; t < 9; ++t)
    for (Index j = 0; j < want.cols; ++j) worst = std::max(worst, std::abs(want(t, j) - static_cast<double>(out(t, j))));
  CHECK(worst < 2e-5);
}

TEST_CASE("encoders: cross-attention multiplies in bfloat16 where a run says so and the processor does") {
  const Decoder d = test_support::random_whisper();
  Encoded encoded = encode(d, {.features = test_support::random_features(27, 10).view()}).value();
  const auto result = [&](Compute attention) {
    Matrix out;
    const Tap taps[] = {{3, Point::cross_in,
                         [](MutableMatrix x, TokenRange) {
                           for (Index i = 0; i < x.rows * x.cols; ++i) x(i / x.cols, i % x.cols) = static_cast<float>(i % 7) - 3;
                         }},
                        {3, Point::cross_head_out, [&](MutableMatrix x, TokenRange) { out = Matrix(x); }}};
    nn::KvCache cache(cache_shape(d.config), 9);
    REQUIRE(forward(d, ids(9, 1), cache, {.taps = taps, .encoded = &encoded, .attention = attention}));
    return out;
  };
  const Matrix exact = result(Compute::f32), rounded = result(Compute::bf16);
  CHECK(kernel::detail::attends_in_bf16<kernel::native_arch>({.compute = Compute::bf16}) != same_bits(exact, rounded));
  CHECK(largest_difference(exact.view(), rounded.view()) <
        0.02 * largest_difference(exact.view(), Matrix(exact.rows(), exact.cols()).view()));
}

TEST_CASE("encoders: buckets of distances are the readable ones") {
  for (const bool both : {false, true})
    for (const auto& [buckets, longest] :
         {std::pair<Index, Index>{32, 128}, {8, 20}, {4, 5}, {6, 9}, {2 + 2 * both, 3}, {64, 1000}})
      for (Index d = -2 * longest; d <= 2 * longest; ++d) {
        CAPTURE(both, buckets, longest, d);
        const Index is = distance_bucket(d, !both, buckets, longest);
        REQUIRE(is == reference::relative_bucket(d, both, buckets, longest));
        REQUIRE((is >= 0 && is < buckets));
      }
  // Of T5, by its own library: 32 buckets up to 128, looking back and both ways.
  CHECK(distance_bucket(-15, true, 32, 128) == 15);
  CHECK(distance_bucket(-16, true, 32, 128) == 16);
  CHECK(distance_bucket(-127, true, 32, 128) == 31);
  CHECK(distance_bucket(5, true, 32, 128) == 0);
  CHECK(distance_bucket(5, false, 32, 128) == 21);
  CHECK(distance_bucket(-8, false, 32, 128) == 8);
  CHECK(distance_bucket(1000, false, 32, 128) == 31);
}

TEST_CASE("encoders: pieces and threads give the same bits and the source is read once") {
  ThreadPool pool(3);
  for (const bool gated : {false, true}) {
    const Decoder d = test_support::random_t5(gated);
    const std::vector<TokenId> source = ids(41, 1), tokens = ids(37, 2);
    const Matrix whole = logits_of_pair(d, {.ids = source}, tokens, 37);
    CHECK(same_bits(logits_of_pair(d, {.ids = source}, tokens, 37, pool), whole));
    const double largest = largest_difference(whole.view(), Matrix(whole.rows(), whole.cols()).view());
    for (const Index piece : {1, 10})
      CHECK(largest_difference(logits_of_pair(d, {.ids = source}, tokens, piece).view(), whole.view()) < 1e-5 * largest);
    CHECK(largest_difference(logits_of_pair(d, {.ids = ids(41, 9)}, tokens, 37).view(), whole.view()) > 0.01);

    Encoded encoded = encode(d, {.ids = source}).value();
    int read = 0;
    const Tap taps[] = {{Tap::every_block, Point::memory, [&](MutableMatrix x, TokenRange range) {
                           CHECK(x.rows == 41);
                           CHECK(range.end == 41);
                           ++read;
                         }}};
    nn::KvCache cache(cache_shape(d.config), 8);
    for (int i = 0; i < 3; ++i) REQUIRE(forward(d, ids(2, 4), cache, {.taps = taps, .encoded = &encoded}));
    CHECK(read == 2);  // once in each block of the decoder
  }
}

TEST_CASE("encoders: a container holds them") {
  SchemeRegistry schemes;
  schemes.add<Scheme<SInt<8>, PerGroup<16>, ScaleF16>>();
  for (const Decoder& d : {test_support::random_t5(true), test_support::random_t5(false), test_support::random_bert(),
                           test_support::random_whisper()}) {
    CAPTURE(d.blueprint->architecture->name);
    const test_support::TemporaryFolder folder;
    REQUIRE(save_model(folder / "model", {"m", d, test_support::letters()}));
    const auto file = io::AnybitFile::open(folder / "model").value();
    const auto again = model_from_container(file, schemes);
    INFO((again ? std::string() : again.error().message));
    REQUIRE(again);
    CHECK(again->decoder.config == d.config);
    for (std::size_t i = 0; i < d.weights.size(); ++i) {
      const Weight &a = d.weights[i], &b = again->decoder.weights[i];
      CAPTURE(d.blueprint->weights[i].name);
      CHECK(a.values == b.values);
      CHECK(a.linear.bias() == b.linear.bias());
      REQUIRE(a.linear.extents() == b.linear.extents());
      if (a.linear.dense()) CHECK(same_bits(*a.linear.dense(), *b.linear.dense()));
    }
  }
}

TEST_CASE("encoders: an input that does not fit is refused by name") {
  const Decoder t5 = test_support::random_t5(true), whisper = test_support::random_whisper(), bert = test_support::random_bert();
  const std::vector<TokenId> some = ids(4, 1);
  nn::KvCache t5_cache(cache_shape(t5.config), 8), bert_cache(cache_shape(bert.config), 60);
  check_says(forward(t5, some, t5_cache), "no source was given");
  check_says(encode(t5, {}), "no tokens");
  const Matrix features = test_support::random_features(29, 10), narrow = test_support::random_features(4, 9);
  check_says(encode(t5, {.features = features.view()}), "reads tokens");
  check_says(encode(t5, {.ids = std::vector<TokenId>{3, 61}}), "source token 1 has the id 61");
  check_says(encode(whisper, {.ids = some}), "reads features");
  check_says(encode(whisper, {}), "no frames");
  check_says(encode(whisper, {.features = features.view()}), "29 frames of features exceed the 28");
  check_says(encode(whisper, {.features = narrow.view()}), "frames of 9 bins: the model reads 10");
  CHECK(encode(whisper, {.features = features.view().row_range(0, 28)}));

  check_says(forward(bert, some, bert_cache), "no head");
  check_says(hidden_states(bert, some, bert_cache, {.types = std::vector<TokenId>{0, 1}}), "2 types for 4 tokens");
  check_says(hidden_states(bert, some, bert_cache, {.types = std::vector<TokenId>{0, 1, 2, 0}}), "token 2 has the type 2");
  check_says(hidden_states(bert, ids(51, 1), bert_cache), "exceed the 50 positions");
  REQUIRE(hidden_states(bert, some, bert_cache));
  check_says(hidden_states(bert, some, bert_cache), "sees a whole sequence at once");
  const Decoder llama = test_support::random_decoder(2);
  nn::KvCache llama_cache(cache_shape(llama.config), 8);
  check_says(forward(llama, some, llama_cache, {.types = std::vector<TokenId>{0, 0, 0, 0}}), "knows no types");

  check_says(check_is_decoder(t5, "perplexity"), "perplexity: the model is of the architecture t5, an encoder-decoder");
  check_says(check_is_decoder(bert, "generate"), "an encoder");
  CHECK(check_is_decoder(llama, "generate"));
  check_says(rotate(t5), "does not pass through");
  check_says(rotate(bert), "does not pass through");
}

TEST_CASE("encoders: a contradiction in a configuration is named") {
  const auto refused = [](DecoderConfig c, const std::string& part) { check_says(check(c), part); };
  const DecoderConfig t5 = test_support::random_t5(true).config, whisper = test_support::random_whisper().config;
  DecoderConfig c = t5;
  c.encoder.clear();
  refused(c, "belong together");
  c = t5, c.form.cross_attention = false;
  refused(c, "belong together");
  c = t5, c.encoder.push_back(c.encoder.front());
  refused(c, "2 encoders");
  c = t5, c.encoder.front().dim = 48;
  refused(c, "48 wide");
  c = t5, c.encoder.front().blocks = c.blocks;
  refused(c, "5 of 5 blocks");
  c = t5, c.encoder.front().form.causal = true;
  refused(c, "looks back only");
  c = t5, c.form.relative_buckets = 1;
  refused(c, "1 buckets");
  c = t5, c.encoder.front().form.relative_distance = 2;
  refused(c, "distances up to 2");
  c = t5, c.form.relative_distance = Index{1} << 30;
  refused(c, "up to 65536");
  c = t5, c.form.logit_scale = 0;
  refused(c, "logit scale");
  c = whisper, c.form.feature_bins = 3;
  refused(c, "features are for encoders");
  c = whisper, c.encoder.front().form.feature_bins = -1;
  refused(c, "number of features");
}

TEST_CASE("encoders: folders with copies of the embedding and heads of pre-training and other positions") {
  ANYBIT_TEST_DATA_OR_SKIP(vectors, "vectors/arch");
  const test_support::TemporaryFolder copy;
  const auto write = [&](const std::string& folder, const std::string& from, const std::string& to, auto change) {
    std::ifstream in(vectors + "/" + folder + "/config.json", std::ios::binary);
    std::string config(std::istreambuf_iterator<char>(in), {});
    if (!from.empty()) {
      const std::size_t at = config.find(from);
      REQUIRE(at != config.npos);
      config.replace(at, from.size(), to);
    }
    std::ofstream(copy / "config.json", std::ios::binary) << config;
    const auto file = io::SafetensorsFile::open(vectors + "/" + folder + "/model.safetensors").value();
    std::vector<io::TensorInfo> tensors = file.tensors();
    change(tensors);
    REQUIRE(io::write_safetensors(copy / "model.safetensors", tensors));
    return load_decoder(copy / "");
  };
  const auto named = [](const std::vector<io::TensorInfo>& all, const std::string& name) {
    return *std::find_if(all.begin(), all.end(), [&](const auto& t) { return t.name == name; });
  };
  const auto nothing = [](auto&) {};
  const auto with_copies = [&](std::vector<io::TensorInfo>& t) {
    for (const char* const name : {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight"}) {
      t.push_back(named(t, "shared.weight"));
      t.back().name = name;
    }
  };
  CHECK(write("t5", "", "", with_copies));
  const std::vector<float> other(80 * 40, 1.0f);
  check_says(write("t5", "", "",
                   [&](std::vector<io::TensorInfo>& t) {
                     with_copies(t);
                     t.back().bytes = std::as_bytes(std::span(other));
                   }),
             "decoder.embed_tokens.weight");
  // A block that one stack does not have must not become one of the other.
  check_says(write("t5", "", "",
                   [&](std::vector<io::TensorInfo>& t) {
                     t.push_back(named(t, "encoder.block.1.layer.0.SelfAttention.q.weight"));
                     t.back().name = "encoder.block.2.layer.0.SelfAttention.q.weight";
                   }),
             "encoder.block.2.layer.0.SelfAttention.q.weight");
  check_says(write("t5", "relu", "gelu", nothing), "feed_forward_proj");
  CHECK(write("bert", "", "", [&](std::vector<io::TensorInfo>& t) {
    t.push_back(named(t, "pooler.dense.bias"));
    t.back().name = "cls.predictions.transform.dense.bias";
  }));
  CHECK(write("bert", "", "", [](std::vector<io::TensorInfo>& t) {
    for (io::TensorInfo& tensor : t) tensor.name = "bert." + tensor.name;
  }));
  const auto without_pooler = write("bert", "", "", [](std::vector<io::TensorInfo>& t) {
    std::erase_if(t, [](const io::TensorInfo& tensor) { return tensor.name.starts_with("pooler."); });
  });
  REQUIRE(without_pooler);
  CHECK(pooled(*without_pooler, Matrix(2, 48).view()).empty());
  check_says(write("bert", "absolute", "relative_key", nothing), "position_embedding_type");
  check_says(write("whisper", "\"encoder_layers\": 2", "\"encoder_layers\": 3", nothing), "model.encoder.layers.2");
}
