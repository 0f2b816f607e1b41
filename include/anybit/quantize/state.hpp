#pragma once
// The finished blocks of a block-by-block run, on disk: anybit containers of one block each, so that an interruption costs at
// most one block. The residual stream is not stored: running the finished blocks again gives its bits
// exactly.

#include <anybit/core/macros_begin.hpp>

#include <array>
#include <charconv>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <anybit/core/fingerprint.hpp>
#include <anybit/model/container.hpp>
#include <anybit/model/fingerprint.hpp>
#include <anybit/quantize/one_shot.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

namespace detail {

/// Fingerprints of everything that a run depends on. All four must agree before it goes on with the blocks of an earlier one.
struct RunFingerprint {
  std::string model, plan, text, build{build_name};
};

/// Block i of a model that holds its blocks, or reads them.
inline Result<BlockWeights> block_of(const Decoder& d, const BlockLoader& load, Index i) {
  if (load) return load(i);
  return d.copy_block(i);
}

/// Every number of the model that reaches a block.
inline Result<std::string> fingerprint_of(const Decoder& d, const BlockLoader& load) {
  Fingerprint f;
  f.add(d.blueprint->architecture->name).add(name(d.config.rope_order));
  const auto add_config = [&](const DecoderConfig& c) {
    for_each_number(c, [&](const char* key, auto number) { f.add(key).add(number_text(number)); });
    const DecoderConfig usual;
    for_each_option(c, usual, [&](const char* key, const auto& value, const auto& standard) {
      if (value != standard) f.add(key).add(number_text(number_of(value)));
    });
    for_each_flags(c.form, [&](std::string_view key, const std::vector<std::uint8_t>& flags) {
      if (!flags.empty()) f.add(key).add(std::span<const std::uint8_t>(flags));
    });
  };
  add_config(d.config);
  for (const DecoderConfig& encoder : d.config.encoder) add_config(encoder);
  f.add(std::span<const float>(d.config.rope_factors));
  if (!d.config.rope_long_factors.empty()) f.add(std::span<const float>(d.config.rope_long_factors));
  add_linear(f, d.token_embedding());
  if (!d.config.encoder.empty())  // what the stacks have before and behind their blocks
    for (std::size_t i = 0; i < d.weights.size(); ++i)
      if (d.blueprint->weights[i].block == no_block) {
        if (d.weights[i].linear.extents().size() > 0) add_linear(f, d.weights[i].linear);
        f.add(std::span<const float>(d.weights[i].values));
      }
  for (Index i = 0; i < d.config.blocks; ++i) {
    ANYBIT_TRY(const BlockWeights block, block_of(d, load, i));
    for (const Weight& w : block) {
      add_linear(f, w.linear);
      f.add(std::span<const float>(w.values));
    }
  }
  for_each_rotation(d.online, d.config, [&](const char* key, const std::optional<Hadamard>& rotation, Index) {
    f.add(key).add(rotation ? number_text(rotation->seed()) : std::string(no_rotation));
  });
  return f.text();
}

/// Readable, with a fingerprint of what the name does not say.
inline std::string fingerprint_of(const ModelPlan& plan, const PackedEmbedding& embedding, bool true_sequential, Index sample_cap,
                                  float expert_share) {
  Fingerprint f;
  for (const ModelRecipe* r : plan.linears)
    f.add(r->description).add(r->scheme->name).add(anybit::name(r->compute)).add(describe(r->needs));
  if (!plan.guards) f.add("no guards");
  f.add(own_bytes(embedding.embedding.bytes()));
  f.add(number_text(sample_cap)).add(number_text(expert_share));
  return plan.name + (true_sequential ? ", true-sequential, " : ", ") + f.text();
}

inline std::string fingerprint_of(std::span<const std::span<const TokenId>> windows, std::span<const Source> sources = {}) {
  Fingerprint f;
  Index tokens = 0;
  for (const auto& w : windows) f.add(w), tokens += static_cast<Index>(w.size());
  for (const Source& s : sources) {
    f.add(s.ids);
    for (Index t = 0; t < s.features.rows; ++t) f.add(std::span<const float>(s.features.row(t)));
  }
  return io::detail::text(tokens, " tokens, ", f.text());
}

struct FinishedBlock {
  BlockWeights block;
  std::vector<QuantizedLayer> layers;
};

/// A report as lines, for metadata.
inline std::string layer_text(const QuantizedLayer& l) {
  std::string out;
  const auto line = [&](std::string text) {
    for (char& c : text)
      if (c == '\n') c = ' ';
    out += text + "\n";
  };
  const Report& r = l.report;
  line(l.name), line(number_text(place(l.site))), line(number_text(l.sibling)), line(r.requested), line(r.done);
  line(number_text(r.weight_error)), line(r.output_error ? number_text(*r.output_error) : "none");
  line(number_text(r.bits_per_weight)), line(number_text(r.remarks.size())), line(number_text(r.fallbacks.size()));
  for (const auto* lines : {&r.remarks, &r.fallbacks})
    for (const std::string& text : *lines) line(text);
  return out;
}

inline std::optional<QuantizedLayer> layer_from_text(std::string_view text) {
  bool good = true;
  const auto line = [&]() -> std::string {
    const std::size_t end = text.find('\n');
    if (end == std::string_view::npos) return good = false, std::string();
    std::string out(text.substr(0, end));
    text.remove_prefix(end + 1);
    return out;
  };
  const auto number = [&](auto& to) {
    const std::string digits = line();
    const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), to);
    good = good && parsed.ec == std::errc() && parsed.ptr == digits.data() + digits.size();
  };
  QuantizedLayer l;
  Report& r = l.report;
  std::size_t site = 0;
  l.name = line(), number(site), number(l.sibling), r.requested = line(), r.done = line();
  l.site = static_cast<SiteId>(site);
  number(r.weight_error);
  if (text.starts_with("none\n"))
    line();
  else
    number(r.output_error.emplace());
  std::size_t remarks = 0, fallbacks = 0;
  number(r.bits_per_weight), number(remarks), number(fallbacks);
  for (; good && remarks > 0; --remarks) r.remarks.push_back(line());
  for (; good && fallbacks > 0; --fallbacks) r.fallbacks.push_back(line());
  if (!good || !text.empty()) return std::nullopt;
  return l;
}

/// The files of one run in its folder.
class BlockFiles {
 public:
  BlockFiles() = default;
  static Result<BlockFiles> open(const std::string& folder, RunFingerprint run) {
    std::error_code failed;
    std::filesystem::create_directories(folder, failed);
    if (failed)
      return Error{ErrorCode::io, folder + ": cannot be made a folder (" + failed.message() + "): choose another place"};
    BlockFiles out;
    out.folder_ = folder;
    out.run_ = std::move(run);
    return out;
  }

  std::string path(Index block) const {
    return (std::filesystem::path(folder_) / io::detail::text("block-", block, ".safetensors")).string();
  }

  Status write(const Blueprint& blueprint, Index i, std::span<const Weight> block, std::span<const QuantizedLayer> layers) const {
    if (folder_.empty()) return Ok{};
    io::AnybitWriter writer;
    Fingerprint sum;
    const auto gains = [&](std::string name, const std::vector<float>& values) {
      sum.add(name).add(std::span<const float>(values));
      writer.add(std::move(name), ConstMatrix(values.data(), 1, static_cast<Index>(values.size())));
    };
    for (std::size_t w = 0; w < block.size(); ++w) {
      const WeightSpec& spec = blueprint.weights[blueprint.blocks[static_cast<std::size_t>(i)] + w];
      if (!spec.multiplies()) {
        gains(spec.name, block[w].values);
        continue;
      }
      const nn::Linear& linear = block[w].linear;
      if (!spec.quantizable) {
        const ConstMatrix floats = linear.dense()->view();
        sum.add(spec.name).add(flat(floats));
        writer.add(spec.name, floats);
        continue;
      }
      sum.add(spec.name).add(own_bytes(linear.packed()->bytes()));
      writer.add(spec.name, linear.packed()->bytes());
      if (!spec.bias.empty()) gains(spec.bias, linear.bias());
      if (linear.compute() != Compute::int8_static) continue;
      const std::string key = std::string(activation_scale_key) + spec.name, scale = scale_text(linear.activations().scale());
      sum.add(scale);
      writer.set_metadata(key, scale);
    }
    for (std::size_t k = 0; k < layers.size(); ++k) {
      const std::string key = io::detail::text("state.layer.", k), text = layer_text(layers[k]);
      sum.add(text);
      writer.set_metadata(key, text);
      if (!layers[k].input_scale.empty()) gains(layers[k].name + ".input_scale", layers[k].input_scale);
      if (!layers[k].output_scale.empty()) gains(layers[k].name + ".output_scale", layers[k].output_scale);
    }
    for_each_key(run_, [&](const char* key, const char*, const std::string& value) { writer.set_metadata(key, value); });
    writer.set_metadata("state.block", number_text(i));
    writer.set_metadata("state.checksum", sum.text());
    return writer.write(path(i));
  }

  /// Nothing if the block is not there. `source` is the float one.
  Result<std::optional<FinishedBlock>> read(const Blueprint& blueprint, Index i, const BlockWeights& source,
                                            const ModelPlan& plan) const {
    std::error_code ignored;
    if (folder_.empty() || !std::filesystem::exists(path(i), ignored)) return std::optional<FinishedBlock>();
    const auto opened = io::AnybitFile::open(path(i));
    if (!opened) return opened.error().code == ErrorCode::io ? opened.error() : damaged(opened.error());
    const io::AnybitFile& file = *opened;
    const MetadataReader metadata(file.metadata(), file.name());
    Status same = Ok{};
    for_each_key(run_, [&](const char* key, const char* what, const std::string& mine) {
      if (!same) return;
      const auto value = metadata.text(key);
      if (!value)
        same = damaged(value.error());
      else if (*value != mine)
        same = Error{
            ErrorCode::invalid_argument,
            io::detail::text(file.name(), ": was made with another ", what, " (", io::detail::shown(*value), ", this run has ",
                             io::detail::shown(mine), "): give that one, or another folder for the state")};
    });
    ANYBIT_TRY_STATUS(same);
    auto block = read_contents(file, blueprint, i, source, plan);
    if (!block) return damaged(block.error());
    return std::optional<FinishedBlock>(*std::move(block));
  }

 private:
  /// Whoever met the damage advises on files that cannot be made again; in the place of that, behind the last colon, stands what
  /// helps here.
  static Error damaged(Error e) {
    if (const auto colon = e.message.rfind(": "); colon != std::string::npos) e.message.resize(colon);
    e.message += ": the file is damaged, remove it and the block is made again";
    e.code = ErrorCode::corrupt_data;
    return e;
  }

  static Result<FinishedBlock> read_contents(const io::AnybitFile& file, const Blueprint& blueprint, Index i,
                                             const BlockWeights& source, const ModelPlan& plan) {
    const MetadataReader metadata(file.metadata(), file.name());
    ANYBIT_TRY(const std::string number, metadata.text("state.block"));
    if (number != number_text(i)) return bad(file, io::detail::text("holds block ", io::detail::shown(number)));

    Fingerprint sum;
    FinishedBlock out;
    out.block = source;
    Status status = Ok{};
    const std::size_t first = blueprint.blocks[static_cast<std::size_t>(i)];
    std::vector<const ModelRecipe*> recipes(source.size(), nullptr);
    std::size_t reports = 0;
    for (const SiteId site : blueprint.sites_of(i))
      for (std::size_t r = 0; r < blueprint[site].readers.size(); ++r, ++reports)
        recipes[place(blueprint[site].readers[r]) - first] = plan.linears[blueprint[site].first_reader + r];
    for (std::size_t w = 0; status && w < source.size(); ++w) {
      const WeightSpec& spec = blueprint.weights[first + w];
      Weight& to = out.block[w];
      if (!spec.multiplies()) {
        status = read_gains(file, spec.name, sum, to.values);
        continue;
      }
      if (spec.quantizable) {
        const ModelRecipe& recipe = *recipes[w];
        const bool kept = is_kept_at_eight_bits(plan, recipe, spec);
        status =
            read_linear(file, spec.name, recipe, kept ? kernel::packed_ops_v<EmbeddingScheme> : *recipe.scheme, sum, to.linear);
      } else {
        status = read_floats(file, spec.name, sum, to.linear);
      }
      if (!status || spec.bias.empty()) continue;
      std::vector<float> bias = to.linear.bias();
      status = read_gains(file, spec.bias, sum, bias);
      if (status) to.linear.set_bias(std::move(bias));
    }
    for (std::size_t k = 0; status && k < reports; ++k) {
      const auto text = metadata.text(io::detail::text("state.layer.", k));
      if (!text) return text.error();
      sum.add(*text);
      auto layer = layer_from_text(*text);
      if (!layer) return bad(file, io::detail::text("report ", k, " cannot be read"));
      const auto scale = [&](const char* suffix, std::vector<float>& values) {
        if (status && file.has(layer->name + suffix)) status = read_values(file, layer->name + suffix, sum, values);
      };
      scale(".input_scale", layer->input_scale), scale(".output_scale", layer->output_scale);
      out.layers.push_back(*std::move(layer));
    }
    ANYBIT_TRY_STATUS(status);
    ANYBIT_TRY(const std::string checksum, metadata.text("state.checksum"));
    if (checksum != sum.text()) return bad(file, "its contents do not have the checksum that it names");
    return out;
  }

  template <class Run, class F>
  static void for_each_key(Run& run, F&& f) {
    f("state.build", "build of anybit", run.build), f("state.model", "model", run.model), f("state.plan", "recipe", run.plan);
    f("state.text", "calibration text", run.text);
  }
  static Error bad(const io::AnybitFile& file, const std::string& what) {
    return {ErrorCode::corrupt_data, file.name() + ": " + what + ": damaged"};
  }
  /// `linear` is the float one, whose shape is needed.
  static Status read_linear(const io::AnybitFile& file, const std::string& name, const ModelRecipe& recipe,
                            const kernel::PackedOps& scheme, Fingerprint& sum, nn::Linear& linear) {
    if (!file.has(name)) return bad(file, "has no tensor " + name);
    ANYBIT_TRY(const PackedBytes view, file.packed(name));
    if (view.extents() != linear.extents()) return bad(file, "tensor " + name + " has another shape than the model's");
    ANYBIT_TRY(PackedBytes copy, PackedBytes::copy(own_bytes(view)));
    sum.add(name).add(copy.bytes());
    auto opened = AnyPacked::open(scheme, std::move(copy));
    if (!opened) return in_context(in_context(opened.error(), "tensor " + name), file.name());
    ActivationMode activations;
    if (recipe.compute == Compute::int8_static) {
      ANYBIT_TRY(activations, read_activation_scale(MetadataReader(file.metadata(), file.name()), file.name(), name));
      sum.add(scale_text(activations.scale()));
    } else {
      activations = recipe.compute;
    }
    linear = linear.with_weights(nn::Linear(*std::move(opened), activations));
    return Ok{};
  }
  static std::span<const float> flat(ConstMatrix m) {
    return {m.data, static_cast<std::size_t>(m.rows) * static_cast<std::size_t>(m.cols)};
  }
  static Status read_floats(const io::AnybitFile& file, const std::string& name, Fingerprint& sum, nn::Linear& linear) {
    if (!file.has(name)) return bad(file, "has no tensor " + name);
    ANYBIT_TRY(Matrix m, file.read_f32(name));
    if (m.extents() != linear.extents()) return bad(file, "tensor " + name + " has another shape than the model's");
    sum.add(name).add(flat(std::as_const(m).view()));
    linear = linear.with_weights(nn::Linear(std::move(m)));
    return Ok{};
  }
  static Status read_values(const io::AnybitFile& file, const std::string& name, Fingerprint& sum, std::vector<float>& values) {
    if (!file.has(name)) return bad(file, "has no tensor " + name);
    ANYBIT_TRY(const Matrix m, file.read_f32(name));
    if (m.rows() != 1) return bad(file, "tensor " + name + " is no vector");
    values.assign(m.data(), m.data() + m.cols());
    sum.add(name).add(std::span<const float>(values));
    return Ok{};
  }
  /// As many as there are already.
  static Status read_gains(const io::AnybitFile& file, const std::string& name, Fingerprint& sum, std::vector<float>& values) {
    const std::size_t size = values.size();
    ANYBIT_TRY_STATUS(read_values(file, name, sum, values));
    if (values.size() != size) return bad(file, "tensor " + name + " has another length than the model's");
    return Ok{};
  }

  std::string folder_;
  RunFingerprint run_;
};

}  // namespace detail
}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
