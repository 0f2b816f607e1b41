#include <filesystem>
#include <fstream>
#include <iterator>

#include "layering/layers.hpp"
#include "support/catch.hpp"
#include "support/source_dir.hpp"

namespace {

std::string joined(const std::vector<std::string>& lines) {
  std::string out;
  for (const auto& l : lines) out += l + "\n";
  return out;
}

std::string text_of(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void require_one(const std::string& path, const std::string& text, const std::string& sentence) {
  const auto found = layering::violations(path, "#pragma once\n" + text, {"ANYBIT_HAS_AVX2"});
  CAPTURE(path, text, joined(found));
  REQUIRE(found.size() == 1);
  CHECK(found[0].find(sentence) != std::string::npos);
}

}  // namespace

TEST_CASE("every header includes only what lies below it", "[layering]") {
  namespace fs = std::filesystem;
  const fs::path root = fs::path(test_support::source_dir()) / "include" / "anybit";
  std::size_t headers = 0;
  const auto levels = layering::levels_of(text_of(root / layering::isa_header));
  CHECK(levels.size() >= 10);
  for (const auto& entry : fs::recursive_directory_iterator(root)) {
    if (!entry.is_regular_file()) continue;
    const std::string path = fs::relative(entry.path(), root).generic_string();
    CAPTURE(path);
    if (path.starts_with("c/")) {  // for C: nothing of the library's own
      CHECK(entry.path().extension() == ".h");
      CHECK(text_of(entry.path()).find("#include <anybit/") == std::string::npos);
      continue;
    }
    CHECK(entry.path().extension() == ".hpp");
    const auto found = layering::violations(path, text_of(entry.path()), levels);
    if (!found.empty()) FAIL_CHECK(joined(found));
    ++headers;
  }
  CHECK(headers >= 10);
}

TEST_CASE("headers that use a name which others define as a macro take it out of the way", "[layering]") {
  namespace fs = std::filesystem;
  const fs::path root = fs::path(test_support::source_dir()) / "include" / "anybit";
  const auto names = layering::undefined_names(text_of(root / "core/macros_begin.hpp"));
  CHECK(names.size() >= 20);
  for (const auto& entry : fs::recursive_directory_iterator(root)) {
    if (!entry.is_regular_file()) continue;
    const std::string found =
        layering::macro_violation(entry.path().lexically_relative(root).generic_string(), text_of(entry.path()), names);
    if (!found.empty()) FAIL_CHECK(found);
  }
  const std::string begin = "#include <anybit/core/macros_begin.hpp>\n", end = "#include <anybit/core/macros_end.hpp>\n";
  CHECK(layering::macro_violation("io/a.hpp", begin + "int near;\n" + end, {"near"}).empty());
  CHECK(layering::macro_violation("io/a.hpp", "// near\nint nearest;\n", {"near"}).empty());
  for (const std::string& bad : {std::string("int near;\n"), begin + "int near;\n", end + "int near;\n" + begin,
                                 begin + end + "#include <set>\nint near;\n"})
    CHECK_FALSE(layering::macro_violation("io/a.hpp", bad, {"near"}).empty());
}

TEST_CASE("the layering check sees each kind of fault", "[layering]") {
  require_one("core/a.hpp", "#include <anybit/format/superfloat.hpp>\n", "core/ includes format/");
  require_one("kernel/a.hpp", "#include <anybit/algorithm/gptq.hpp>\n", "kernel/ includes algorithm/");
  require_one("algorithm/a.hpp", "  #  include <anybit/kernel/matvec.hpp>  // fast\n", "algorithm/ includes kernel/");
  require_one("io/a.hpp", "#include <anybit/model/llama.hpp>\n", "io/ includes model/");
  require_one("tensor/a.hpp", "#include <Eigen/Core>\n", "without Eigen");
  require_one("scheme/a.hpp", "#include <anybit/core/eigen_view.hpp>\n", "without Eigen");
  require_one("kernel/a.hpp", "#include <xsimd/xsimd.hpp>\n", "only in simd/");
  require_one("kernel/a.hpp", "inline xsimd::batch<float> f();\n", "only in simd/");
  require_one("kernel/a.hpp", "#include <immintrin.h>\n", "kernel/x86/");
  require_one("kernel/x86/a.hpp", "#include <arm_neon.h>\n", "kernel/arm/");
  require_one("tensor/a.hpp", "#ifdef __AVX2__\n", "__AVX");
  require_one("kernel/x86/a.hpp", "#if defined(__AVX512BF16__)\n", "ask for a level");
  require_one("simd/a.hpp", "#if defined(__FMA__)\n", "__FMA");
  require_one("evaluate/a.hpp", "#if defined(__FAST_MATH__)\n", "__FAST_MATH");
  require_one("io/a.hpp", "inline bool f(float x) { return std::isnan(x); }\n", "core/finite.hpp looks at the bits");
  require_one("io/a.hpp", "inline void f() { std::stable_sort(a, b); }\n", "core/stable_sort.hpp");
  require_one("tensor/a.hpp", "inline auto f() { return _mm256_setzero_ps(); }\n", "an instruction (_mm256_)");
  require_one("simd/a.hpp", "#if ANYBIT_HAS_AVX2\n", "without #include <anybit/core/isa.hpp>");
  require_one("simd/a.hpp", "#include <anybit/core/isa.hpp>\n#if ANYBIT_HAS_AVX3\n", "ANYBIT_HAS_AVX3 is no level");
  require_one("tensor/a.hpp", "#include \"pack.hpp\"\n", "spell it <anybit/...>");
  require_one("format/a.hpp", "#include <anybit/anybit.hpp>\n", "umbrella");
  require_one("misc/a.hpp", "", "is in no layer");
  CHECK(layering::violations("core/a.hpp", "inline int x;\n").size() == 1);
}

TEST_CASE("the layering check lets comments, strings and lower layers be", "[layering]") {
  const auto found = layering::violations("kernel/x86/a.hpp",
                                          "#pragma once\n"
                                          "#include <immintrin.h>\n"
                                          "#include <anybit/simd/batch.hpp>\n"
                                          "/* #include <anybit/model/llama.hpp>\n"
                                          "   xsimd:: */\n"
                                          "// xsimd::batch would not do\n"
                                          "constexpr char quote = '\"', *s = \"xsimd:: \\\" __AVX2__\";\n"
                                          "constexpr int million = 1'000'000;\n");
  CAPTURE(joined(found));
  CHECK(found.empty());
  CHECK(
      layering::violations("algorithm/a.hpp", "#pragma once\n#include <Eigen/Cholesky>\n#include <anybit/core/eigen_view.hpp>\n")
          .empty());
}
