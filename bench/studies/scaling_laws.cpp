// Superfloat's scaling laws on nets that are trained here, one law per command; docs/results/scaling_laws.md has what came out.
//
//   scaling_laws LAW TEXT FOLDER [--model MODEL.gguf] [--threads N] [--quick]
//
// LAW is size, width, tokens, damage, context, smollm2, spread, or all. FOLDER gets LAW.txt (fits, verdicts), LAW.csv, LAW.svg,
// and points.txt, from which a study that was cut off goes on. Without arguments a made-up text shows that every law runs.
// uses: anybit_scaling

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <utility>

#include "scaling/report.hpp"
#include "shared/outputs.hpp"
#include "shared/text.hpp"

using namespace anybit;

namespace {

struct Law {
  const char* name;
  Result<study::Report> (*run)(study::Study&);
};
constexpr Law laws[] = {{"size", study::size_law},     {"width", study::width_law},     {"tokens", study::tokens_law},
                        {"damage", study::damage_law}, {"context", study::context_law}, {"smollm2", study::smollm2_law},
                        {"spread", study::spread_law}};

struct Arguments {
  std::string law, text, folder, model;
  int threads = 2;
  bool quick = false;
};

Status run(const Arguments& o, std::string text) {
  std::error_code failed;
  std::filesystem::create_directories(o.folder, failed);
  if (failed) return {ErrorCode::io, o.folder + ": cannot be made: " + failed.message()};
  study::PointFile points(o.folder + (o.quick ? "/points_quick.txt" : "/points.txt"));
  study::Study s{points, study::corpus_of(text), o.folder, o.model, std::move(text), o.quick, o.threads};
  bool any = false;
  for (const Law& law : laws) {
    if (o.law != "all" && o.law != law.name) continue;
    any = true;
    auto report = law.run(s);
    if (!report) return in_context(report.error(), law.name);
    std::string lines;
    for (const std::string& l : report->lines) lines += l + "\n";
    std::printf("%s\n%s\n", law.name, lines.c_str());
    const std::string path = o.folder + "/" + law.name;
    ANYBIT_TRY_STATUS(tool::write_text(path + ".txt", lines));
    if (!report->csv.empty()) ANYBIT_TRY_STATUS(tool::write_text(path + ".csv", report->csv));
    if (!report->picture.empty()) ANYBIT_TRY_STATUS(tool::write_text(path + ".svg", report->picture));
  }
  if (any) return Ok{};
  return {ErrorCode::invalid_argument, o.law + " is no law: size, width, tokens, damage, context, smollm2, spread, all"};
}

/// Words that follow each other by chance, for as long as the laws need.
std::string made_up_text() {
  std::string out;
  unsigned state = 1;
  while (out.size() < 80'000) {
    state = state * 1664525 + 1013904223;
    static constexpr const char* words[] = {"the ", "scale ", "of ", "a ", "row ", "is ", "small ", "and ", "grid. "};
    out += words[state >> 24 & 7];
  }
  return out;
}

}  // namespace

int main(int count, char** words) {
  Arguments o;
  std::string text;
  if (count == 1) {
    o.law = "all", o.folder = "scaling_laws_quick", o.quick = true;
    text = made_up_text();
  } else {
    std::vector<std::string> places;
    for (int i = 1; i < count; ++i) {
      const std::string word = words[i];
      if (word == "--model" && i + 1 < count)
        o.model = words[++i];
      else if (word == "--threads" && i + 1 < count)
        o.threads = std::max(1, std::atoi(words[++i]));
      else if (word == "--quick")
        o.quick = true;
      else
        places.push_back(word);
    }
    if (places.size() != 3)
      return std::fprintf(stderr, "scaling_laws LAW TEXT FOLDER [--model MODEL.gguf] [--threads N] [--quick]\n"), 2;
    o.law = places[0], o.text = places[1], o.folder = places[2];
    auto read = tool::read_text(o.text);
    if (!read) return std::fprintf(stderr, "%s\n", read.error().message.c_str()), 1;
    text = *std::move(read);
  }
  const Status done = run(o, std::move(text));
  if (!done) return std::fprintf(stderr, "%s\n", done.error().message.c_str()), 1;
  return 0;
}
