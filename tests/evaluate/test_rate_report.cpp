#include <anybit/evaluate/rate_report.hpp>

#include <string>
#include <vector>

#include "support/catch.hpp"

using namespace anybit;
using namespace anybit::evaluate;

namespace {

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t n = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

RatePanel panel() {
  RatePanel p{"a \"layer\" <1>", "D(R)", {}, {}};
  const double bits[] = {3.125, 4.125, 5.125, 4.125};
  for (int i = 0; i < 4; ++i)
    p.rows.push_back({"int" + std::to_string(3 + i) + "/g128/f16/bits", i < 3 ? "none" : "mse", bits[i],
                      2 * gaussian_distortion(bits[i]), gaussian_distortion(bits[i]), 3 * gaussian_distortion(bits[i])});
  p.rows.push_back({"uint4/g128/f16/bits", "none", 4.25, 100 * gaussian_distortion(4.25), gaussian_distortion(4.25), 0.01});
  p.curves["Lloyd-Max"] = {{2, 2.7}, {4, 3.9}, {6, 4.2}};
  return p;
}

}  // namespace

TEST_CASE("rate report: gaps are dB, six to the bit") {
  const RatePanel p = panel();
  CHECK(gap(p.rows[0]) == Approx(3.0103));
  const std::string text = table(p);
  CHECK(count(text, "\n") == 2 + p.rows.size());
  CHECK(text.find("3.01  0.50") != std::string::npos);
  CHECK(text.find("1.76\n") != std::string::npos);  // 3 over 2 in dB
  // Columns are aligned: every line after the first is as long as the second.
  const std::size_t first = text.find('\n') + 1, length = text.find('\n', first) - first;
  for (std::size_t at = first; at < text.size(); at += length + 1) CHECK(text[at + length] == '\n');
}

TEST_CASE("rate report: JSON escapes names and has no number that JSON has not") {
  RatePanel p = panel();
  p.rows[0].distortion = std::nan("");
  const std::string text = json({p, p});
  CHECK(text.find(R"("source": "a \"layer\" <1>")") != std::string::npos);
  CHECK(text.find("nan") == std::string::npos);
  CHECK(count(text, "\"scheme\"") == 2 * p.rows.size());
  for (const auto& [open, close] : {std::pair{"{", "}"}, {"[", "]"}}) CHECK(count(text, open) == count(text, close));
}

TEST_CASE("rate report: the picture joins the rows of a series and leaves out what is beyond it") {
  const RatePanel p = panel();
  const std::vector<RateSeries> series{{"int, plain", "int", "/g128/f16/bits", "none"},
                                       {"uint, plain", "uint", "/g128/f16/bits", "none"},
                                       {"absent", "nf4", "/g64/dq256/bits", "none"}};
  const std::string text = svg({p}, series, "A & B");
  CHECK(text.starts_with("<svg "));
  CHECK(text.ends_with("</svg>\n"));
  CHECK(text.find("A &amp; B") != std::string::npos);
  CHECK(text.find("a &quot;layer&quot; &lt;1&gt;") != std::string::npos);
  CHECK(count(text, "<circle") == 3 + 1);  // three rows and the legend
  CHECK(text.find("int, plain") != std::string::npos);
  CHECK(text.find("uint, plain") == std::string::npos);  // 20 dB off
  CHECK(text.find("absent") == std::string::npos);
}
