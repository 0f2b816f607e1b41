#include <anybit/io/llama2c.hpp>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "bad_bytes.hpp"
#include "support/catch.hpp"
#include "support/test_data.hpp"

using namespace anybit;
using bad_bytes::check_error;
using bad_bytes::Exact;
using io::Llama2cFile;

namespace {

using Header = std::vector<std::int32_t>;  // dim, hidden, layers, heads, kv heads, vocabulary, positions

/// Weight i of the file has the value i.
std::string checkpoint(const Header& header, std::size_t weights) {
  std::string out(reinterpret_cast<const char*>(header.data()), header.size() * 4);
  for (std::size_t i = 0; i < weights; ++i) {
    const auto value = static_cast<float>(i);
    out.append(reinterpret_cast<const char*>(&value), 4);
  }
  return out;
}

// dim 4, hidden 3, 2 layers, 2 heads, 1 KV head, 5 tokens, 6 positions; by hand: embeddings 20, norms 2*4, q 2*16, k 2*8,
// v 2*8, o 2*16, norms 2*4, w1, w2, w3 2*12 each, final norm 4, tables 2*6.
const Header small{4, 3, 2, 2, 1, 5, 6};
constexpr std::size_t small_weights = 20 + 8 + 32 + 16 + 16 + 32 + 8 + 24 + 24 + 24 + 4 + 12;

auto parse_llama2c(std::span<const std::byte> bytes) { return Llama2cFile::parse(bytes, "bad.file"); }
Result<Llama2cFile> parse_llama2c(const Header& h, std::size_t weights) {
  return parse_llama2c(Exact(checkpoint(h, weights)).bytes());
}

}  // namespace

TEST_CASE("llama2.c: every tensor lies where llama2.c puts it") {
  for (const bool shared : {true, false}) {
    Header h = small;
    if (!shared) h[5] = -h[5];
    const Exact bytes(checkpoint(h, small_weights + (shared ? 0 : 20)));
    const auto file = Llama2cFile::parse(bytes.bytes(), "small");
    REQUIRE(file.ok());
    const auto& c = file->config();
    CHECK(c.dim == 4);
    CHECK(c.hidden_dim == 3);
    CHECK(c.n_layers == 2);
    CHECK(c.n_heads == 2);
    CHECK(c.n_kv_heads == 1);
    CHECK(c.vocab_size == 5);
    CHECK(c.seq_len == 6);
    CHECK(c.shared_classifier == shared);
    CHECK(c.kv_dim() == 2);
    CHECK(file->tensors().size() == (shared ? 20 : 21));

    const auto starts = [&](const char* name, Extents e, float first) {
      const auto m = file->read_f32(name);
      INFO(name);
      REQUIRE(m.ok());
      CHECK(m->extents() == e);
      CHECK((*m)(0, 0) == first);
      CHECK((*m)(e.rows - 1, e.cols - 1) == first + static_cast<float>(e.size() - 1));
    };
    starts("token_embd.weight", {5, 4}, 0);
    starts("blk.0.attn_norm.weight", {1, 4}, 20);
    starts("blk.1.attn_norm.weight", {1, 4}, 24);
    starts("blk.0.attn_q.weight", {4, 4}, 28);
    starts("blk.1.attn_q.weight", {4, 4}, 44);
    starts("blk.0.attn_k.weight", {2, 4}, 60);
    starts("blk.1.attn_k.weight", {2, 4}, 68);
    starts("blk.0.attn_v.weight", {2, 4}, 76);
    starts("blk.0.attn_output.weight", {4, 4}, 92);
    starts("blk.0.ffn_norm.weight", {1, 4}, 124);
    starts("blk.0.ffn_gate.weight", {3, 4}, 132);
    starts("blk.0.ffn_down.weight", {4, 3}, 156);
    starts("blk.1.ffn_down.weight", {4, 3}, 168);
    starts("blk.0.ffn_up.weight", {3, 4}, 180);
    starts("output_norm.weight", {1, 4}, 204);
    if (shared) CHECK(file->find("output.weight") == nullptr);
    if (!shared) starts("output.weight", {5, 4}, 220);
  }
}

TEST_CASE("llama2.c: a file cut anywhere is an error") {
  bad_bytes::every_prefix_is_refused(checkpoint(small, small_weights), [](auto bytes) { return parse_llama2c(bytes).ok(); });
}

TEST_CASE("llama2.c: bad checkpoints: each is an error that names file, value and remedy") {
  constexpr std::int32_t least = std::numeric_limits<std::int32_t>::min(), most = std::numeric_limits<std::int32_t>::max();
  const auto with = [](std::size_t field, std::int32_t value) {
    Header h = small;
    h[field] = value;
    return parse_llama2c(h, small_weights);
  };
  check_error(with(0, 0), "dim is 0, not positive");
  check_error(with(1, -3), "hidden_dim is -3, not positive");
  check_error(with(2, least), "n_layers is -2147483648");
  check_error(with(3, 0), "n_heads is 0");
  check_error(with(4, 0), "n_kv_heads is 0");
  check_error(with(5, 0), "vocab_size is 0");
  check_error(with(6, 0), "seq_len is 0");
  check_error(with(5, least), "bytes of weights");
  check_error(with(0, 6), "dim 6, n_heads 2 and n_kv_heads 1 do not divide into heads of even size");
  check_error(with(4, 3), "n_kv_heads 3 do not divide");
  check_error(with(0, 0x616B3432), "version 1 or 2: export it with version 0");
  check_error(with(2, most), "its header asks for");
  check_error(with(6, 7), "its header asks for 888 bytes of weights, but 880 follow");
  check_error(parse_llama2c({most - 1, most, most, 1, 1, most, most}, 10), "more than 2^63 bytes");
  check_error(parse_llama2c(small, small_weights + 1), "its header asks for 880 bytes of weights, but 884 follow");
}

TEST_CASE("llama2.c: mutated checkpoints are refused or read") {
  const std::string good = checkpoint(small, small_weights);
  const int accepted = bad_bytes::mutate(good, 5000, 28, [](auto bytes) {
    const auto file = parse_llama2c(bytes);
    if (!file) return false;
    for (const auto& t : file->tensors()) (void)file->read_f32(t.name);
    return true;
  });
  CHECK(accepted > 50);
}

TEST_CASE("llama2.c: the tiny stories model opens, without a copy of its weights") {
  ANYBIT_TEST_DATA_OR_SKIP(path, "data/stories260K.bin");
  const auto file = Llama2cFile::open(path);
  REQUIRE(file.ok());
  CHECK(file->config().dim == 64);
  CHECK(file->config().hidden_dim == 172);
  CHECK(file->config().n_layers == 5);
  CHECK(file->config().n_kv_heads == 4);
  CHECK(file->config().shared_classifier);
  CHECK(file->tensors().size() == 1 + 5 * 9 + 1);
  for (const auto& t : file->tensors()) {
    const auto view = io::view_f32(t);
    REQUIRE(view.ok());
    bool sane = true;
    for (Index i = 0; i < t.size(); ++i) sane = sane && std::isfinite(view->data[i]) && std::fabs(view->data[i]) < 100;
    CHECK(sane);
  }
  // Norm gains are near one, projections are not: an order gone wrong would show.
  const auto mean = [&](const char* name) {
    const auto v = *io::view_f32(*file->find(name));
    double sum = 0;
    for (Index c = 0; c < v.cols; ++c) sum += static_cast<double>(v(0, c));
    return sum / static_cast<double>(v.cols);
  };
  CHECK(mean("output_norm.weight") > 0.5);
  CHECK(mean("blk.4.ffn_norm.weight") > 0.3);
  CHECK(std::fabs(mean("blk.4.ffn_up.weight")) < 0.2);
}
