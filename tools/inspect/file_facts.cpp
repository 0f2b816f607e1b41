#include "file_facts.hpp"

#include <algorithm>
#include <cstdio>
#include <string_view>

#include <anybit/io/anybit_file.hpp>
#include <anybit/io/gguf.hpp>
#include <anybit/io/llama2c.hpp>

namespace tool {

using namespace anybit;

namespace {

TensorFacts facts_of(const io::TensorInfo& t) { return {t.name, t.dtype, t.shape, static_cast<Index>(t.bytes.size()), t.size()}; }

std::string number(double v) {
  char text[32];
  std::snprintf(text, sizeof text, "%.9g", v);
  return text;
}

std::string value_of(const io::GgufFile& file, const std::string& key) {
  if (const auto s = file.get_string(key)) return *s;
  if (const auto b = file.get_bool(key)) return *b ? "true" : "false";
  if (const auto n = file.get_u64(key)) return std::to_string(*n);
  if (const auto x = file.get_f64(key)) return number(*x);
  if (const auto list = file.get_strings(key)) return std::to_string(list->size()) + " strings";
  if (const auto list = file.get_floats(key)) return std::to_string(list->size()) + " numbers";
  return "an array";
}

Result<FileFacts> gguf_facts(const std::string& path) {
  ANYBIT_TRY(const io::GgufFile file, io::GgufFile::open(path));
  FileFacts f{"GGUF", {}, {}};
  for (const std::string& key : file.keys()) f.metadata.emplace_back(key, value_of(file, key));
  for (const io::TensorInfo& t : file.tensors()) f.tensors.push_back(facts_of(t));
  return f;
}

Result<FileFacts> anybit_facts(const io::AnybitFile& file) {
  FileFacts f{"anybit", {file.metadata().begin(), file.metadata().end()}, {}};
  for (const io::TensorInfo& t : file.tensors()) {
    TensorFacts facts = facts_of(t);
    if (file.is_packed(t.name)) {
      ANYBIT_TRY(const PackedBytes packed, file.packed(t.name));
      facts.type = std::string(packed.scheme_name());
      facts.shape = {packed.extents().rows, packed.extents().cols};
      facts.bytes = packed.payload_bytes(), facts.weights = packed.extents().size();
    }
    f.tensors.push_back(std::move(facts));
  }
  return f;
}

Result<FileFacts> safetensors_facts(const std::string& path) {
  if (const auto container = io::AnybitFile::open(path)) return anybit_facts(*container);
  ANYBIT_TRY(const io::SafetensorsFile file, io::SafetensorsFile::open(path));
  FileFacts f{"safetensors", {file.metadata().begin(), file.metadata().end()}, {}};
  for (const io::TensorInfo& t : file.tensors()) f.tensors.push_back(facts_of(t));
  return f;
}

Result<FileFacts> llama2c_facts(const std::string& path) {
  ANYBIT_TRY(const io::Llama2cFile file, io::Llama2cFile::open(path));
  const io::Llama2cConfig& c = file.config();
  FileFacts f{"llama2.c", {}, {}};
  for (const auto& [key, value] : {std::pair<const char*, Index>{"dim", c.dim},
                                   {"hidden_dim", c.hidden_dim},
                                   {"n_layers", c.n_layers},
                                   {"n_heads", c.n_heads},
                                   {"n_kv_heads", c.n_kv_heads},
                                   {"vocab_size", c.vocab_size},
                                   {"seq_len", c.seq_len}})
    f.metadata.emplace_back(key, std::to_string(value));
  for (const io::TensorInfo& t : file.tensors()) f.tensors.push_back(facts_of(t));
  return f;
}

}  // namespace

Result<FileFacts> file_facts(const std::string& path) {
  ANYBIT_TRY(const io::MappedFile file, io::MappedFile::open(path));
  const auto bytes = file.bytes();
  const std::string_view start(reinterpret_cast<const char*>(bytes.data()), std::min<std::size_t>(bytes.size(), 16));
  if (start.starts_with("GGUF")) return gguf_facts(path);
  if (start.size() > 8 && start[8] == '{') return safetensors_facts(path);  // behind the length of the header
  return llama2c_facts(path);
}

}  // namespace tool
