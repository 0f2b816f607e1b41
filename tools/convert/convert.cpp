#include "convert.hpp"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <deque>
#include <map>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <anybit/io/anybit_file.hpp>
#include <anybit/io/hf_folder.hpp>
#include <anybit/model/container.hpp>
#include <anybit/model/folder_config.hpp>

#include "checkpoint_folder.hpp"
#include "exl3_folder.hpp"
#include "gguf_file.hpp"
#include "linear_source.hpp"
#include "packed_codes.hpp"
#include "quantization_config.hpp"
#include "shared/file_roles.hpp"
#include "shared/open_model.hpp"
#include "shared/outputs.hpp"
#include "shared/parse.hpp"
#include "shared/printable.hpp"
#include "target.hpp"

namespace tool {

using namespace anybit;

namespace {

struct ConvertOptions {
  std::string in, out, to;
  Grid grid;
  Exl3Request exl3;
};

struct Outcome {
  std::size_t exact = 0, rounded = 0, as_floats = 0;
  double largest_error = 0, mean_error_sum = 0;
  std::string worst;                           ///< module of the largest error
  std::map<std::string, std::size_t> reasons;  ///< why layers were rounded
};

/// AWQ's config has one group for all modules: the largest that every layer's groups can be split into, and rounded layers have
/// too.
Result<Index> common_group(const LinearSource& source) {
  Index common = 0;
  for (const SourceMatrix& m : source.matrices()) {
    ANYBIT_TRY(const auto linear, source.read_codes(m));
    if (!linear) continue;
    constexpr Index usual = 128;
    common = std::gcd(common, can_hold(Format::awq, *linear) ? linear->group : std::gcd(linear->extents.cols, usual));
  }
  return common;
}

Error nothing_to_convert(const LinearSource& source) {
  return {
      ErrorCode::invalid_argument,
      source.folder() +
          ": no linear is quantized, so there is nothing to convert: quantize the model (anybit quantize), or give a quantized one"};
}

Status add_copy(CheckpointFolder& to, const io::TensorInfo& t) {
  return to.add({t.name, t.dtype, t.shape, {t.bytes.begin(), t.bytes.end()}});
}

Result<Outcome> convert(const LinearSource& source, Format to, const ConvertOptions& o, CheckpointFolder& folder) {
  Outcome out;
  Grid grid = o.grid;
  if (to == Format::awq && grid.group == 0) {
    ANYBIT_TRY(grid.group, common_group(source));
  }
  std::vector<WrittenModule> modules;
  std::vector<std::string> floats;
  for (const SourceMatrix& m : source.matrices()) {
    ANYBIT_TRY(const auto linear, source.read_codes(m));
    if (!linear) {
      if (m.module.find("embed") == std::string::npos) floats.push_back(m.module);
      continue;
    }
    auto converted = convert_layer(*linear, to, grid);
    if (!converted) return in_context(converted.error(), "module " + m.module);
    const io::CheckpointLinear& l = converted->linear;
    if (converted->reason.empty()) {
      ++out.exact;
    } else {
      ++out.rounded;
      ++out.reasons[converted->reason];
      out.mean_error_sum += converted->mean_error;
      if (out.worst.empty() || converted->largest_error > out.largest_error)
        out.largest_error = converted->largest_error, out.worst = m.module;
    }
    modules.push_back({m.module, l.levels, l.bits, l.group, l.extents.cols, l.symmetric(), !l.group_of_column.empty()});
    for (io::OwnedTensor& t : tensors_of(m.module, l, to)) ANYBIT_TRY_STATUS(folder.add(std::move(t)));
  }
  if (modules.empty()) return nothing_to_convert(source);
  for (const io::TensorInfo& t : source.plain_tensors()) ANYBIT_TRY_STATUS(add_copy(folder, t));
  ANYBIT_TRY(auto config, read_config_json(source.folder()));
  const auto quantization = quantization_config(to, modules, floats);
  config["quantization_config"] = quantization;
  ANYBIT_TRY_STATUS(folder.write_text("config.json", text_of(config)));
  if (to != Format::compressed_tensors && to != Format::bitsandbytes)
    ANYBIT_TRY_STATUS(folder.write_text("quantize_config.json", text_of(quantization)));
  ANYBIT_TRY_STATUS(folder.copy_other_files(source.folder()));
  return out;
}

/// A model that `anybit generate` opens, every linear packed that a scheme holds.
Result<Outcome> convert_to_model(const LinearSource& source, const std::string& path) {
  ANYBIT_TRY(const model::Model m, open_model(source.folder(), {}));
  Outcome out;
  model::for_each_linear(m.decoder, [&](const std::string&, const nn::Linear& l) { ++(l.packed() ? out.exact : out.as_floats); });
  if (out.exact == 0) return nothing_to_convert(source);
  ANYBIT_TRY_STATUS(model::save_model(path, m, {.recipe = "converted", .source = source.format()}));
  return out;
}

/// Of an architecture that anybit does not run: one file of packed tensors under the checkpoint's names; other tensors as they
/// are, and layers that no scheme holds in float32.
Result<Outcome> convert_to_container(const LinearSource& source, const std::string& path) {
  Outcome out;
  io::AnybitWriter writer;
  std::deque<PackedBytes> packed;
  std::deque<Matrix> floats;
  for (const SourceMatrix& m : source.matrices()) {
    ANYBIT_TRY(const auto linear, source.read_codes(m));
    if (!linear) continue;
    auto bytes = packed_exactly(*linear);
    ++(bytes ? out.exact : out.as_floats);
    if (bytes)
      writer.add(m.module + ".weight", packed.emplace_back(*std::move(bytes)));
    else
      writer.add(m.module + ".weight", floats.emplace_back(dequantize(*linear)).view());
  }
  if (out.exact + out.as_floats == 0) return nothing_to_convert(source);
  for (const io::TensorInfo& t : source.plain_tensors()) writer.add(t);
  ANYBIT_TRY_STATUS(writer.write(path));
  return out;
}

void print(const Outcome& o, const ConvertOptions& options, const LinearSource& source) {
  std::printf("%s: %s from %s (%s)\n", printable(options.out).c_str(), options.to.c_str(), printable(options.in).c_str(),
              source.format().c_str());
  if (o.as_floats > 0) {
    std::printf("exact: %zu quantized layers keep their codes, %zu are float32 because no scheme has their grid\n", o.exact,
                o.as_floats);
    return;
  }
  if (o.rounded == 0) {
    std::printf("exact: all %zu quantized layers keep their codes, scales and zero points\n", o.exact);
    return;
  }
  std::printf("%zu layers exact, %zu rounded to the nearest grid point: largest error of a weight %.4g (%s), mean %.4g\n",
              o.exact, o.rounded, o.largest_error, printable(o.worst).c_str(), o.mean_error_sum / static_cast<double>(o.rounded));
  for (const auto& [reason, layers] : o.reasons) std::printf("  %zu because %s\n", layers, printable(reason).c_str());
}

/// Whether anybit runs the folder's model, by its configuration.
Status runs(const LinearSource& source) {
  ANYBIT_TRY(const io::HfFolder folder, io::HfFolder::open(source.folder()));
  const auto config = model::detail::read_config(folder);
  if (!config) return config.error();
  return Ok{};
}

/// Sizes to choose types for, as the options say them.
struct TargetOptions {
  std::vector<double> bits;
  std::vector<std::string> sizes;
};

/// What is wrong with them, or nothing.
std::string read_targets(const TargetOptions& options, std::vector<GgufTarget>& to) {
  for (const double bits : options.bits) {
    char name[32];
    std::snprintf(name, sizeof name, "%g", bits);
    to.push_back({name, bits});
  }
  for (const std::string& text : options.sizes) {
    GgufTarget t{text};
    t.mix = io::find_gguf_mix(text);
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), t.bytes);
    if (!t.mix && (error != std::errc() || end != text.data() + text.size() || t.bytes == 0))
      return "--target-size is '" + printable(text) + "'; it must be a number of bytes, or one of " + io::gguf_mix_names();
    to.push_back(std::move(t));
  }
  for (std::size_t i = 0; i < to.size(); ++i)
    for (std::size_t j = 0; j < i; ++j)
      if (to[i].name == to[j].name) return "the target " + printable(to[i].name) + " is given twice: give each once";
  return {};
}

void print(const GgufOutcome& o, const std::string& what, const std::string& out, const std::string& in) {
  std::printf("%s: gguf %s from %s:", printable(out).c_str(), what.c_str(), printable(in).c_str());
  for (const char* comma = ""; const auto& [type, tensors] : o.types)
    std::printf("%s %zu %s", std::exchange(comma, ","), tensors, type.c_str());
  std::printf("\n%zu bytes\n", o.bytes);
  for (const std::string& remark : o.remarks) std::printf("%s\n", printable(remark).c_str());
  for (const auto& [types, tensors] : o.substituted)
    std::printf(
        "%zu tensors are %s and not %s, whose blocks do not divide their rows (llama.cpp does the same; --strict refuses)\n",
        tensors, types.second.c_str(), types.first.c_str());
  if (o.rounded_twice > 0)
    std::printf("%zu tensors were quantized in the input already: errors of both add up\n", o.rounded_twice);
  if (o.rounded == 0)
    std::printf("exact: every weight of the input is kept\n");
  else
    std::printf(
        "%zu tensors exact, %zu rounded (%zu of them for the error of their outputs): largest error of a weight %.4g (%s), mean %.4g\n",
        o.exact, o.rounded, o.calibrated, o.error.largest, printable(o.worst).c_str(),
        o.error.sum / static_cast<double>(std::max<Index>(1, o.values)));
}

int to_gguf(const std::string& in, const std::string& out, const std::string& mix, const TargetOptions& targets,
            GgufRequest request, const std::vector<FileRole>& inputs) {
  request.in = in, request.out = out, request.mix = io::find_gguf_mix(mix);
  if (!request.mix) return wrong_use("convert", "--type is '" + printable(mix) + "'; it must be one of " + io::gguf_mix_names());
  if (const std::string error = read_targets(targets, request.targets); !error.empty()) return wrong_use("convert", error);
  if (!request.targets.empty()) {
    if (request.calibrate.empty())
      return wrong_use(
          "convert",
          "types are chosen by what they cost the model on a text: give --calibrate TEXT, or --type instead of a target");
    request.mix = io::find_gguf_mix("Q8_0");
  }
  const std::size_t files = std::max<std::size_t>(1, request.targets.size());
  std::vector<FileRole> outputs{{"--write-imatrix", request.imatrix}};
  for (std::size_t i = 0; i < files; ++i) outputs.push_back({"OUT", request.path(i)});
  if (const auto end = check_files("convert", inputs, outputs)) return *end;
  const auto outcomes = convert_to_gguf(request);
  if (!outcomes) return fail("convert", outcomes.error().code == ErrorCode::io ? cannot_write : bad_input, outcomes.error());
  for (std::size_t i = 0; i < files; ++i)
    print((*outcomes)[i], request.targets.empty() ? mix : "of chosen types", request.path(i), in);
  return success;
}

int to_exl3(const LinearSource& source, const ConvertOptions& o) {
  // Before the work it is only looked whether there can be a folder; while one stands under its temporary name, the program
  // cannot be interrupted.
  if (const auto possible = CheckpointFolder::create(o.out); !possible) return fail("convert", cannot_write, possible.error());
  const auto model = quantize_to_exl3(source, o.exl3);
  if (!model) return fail("convert", bad_input, model.error());
  const Uninterrupted whole;
  auto folder = CheckpointFolder::create(o.out);
  if (!folder) return fail("convert", cannot_write, folder.error());
  const auto written = write_exl3_folder(source, *model, *folder);
  if (!written) return fail("convert", cannot_write, written.error());
  if (const auto done = folder->commit(); !done) return fail("convert", cannot_write, done.error());
  for (const std::string& remark : model->remarks) std::fprintf(stderr, "anybit convert: %s\n", printable(remark).c_str());
  std::printf("%s: exl3 (%s) from %s (%s)\n", printable(o.out).c_str(), o.exl3.codebook.c_str(), printable(o.in).c_str(),
              source.format().c_str());
  std::printf("%zu modules at %d bits%s, %.3f bits per weight with scales and padding; ", model->modules.size(), o.exl3.bits,
              model->head ? (", the head at " + std::to_string(o.exl3.head_bits)).c_str() : "", model->bits_per_weight);
  if (model->windows > 0)
    std::printf("calibrated on %lld windows of %lld tokens\n", static_cast<long long>(model->windows),
                static_cast<long long>(model->window));
  else
    std::printf("not calibrated (--calibrate TEXT lowers the error of the outputs)\n");
  if (model->padded > 0)
    std::printf("%zu modules are padded with zeros to multiples of 128 outputs and inputs, as the format wants it\n",
                model->padded);
  std::printf("largest relative error of a module's weights %.4g (%s)\n", model->worst_error, printable(model->worst).c_str());
  return success;
}

int convert(int argc, const char* const* argv) {
  ConvertOptions o;
  GgufRequest gguf;
  std::string mix = "Q4_K_M";
  TargetOptions targets;
  CLI::App app(
      "Writes a quantized checkpoint in another format: code for code where the target has the grid, else rounded to the nearest point "
      "of one that it has, with the errors. With --to exl3 any folder is quantized as exllamav3 does it; with --to gguf any model "
      "becomes a GGUF file.",
      "anybit convert");
  app.add_option("IN", o.in,
                 "A Hugging Face folder with quantized linears, with --to exl3 of any; with --to gguf any model, or a GGUF file")
      ->required();
  app.add_option("OUT", o.out, "The folder to write, which must not exist; a file with --to anybit and --to gguf")->required();
  app.add_option("--to", o.to, "gptq, gptq_v2, gptq_p, awq, compressed-tensors, bnb, exl3, anybit (one file), or gguf")
      ->required()
      ->type_name("FORMAT");
  app.add_option("--bits", o.grid.bits, "Round to this width (2 to 8; with --to exl3 1 to 8, 4 by default)")
      ->check(CLI::Range(1, 8));
  app.add_option("--group", o.grid.group, "Round to groups of so many inputs")->check(CLI::Range(1, 1 << 24));
  auto* const type = app.add_option("--type", mix, "With --to gguf: " + io::gguf_mix_names())->capture_default_str();
  auto* const target_bpw =
      app.add_option(
             "--target-bpw", targets.bits,
             "With --to gguf and --calibrate, in place of --type: bits per weight of all matrices, scales counted; each gets "
             "the ggml type that serves the model best (docs/bits.md). Repeated: OUT is a folder of files BITS.gguf")
          ->check(CLI::Range(1e-3, 64.0))
          ->type_name("BITS")
          ->expected(1)
          ->take_all()
          ->excludes(type);
  app.add_option("--target-size", targets.sizes,
                 "The same for a file of at most so many bytes, or no larger than in a mix: Q4_K_M")
      ->type_name("BYTES|TYPE")
      ->expected(1)
      ->take_all()
      ->excludes(type)
      ->excludes(target_bpw);
  app.add_option("--context", gguf.context, "With --to gguf: the model is for at most so many tokens")
      ->check(CLI::Range(1, 1 << 30));
  app.add_option("--threads", gguf.threads, "With --to exl3 and gguf; 0: as many as the machine runs")
      ->check(CLI::Range(0, 1024));
  app.add_option(
         "--calibrate", gguf.calibrate,
         "With --to gguf and exl3: a text on which the errors of the layers' outputs are kept small (GPTQ, LDLQ); without it each "
         "weight is rounded as ggml does, each tile to the nearest loop")
      ->type_name("FILE");
  app.add_option(
         "--imatrix", gguf.importance,
         "With --to gguf: llama.cpp's importance matrix; errors are weighed by it (without feedback, so --calibrate is better)")
      ->type_name("FILE")
      ->excludes("--calibrate");
  app.add_option("--calibration-tokens", gguf.calibration_tokens, "With --calibrate: so many tokens of the text at most")
      ->check(CLI::Range(512, 1 << 30))
      ->capture_default_str();
  app.add_option("--write-imatrix", gguf.imatrix, "With --calibrate: write llama.cpp's importance matrix of the text")
      ->type_name("FILE");
  app.add_flag("--strict", gguf.strict,
               "With --to gguf: an error where a tensor cannot have the type that --type gives it; with --to exl3: where a layer "
               "cannot be calibrated");
  app.add_option("--codebook", o.exl3.codebook, "With --to exl3: mul1 (exllamav3's own choice), mcg or 3inst")
      ->check(CLI::IsMember({"mul1", "mcg", "3inst"}))
      ->capture_default_str();
  app.add_option("--head-bits", o.exl3.head_bits, "With --to exl3: bits of the output head, 1 to 8; 16 leaves it as it is")
      ->check(CLI::Range(1, 8) | CLI::Range(16, 16))
      ->capture_default_str();
  if (const auto end = parse(app, argc, argv, "anybit convert Llama-3-8B-AWQ Llama-3-8B-GPTQ --to gptq")) return *end;
  const auto to = format_named(o.to);
  const bool container = o.to == "anybit";
  const bool exl3 = o.to == "exl3";
  if (!to && !container && !exl3 && o.to != "gguf")
    return wrong_use("convert", "--to is '" + printable(o.to) +
                                    "'; it must be gptq, gptq_v2, gptq_p, awq, compressed-tensors, bnb, exl3, anybit or gguf");
  if (o.to != "gguf" && (!targets.bits.empty() || !targets.sizes.empty()))
    return wrong_use("convert", "--target-bpw and --target-size are for --to gguf; anybit's own formats have anybit quantize");
  if (exl3) {
    if (o.grid.group > 0) return wrong_use("convert", "--group is for formats with groups; EXL3 has none");
    if (o.grid.bits > 0) o.exl3.bits = o.grid.bits;
    o.exl3.calibrate = gguf.calibrate, o.exl3.calibration_tokens = gguf.calibration_tokens;
    o.exl3.threads = gguf.threads, o.exl3.strict = gguf.strict;
  } else if (o.grid.bits == 1) {
    return wrong_use("convert", "--bits is 1, which only --to exl3 has; give 2 to 8");
  }
  std::vector<FileRole> inputs = model_inputs(o.in, {});
  inputs.insert(inputs.end(), {{"--calibrate", gguf.calibrate}, {"--imatrix", gguf.importance}});
  if (const auto apart = check_roles(inputs, {{"OUT", o.out}}); !apart) return fail("convert", usage, apart.error());
  if (o.to == "gguf") return to_gguf(o.in, o.out, mix, targets, gguf, inputs);
  const auto source = LinearSource::open(o.in);
  if (!source) return fail("convert", bad_input, source.error());
  if (source->folder().empty())
    return fail("convert", bad_input,
                o.in + ": is a " + source->format() +
                    " file without the config.json and names that a checkpoint needs: give a Hugging Face folder");
  for (const std::string& remark : source->remarks()) std::fprintf(stderr, "anybit convert: %s\n", printable(remark).c_str());
  if (exl3) return to_exl3(*source, o);
  if (container) {
    if (const auto writable = check_writable(o.out); !writable) return fail("convert", cannot_write, writable.error());
    const Status model = runs(*source);
    if (!model)
      std::fprintf(stderr, "anybit convert: %s. So the file has the checkpoint's tensors, and is no model that generate opens\n",
                   printable(model.error().message).c_str());
    const auto outcome = model ? convert_to_model(*source, o.out) : convert_to_container(*source, o.out);
    if (!outcome) return fail("convert", outcome.error().code == ErrorCode::io ? cannot_write : bad_input, outcome.error());
    print(*outcome, o, *source);
    return success;
  }
  const Uninterrupted whole;  // a folder stands under its temporary name
  auto folder = CheckpointFolder::create(o.out);
  if (!folder) return fail("convert", cannot_write, folder.error());
  const auto outcome = convert(*source, *to, o, *folder);
  if (!outcome) return fail("convert", outcome.error().code == ErrorCode::io ? cannot_write : bad_input, outcome.error());
  if (const auto done = folder->commit(); !done) return fail("convert", cannot_write, done.error());
  print(*outcome, o, *source);
  return success;
}

}  // namespace

int run_convert(int argc, const char* const* argv) {
  return run_command([&] { return convert(argc, argv); });
}

}  // namespace tool
