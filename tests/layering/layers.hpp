#pragma once
// The layers of DESIGN as one table, and a reader of include lines that holds a header against it.

#include <algorithm>
#include <array>
#include <cctype>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

namespace layering {

struct Layer {
  std::string_view name;
  std::vector<std::string_view> may_include;  // layers beside itself
};

inline const std::vector<Layer>& layers() {
  static const std::vector<Layer> table{
      {"core", {}},
      {"reference", {"core"}},
      {"format", {"core"}},
      {"scheme", {"core", "format"}},
      {"simd", {"core"}},
      {"exec", {"core"}},
      {"dense", {"core", "simd", "exec"}},
      {"tensor", {"core", "format", "scheme", "simd"}},
      {"kernel", {"core", "format", "scheme", "tensor", "simd", "exec"}},
      {"io", {"core", "format", "scheme", "tensor"}},
      {"calibrate", {"core", "exec", "dense", "io"}},
      {"recipe", {"core", "format", "scheme", "tensor", "simd", "exec", "dense", "calibrate", "grid"}},
      {"grid", {"core", "format", "scheme", "tensor", "simd", "exec", "calibrate", "recipe"}},
      {"transform", {"core", "format", "scheme", "tensor", "simd", "exec", "dense", "calibrate", "grid", "recipe"}},
      {"algorithm", {"core", "format", "scheme", "tensor", "simd", "exec", "dense", "calibrate", "grid", "recipe"}},
      {"prune", {"core", "format", "scheme", "tensor", "simd", "exec", "dense", "calibrate", "grid", "recipe", "algorithm"}},
      {"nn", {"core", "format", "scheme", "tensor", "simd", "exec", "dense", "io", "transform", "kernel"}},
      {"model",
       {"core", "format", "scheme", "tensor", "simd", "exec", "dense", "calibrate", "grid", "recipe", "io", "transform",
        "algorithm", "prune", "kernel", "nn"}},
      {"quantize",
       {"core", "format", "scheme", "tensor", "simd", "exec", "dense", "calibrate", "grid", "recipe", "io", "transform",
        "algorithm", "prune", "kernel", "nn", "model"}},
      {"evaluate",
       {"core", "format", "scheme", "tensor", "simd", "exec", "dense", "calibrate", "grid", "recipe", "io", "transform",
        "algorithm", "prune", "kernel", "nn", "model", "quantize"}},
      {"train",
       {"core", "format", "scheme", "tensor", "simd", "exec", "dense", "calibrate", "grid", "recipe", "io", "transform",
        "algorithm", "prune", "kernel", "nn", "model", "quantize"}},
      {"steer", {"core", "format",    "scheme",    "tensor", "simd",   "exec", "dense", "calibrate", "grid",     "recipe",
                 "io",   "transform", "algorithm", "prune",  "kernel", "nn",   "model", "quantize",  "evaluate", "train"}},
      {"testing",
       {"core", "reference", "format", "scheme", "tensor", "simd", "exec", "dense", "calibrate", "grid", "recipe", "io",
        "transform", "algorithm", "prune", "kernel"}},
  };
  return table;
}

inline bool one_of(std::string_view x, std::initializer_list<std::string_view> set) {
  return std::find(set.begin(), set.end(), x) != set.end();
}

/// Source text with comments and string literals blanked, line breaks kept.
inline std::string code_only(std::string_view text) {
  std::string out(text);
  enum class In { code, line_comment, block_comment, string, character } in = In::code;
  for (std::size_t i = 0; i < out.size(); ++i) {
    const char c = text[i], next = i + 1 < text.size() ? text[i + 1] : '\0';
    const char before = i > 0 ? text[i - 1] : '\0';
    if (c == '\n') {
      if (in != In::block_comment) in = In::code;
      continue;
    }
    if (in == In::code) {
      if (c == '/' && next == '/')
        in = In::line_comment;
      else if (c == '/' && next == '*')
        in = In::block_comment;
      else if (c == '"') {
        in = In::string;
        continue;
      } else if (c == '\'' && !std::isalnum(static_cast<unsigned char>(before))) {
        in = In::character;
        continue;
      } else
        continue;
    } else if (in == In::string || in == In::character) {
      if (c == '\\') {
        out[i] = ' ';
        if (next != '\n' && i + 1 < out.size()) out[++i] = ' ';
        continue;
      }
      if (c == (in == In::string ? '"' : '\'')) {
        in = In::code;
        continue;
      }
    } else if (in == In::block_comment && c == '/' && before == '*' && i >= 2 && out[i - 1] == ' ') {
      in = In::code;
    }
    out[i] = ' ';
  }
  return out;
}

inline std::string_view layer_of(std::string_view path) {
  const auto slash = path.find('/');
  return slash == std::string_view::npos ? std::string_view{} : path.substr(0, slash);
}

/// Intrinsics.
inline bool may_use_instructions(std::string_view path) {
  return path.starts_with("simd/") || path.starts_with("kernel/x86/") || path.starts_with("kernel/arm/");
}

/// The one header that reads macros which describe the processor's features or the meaning of floating point.
inline constexpr std::string_view isa_header = "core/isa.hpp";

/// The names of all levels that a text defines.
inline std::vector<std::string> levels_of(std::string_view text) {
  constexpr std::string_view define = "#define ANYBIT_HAS_";
  std::vector<std::string> out;
  for (std::size_t at = 0; (at = text.find(define, at)) != std::string_view::npos; at += define.size()) {
    const std::size_t name = at + 8;
    std::string level(text.substr(name, text.find(' ', name) - name));
    if (std::find(out.begin(), out.end(), level) == out.end()) out.push_back(std::move(level));
  }
  return out;
}

/// The first identifier of `code` that is one of `names`, or nothing.
inline std::string first_of_names(std::string_view code, const std::vector<std::string>& names) {
  const auto part = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_'; };
  for (std::size_t at = 0; at < code.size();) {
    std::size_t end = at;
    while (end < code.size() && part(code[end])) ++end;
    const std::string name(code.substr(at, end - at));
    if (!name.empty() && std::find(names.begin(), names.end(), name) != names.end()) return name;
    at = end + 1;
  }
  return {};
}

/// The names that core/macros_begin.hpp takes out of the way.
inline std::vector<std::string> undefined_names(std::string_view text) {
  constexpr std::string_view undef = "#undef ";
  std::vector<std::string> out;
  for (std::size_t at = 0; (at = text.find(undef, at)) != std::string_view::npos;) {
    at += undef.size();
    out.emplace_back(text.substr(at, text.find('\n', at) - at));
  }
  return out;
}

/// What is wrong with a header's use of names that other libraries define as macros; empty if nothing is.
inline std::string macro_violation(const std::string& path, std::string_view text, const std::vector<std::string>& names) {
  if (path.starts_with("core/macros_")) return {};
  const std::string name = first_of_names(code_only(text), names);
  const auto begin = text.find("#include <anybit/core/macros_begin.hpp>"),
             end = text.find("#include <anybit/core/macros_end.hpp>");
  constexpr auto none = std::string_view::npos;
  if ((begin == none) != (end == none) || (end != none && (end < begin || text.find("#include", end + 1) != none)))
    return path + ": core/macros_begin.hpp comes before all else, core/macros_end.hpp last";
  if (name.empty() || begin != none) return {};
  return path + ": other libraries define `" + name +
         "` as a macro: #include <anybit/core/macros_begin.hpp> first and <anybit/core/macros_end.hpp> last";
}

/// Every rule that the header `path` (below include/anybit/, with slashes) breaks, one sentence each.
/// `known` are the levels that core/isa.hpp defines; if it is empty all names pass.
inline std::vector<std::string> violations(const std::string& path, std::string_view text,
                                           const std::vector<std::string>& known = {}) {
  std::vector<std::string> out;
  const auto say = [&](std::size_t line, const std::string& what) {
    out.push_back(path + ":" + std::to_string(line) + ": " + what);
  };

  const std::string_view own = layer_of(path);
  const Layer* layer = nullptr;
  for (const Layer& l : layers())
    if (l.name == own) layer = &l;
  if (!own.empty() && !layer)
    say(1, "the folder " + std::string(own) + "/ is in no layer: give it a place in tests/layering/layers.hpp");
  const bool repeated = path == "core/macros_begin.hpp" || path == "core/macros_end.hpp";
  if (!repeated && text.find("#pragma once") == std::string_view::npos) say(1, "#pragma once is missing");

  // Include lines are read from the raw text (a quoted path is a string literal), everything else without comments.
  const std::string code = code_only(text);
  std::size_t line = 0;
  for (std::size_t at = 0; at < text.size(); ++line) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    std::string_view raw = text.substr(at, end - at), stripped = std::string_view(code).substr(at, end - at);
    at = end + 1;
    const std::size_t number = line + 1;

    const auto first = stripped.find_first_not_of(" \t");
    const bool directive = first != std::string_view::npos && stripped[first] == '#';
    const auto word = directive ? stripped.find_first_not_of(" \t", first + 1) : std::string_view::npos;
    if (word != std::string_view::npos && stripped.substr(word).starts_with("include")) {
      const auto open = raw.find_first_of("<\"", word);
      if (open == std::string_view::npos) continue;  // a macro names the file
      const auto close = raw.find(raw[open] == '<' ? '>' : '"', open + 1);
      const std::string target(raw.substr(open + 1, close - open - 1));
      if (raw[open] == '"') say(number, "#include \"" + target + "\": spell it <anybit/...>");
      if (target.starts_with("anybit/")) {
        const std::string inner = target.substr(7);
        const std::string_view other = layer_of(inner);
        if (inner == "anybit.hpp" || inner == "fwd.hpp") {
          if (!own.empty() && inner == "anybit.hpp")
            say(number, "a layer includes the umbrella header: name the headers it needs");
        } else if (layer && !other.empty() && other != own &&
                   std::find(layer->may_include.begin(), layer->may_include.end(), other) == layer->may_include.end()) {
          say(number, std::string(own) + "/ includes " + std::string(other) + "/, which is not below it");
        }
        if (inner == "core/eigen_view.hpp" && one_of(own, {"core", "format", "scheme", "tensor", "simd", "exec", "io"}))
          say(number, std::string(own) + "/ must do without Eigen");
        continue;
      }
      if ((target.starts_with("Eigen/") || target.starts_with("unsupported/Eigen/")) && path != "core/eigen_view.hpp" &&
          one_of(own, {"core", "format", "scheme", "tensor", "simd", "exec", "io"}))
        say(number, std::string(own) + "/ must do without Eigen");
      if (target.starts_with("xsimd") && own != "simd" && path != isa_header) say(number, "xsimd is included only in simd/");
      const bool x86 = target.ends_with("mmintrin.h") || target.ends_with("mmintrin.hpp") || target == "immintrin.h" ||
                       target == "x86intrin.h" || target == "intrin.h";
      const bool arm = target.starts_with("arm_");
      if ((x86 && !path.starts_with("kernel/x86/") && own != "simd") ||
          (arm && !path.starts_with("kernel/arm/") && own != "simd"))
        say(number, "<" + target + "> belongs in kernel/" + (x86 ? "x86" : "arm") + "/");
      continue;
    }
    if (own != "simd" && stripped.find("xsimd::") != std::string_view::npos) say(number, "xsimd is spelled only in simd/");
    for (std::string_view token : {"_mm_", "_mm256_", "_mm512_"})
      if (!may_use_instructions(path) && stripped.find(token) != std::string_view::npos)
        say(number, "an instruction (" + std::string(token) + ") is named only in simd/ and kernel/<isa>/");
    for (std::string_view token : {"__AVX", "__SSE", "__SSSE", "__FMA", "__F16C", "__BMI", "__AMX", "__ARM_", "__FAST_MATH",
                                   "__FINITE_MATH", "__ASSOCIATIVE_MATH", "__RECIPROCAL_MATH", "__NO_SIGNED_ZEROS"})
      if (path != isa_header && stripped.find(token) != std::string_view::npos)
        say(number,
            "flags of the compiler (" + std::string(token) + ") are read only in core/isa.hpp: ask for a level, ANYBIT_HAS_..");
    for (std::string_view token : {"std::isfinite", "std::isnan", "std::isinf"})
      if (stripped.find(token) != std::string_view::npos)
        say(number, std::string(token) + " says nothing under -ffast-math: core/finite.hpp looks at the bits");
    if (stripped.find("std::stable_sort(") != std::string_view::npos)
      say(number, "clang 19 warns of std::stable_sort with libstdc++ 12: take core/stable_sort.hpp");
    // In #if a name that nobody has defined is a silent 0.
    for (std::size_t from = 0; path != isa_header && (from = stripped.find("ANYBIT_HAS_", from)) != std::string_view::npos;) {
      std::size_t after = from;
      while (after < stripped.size() && (std::isalnum(static_cast<unsigned char>(stripped[after])) || stripped[after] == '_'))
        ++after;
      const std::string name(stripped.substr(from, after - from));
      if (!known.empty() && std::find(known.begin(), known.end(), name) == known.end())
        say(number, name + " is no level of core/isa.hpp");
      if (text.find("#include <anybit/core/isa.hpp>") == std::string_view::npos)
        say(number, name + " is asked without #include <anybit/core/isa.hpp>");
      from = after;
    }
  }
  return out;
}

}  // namespace layering
