#pragma once
// A model as a GGUF file: metadata of configuration and tokenizer, and the tensors that its architecture has there, fused and
// ordered as llama.cpp wants them. What a file would not say again when read is an error.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <anybit/core/stable_sort.hpp>
#include <anybit/io/gguf_writer.hpp>
#include <anybit/model/gguf_file_config.hpp>
#include <anybit/model/model.hpp>
#include <anybit/model/tokenizer/to_gguf.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

/// A tensor of the file and the weights that lie in it, one below the other.
struct GgufTensor {
  std::string name;
  std::vector<Index> shape;            ///< row-major
  Index block = no_block;              ///< whose weights it needs
  std::vector<std::size_t> weights{};  ///< places in Decoder::weights; none: factors of rotary positions
  bool bias = false;                   ///< of linears
};

namespace detail {

inline std::string_view behind_block(std::string_view name) {
  const auto split = split_block(name, "blk.");
  return split ? split->second : name;
}

/// Row r of a head in the order of GGUF is row source(r) in the decoder's order.
inline Index row_in_other_order(Index r, const DecoderConfig& c, nn::RopeOrder to) {
  const Index in_head = r % c.head_dim, half = c.rotary_dim / 2;
  if (in_head >= c.rotary_dim) return r;
  const Index first = r - in_head;
  return to == nn::RopeOrder::pairs ? first + in_head / 2 + in_head % 2 * half : first + in_head % half * 2 + in_head / half;
}

/// The row in the decoder's order of each row that weight `i` has in a tensor of the file.
inline std::vector<Index> rows_in_gguf(const Decoder& d, std::size_t i, Index rows) {
  const DecoderConfig& c = d.config;
  const nn::RopeOrder order = d.blueprint->architecture->gguf_order;
  const std::string_view name = behind_block(d.blueprint->weights[i].name);
  const bool turns =
      (name == "attn_q.weight" || name == "attn_k.weight") && c.form.positions == Positions::rotary && c.rope_order != order;
  std::vector<Index> out;
  for (Index r = 0; r < rows; ++r) out.push_back(turns ? row_in_other_order(r, c, order) : r);
  return out;
}

}  // namespace detail

/// All tensors of the file, those without a block first, then block after block.
inline std::vector<GgufTensor> gguf_tensors(const Decoder& d) {
  const DecoderConfig& c = d.config;
  const Architecture& a = *d.blueprint->architecture;
  std::vector<GgufTensor> out;
  const auto factors = [&](const char* name, const std::vector<float>& f) {
    if (!f.empty()) out.push_back({name, {static_cast<Index>(f.size())}});
  };
  if (!gguf_config::find_yarn(c))
    factors(c.rope_long_factors.empty() ? "rope_freqs.weight" : "rope_factors_short.weight", c.rope_factors);
  factors("rope_factors_long.weight", c.rope_long_factors);
  const auto add = [&](std::string_view name, Index block, std::vector<Index> shape, std::size_t weight, bool bias) {
    std::string full = stored_name(a, c, name, NamesOf::gguf);
    if (full.empty()) full = name;
    const bool stacked = full.ends_with("_exps.weight");  // the same matrix of every expert
    if (stacked) shape.insert(shape.begin(), 1);
    for (GgufTensor& t : out)
      if (t.name == full && t.block == block) {
        t.shape[0] += shape[0];
        t.weights.push_back(weight);
        return;
      }
    out.push_back({std::move(full), std::move(shape), block, {weight}, bias});
  };
  for (std::size_t i = 0; i < d.blueprint->weights.size(); ++i) {
    const WeightSpec& spec = d.blueprint->weights[i];
    if (spec.optional && d.weights[i].linear.extents().size() == 0)
      continue;  // of a block that is not loaded nothing is optional
    if (spec.multiplies())
      add(spec.name, spec.block, {spec.shape.rows, spec.shape.cols}, i, false);
    else
      add(spec.name, spec.block, {spec.shape.cols}, i, false);
    if (!spec.bias.empty()) add(spec.bias, spec.block, {spec.shape.rows}, i, true);
  }
  anybit::stable_sort(out.begin(), out.end(), [](const GgufTensor& x, const GgufTensor& y) { return x.block < y.block; });
  return out;
}

/// The values of a tensor, a vector as one row. `weights` are the decoder's, of which those of t.block must be loaded.
inline Matrix read_gguf_tensor(const Decoder& d, std::span<const Weight> weights, const GgufTensor& t) {
  const Index cols = t.shape.back();
  Index rows = 1;
  for (std::size_t i = 0; i + 1 < t.shape.size(); ++i) rows *= t.shape[i];
  Matrix out(rows, cols);
  if (t.weights.empty()) {
    const std::vector<float>& from = t.name == "rope_factors_long.weight" ? d.config.rope_long_factors : d.config.rope_factors;
    std::copy(from.begin(), from.end(), out.data());
    return out;
  }
  float* to = out.data();
  for (const std::size_t i : t.weights) {
    const Weight& w = weights[i];
    if (!d.blueprint->weights[i].multiplies()) {
      to = std::copy(w.values.begin(), w.values.end(), to);
    } else if (t.bias) {
      for (const Index r : detail::rows_in_gguf(d, i, static_cast<Index>(w.linear.bias().size())))
        *to++ = w.linear.bias()[static_cast<std::size_t>(r)];
    } else {
      for (const Index r : detail::rows_in_gguf(d, i, w.linear.extents().rows)) {
        w.linear.read_row(r, std::span(to, static_cast<std::size_t>(cols)));
        to += cols;
      }
    }
  }
  return out;
}

/// Puts values as read_gguf_tensor() gives them into the linears that lie in a tensor, as floats; their biases stay.
inline void set_gguf_tensor(Decoder& d, const GgufTensor& t, ConstMatrix values) {
  ANYBIT_CHECK(!t.weights.empty() && !t.bias, "set_gguf_tensor: a tensor of linears");
  Index row = 0;
  for (const std::size_t i : t.weights) {
    nn::Linear& linear = d.weights[i].linear;
    const Extents e = linear.extents();
    ANYBIT_CHECK(e.cols == values.cols && row + e.rows <= values.rows, "set_gguf_tensor: values of another shape");
    Matrix w(e.rows, e.cols);
    for (const Index r : detail::rows_in_gguf(d, i, e.rows)) {
      std::copy_n(values.row(row).data(), e.cols, w.view().row(r).data());
      ++row;
    }
    linear = linear.with_weights(nn::Linear(std::move(w)));
  }
  ANYBIT_CHECK(row == values.rows, "set_gguf_tensor: values of another shape");
}

namespace detail {

/// An error that names a part of the configuration that is not the same when `file` is read again.
inline Status check_read_back(const io::GgufFile& file, const Decoder& d) {
  const DecoderConfig& is = d.config;
  ANYBIT_TRY(DecoderConfig back, read_config(file, *d.blueprint->architecture));
  const auto lost = [&](std::string_view part, std::string_view remedy) {
    return Error{ErrorCode::unsupported, io::detail::text("GGUF's architecture ", d.blueprint->architecture->name, " cannot say ",
                                                          part, " of this model: ", remedy)};
  };
  const auto scale = [](const DecoderConfig& c) {
    return c.form.attention_scale != 0 ? c.form.attention_scale : 1 / std::sqrt(static_cast<float>(c.head_dim));
  };
  for (Index i = 0; i < is.blocks; ++i) {
    const Index window = is.form.window_of(i) >= is.context ? 0 : is.form.window_of(i);
    const Index said = back.form.window_of(i) >= is.context ? 0 : back.form.window_of(i);
    if (window != said)
      return lost(io::detail::text("the window of ", window, " positions in block ", i),
                  io::detail::text("choose a context of at most ", window, " positions (--context ", window, ")"));
  }
  if (is.rope_dynamic != back.rope_dynamic)
    return lost("the dynamic scaling of rotary positions",
                io::detail::text("choose the model's own context (--context ", is.context, ")"));
  if (is.rope_base != back.rope_base || is.rope_scale != back.rope_scale || is.rope_magnitude != back.rope_magnitude ||
      (is.rope_window_base != back.rope_window_base && is.form.window > 0) ||
      (!is.rope_long_factors.empty() && is.rope_original_context != back.rope_original_context) ||
      (gguf_config::find_yarn(is) && back.rope_factors != is.rope_factors))
    return lost("the scaling of rotary positions", "use a model with another scaling");
  if (is.form.head_norm != HeadNorm::none && is.rope_order != d.blueprint->architecture->gguf_order)
    return lost("norms of heads in this order of rows", "use another model");
  if (std::fabs(scale(is) - scale(back)) > 1e-6f * scale(is))
    return lost("the scale of attention scores", "use a model with the usual one");
  // What remains is compared as it is; tensors say the rest.
  back.form.window = is.form.window, back.form.windowed = is.form.windowed, back.form.attention_scale = is.form.attention_scale;
  if (!(back.form == is.form))
    return lost("the form of the blocks (norms, biases, activation, order or positions)", "use a model in the usual form");
  back.form = is.form, back.rope_order = is.rope_order, back.vocabulary = is.vocabulary, back.rope_factors = is.rope_factors;
  back.rope_long_factors = is.rope_long_factors, back.rope_original_context = is.rope_original_context;
  back.rope_window_base = is.rope_window_base;
  if (is.form.positions != Positions::rotary) back.rotary_dim = is.rotary_dim;
  if (!(back == is)) return lost("the dimensions", "use another model");
  return Ok{};
}

}  // namespace detail

/// Keys of configuration and name; file type and quantization version are the caller's.
inline Status write_gguf_metadata(io::GgufWriter& to, const Decoder& d, std::string_view name,
                                  std::span<const GgufTensor> tensors) {
  const Architecture& a = *d.blueprint->architecture;
  if (!a.read_gguf)
    return {ErrorCode::unsupported,
            io::detail::text("GGUF has no architecture for ", a.name, ": use a model of ", architecture_names())};
  if (d.online.any())
    return {ErrorCode::unsupported,
            "the model is rotated in its forward pass, which GGUF cannot say: use the model before rotation"};
  to.add_metadata("general.architecture", a.name);
  to.add_metadata("general.type", "model");
  to.add_metadata("general.name", name);
  GgufConfigWriter keys(to, a.name);
  a.write_gguf(keys, d.config);

  // Some facts are in the tensors: their infos are there, of a type whose values nobody can ask for.
  io::GgufWriter read_again = to;
  constexpr std::uint32_t no_type = 0xFFFF;
  std::uint64_t offset = 0;
  for (const GgufTensor& t : tensors) {
    std::vector<std::uint64_t> ne;
    for (auto extent = t.shape.rbegin(); extent != t.shape.rend(); ++extent) ne.push_back(static_cast<std::uint64_t>(*extent));
    read_again.add_raw_tensor(t.name, ne, no_type, std::exchange(offset, offset + 32));
  }
  const std::string bytes = read_again.bytes() + std::string(offset, '\0');
  ANYBIT_TRY(const io::GgufFile file, io::GgufFile::parse(std::as_bytes(std::span(bytes)), "the file to write"));
  return detail::check_read_back(file, d);
}

/// The model for texts of at most `context` positions: windows and scalings that begin beyond them are left out.
inline void limit_context(DecoderConfig& c, Index context) {
  if (context > c.context) return;
  c.context = context;
  c.rope_dynamic = 0;
  if (c.form.window >= c.context) c.form.window = 0, c.form.windowed.clear();
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
