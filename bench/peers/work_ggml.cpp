// ggml's products through its public C interface, compiled once against llama.cpp and once (PEERS_IK) against ik_llama.cpp.
// A format is a ggml type; "+repack" after it places weights in the buffer type whose products have rows interleaved.

#include <cctype>
#include <cstring>
#include <map>
#include <memory>

#include <ggml-alloc.h>
#include <ggml-backend.h>
#include <ggml.h>
#ifndef PEERS_IK
#include <ggml-cpu.h>
#endif

#include "worker.hpp"

namespace {

struct ContextFree {
  void operator()(ggml_context* c) const { ggml_free(c); }
};
struct BufferFree {
  void operator()(ggml_backend_buffer* b) const { ggml_backend_buffer_free(b); }
};
using Context = std::unique_ptr<ggml_context, ContextFree>;
using Buffer = std::unique_ptr<ggml_backend_buffer, BufferFree>;

Context make_context(std::size_t tensors) {
  return Context(ggml_init({ggml_tensor_overhead() * tensors + ggml_graph_overhead_custom(2 * tensors, false), nullptr, true}));
}

const char* repack_suffix = "+repack";
bool is_repacked(const std::string& format) { return format.find(repack_suffix) != std::string::npos; }
std::string type_name(const std::string& format) { return format.substr(0, format.find(repack_suffix)); }

std::string lower(std::string s) {
  for (char& c : s) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return s;
}

/// GGML_TYPE_COUNT if there is none.
ggml_type type_of(const std::string& name) {
  for (int i = 0; i < GGML_TYPE_COUNT; ++i) {
    const char* known = ggml_type_name(static_cast<ggml_type>(i));
    if (known && lower(name) == lower(known)) return static_cast<ggml_type>(i);
  }
  return GGML_TYPE_COUNT;
}

/// Rows that types like q4_0_r8 interleave.
long interleaved_rows(const std::string& name) {
  const auto at = name.rfind("_r");
  return at != std::string::npos && std::isdigit(static_cast<unsigned char>(name[at + 2])) ? std::atol(name.c_str() + at + 2) : 1;
}

auto to_float(ggml_type type) {
#ifdef PEERS_IK
  return ggml_internal_get_type_traits(type).to_float;
#else
  return ggml_get_type_traits(type)->to_float;
#endif
}

ggml_backend_buffer_type_t buffer_type(bool repacked) {
  if (!repacked) return ggml_backend_cpu_buffer_type();
#ifndef PEERS_IK
  const auto registry = ggml_backend_dev_backend_reg(ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU));
  const auto extra = reinterpret_cast<ggml_backend_dev_get_extra_bufts_t>(
      ggml_backend_reg_get_proc_address(registry, "ggml_backend_dev_get_extra_bufts"));
  if (!extra) return nullptr;
  for (auto* type = extra(ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU)); type && *type; ++type)
    if (std::string(ggml_backend_buft_name(*type)).find("REPACK") != std::string::npos) return *type;
#endif
  return nullptr;
}

struct Ggml {
  explicit Ggml(peers::Data d) : data(std::move(d)) {
    make_context(1);  // fills the tables that decoding reads
    backend = ggml_backend_cpu_init();
  }

  std::string open(const std::string& format, long& bytes) {
    const std::string name = type_name(format);
    const ggml_type type = type_of(name);
    if (type == GGML_TYPE_COUNT) return "this version has no type " + name;
    bytes = static_cast<long>(ggml_row_size(type, peers::cols)) * peers::rows;
    if (quantized[name].empty()) {
      const std::vector<float> importance(static_cast<std::size_t>(peers::cols), 1.0f);  // all columns alike
      quantized[name].resize(static_cast<std::size_t>(bytes));
      const std::size_t written =
          ggml_quantize_chunk(type, data.weights.data(), quantized[name].data(), 0, peers::rows, peers::cols, importance.data());
      if (written != static_cast<std::size_t>(bytes)) return "quantizing wrote " + std::to_string(written) + " bytes";
    }
    if (!is_repacked(format)) return "";
    return place(format, 1) ? "" : "the library has no repacked product of this type on this processor";
  }
  std::string weights(const std::string& format, peers::Floats& out) {
    std::string name = type_name(format);
    if (type_of(name) == GGML_TYPE_F32) {
      out = data.weights;
      return "";
    }
    // What the library decodes only from another type of the same values: ternary types with their scale, rows in order.
    std::string other;
    if (name == "iq1_bn" || name == "iq2_bn") other = "iq2_bn_r4";
    if (!to_float(type_of(name)) && interleaved_rows(name) > 1) other = name.substr(0, name.rfind("_r"));
    if (!other.empty()) {
      long bytes = 0;
      const std::string problem = open(other, bytes);
      if (!problem.empty()) return problem;
      name = other;
    }
    const ggml_type type = type_of(name);
    if (!to_float(type)) return "this type does not decode";
    const long step = interleaved_rows(name);
    const std::size_t row_bytes = ggml_row_size(type, peers::cols);
    for (long r = 0; r < peers::rows; r += step)
      to_float(type)(quantized.at(name).data() + static_cast<std::size_t>(r) * row_bytes, out.data() + r * peers::cols,
                     step * peers::cols);
    return "";
  }

  std::string run(const std::string& format, long tokens, long threads, long rotate, double seconds, peers::Timing& timing,
                  peers::Floats& y) {
    const auto bytes = static_cast<long>(quantized.at(type_name(format)).size());
    const long count = peers::copies_for(bytes, rotate);
    if (!place(format, count)) return "its weights cannot be placed";
    // One graph goes through all copies, as one of a model goes through its layers.
    const Context context = make_context(static_cast<std::size_t>(count) + 1);
    ggml_tensor* x = ggml_new_tensor_2d(context.get(), GGML_TYPE_F32, peers::cols, tokens);
    ggml_cgraph* graph = ggml_new_graph_custom(context.get(), 2 * static_cast<std::size_t>(count) + 2, false);
    ggml_tensor* last = nullptr;
    for (ggml_tensor* w : placed) ggml_build_forward_expand(graph, last = ggml_mul_mat(context.get(), w, x));
    const Buffer buffer(ggml_backend_alloc_ctx_tensors(context.get(), backend));
    if (!buffer) return "not enough memory";
    ggml_backend_tensor_set(x, data.activations.data(), 0, static_cast<std::size_t>(tokens * peers::cols) * sizeof(float));
    ggml_backend_cpu_set_n_threads(backend, static_cast<int>(threads));
    bool good = true;
    timing = peers::time_passes(seconds, count,
                                [&] { good = ggml_backend_graph_compute(backend, graph) == GGML_STATUS_SUCCESS && good; });
    if (!good) return "the library reports that the product failed";
    ggml_backend_tensor_get(last, y.data(), 0, y.size() * sizeof(float));
    return "";
  }
  void drop() {
    placed.clear();
    weight_buffer.reset();
    weight_context.reset();
  }

  /// `count` copies of the weights in memory, kept until other ones are asked for.
  bool place(const std::string& format, long count) {
    if (placed_format == format && placed.size() == static_cast<std::size_t>(count)) return true;
    drop();
    const auto where = buffer_type(is_repacked(format));
    if (!where) return false;
    const auto& bytes = quantized.at(type_name(format));
    weight_context = make_context(static_cast<std::size_t>(count));
    for (long i = 0; i < count; ++i)
      placed.push_back(ggml_new_tensor_2d(weight_context.get(), type_of(type_name(format)), peers::cols, peers::rows));
    weight_buffer.reset(ggml_backend_alloc_ctx_tensors_from_buft(weight_context.get(), where));
    if (!weight_buffer || (is_repacked(format) && !placed[0]->extra)) {
      drop();
      return false;
    }
    ggml_backend_tensor_set(placed[0], bytes.data(), 0, bytes.size());
    for (std::size_t i = 1; i < placed.size(); ++i) std::memcpy(placed[i]->data, placed[0]->data, bytes.size());
    placed_format = format;
    return true;
  }

  peers::Data data;
  ggml_backend_t backend = nullptr;
  std::map<std::string, std::vector<char>> quantized;
  Context weight_context;
  Buffer weight_buffer;
  std::vector<ggml_tensor*> placed;
  std::string placed_format;
};

}  // namespace

int main(int argc, char** argv) { return peers::serve<Ggml>(argc, argv); }
