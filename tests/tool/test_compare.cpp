// `anybit compare` from end to end, on a small generated model.

#ifdef ANYBIT_PROGRAM

#include <filesystem>
#include <map>
#include <set>
#include <string>

#include <nlohmann/json.hpp>

#include <anybit/core/edit_distance.hpp>
#include <anybit/model/load.hpp>
#include <anybit/scheme/mixed_widths.hpp>

#include "program.hpp"
#include "recipes/recipe_book.hpp"
#include "shared/text.hpp"
#include "support/catch.hpp"

namespace fs = std::filesystem;
using namespace anybit;
using test_support::read_file;
using test_tool::contains, test_tool::Ended;

TEST_CASE("every recipe of the table runs, and two runs differ in times alone") {
  const test_tool::Program run;
  nlohmann::json reports[2];
  for (int i = 0; i < 2; ++i) {
    const Ended o = run.compare("--quick --threads " + std::to_string(i + 1) + " --json " + run.path("r.json") + " --svg " +
                                run.path("r.svg"));
    INFO(o.err);
    REQUIRE(o.exit_code == 0);
    CHECK(contains(o.out, "nearest-sf5-g128"));
    reports[i] = nlohmann::json::parse(read_file(run.path("r.json")));
  }
  CHECK(contains(read_file(run.path("r.svg")), ">gptq-sf4-g128</text>"));
  const auto& rows = reports[0].at("rows");
  const auto recipes = tool::standard_recipes();
  REQUIRE(rows.size() == recipes.all().size() + 1);
  CHECK(rows[0].at("recipe") == "reference");
  CHECK(rows[0].at("kl_mean") == 0);
  const std::set<std::string> keys{
      "recipe",           "activations",       "bits_per_weight_linears", "bits_per_weight_file", "bytes",
      "layer_error_mean", "layer_error_worst", "layer_error_worst_name",  "perplexity",           "perplexity_ratio",
      "kl_mean",          "same_top_percent",  "prompt_tokens_per_s",     "decode_tokens_per_s",  "quantize_s"};
  for (std::size_t r = 0; r < rows.size(); ++r) {
    std::set<std::string> has;
    for (const auto& [key, value] : rows[r].items()) {
      has.insert(key);
      if (!contains(key, "per_s") && key != "quantize_s") CHECK(value == reports[1].at("rows")[r].at(key));
    }
    CHECK(has == keys);
  }
  const auto kl = [&](const std::string& recipe) {
    for (const auto& row : rows)
      if (row.at("recipe") == recipe) return row.at("kl_mean").get<double>();
    FAIL("no row " << recipe);
    return 0.0;
  };
  CHECK(kl("nearest-sf8-g128") < kl("nearest-sf6-g128"));
  CHECK(kl("nearest-sf6-g128") < kl("nearest-sf4-g128"));
  CHECK(kl("nearest-sf8-g128") < kl("published-superfloat8"));
}

TEST_CASE("with a quantized KV cache the report has a row for what the cache alone costs") {
  const test_tool::Program run;
  double kl[2];
  for (const int i : {0, 1}) {
    const Ended o = run.run("compare " + run.model() + " --calibrate " + run.path("text.txt") + " --evaluate " +
                            run.path("text.txt") + " --tokens 512 --calibration-tokens 64 --recipe nearest-int8-g128 --json " +
                            run.path("r.json") + (i ? " --kv-bits 2" : " --kv-bits 8"));
    INFO(o.err);
    REQUIRE(o.exit_code == 0);
    CHECK(contains(
        o.out, i ? "KV cache of every row but the reference: 2 bits, " : "KV cache of every row but the reference: 8 bits, "));
    const auto rows = nlohmann::json::parse(read_file(run.path("r.json"))).at("rows");
    REQUIRE(rows.size() == 3);
    CHECK(rows[1].at("recipe") == (i ? "reference, kv2" : "reference, kv8"));
    kl[i] = rows[1].at("kl_mean").get<double>();
  }
  CHECK(kl[0] > 0);
  CHECK(kl[0] < kl[1]);
}

TEST_CASE("rows round activations unless asked not to, and say how they ran") {
  const test_tool::Program run;
  std::map<std::string, double> kl;
  for (const std::string activations : {"", "f32", "int8_per_block", "int8_folded", "bf16"}) {
    const Ended o = run.compare("--recipe nearest-int8-g128 --recipe naive-w8a8 --recipe 'nearest nf4/g64/dq256' --json " +
                                run.path("r.json") + (activations.empty() ? "" : " --activations " + activations));
    INFO(o.err);
    REQUIRE(o.exit_code == 0);
    const auto rows = nlohmann::json::parse(read_file(run.path("r.json"))).at("rows");
    const std::string used = activations.empty() ? "int8_per_token" : activations;
    CHECK(rows[0].at("activations") == "f32");
    CHECK(rows[1].at("activations") == used);
    CHECK(contains(rows[2].at("activations").get<std::string>(), "int8_per_token"));
    if (used.starts_with("int8"))  // NF4 multiplies in float
      CHECK(rows[3].at("activations") == "f32 + " + used);
    kl[used] = rows[1].at("kl_mean").get<double>();
    CHECK(rows[2].at("kl_mean").get<double>() > kl["f32"]);
  }
  CHECK(kl["int8_per_token"] > kl["f32"]);
  CHECK(kl["int8_per_block"] > kl["f32"]);
  CHECK(run.compare("--activations int8_static").exit_code == 2);
}

TEST_CASE("recipes for the rotated model: the rows are of it, and so are the files") {
  const test_tool::Program run;
  const Ended o = run.compare("--rotate --recipe nearest-int8-g128 --recipe gptq-int4-g128 --json " + run.path("r.json") +
                              " --save " + run.path("saved"));
  INFO(o.err);
  REQUIRE(o.exit_code == 0);
  CHECK(contains(o.out, "rotated(residual, values, ffn_down, seed=1)"));
  const auto report = nlohmann::json::parse(read_file(run.path("r.json")));
  CHECK(report.at("rows")[1].at("kl_mean").get<double>() < 0.01);
  CHECK(report.at("rows")[2].at("kl_mean").get<double>() > report.at("rows")[1].at("kl_mean").get<double>());
  for (const char* name : {"nearest-int8-g128", "gptq-int4-g128"})
    CHECK(contains(read_file(run.path(std::string("saved/") + name + ".safetensors")), "\"llama-rotated\""));
}

TEST_CASE("--list and --help need no model") {
  const test_tool::Program run;
  const Ended list = run.run("compare --list");
  CHECK(list.exit_code == 0);
  CHECK(contains(list.out, "gptq-int4-g128"));
  CHECK(contains(list.out, "4.125"));
  CHECK(contains(list.out, "smoothquant-search-w8a8-static"));  // runs where it is named, not with all
  const Ended help = run.run("compare --help");
  CHECK(help.exit_code == 0);
  CHECK(contains(help.out, "Exit codes"));
}

TEST_CASE("saving writes a model that the library opens") {
  const test_tool::Program run;
  const Ended o = run.compare("--recipe nearest-mxfp4 --save " + run.path("m.safetensors"));
  INFO(o.err);
  CHECK(o.exit_code == 0);
  CHECK(contains(read_file(run.path("m.safetensors")).substr(0, 100000), "anybit.scheme.blk.0.attn_q.weight"));
  const Ended again = run.run("compare " + run.path("m.safetensors"));
  CHECK(again.exit_code == 3);
  CHECK(contains(again.err, "quantized already"));
  CHECK(run.compare("--recipe nearest-mxfp4 --recipe nearest-sf4-g128 --save " + run.path("models")).exit_code == 0);
  CHECK(fs::exists(run.path("models/nearest-sf4-g128.safetensors")));
}

TEST_CASE("--target-bpw makes one file of several schemes, no larger than asked, that runs when it is loaded") {
  const test_tool::Program run;
  const Ended o = run.compare("--target-bpw 5 --recipe gptq-best-int3-g64-e5m3 --recipe gptq-best-int5-g64-e5m3 --save " +
                              run.path("mixed.safetensors") + " --widths-svg " + run.path("widths.svg") + " --json " +
                              run.path("mixed.json"));
  INFO(o.err);
  CHECK(o.exit_code == 0);
  CHECK(contains(o.out, "mixed-5"));
  CHECK(contains(read_file(run.path("widths.svg")), "ffn_down"));
  model::LoadOptions options;
  options.schemes = preset_registry<MixedWidths>();
  const model::Model m = model::load_model(run.path("mixed.safetensors"), options).value();
  std::set<std::string> schemes;
  Index bytes = 0, weights = 0;
  model::for_each_linear(m.decoder, [&](const std::string&, const nn::Linear& l) {
    REQUIRE(l.packed());
    schemes.emplace(l.packed()->scheme_name());
    bytes += l.payload_bytes(), weights += l.extents().size();
  });
  CHECK(schemes.size() >= 2);
  CHECK(8 * static_cast<double>(bytes) <= 5.0 * static_cast<double>(weights));
  CHECK(8 * static_cast<double>(bytes) > 4.9 * static_cast<double>(weights));
  nn::KvCache cache(cache_shape(m.decoder.config), 8);
  const model::TokenId ids[] = {1, 2, 3};
  CHECK(model::forward(m.decoder, ids, cache).ok());

  const Ended two =
      run.compare("--target-bpw 4.5 --target-bpw 5 --recipe gptq-best-int3-g64-e5m3 --recipe gptq-best-int5-g64-e5m3 --save " +
                  run.path("sizes") + " --widths-svg " + run.path("pictures"));
  INFO(two.err);
  CHECK(two.exit_code == 0);
  CHECK(contains(two.out, "mixed-4.5"));
  CHECK(fs::file_size(run.path("sizes/mixed-4.5.safetensors")) < fs::file_size(run.path("sizes/mixed-5.safetensors")));
  CHECK(read_file(run.path("sizes/mixed-5.safetensors")) == read_file(run.path("mixed.safetensors")));
  CHECK(read_file(run.path("pictures/mixed-5.svg")) == read_file(run.path("widths.svg")));
}

TEST_CASE("wrong use and bad input: the exit code, and a line that says what to do") {
  const test_tool::Program run;
  run.write("short.txt", "Too short.\n");
  run.write("empty.txt", "");
  run.write("latin1.txt",
            "Gr\xfc\xdf"
            "e");
  run.write("noise.gguf", "GGUF and then nothing that makes sense");
  run.write("file", "");
  const std::string texts = " --calibrate " + run.path("text.txt") + " --evaluate ";
  struct Case {
    std::string arguments;
    int exit_code;
    std::string says;
  };
  const Case cases[] = {
      {"", 2, "MODEL is required"},
      {"--nonsense", 2, "--nonsense"},
      {run.model() + " --recipe gtpq-int4-g128", 2, "gptq-int4-g128"},
      {run.model() + " --tokens 0", 2, "at least 64"},
      {run.model() + " --tokens -5", 2, "at least 64"},
      {run.model() + " --threads 100000", 2, "--threads"},
      {run.model() + " --kv-bits 5", 2, "choose 16, 8, 4, 3 or 2"},
      {run.model() + " --kv-hadamard", 2, "give --kv-bits too"},
      {run.model() + " --target-bpw 0", 2, "above 0, at most 32"},
      {run.model() + " --target-bpw 4 --target-bpw 4.0", 2, "mixed-4 is asked for twice"},
      {run.model() + " --widths-svg x.svg", 2, "is for --target-bpw"},
      {run.model() + " --target-bpw 4 --head nearest-int4-g128", 2, "exclude each other"},
      {run.model() + " --target-bpw 4 --embedding nearest-int4-g128", 2, "--embedding and --target-bpw exclude each other"},
      {run.model() + texts + run.path("text.txt") + " --target-bpw 5 --target-bpw 1.5", 3, "--target-bpw: 1.5"},
      {run.model() + " --target-bpw 5 --recipe nearest-int4-g128 --recipe gptq-best-int5-g128", 2, "name recipes of one kind"},
      {run.model() + " --target-bpw 5 --recipe awq-int4-g128", 2, "name recipes without transforms"},
      {run.model() + " --head gptq-int4-g128", 2, "learns from calibration"},
      {run.path("absent.gguf"), 3, "absent.gguf"},
      {run.path("noise.gguf"), 3, "noise.gguf"},
      {run.path("text.txt"), 3, "text.txt"},
      {run.model() + texts + run.path("short.txt"), 3, "give a longer text"},
      {run.model() + texts + run.path("text.txt") + " --tokens 10000000", 3, "--tokens"},
      {run.model() + texts + run.path("empty.txt"), 3, "is empty"},
      {run.model() + texts + run.path("latin1.txt"), 3, "byte 2 is not UTF-8"},
      {run.model() + texts + run.path("absent.txt"), 3, "cannot be read"},
      {run.model() + " --json " + run.path("file") + "/report.json", 4, "file"},
      {run.model() + " --svg " + run.path(""), 4, "folder"},
  };
  const std::size_t before = run.files();
  for (const Case& c : cases) {
    const Ended o = run.run("compare " + c.arguments);
    INFO(c.arguments << "\n" << o.err);
    CHECK(o.exit_code == c.exit_code);
    CHECK(contains(o.err, c.says));
    CHECK(o.out.empty());
  }
  CHECK(run.files() == before);  // nothing half written
}

TEST_CASE("words near each other, and texts cut in two") {
  CHECK(anybit::edit_distance("kitten", "sitting") == 3);
  CHECK(anybit::edit_distance("", "abc") == 3);
  CHECK(anybit::edit_distance("abc", "abc") == 0);
  const auto two = tool::cut_in_two("one\n\ntwo three four\n\nfive");
  CHECK(two.calibrate + two.evaluate == "one\n\ntwo three four\n\nfive");
  CHECK(two.evaluate == "five");
  const auto inside = tool::cut_in_two("\xc3\xa4\xc3\xb6\xc3\xbc");
  CHECK(inside.calibrate == "\xc3\xa4\xc3\xb6");
  CHECK(tool::documentation("/nonexistent folder").error().message.find("--calibrate") != std::string::npos);
}

#else

#include "support/catch.hpp"

TEST_CASE("the tool") {
  WARN("skipped: the program anybit is not built (it needs CLI11 and nlohmann-json, and ANYBIT_BUILD_TOOLS)");
}

#endif
