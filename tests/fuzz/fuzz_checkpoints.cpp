// Coverage-guided fuzzing of the readers of quantized checkpoints, by hand:
//   clang++ -std=c++20 -O1 -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -Iinclude
//           tests/fuzz/fuzz_checkpoints.cpp -o fuzz_checkpoints && ./fuzz_checkpoints -max_total_time=300 -max_len=4096 CORPUS
// An input is the text of a config, a zero byte, and a safetensors file. Whatever it is, a module either has codes that pack and
// come back, or an error of one line. An empty corpus grows from small modules of every method.

#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include <anybit/io/checkpoint.hpp>
#include <anybit/io/safetensors_writer.hpp>

namespace {

using namespace anybit;
using namespace anybit::io;

CheckpointLinear layer(Levels levels, int bits, Index group) {
  CheckpointLinear l;
  l.extents = {32, 64};
  l.levels = levels;
  l.bits = bits;
  l.group = group;
  for (int i = 0; i < 32 * 64; ++i) l.codes.push_back(static_cast<std::uint8_t>(i * 7 & ((1 << bits) - 1) & 0x7E));
  l.scales.assign(static_cast<std::size_t>(l.count()), 0.5f);
  return l;
}

std::string input(const std::string& config, const std::vector<OwnedTensor>& tensors) {
  std::vector<TensorInfo> infos;
  for (const OwnedTensor& t : tensors) infos.push_back(t.info());
  const SafetensorsPlan plan = plan_safetensors(infos, {}).value();
  std::string out = config + '\0' + plan.head;
  for (const TensorInfo* t : plan.order) out.append(reinterpret_cast<const char*>(t->bytes.data()), t->bytes.size());
  return out;
}

std::vector<OwnedTensor> hqq_module() {
  const auto number = [](const char* name, std::int32_t v) {
    return owned_tensor(name, "I32", {}, std::vector<std::int32_t>{v});
  };
  return {owned_tensor("m.W_q", "U8", {4, 64}, std::vector<std::uint8_t>(256, 0x5A)),
          owned_f16("m.scale", {8, 1}, std::vector<float>(8, 0.5f)),
          owned_f16("m.zero", {8, 1}, std::vector<float>(8, 7.5f)),
          owned_tensor("m.shape", "I64", {2}, std::vector<std::int64_t>{8, 64}),
          number("m.nbits", 4),
          number("m.axis", 1),
          number("m.group_size", 64)};
}

const std::vector<std::string>& seeds() {
  static const std::vector<std::string> all = [] {
    const auto gptq = [](int bits, const char* format, WordLayout layout, GptqZeros zeros) {
      return input(R"({"quant_method":"gptq","bits":)" + std::to_string(bits) +
                       R"(,"group_size":32,"dynamic":{"+:.*x$":{"bits":8}},"checkpoint_format":")" + format + "\"}",
                   write_gptq("m", layer(Levels::integer, bits, 32), {bits, 32, layout, zeros}));
    };
    const auto compressed = [](const CheckpointLinear& l) {
      return input(
          R"({"quant_method":"compressed-tensors","ignore":["re:.*[a-c]{2}d?"],"config_groups":{"g":{"targets":["Linear"],"weights":{"num_bits":)" +
              std::to_string(l.bits) + R"(,"type":")" + (l.levels == Levels::integer ? "int" : "float") + R"(","group_size":)" +
              std::to_string(l.group) + "}}}}",
          write_compressed("m", l, compressed_for(l).value()));
    };
    CheckpointLinear int8 = layer(Levels::integer, 8, 64);
    int8.divisor = 127;
    return std::vector<std::string>{
        gptq(4, "gptq", WordLayout::dense, GptqZeros::minus_one),
        gptq(3, "gptq_v2", WordLayout::dense, GptqZeros::as_is),
        gptq(5, "gptq_p", WordLayout::planar, GptqZeros::as_is),
        input(R"({"quant_method":"awq","bits":4,"group_size":32})", write_awq("m", layer(Levels::integer, 4, 32))),
        compressed(layer(Levels::integer, 3, 32)),
        compressed(layer(Levels::e4m3, 8, 32)),
        compressed(layer(Levels::e2m1, 4, 32)),
        input(R"({"quant_method":"bitsandbytes"})", write_bitsandbytes("m", layer(Levels::nf4, 4, 64))),
        input("{}", write_bitsandbytes("m", int8)),
        input(R"({"quant_method":"hqq"})", hqq_module())};
  }();
  return all;
}

void check_linear(const CheckpointLinear& l) {
  if (static_cast<Index>(l.codes.size()) != l.extents.size() || static_cast<Index>(l.scales.size()) != l.count() ||
      (!l.zeros.empty() && l.zeros.size() != l.scales.size()))
    std::abort();
  for (const std::uint8_t c : l.codes)
    if (c >= 1 << l.bits) std::abort();
  const Matrix w = dequantize(l);
  if (w.extents() != l.extents) std::abort();
  ModuleTensors again;
  again.name = "m";
  std::vector<OwnedTensor> written;
  const auto read_back = [&](auto read) {
    std::vector<TensorInfo> infos;
    for (const OwnedTensor& t : written) infos.push_back(t.info());
    for (const TensorInfo& t : infos) again.tensors[t.name.substr(2)] = &t;
    const auto back = read();
    if (!back || !(*back == l)) std::abort();
  };
  if (gptq_can_hold(l, {l.bits, l.group, WordLayout::planar, GptqZeros::as_is}) && l.divisor == 1) {
    written = write_gptq("m", l, {l.bits, l.group, WordLayout::planar, GptqZeros::as_is});
    read_back([&] { return read_gptq(again, {l.bits, l.group, WordLayout::planar, GptqZeros::as_is}); });
  } else if (const auto f = compressed_for(l)) {
    written = write_compressed("m", l, *f);
    read_back([&] { return read_compressed(again, *f); });
  }
}

}  // namespace

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t most);

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t most, unsigned random) {
  const std::string& seed = seeds()[random % seeds().size()];
  if ((size < 16 || random % 64 == 0) && seed.size() <= most) {
    std::memcpy(data, seed.data(), seed.size());
    size = seed.size();
  }
  return LLVMFuzzerMutate(data, size, most);
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view all(reinterpret_cast<const char*>(data), size);
  const std::size_t end = all.find('\0');
  if (end == std::string_view::npos) return 0;
  const auto json = parse_json(all.substr(0, end));
  if (!json) return 0;
  const auto file = SafetensorsFile::parse(std::as_bytes(std::span(data + end + 1, size - end - 1)), "fuzz");
  if (!file) return 0;
  const auto config = read_checkpoint_config(JsonObject(*json, "config"), "config");
  CheckpointMethod method = config ? config->method : CheckpointMethod::none;
  for (const auto& [name, m] : io::detail::quantized_modules(file->tensors(), method)) {
    // Every reader sees every module: a method that the config lies about must not be the safe one.
    if (config) {
      if (const auto f = gptq_format_of(*config, name)) {
        static_cast<void>(gptq_evidence(m, *f, true));
        if (const auto l = read_gptq(m, *f)) check_linear(*l);
      }
      if (const auto f = compressed_format_of(*config, name))
        if (const auto l = read_compressed(m, *f)) check_linear(*l);
      if (const auto l = read_awq(m, config->awq)) check_linear(*l);
    }
    if (const auto l = read_bitsandbytes(m)) check_linear(*l);
    if (const auto l = read_hqq(m)) check_linear(*l);
  }
  return 0;
}
