// A number format of one's own, from its laws to a row in the table of `anybit compare`, whose options all work:
//   custom_format MODEL --recipe nonlinear4-g64 --recipe int4-g128
// uses: anybit_tool
// ctest: --list

#include <cstdio>

#include <anybit/anybit.hpp>
#include <anybit/testing/laws.hpp>

#include "compare/compare.hpp"

namespace mine {

struct NonLinear4 {  // the levels of llama.cpp's IQ4_NL
  static constexpr int bits = 4;
  static constexpr std::string_view name = "nonlinear4";
  static constexpr anybit::Codebook<16> book{{-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113}};

  static constexpr anybit::Code encode(float x) { return book.encode(x); }
  static constexpr float decode(anybit::Code c) { return book.decode(c); }
  static constexpr anybit::Affine fit(std::span<const float> weights) { return anybit::fit_abs_max<NonLinear4>(weights); }
};

}  // namespace mine

int main(int argc, char** argv) {
  if (const std::string violation = anybit::testing::check_format_laws<mine::NonLinear4>(); !violation.empty()) {
    std::fprintf(stderr, "%s\n", violation.c_str());
    return 1;
  }
  tool::RecipeBook book = tool::standard_recipes();
  book.add(anybit::model::model_recipe("nonlinear4-g64", anybit::Nearest<mine::NonLinear4, anybit::PerGroup<64>>{}));
  book.add(anybit::model::model_recipe("gptq-nonlinear4-g64", anybit::Gptq<mine::NonLinear4, anybit::PerGroup<64>>{}));
  return tool::run_compare(book, argc, argv);
}
