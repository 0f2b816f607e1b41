// Coverage-guided fuzzing of every file reader, by hand (the seeded mutations in tests/io run with every test):
//   clang++ -std=c++20 -O1 -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -Iinclude -Itests
//           tests/fuzz/fuzz_files.cpp -o fuzz_files && ./fuzz_files -max_total_time=300 -max_len=4096 CORPUS
// The first byte of an input chooses the reader; the rest is the file. An empty corpus grows from the good files below.

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include <anybit/core/matrix.hpp>
#include <anybit/io/anybit_file.hpp>
#include <anybit/io/detail/utf8.hpp>
#include <anybit/io/gguf.hpp>
#include <anybit/io/gguf_writer.hpp>
#include <anybit/io/imatrix.hpp>
#include <anybit/io/json.hpp>
#include <anybit/io/llama2c.hpp>
#include <anybit/io/safetensors.hpp>
#include <anybit/model/load.hpp>
#include <anybit/model/tokenizer/files.hpp>
#include <anybit/model/tokenizer/from_gguf.hpp>
#include <anybit/model/tokenizer/from_llama2c.hpp>
#include <anybit/tensor/pack_lossless_bf16.hpp>

#include "fuzz/seeded_mutator.hpp"

namespace {

using namespace anybit;

template <class File>
void read_tensors(const File& file) {
  for (const auto& t : file.tensors()) static_cast<void>(file.read_f32(t.name));
}

void read_keys(const io::GgufFile& f) {
  for (const auto& key : f.keys()) {
    (void)f.get_u64(key), (void)f.get_f64(key), (void)f.get_bool(key), (void)f.get_string(key);
    (void)f.get_strings(key), (void)f.get_floats(key), (void)f.get_ints(key);
  }
}

void read_packed(const io::AnybitFile& f) {
  for (const auto& t : f.tensors())
    if (const auto p = f.packed(t.name)) {
      std::uint64_t sum = 0;
      for (const auto section : {p->codes(), p->scales(), p->zeros(), p->order()})
        for (const std::byte b : section) sum += std::to_integer<std::uint64_t>(b);
      if (sum > 255 * p->bytes().size()) std::abort();  // never: only so that every byte is read
      if (const auto exact = PackedTensor<LosslessBf16>::from(*p); exact && exact->extents().size() < 1 << 20) {
        Matrix out(exact->rows(), exact->cols());
        dequantize_rows(*exact, 0, exact->rows(), out.view());
      }
    }
}

/// Whatever the vocabulary, a text that it can encode comes back, unless the vocabulary normalizes it.
void encode(const model::Tokenizer& t, std::string_view text) {
  for (const auto specials : {model::Specials::as_text, model::Specials::parsed})
    if (const auto ids = t.encode(text, specials))
      if (const auto back = t.decode(*ids); !back || (t.lossless() && *back != text)) std::abort();
}

/// Every lookup of every key; errors are one line.
void look_up(const io::JsonObject& object, int depth) {
  const auto one_line = [](const auto& r) {
    if (!r.ok() && r.error().message.find('\n') != std::string::npos) std::abort();
  };
  for (const std::string_view key : object.keys()) {
    one_line(object.text(key)), one_line(object.boolean(key)), one_line(object.number(key)), one_line(object.integer(key));
    one_line(object.numbers(key)), one_line(object.texts(key));
    if (const auto inner = object.object(key); inner && depth > 0) look_up(*inner, depth - 1);
  }
}

/// What every architecture makes of a config.json; one that passes has the numbers that its tensors are read by.
void read_configurations(const io::JsonObject& json) {
  for (const model::Architecture* a : model::architectures) {
    model::HfConfigReader read(json);
    const auto config = a->read_hugging_face(read);
    if (!config || !model::check(*config)) continue;
    if (config->head_dim < 1 || config->heads % config->kv_heads != 0) std::abort();
    static_cast<void>(read.all_neutral());
  }
}

/// Names are UTF-8 and have no control characters whatever they were.
void check_name(std::string_view text) {
  const std::string name = io::detail::readable_name(text);
  if (!io::detail::is_utf8(name) || name.find('\x1B') != std::string::npos) std::abort();
}

io::GgufWriter model_file(const char* tokenizer, const char* pre) {
  io::GgufWriter w;
  const auto number = [&](const char* key, std::uint32_t value) { w.add_metadata(key, value); };
  w.add_metadata("general.architecture", "llama"), w.add_metadata("general.name", "a\x1B[31m\xE9");
  number("llama.embedding_length", 2), number("llama.feed_forward_length", 2), number("llama.block_count", 1);
  number("llama.attention.head_count", 1), number("llama.context_length", 8);
  w.add_metadata("llama.rope.scale_linear", 4.0f), w.add_metadata("llama.rope.scaling.type", "linear");
  w.add_metadata("llama.attention.causal", true), w.add_metadata("tokenizer.ggml.model", tokenizer);
  w.add_metadata("tokenizer.ggml.pre", pre);
  w.add_metadata("tokenizer.ggml.tokens",
                 std::vector<std::string>{"<unk>", "</s>", "a", "b", "ab", "<0x20>", "\xE2\x96\x81", "<w>"});
  w.add_metadata("tokenizer.ggml.token_type", std::vector<std::int32_t>{2, 3, 1, 1, 1, 6, 1, 4});
  w.add_metadata("tokenizer.ggml.scores", std::vector<float>{0, 0, -1, -2, -1, 0, 0, 0});
  w.add_metadata("tokenizer.ggml.merges", std::vector<std::string>{"a b"});
  const auto tensor = [&](const std::string& name, Index rows) {
    w.add_f32(name, rows == 1 ? std::vector<Index>{2} : std::vector<Index>{rows, 2},
              std::vector<float>(static_cast<std::size_t>(rows * 2), 0.5f));
  };
  tensor("token_embd.weight", 9), tensor("output_norm.weight", 1);
  for (const char* norm : {"attn_norm", "ffn_norm"}) tensor(std::string("blk.0.") + norm + ".weight", 1);
  for (const char* linear : {"attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"})
    tensor(std::string("blk.0.") + linear + ".weight", 2);
  return w;
}

/// A model in two parts, one after the other in `bytes`; the first two bytes say how long the first is.
void read_parts(std::span<const std::byte> bytes) {
  if (bytes.size() < 2) return;
  const auto most = bytes.size() - 2;
  const auto first =
      std::min<std::size_t>(std::to_integer<std::size_t>(bytes[0]) | std::to_integer<std::size_t>(bytes[1]) << 8, most);
  const auto one = [&](const std::string& path) {
    const bool is_first = path == "fuzz-00001-of-00002.gguf";
    return io::GgufFile::parse_part(is_first ? bytes.subspan(2, first) : bytes.subspan(2 + first), path);
  };
  if (const auto f = io::GgufFile::open_parts("fuzz-00001-of-00002.gguf", one)) read_tensors(*f), read_keys(*f);
}

std::string two_parts() {
  std::string parts[2];
  for (std::uint16_t i = 0; i < 2; ++i) {
    io::GgufWriter w;
    w.add_metadata("split.no", i), w.add_metadata("split.count", std::uint16_t{2});
    w.add_metadata("split.tensors.count", std::int32_t{2});
    w.add_f32(i == 0 ? "a" : "b", {2, 2}, {1, 2, 3, 4});
    parts[i] = w.bytes();
  }
  const auto size = static_cast<std::uint16_t>(parts[0].size());
  return std::string(reinterpret_cast<const char*>(&size), 2) + parts[0] + parts[1];
}

/// What has been read can be used.
void read_imatrix(std::span<const std::byte> bytes) {
  if (const auto m = io::Imatrix::parse(bytes, "fuzz"))
    for (const auto& [name, entry] : m->entries)
      if (entry.mean_squares().size() % entry.counts.size() != 0) std::abort();
}

std::string imatrix_file() {
  io::GgufWriter w;
  w.add_metadata("general.type", "imatrix"), w.add_metadata("imatrix.datasets", std::vector<std::string>{"a"});
  w.add_metadata("imatrix.chunk_count", std::uint32_t{1}), w.add_metadata("imatrix.chunk_size", std::uint32_t{8});
  w.add_f32("t.in_sum2", {2, 2}, {1, 2, 3, 4}), w.add_f32("t.counts", {2, 1}, {1, 0});
  return w.bytes();
}

std::string safetensors(std::string_view json, std::size_t data) {
  const std::uint64_t size = json.size();
  return std::string(reinterpret_cast<const char*>(&size), sizeof size).append(json).append(data, 'x');
}

std::string lossless_file() {
  const std::vector<std::uint16_t> words{0x3F80, 0xBF00, 0x7FC1, 0x8000, 0x3C23, 0x3D01};
  const auto packed = pack_lossless_bf16(MatrixView<const std::uint16_t>(words.data(), 2, 3));
  const auto bytes = packed.bytes().bytes();
  const std::size_t size = (bytes.size() + 63) / 64 * 64;
  std::string file =
      safetensors(R"({"__metadata__":{"anybit.version":"1","anybit.scheme.w":"lossless_bf16","anybit.shape.w":"2x3"},)"
                  R"("w":{"dtype":"U8","shape":[)" +
                      std::to_string(size) + R"(],"data_offsets":[0,)" + std::to_string(size) + "]}}",
                  0);
  return file.append(reinterpret_cast<const char*>(bytes.data()), bytes.size()).append(size - bytes.size(), '\0');
}

const std::vector<std::string>& seeds() {
  static const std::vector<std::string> all = [] {
    io::GgufWriter part;
    part.add_metadata("split.no", std::uint16_t{0}), part.add_metadata("split.count", std::uint16_t{2});
    part.add_raw_tensor("t", {4}, 77, 0);
    return std::vector<std::string>{
        std::string(1, '\0') + model_file("gpt2", "llama-bpe").bytes(),
        std::string(1, '\0') + model_file("llama", "default").bytes(),
        std::string(1, '\0') + part.bytes(),
        "\1" + safetensors(R"({"__metadata__":null,"a":{"dtype":"F4","shape":[2],"data_offsets":[0,1]},)"
                           R"("b":{"dtype":"F8_E4M3","shape":[2,2],"data_offsets":[1,5]}})",
                           5),
        "\3" + safetensors(R"({"__metadata__":{"anybit.version":"1","general.name":"x"},"a":{"dtype":"F32","shape":[1],)"
                           R"("data_offsets":[0,4]}})",
                           4),
        "\3" + lossless_file(),
        "\5{\"hidden_size\":48,\"rope_scaling\":{\"type\":\"linear\",\"factor\":4.0,\"x\":[1e-5,-2]},\"tie\":true,\"n\":null}",
        "\6{\"metadata\":{\"total_size\":12.0},\"weight_map\":{\"a\":\"m-1.safetensors\",\"b\":\"m-2.safetensors\"}}",
        "\7" + imatrix_file(),
        std::string("\7\1\0\0\0\1\0\0\0t\2\0\0\0\1\0\0\0\0\0\200?\1\0\0\0\1\0\0\0d", 31),
        "\10" + two_parts(),
        std::string("\4\4\0\0\0\0\0\0\0\1\0\0\0a\0\0\0\0\1\0\0\0b\0\0\0\0\1\0\0\0c", 32)};
  }();
  return all;
}

}  // namespace

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t most, unsigned random) {
  return mutate_from_seeds(seeds(), data, size, most, random);
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const auto bytes = std::as_bytes(std::span(data + 1, size - 1));
  const std::string_view text(reinterpret_cast<const char*>(data), std::min<std::size_t>(size, 256));
  const std::string_view body(reinterpret_cast<const char*>(data) + 1, size - 1);
  check_name(text);
  switch (data[0] % 9) {
    case 0:
      if (const auto f = io::GgufFile::parse(bytes, "fuzz")) {
        read_tensors(*f), read_keys(*f);
        if (const auto t = model::tokenizer_from_gguf(*f)) encode(*t, text), encode(*t, "a b</s>ab<w> \xE2\x96\x81 ");
        if (const auto m = model::model_from_gguf(*f)) check_name(m->name);
      }
      break;
    case 4:
      if (const auto t = model::tokenizer_from_llama2c(bytes, "fuzz")) encode(*t, text);
      break;
    case 1:
      if (const auto f = io::SafetensorsFile::parse(bytes, "fuzz")) read_tensors(*f);
      break;
    case 5:
      if (const auto value = io::parse_json(body))
        look_up(io::JsonObject(*value, "fuzz"), 40), read_configurations(io::JsonObject(*value, "fuzz"));
      break;
    case 6:
      // Only names of files in the same folder come out.
      if (const auto index = io::detail::read_shard_index(body))
        for (const auto& [file, tensors] : index->tensors_of_file)
          if (file.empty() || file == ".." || file.find_first_of("/\\") != std::string::npos || tensors.empty()) std::abort();
      break;
    case 7: read_imatrix(bytes); break;
    case 8: read_parts(bytes); break;
    case 2:
      if (const auto f = io::Llama2cFile::parse(bytes, "fuzz")) read_tensors(*f);
      break;
    default:
      if (const auto f = io::AnybitFile::parse(bytes, "fuzz")) read_tensors(*f), read_packed(*f);
      break;
  }
  return 0;
}
