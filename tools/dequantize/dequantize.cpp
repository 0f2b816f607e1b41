#include "dequantize.hpp"

#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include <anybit/io/safetensors_writer.hpp>

#include "convert/linear_source.hpp"
#include "shared/file_roles.hpp"
#include "shared/outputs.hpp"
#include "shared/parse.hpp"
#include "shared/printable.hpp"

namespace tool {

using namespace anybit;

namespace {

/// A matrix that a streamed file takes.
struct Bytes {
  Matrix weights;
  std::span<const std::byte> bytes() const {
    return std::as_bytes(std::span(weights.data(), static_cast<std::size_t>(weights.extents().size())));
  }
};

int dequantize(int argc, const char* const* argv) {
  std::string path, out;
  CLI::App app("Writes every weight matrix of a model as float32, named as in the model: NAME.weight of (outputs, inputs).",
               "anybit dequantize");
  app.add_option("MODEL", path,
                 "A Hugging Face folder (GPTQ, AWQ, compressed-tensors, bitsandbytes, HQQ, EXL3 or floats), GGUF, safetensors, "
                 "or what anybit has written")
      ->required();
  app.add_option("--out", out, "The safetensors file to write")->required()->type_name("FILE");
  if (const auto end = parse(app, argc, argv, "anybit dequantize Llama-3-8B-GPTQ --out weights.safetensors")) return *end;
  if (const auto end = check_files("dequantize", model_inputs(path, {}), {{"--out", out}})) return *end;
  const auto source = LinearSource::open(path);
  if (!source) return fail("dequantize", bad_input, source.error());
  for (const std::string& remark : source->remarks()) std::fprintf(stderr, "anybit dequantize: %s\n", printable(remark).c_str());
  std::vector<io::TensorInfo> tensors;
  std::map<std::string, const SourceMatrix*> by_name;
  std::size_t quantized = 0;
  for (const SourceMatrix& m : source->matrices()) {
    tensors.push_back({m.module + ".weight", "F32", m.shape, {}});
    by_name[tensors.back().name] = &m;
    quantized += m.quantized;
  }
  if (tensors.empty()) return fail("dequantize", bad_input, path + ": holds no matrix NAME.weight: give a model");
  bool unreadable = false;
  const auto written = io::write_safetensors_streamed(out, tensors,
                                                      [&](const io::TensorInfo& t) -> Result<Bytes> {
                                                        auto weights = source->read_f32(*by_name[t.name]);
                                                        unreadable = !weights;
                                                        if (!weights) return weights.error();
                                                        return Bytes{*std::move(weights)};
                                                      },
                                                      {{"format", "pt"}});
  if (!written) return fail("dequantize", unreadable ? bad_input : cannot_write, written.error());
  std::printf("%s: %zu matrices in float32 from %s (%s), %zu of them quantized there\n", printable(out).c_str(), tensors.size(),
              printable(path).c_str(), source->format().c_str(), quantized);
  return success;
}

}  // namespace

int run_dequantize(int argc, const char* const* argv) {
  return run_command([&] { return dequantize(argc, argv); });
}

}  // namespace tool
