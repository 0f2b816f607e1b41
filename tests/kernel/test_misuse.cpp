// Wrong shapes are the programmer's error: the check macro, redefined here, is asked before anything is touched.

#include <stdexcept>
#include <string>

#define ANYBIT_CHECK(condition, message) ((condition) ? static_cast<void>(0) : throw std::logic_error(message))

#include <anybit/kernel/matvec.hpp>

#include <anybit/format/integer.hpp>

#include "support/catch.hpp"

namespace misuse {

// A scheme of this file's own: templates that other files instantiate with the usual macro must not be merged with these.
struct Local4 : anybit::SInt<4> {
  static constexpr auto name = anybit::FixedString("misuse4");
};
using S = anybit::Scheme<Local4>;

/// What the check said, or nothing.
template <class Call>
std::string complaint(Call call) {
  try {
    call();
  } catch (const std::logic_error& e) {
    return e.what();
  }
  return {};
}
bool has(const std::string& text, const char* word) { return text.find(word) != std::string::npos; }

}  // namespace misuse

TEST_CASE("shapes that do not fit are refused") {
  using namespace anybit;
  using misuse::has;
  const auto w = PackedTensor<misuse::S>::allocate({6, 40}, false, "");
  std::vector<float> x(82), y(14);
  const auto rows = [&](Index tokens, Index cols, Index y_tokens, Index y_cols, Index begin, Index end) {
    return misuse::complaint(
        [&] { matmul_rows(w, ConstMatrix(x.data(), tokens, cols), MutableMatrix(y.data(), y_tokens, y_cols), begin, end); });
  };
  REQUIRE(has(rows(1, 39, 1, 6, 0, 6), "x has another number of columns"));
  REQUIRE(has(rows(1, 40, 1, 7, 0, 6), "y has another number of columns"));
  REQUIRE(has(rows(1, 40, 2, 6, 0, 6), "tokens"));
  REQUIRE(has(rows(1, 40, 1, 6, 0, 7), "range"));
  REQUIRE(has(rows(1, 40, 1, 6, 4, 3), "range"));
  REQUIRE(rows(2, 40, 2, 6, 1, 6).empty());
  const auto in = std::span<const float>(x);
  const auto out = std::span<float>(y);
  REQUIRE(has(misuse::complaint([&] { matvec(w, in.first(41), out.first(6)); }), "columns"));
  REQUIRE(has(misuse::complaint([&] { matvec(w, in.first(40), out.first(5)); }), "columns"));
  REQUIRE(misuse::complaint([&] { matvec(w, in.first(40), out.first(6)); }).empty());
}
