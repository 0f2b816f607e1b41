// `anybit steer probe`: logistic probes per block and per head, and an intervention on the best heads.

#include <algorithm>
#include <cstdio>
#include <optional>
#include <random>

#include <nlohmann/json.hpp>

#include "shared/file_roles.hpp"
#include "shared/open_model.hpp"
#include "shared/outputs.hpp"
#include "shared/parse.hpp"
#include "shared/printable.hpp"
#include "shared/progress.hpp"
#include "steer/shared.hpp"
#include "steer/statements.hpp"
#include "steer/steer.hpp"

namespace tool {

using namespace anybit;

namespace {

struct ProbeCommandOptions : StimuliOptions {
  std::string save, direction = "mass_mean";
  bool heads = false;
  Index top = 48;
  double c = 1;
};

std::optional<int> parse_options(int argc, const char* const* argv, ProbeCommandOptions& o) {
  CLI::App app("Fits logistic probes on labelled statements; with --heads also an intervention (ITI, arXiv:2306.03341).",
               "anybit steer probe");
  o.train = 0.6;
  add_stimuli_options(app, o);
  app.add_flag("--heads", o.heads, "A probe per head, before the output projection, in place of one per block");
  app.add_option("--top", o.top, "Heads of the intervention: the best by validation accuracy")
      ->type_name("K")
      ->capture_default_str();
  app.add_option("--direction", o.direction, "What the intervention shifts heads along")
      ->check(CLI::IsMember({"mass_mean", "probe_weight", "random"}))
      ->capture_default_str();
  app.add_option("--C", o.c, "Inverse strength of the L2 penalty")->type_name("C")->capture_default_str();
  app.add_option("--save", o.save, "Write the probes, with --heads the intervention, here (.safetensors)")->type_name("FILE");
  if (const auto end =
          parse(app, argc, argv,
                "anybit steer probe model.gguf facts_true_false.csv --template 'Q: {}' --heads --top 16 --save iti.safetensors"))
    return end;
  if (const std::string error = error_in(o); !error.empty()) return wrong_use("steer probe", error);
  if (o.top < 1) return wrong_use("steer probe", "--top is " + std::to_string(o.top) + "; it must be at least 1");
  std::vector<FileRole> inputs = model_inputs(o.model, o.tokenizer);
  inputs.push_back({"DATA", o.data});
  return check_files("steer probe", inputs, {{"--save", o.save}, {"--json", o.json}});
}

/// Statements in random order: `train` of them fit, half of the rest ranks, the other half tunes sigma.
std::vector<steer::Split> random_split(std::size_t count, double train, std::uint64_t seed) {
  const auto fit = static_cast<std::size_t>(train * static_cast<double>(count)), rank = fit + (count - fit) / 2;
  std::vector<steer::Split> out(count);
  for (std::size_t i = 0; i < count; ++i)
    out[i] = i < fit ? steer::Split::train : i < rank ? steer::Split::validation : steer::Split::tuning;
  std::mt19937_64 random(seed);
  for (std::size_t i = count; i > 1; --i) std::swap(out[i - 1], out[steer::random_below(random, i)]);
  return out;
}

int probe(int argc, const char* const* argv) {
  ProbeCommandOptions o;
  if (const auto end = parse_options(argc, argv, o)) return *end;
  const auto failed = [](ExitCode code, const Error& e) { return fail("steer probe", code, e); };
  const auto read = read_statements(o.data);
  if (!read) return failed(bad_input, read.error());
  const steer::Stimuli all = first_of_each(*read, o.most);
  const auto m = open_model(o.model, o.tokenizer);
  if (!m) return failed(bad_input, m.error());
  const model::DecoderConfig& c = m->decoder.config;
  if (o.heads && o.top > c.blocks * c.heads)
    return wrong_use("steer probe",
                     "--top is " + std::to_string(o.top) + "; the model has " + std::to_string(c.blocks * c.heads) + " heads");
  ThreadPool pool(thread_count(o.threads));
  Progress progress;
  progress.begin("reading statements", 1, 1);
  const auto states = steer::states(*m, all.texts, o.pattern,
                                    {.point = o.heads ? model::Point::head_out : model::Point::residual,
                                     .position = o.position,
                                     .executor = pool,
                                     .progress = [&](Index done, Index total) { progress.update(done, total); }});
  progress.end();
  progress.clear();
  if (!states) return failed(bad_input, states.error());
  const std::vector<steer::Split> split = random_split(all.size(), o.train, o.seed);
  const Index width = o.heads ? c.head_dim : c.dim;  // a block is one head as wide as the stream
  const auto probes = steer::fit_head_probes(*states, all.labels, split, width, o.c);
  if (!probes) return failed(bad_input, probes.error());

  steer::SteeringFile file{.model = m->name,
                           .fingerprint = steer::model_fingerprint(m->decoder),
                           .pattern = o.pattern,
                           .method = o.heads ? o.direction : "probe",
                           .point = o.heads ? model::Point::head_out : model::Point::residual,
                           .position = o.position};
  if (o.heads) {
    const auto kind = o.direction == "mass_mean"      ? steer::ShiftKind::mass_mean
                      : o.direction == "probe_weight" ? steer::ShiftKind::probe_weight
                                                      : steer::ShiftKind::random;
    auto shifts = steer::fit_intervention(*states, all.labels, split, *probes, width,
                                          {.heads = o.top, .kind = kind, .c = o.c, .seed = o.seed});
    if (!shifts) return failed(bad_input, shifts.error());
    file.intervention = *std::move(shifts);
  } else {
    for (const steer::HeadProbe& p : *probes) file.probes.push_back({p.block, p.probe, p.accuracy});
  }

  const auto count = [&](steer::Split s) { return static_cast<std::size_t>(std::count(split.begin(), split.end(), s)); };
  const std::size_t validation = count(steer::Split::validation);
  using nlohmann::ordered_json;
  ordered_json rows = ordered_json::array();
  if (o.json != "-")
    std::printf("%zu statements fit, %zu rank, %zu tune; in brackets 95 %% intervals\n%-6s %-5s %-20s%s\n",
                count(steer::Split::train), validation, count(steer::Split::tuning), "block", o.heads ? "head" : "",
                "validation accuracy", o.heads ? " sigma" : "");
  const auto row = [&](Index block, Index head, double right, const double* sigma) {
    rows.push_back({{"block", block}, {"validation_accuracy", right}});
    if (sigma) rows.back()["head"] = head, rows.back()["sigma"] = *sigma;
    if (o.json == "-") return;
    std::printf("%-6lld %-5s %-20s", static_cast<long long>(block), sigma ? std::to_string(head).c_str() : "",
                with_interval(right, validation).c_str());
    if (sigma) std::printf(" %.4f", *sigma);
    std::printf("\n");
  };
  for (const steer::BlockProbe& p : file.probes) row(p.block, 0, p.accuracy, nullptr);
  for (const steer::HeadShift& h : file.intervention.heads) row(h.block, h.head, h.accuracy, &h.sigma);
  if (!o.save.empty())
    if (const auto saved = steer::save_steering(o.save, file); !saved) return failed(cannot_write, saved.error());
  return write_json("steer probe", o.json,
                    ordered_json{{"model", m->name},
                                 {"data", o.data},
                                 {"template", o.pattern},
                                 {"train", count(steer::Split::train)},
                                 {"validation", validation},
                                 {"tuning", count(steer::Split::tuning)},
                                 {o.heads ? "heads" : "blocks", std::move(rows)}});
}

}  // namespace

int run_steer_probe(int argc, const char* const* argv) {
  return run_command([&] { return probe(argc, argv); });
}

}  // namespace tool
