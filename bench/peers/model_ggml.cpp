// llama.cpp and ik_llama.cpp (PEERS_IK) on a whole model. A format is a file type; "+repack" after it has ik_llama.cpp
// interleave rows at load, which llama.cpp does by itself. Of flash attention on and off, the faster counts.

#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>

#include <llama.h>

#include "model_worker.hpp"

namespace {

struct ModelFree {
  void operator()(llama_model* m) const {
#ifdef PEERS_IK
    llama_free_model(m);
#else
    llama_model_free(m);
#endif
  }
};
struct ContextFree {
  void operator()(llama_context* c) const { llama_free(c); }
};

const std::map<std::string, llama_ftype> file_types = {
    {"q8_0", LLAMA_FTYPE_MOSTLY_Q8_0},     {"q6_K", LLAMA_FTYPE_MOSTLY_Q6_K},     {"q5_K_M", LLAMA_FTYPE_MOSTLY_Q5_K_M},
    {"q4_K_M", LLAMA_FTYPE_MOSTLY_Q4_K_M}, {"q4_0", LLAMA_FTYPE_MOSTLY_Q4_0},     {"q4_1", LLAMA_FTYPE_MOSTLY_Q4_1},
    {"iq4_nl", LLAMA_FTYPE_MOSTLY_IQ4_NL}, {"iq4_xs", LLAMA_FTYPE_MOSTLY_IQ4_XS}, {"q3_K_M", LLAMA_FTYPE_MOSTLY_Q3_K_M},
    {"q2_K", LLAMA_FTYPE_MOSTLY_Q2_K},
};

llama_batch batch_of(llama_token* first, int count, [[maybe_unused]] int at) {
#ifdef PEERS_IK
  return llama_batch_get_one(first, count, at, 0);
#else
  return llama_batch_get_one(first, count);
#endif
}

struct Llama {
  Llama(std::string model, std::string out) : source(std::move(model)), folder(std::move(out)) {
    llama_log_set(
        [](ggml_log_level level, const char* text, void*) {
          if (level == GGML_LOG_LEVEL_ERROR) std::fputs(text, stderr);
        },
        nullptr);
    llama_backend_init();
  }

  std::string open(const std::string& format, double& bits) {
    const std::string name = format.substr(0, format.find('+'));
    const auto type = file_types.find(name);
    if (type == file_types.end()) return "no such file type here";
    const std::string file = folder + "/" + name + ".gguf";
    auto how = llama_model_quantize_default_params();
    how.ftype = type->second;
    how.allow_requantize = true;  // the values matter to no speed
    if (llama_model_quantize(source.c_str(), file.c_str(), &how) != 0) return "the model cannot be converted to this type";
    auto load = llama_model_default_params();
    load.n_gpu_layers = 0;
#ifdef PEERS_IK
    load.repack_tensors = format != name;
    load.use_mmap = format == name;
#endif
    auto& model = models[format];
    model.reset(llama_model_load_from_file(file.c_str(), load));
    if (!model) return "the converted model cannot be loaded";
    bits = 8 * static_cast<double>(llama_model_size(model.get())) / static_cast<double>(llama_model_n_params(model.get()));
    return "";
  }

  std::string run(const std::string& format, int threads, int prompt, int decode, peers::Speed& speed) {
    Choice& choice = choices[{format, threads}];
    for (const bool flash : {false, true}) {
      const bool for_prompt = !choice.made || choice.prompt == flash, for_decode = !choice.made || choice.decode == flash;
      if (!for_prompt && !for_decode) continue;
      peers::Speed here;
      const std::string problem = run(format, threads, for_prompt ? prompt : 0, for_decode ? decode : 0, flash, here);
      if (!problem.empty() && choice.made) return problem;
      if (here.prompt > speed.prompt) speed.prompt = here.prompt, choice.prompt = flash;
      if (here.decode > speed.decode) speed.decode = here.decode, choice.decode = flash;
    }
    choice.made = true;
    return speed.prompt > 0 && speed.decode > 0 ? "" : "the library cannot run the model";
  }

  /// What is not to be run has no tokens.
  std::string run(const std::string& format, int threads, int prompt, int decode, bool flash, peers::Speed& speed) {
    auto how = llama_context_default_params();
    how.n_ctx = static_cast<std::uint32_t>(std::max({prompt, decode, 32}));
    how.n_batch = how.n_ubatch = how.n_ctx;
#ifdef PEERS_IK
    how.n_threads = how.n_threads_batch = static_cast<std::uint32_t>(threads);
    how.flash_attn = flash;
#else
    how.n_threads = how.n_threads_batch = threads;
    how.flash_attn_type = flash ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
#endif
    const std::unique_ptr<llama_context, ContextFree> context(llama_init_from_model(models.at(format).get(), how));
    if (!context) return "no context can be made";
    std::vector<llama_token> ids = peers::random_tokens(std::max(prompt, decode), 32000);
    bool good = true;
    const auto step = [&](int at, int count) {
      good = llama_decode(context.get(), batch_of(ids.data() + at, count, at)) == 0 && good;
      llama_synchronize(context.get());
    };
    const auto clear = [&] {
#ifdef PEERS_IK
      llama_kv_cache_clear(context.get());
#else
      llama_memory_clear(llama_get_memory(context.get()), true);
#endif
    };
    if (prompt > 0) {
      step(0, prompt);  // warms up
      clear();
      speed.prompt = peers::per_second(prompt, [&] { step(0, prompt); });
      clear();
    }
    if (decode > 0) {
      step(0, 1);
      clear();
      speed.decode = peers::per_second(decode, [&] {
        for (int t = 0; t < decode; ++t) step(t, 1);
      });
    }
    return good ? "" : "the library reports that a pass failed";
  }

  /// Whether flash attention was faster, once both were tried.
  struct Choice {
    bool made = false, prompt = false, decode = false;
  };
  std::map<std::pair<std::string, int>, Choice> choices;
  std::string source, folder;
  std::map<std::string, std::unique_ptr<llama_model, ModelFree>> models;
};

}  // namespace

int main(int argc, char** argv) { return peers::serve_model<Llama>(argc, argv); }
