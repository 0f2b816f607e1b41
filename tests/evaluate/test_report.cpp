#include <cmath>
#include <string>

#include <anybit/evaluate/report.hpp>
#include <anybit/evaluate/svg.hpp>

#include "support/catch.hpp"

using namespace anybit;
using namespace anybit::evaluate;

namespace {

EvaluationReport example() {
  EvaluationReport r;
  r.model = "a <model> & more";
  r.rows.resize(3);
  r.rows[0].recipe = "reference";
  r.rows[0].bits_per_weight_linears = 32;
  r.rows[0].perplexity = 20;
  r.rows[1].recipe = "nearest-int4-g128";
  r.rows[1].bits_per_weight_linears = 4.125;
  r.rows[1].kl_mean = 0.25;
  r.rows[1].layer_error_mean = 0.0123;
  r.rows[1].layer_error_worst = 0.5;
  r.rows[1].layer_error_worst_name = "blk.7.ffn_down";
  r.rows[2].recipe = "broken";
  r.rows[2].kl_mean = std::nan("");
  r.rows[2].perplexity = INFINITY;
  r.rows[2].layer_error_worst_name = "blk.0.attn_q";
  return r;
}

std::size_t occurrences(const std::string& text, const std::string& what) {
  std::size_t n = 0;
  for (std::size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++n;
  return n;
}

}  // namespace

TEST_CASE("numbers keep their significant digits") {
  CHECK(evaluate::detail::number(0.00123456, 3) == "0.00123");
  CHECK(evaluate::detail::number(12.3456, 4) == "12.35");
  CHECK(evaluate::detail::number(123456, 3) == "123456");
  CHECK(evaluate::detail::number(1.5e9, 4) == "1.50e+09");
  CHECK(evaluate::detail::number(0, 3) == "0");
  CHECK(evaluate::detail::number(-INFINITY, 3) == "-inf");
  CHECK(evaluate::detail::fixed(2.345, 1) == "2.3");
}

TEST_CASE("table: one line a row, columns aligned") {
  EvaluationReport report = example();
  report.notes = {"a note"};
  const std::string text = table(report);
  CHECK(occurrences(text, "\n") == 6);
  CHECK(text.find("blk.7.ffn_down") != std::string::npos);
  CHECK(text.find("nan") != std::string::npos);
  const std::size_t first = text.find('\n'), heading = text.find("KL") + 2;
  CHECK(heading < first);
  const std::size_t row = text.find("nearest-int4");
  CHECK(text.substr(row, heading).find_last_not_of(' ') == heading - 1);  // right-aligned under its heading
  CHECK(text.substr(row, heading).substr(heading - 5) == "0.250");
}

TEST_CASE("svg: a mark and a label for each row with a KL, the others named, text escaped") {
  const std::string picture = svg(example());
  CHECK(picture.starts_with("<svg xmlns="));
  CHECK(picture.ends_with("</svg>\n"));
  CHECK(occurrences(picture, ">nearest-int4-g128</text>") == 1);
  CHECK(picture.find(">reference<") == std::string::npos);
  CHECK(picture.find("not shown: broken") != std::string::npos);
  CHECK(picture.find("a &lt;model&gt; &amp; more") != std::string::npos);
  CHECK(picture.find("nan") == std::string::npos);
  CHECK(svg(EvaluationReport{}).ends_with("</svg>\n"));
  // Rows at one place still have labels apart.
  EvaluationReport crowd = example();
  crowd.rows.assign(6, example().rows[1]);
  const std::string many = svg(crowd);
  std::vector<std::string> places;
  for (std::size_t at = many.find(">nearest-int4-g128</text>"); at != std::string::npos;
       at = many.find(">nearest-int4-g128</text>", at + 1)) {
    const std::size_t from = many.rfind("<text", at);
    places.push_back(many.substr(from, many.find(" text-anchor", from) - from));
  }
  CHECK(places.size() == 6);
  std::sort(places.begin(), places.end());
  CHECK(std::unique(places.begin(), places.end()) == places.end());
}
