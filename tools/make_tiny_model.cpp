// Writes a small random language model as GGUF: what the tools need to run where no real model is at hand.
// Its sizes are odd on purpose (no dimension is a multiple of 128), its blocks are Q8_0, embedding and head F32, and some
// channels are far larger than others, as in real models.
//
//   make_tiny_model OUT.gguf [--seed N]
//

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include <anybit/core/half.hpp>
#include <anybit/io/gguf_writer.hpp>
#include <anybit/model/load.hpp>

namespace {

using anybit::Index;

constexpr Index dim = 96, hidden = 160, blocks = 3, heads = 4, kv_heads = 2, head_dim = dim / heads, context = 1024;

std::string utf8(char32_t c) {  // the byte alphabet ends below U+0800
  if (c < 0x80) return {static_cast<char>(c)};
  return {static_cast<char>(0xC0 | (c >> 6)), static_cast<char>(0x80 | (c & 0x3F))};
}

struct Vocabulary {
  std::vector<std::string> tokens, merges;
  std::vector<std::int32_t> kinds;

  Vocabulary() {
    add("<|endoftext|>", 3);
    for (const char32_t c : anybit::model::detail::byte_alphabet()) add(utf8(c), 1);
    const std::string space = "\xC4\xA0";  // U+0120 stands for a space
    for (const auto& [left, right] : std::vector<std::pair<std::string, std::string>>{
             {space, "t"}, {"h", "e"},          {space, "a"},       {"i", "n"},         {"r", "e"},   {"o", "n"},
             {"e", "r"},   {space + "t", "he"}, {"a", "t"},         {space, "s"},       {space, "o"}, {"e", "n"},
             {space, "w"}, {"i", "t"},          {"o", "r"},         {"i", "s"},         {space, "b"}, {"e", "d"},
             {"in", "g"},  {space + "a", "n"},  {space, "i"},       {space + "o", "f"}, {"e", "s"},   {space + "an", "d"},
             {"at", "i"},  {"ati", "on"},       {space + "t", "o"}, {space, "in"}}) {
      merges.push_back(left + " " + right);
      add(left + right, 1);
    }
  }
  void add(std::string token, std::int32_t kind) { tokens.push_back(std::move(token)), kinds.push_back(kind); }
};

class Weights {
 public:
  explicit Weights(std::uint32_t seed) : random_(seed) {}

  /// Uniform with standard deviation `sigma`; not std::normal_distribution, whose numbers differ between standard libraries.
  std::vector<float> values(Index count, float sigma) {
    std::vector<float> out;
    for (Index i = 0; i < count; ++i) out.push_back((static_cast<float>(random_()) * 0x1p-32f - 0.5f) * std::sqrt(12.0f) * sigma);
    return out;
  }
  /// Around 1, but every 17th channel is six times as large.
  std::vector<float> gains() {
    std::vector<float> out = values(dim, 0.1f);
    for (Index j = 0; j < dim; ++j)
      out[static_cast<std::size_t>(j)] = (out[static_cast<std::size_t>(j)] + 1) * (j % 17 == 5 ? 6.0f : 1.0f);
    return out;
  }

 private:
  std::mt19937 random_;
};

/// ggml's Q8_0: blocks of 32, a binary16 scale d = max |x| / 127, then 32 signed bytes.
std::string q8_0(const std::vector<float>& x) {
  std::string out;
  for (std::size_t block = 0; block < x.size(); block += 32) {
    float largest = 0;
    for (std::size_t i = 0; i < 32; ++i) largest = std::max(largest, std::abs(x[block + i]));
    const float d = largest / 127;
    const std::uint16_t scale = anybit::f32_to_f16(d);
    out += static_cast<char>(scale & 0xFF);
    out += static_cast<char>(scale >> 8);
    for (std::size_t i = 0; i < 32; ++i)
      out += static_cast<char>(static_cast<std::int8_t>(d > 0 ? std::round(x[block + i] / d) : 0));
  }
  return out;
}

anybit::Status write_model(const std::string& path, std::uint32_t seed) {
  const Vocabulary v;
  const auto vocabulary = static_cast<Index>(v.tokens.size());
  anybit::io::GgufWriter file;
  file.add_metadata("general.architecture", "llama");
  file.add_metadata("general.name", "tiny random model");
  const auto number = [&](std::string_view key, Index value) { file.add_metadata(key, static_cast<std::uint32_t>(value)); };
  number("llama.block_count", blocks), number("llama.context_length", context), number("llama.embedding_length", dim);
  number("llama.feed_forward_length", hidden), number("llama.attention.head_count", heads);
  number("llama.attention.head_count_kv", kv_heads), number("llama.vocab_size", vocabulary);
  file.add_metadata("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  file.add_metadata("llama.rope.freq_base", 10000.0f);
  file.add_metadata("tokenizer.ggml.model", "gpt2");
  file.add_metadata("tokenizer.ggml.pre", "gpt-2");
  file.add_metadata("tokenizer.ggml.tokens", v.tokens);
  file.add_metadata("tokenizer.ggml.token_type", v.kinds);
  file.add_metadata("tokenizer.ggml.merges", v.merges);
  file.add_metadata("tokenizer.ggml.eos_token_id", std::uint32_t{0});
  file.add_metadata("tokenizer.ggml.add_bos_token", false);

  Weights random(seed);
  // Sums over n inputs keep the size of the inputs with sigma = 1 / sqrt(n); a bit more in the blocks, so that what a token
  // was decides what follows.
  const auto linear = [&](const std::string& name, Index rows, Index cols) {
    file.add_tensor(name, {rows, cols}, "Q8_0", q8_0(random.values(rows * cols, 1.2f / std::sqrt(static_cast<float>(cols)))));
  };
  file.add_f32("token_embd.weight", {vocabulary, dim}, random.values(vocabulary * dim, 1));
  for (Index i = 0; i < blocks; ++i) {
    const std::string block = "blk." + std::to_string(i) + ".";
    file.add_f32(block + "attn_norm.weight", {dim}, random.gains());
    linear(block + "attn_q.weight", heads * head_dim, dim);
    linear(block + "attn_k.weight", kv_heads * head_dim, dim);
    linear(block + "attn_v.weight", kv_heads * head_dim, dim);
    linear(block + "attn_output.weight", dim, heads * head_dim);
    file.add_f32(block + "ffn_norm.weight", {dim}, random.gains());
    linear(block + "ffn_gate.weight", hidden, dim);
    linear(block + "ffn_up.weight", hidden, dim);
    linear(block + "ffn_down.weight", dim, hidden);
  }
  file.add_f32("output_norm.weight", {dim}, std::vector<float>(static_cast<std::size_t>(dim), 1.0f));
  file.add_f32("output.weight", {vocabulary, dim}, random.values(vocabulary * dim, 1.5f / std::sqrt(static_cast<float>(dim))));
  return file.save(path);
}

/// Reads the file again as the tools will.
anybit::Status check_model(const std::string& path) {
  ANYBIT_TRY(const anybit::model::Model m, anybit::model::load_model(path));
  const std::string text = "The sun is in the nation of others, and it was 42 \xE2\x82\xAC.";
  ANYBIT_TRY(const auto ids, m.tokenizer.encode(text));
  ANYBIT_TRY(const std::string back, m.tokenizer.decode(ids));
  if (back != text) return {anybit::ErrorCode::corrupt_data, path + ": its tokenizer loses text"};
  anybit::nn::KvCache cache(cache_shape(m.decoder.config), static_cast<Index>(ids.size()));
  ANYBIT_TRY(const anybit::Matrix logits, anybit::model::forward(m.decoder, ids, cache));
  std::cout << path << ": " << m.name << ", " << m.decoder.config.blocks << " blocks, " << logits.cols()
            << " tokens in the vocabulary\n";
  return anybit::Ok{};
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  char* end = nullptr;
  std::uint32_t seed = 1;
  const bool seeded = arguments.size() == 3 && arguments[1] == "--seed";
  if (seeded) seed = static_cast<std::uint32_t>(std::strtoul(arguments[2].c_str(), &end, 10));
  if (arguments.empty() || arguments[0].starts_with('-') || (arguments.size() != 1 && !seeded) || (end && *end != '\0')) {
    std::cerr << "usage: make_tiny_model OUT.gguf [--seed N]\n";
    return 2;
  }
  auto done = write_model(arguments[0], seed);
  if (done) done = check_model(arguments[0]);
  if (done) return 0;
  std::cerr << "make_tiny_model: " << done.error().message << '\n';
  return 1;
}
