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

TEST_CASE("activations, ranges and rows of results that do not fit are refused") {
  using namespace anybit;
  using misuse::has;
  const auto w = PackedTensor<misuse::S>::allocate({6, 40}, false, ""),
             other = PackedTensor<misuse::S>::allocate({6, 44}, false, "");
  std::vector<float> x(88), y(14);
  Workspace workspace;
  const ActivationPlan plan = plan_activations(w, Compute::int8_per_token);
  const Activations a = round_activations(ConstMatrix(x.data(), 2, 40), plan, workspace);
  const auto rows = [&](const auto& tensor, Index y_tokens, Index y_cols, Index stride, Index begin, Index end) {
    return misuse::complaint([&] { matmul_rows(tensor, a, MutableMatrix(y.data(), y_tokens, y_cols, stride), begin, end); });
  };
  REQUIRE(rows(w, 2, 6, 6, 0, 6).empty());
  REQUIRE(has(rows(w, 2, 6, 6, 0, 7), "row range"));
  REQUIRE(has(rows(w, 2, 6, 6, -1, 3), "row range"));
  REQUIRE(has(rows(w, 2, 7, 7, 0, 6), "y has another number of columns"));
  REQUIRE(has(rows(w, 1, 6, 6, 0, 6), "tokens"));
  REQUIRE(has(rows(w, 2, 6, 5, 0, 6), "overlap"));
  REQUIRE(has(rows(other, 2, 6, 6, 0, 6), "did not join"));
  REQUIRE(has(misuse::complaint([&] { round_activations(ConstMatrix(x.data(), 2, 44), plan, workspace); }), "columns"));
  REQUIRE(has(misuse::complaint([&] { round_activations(ConstMatrix(x.data(), 2, 40), ActivationPlan(), workspace); }),
              "no weights"));
  const std::int32_t past[] = {0, 2}, before[] = {-1};
  REQUIRE(has(misuse::complaint([&] { static_cast<void>(InputTokens(ConstMatrix(x.data(), 2, 40)).at(past)); }), "not there"));
  REQUIRE(
      has(misuse::complaint([&] { static_cast<void>(OutputTokens(MutableMatrix(y.data(), 2, 6)).at(before)); }), "not there"));
}
