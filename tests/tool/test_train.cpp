// train and gradients from end to end, on a small generated model.

#ifdef ANYBIT_PROGRAM

#include <string>

#include <nlohmann/json.hpp>

#include <anybit/io/safetensors.hpp>

#include "program.hpp"
#include "support/catch.hpp"
#include "support/test_data.hpp"

using test_tool::contains, test_tool::Ended, test_tool::Program;

namespace {

/// An adapter of rank 2 on the text, 12 steps.
std::string train_adapter(const Program& p, const std::string& save, const std::string& rate = "1e-2") {
  return "train " + p.model() + " --text " + p.path("text.txt") + " --context 64 --batch 24 --epochs 2 --lora-rank 2 --lr " +
         rate + " --lora-dropout 0.1 --seed 3 --save " + p.path(save);
}
std::string conversations() {
  std::string out;
  for (int i = 0; i < 6; ++i)
    out += "{\"turns\": [{\"role\": \"user\", \"text\": \"What is " + std::to_string(i) + "?\"}, " +
           "{\"role\": \"assistant\", \"text\": \"Line " + std::to_string(i * i) + "\"}]}\n";
  return out;
}

}  // namespace

TEST_CASE("train: a run that is killed goes on to the same files") {
  const Program p;
  const Ended whole = p.run(train_adapter(p, "whole") + " --losses " + p.path("whole.csv") + " --svg " + p.path("whole.svg"));
  INFO(whole.err);
  REQUIRE(whole.exit_code == 0);
  CHECK(contains(p.read("whole.svg"), "</svg>"));
  const std::string adapter = p.read("whole/adapter_model.safetensors");
  REQUIRE(!adapter.empty());

  const auto kept = [&](const std::string& rate) {
    return train_adapter(p, "resumed", rate) + " --losses " + p.path("resumed.csv") + " --checkpoint " + p.path("run") +
           " --checkpoint-every 1 --resume";
  };
  p.shell(std::string(ANYBIT_PROGRAM) + " " + kept("1e-2") + " & pid=$!; while [ ! -e " + p.path("run") +
          " ] && kill -0 $pid 2>/dev/null; do sleep 0.01; done; kill -KILL $pid; wait $pid");
  REQUIRE(!p.read("run").empty());
  const Ended resumed = p.run(kept("1e-2") + " --threads 1");
  INFO(resumed.err);
  REQUIRE(resumed.exit_code == 0);
  CHECK(p.read("resumed/adapter_model.safetensors") == adapter);
  CHECK(p.read("resumed.csv") == p.read("whole.csv"));

  // Without --resume nothing of it is written over; another run is refused by the fact that differs.
  const Ended there = p.run(train_adapter(p, "again") + " --checkpoint " + p.path("run"));
  CHECK(there.exit_code == 2);
  CHECK(contains(there.err, "--resume"));
  const Ended other = p.run(kept("1e-3"));
  CHECK(other.exit_code == 3);
  CHECK(contains(other.err, "its schedule is"));
}

TEST_CASE("train: a diverging run ends with its step and a full disk with the file") {
  const Program p;
  const Ended far = p.run(train_adapter(p, "a", "1e30") + " --clip 0 --checkpoint " + p.path("run") + " --checkpoint-every 1");
  CHECK(far.exit_code == 5);
  CHECK(contains(far.err, "lower the learning rate"));
  CHECK(contains(far.err, "run holds step 0"));
  const Ended full = p.run(train_adapter(p, "b") + " --checkpoint " + p.path("full") + " --checkpoint-every 1", "ulimit -f 4; ");
  CHECK(full.exit_code == 4);
  CHECK(contains(full.err, "full: cannot write"));
  CHECK(p.read("full").empty());
}

TEST_CASE("train: QLoRA learns from conversations, and its merged model is quantized again") {
  const Program p;
  p.write("talk.jsonl", conversations());
  const std::string qlora = "train " + p.model() + " --conversations " + p.path("talk.jsonl") +
                            " --base nearest-nf4-g64-dq --lora-rank 4 --lr 1e-2 --epochs 8 --batch 4 --held-out 1 --save " +
                            p.path("adapter") + " --merge " + p.path("merged.safetensors");
  const Ended done = p.run(qlora);
  INFO(done.err);
  REQUIRE(done.exit_code == 0);
  CHECK(contains(done.out, "held out before: "));
  CHECK(contains(done.out, "held out behind: "));
  const auto loss = [](const std::string& line) { return std::stod(line.substr(line.find("loss ") + 5)); };
  const std::size_t first = done.out.find("step 1 of"), last = done.out.rfind("step ");
  CHECK(loss(done.out.substr(last)) < loss(done.out.substr(first)));
  CHECK(p.run("perplexity " + p.path("merged.safetensors") + " " + p.path("text.txt") + " --tokens 128").exit_code == 0);
  const Ended again = p.run("train " + p.model() + " --adapter " + p.path("adapter") + " --base nearest-nf4-g64-dq --merge " +
                            p.path("packed.safetensors") + " --requantize nearest-nf4-g64-dq");
  INFO(again.err);
  REQUIRE(again.exit_code == 0);
  CHECK(contains(p.run("inspect " + p.path("packed.safetensors")).out, "nf4"));
}

TEST_CASE("train: conversations that cannot be used are named by their line") {
  const Program p;
  const auto refused = [&](const std::string& text, const std::string& more = {}) {
    p.write("talk.jsonl", text);
    const Ended e = p.run("train " + p.model() + " --conversations " + p.path("talk.jsonl") + " --lora-rank 2 --save " +
                          p.path("adapter") + more);
    CHECK(e.exit_code == 3);
    return e.err;
  };
  CHECK(contains(refused(conversations() + "{\n"), "line 7: is not JSON"));
  CHECK(contains(refused("{\"turns\": [{\"role\": \"pirate\", \"text\": \"\"}]}\n"), "line 1: the role 'pirate'"));
  CHECK(contains(refused("{\"question\": \"\"}\n"), "line 1: has neither turns"));
  CHECK(contains(refused("{\"turns\": [{\"role\": \"user\", \"text\": \"Hello\"}]}\n"), "has no text of the assistant"));
  CHECK(contains(refused(conversations(), " --context 4"), "use a larger context"));
  CHECK(contains(refused(conversations(), " --held-out 6"), "--held-out leaves none"));
}

TEST_CASE("train: options that do not go together are said before any work") {
  const Program p;
  const std::string start = "train " + p.model() + " --text " + p.path("text.txt");
  CHECK(p.run("train " + p.model()).exit_code == 2);
  CHECK(p.run(start + " --base nearest-nf4-g64-dq").exit_code == 2);
  CHECK(p.run(start + " --save " + p.path("folder")).exit_code == 2);
  CHECK(p.run(start + " --lora-rank 2 --save " + p.path("a.safetensors")).exit_code == 2);
  CHECK(p.run(start + " --lora-rank 2 --merge " + p.path("merged")).exit_code == 2);
  CHECK(p.run(start + " --resume").exit_code == 2);
  CHECK(p.run(start + " --lora-rank 2 --losses " + p.path("text.txt")).exit_code == 2);
  CHECK(p.run(start + " --lora-rank 2 --base gptq-int4-g128").exit_code == 2);
  CHECK(p.run("gradients " + p.model() + " --ids " + p.path("text.txt") + " --out -").exit_code == 2);
  CHECK(p.run("gradients " + p.model() + " --ids " + p.path("text.txt") + " --out " + p.path("g")).exit_code == 3);
}

TEST_CASE("train: all weights of any model are saved as anybit's own file") {
  const Program p;
  const std::string saved = p.path("trained.safetensors");
  // Packed linears have no gradients: embedding, head and norms are what is trained of a GGUF model in Q8_0.
  const Ended done =
      p.run("train " + p.model() + " --text " + p.path("text.txt") + " --context 64 --batch 24 --lr 1e-3 --save " + saved);
  INFO(done.err);
  REQUIRE(done.exit_code == 0);
  const auto bits = [&](const std::string& model) {
    return p.run("perplexity " + model + " " + p.path("text.txt") + " --tokens 256 --json -").out;
  };
  CHECK(bits(saved) != bits(p.model()));
}

TEST_CASE("train: a folder keeps its names and types") {
  ANYBIT_TEST_DATA_OR_SKIP(config, "vectors/arch/train_llama/config.json");
  const Program p;
  const std::string from = config.substr(0, config.rfind('/'));
  p.write("ids.json", "[[1, 2, 3, 4], [5, 6, 7, 8]]");
  const Ended done = p.run("train " + from + " --ids " + p.path("ids.json") + " --save " + p.path("trained"));
  INFO(done.err);
  REQUIRE(done.exit_code == 0);
  const auto before = anybit::io::SafetensorsFile::open(from + "/model.safetensors"),
             after = anybit::io::SafetensorsFile::open(p.path("trained/model.safetensors"));
  REQUIRE((before.ok() && after.ok()));
  for (const auto& t : before->tensors()) {
    INFO(t.name);
    REQUIRE(after->find(t.name) != nullptr);
    CHECK(after->find(t.name)->dtype == t.dtype);
  }
}

TEST_CASE("wasq: saved models side by side, placed by their names") {
  const Program p;
  p.write("prompts.txt", "Line 1 of a text\n\nLine 16 of a text that goes on and on.\n");
  for (const char* name : {"sf4_64_1_fpm.gguf", "sf4_128_1_fpm.gguf", "sf3_64_1_fpm.gguf"})
    REQUIRE(p.shell("cp " + p.model() + " " + p.path(name)).exit_code == 0);
  const std::string models = "wasq " + p.path("sf4_64_1_fpm.gguf") + " " + p.path("sf4_128_1_fpm.gguf") + " " +
                             p.path("sf3_64_1_fpm.gguf") + " " + p.model();
  const Ended e = p.run(models + " --prompts " + p.path("prompts.txt") + " --generate Line --tokens 3 --svg " +
                        p.path("grid.svg") + " --json -");
  INFO(e.err);
  REQUIRE(e.exit_code == 0);
  const nlohmann::json rows = nlohmann::json::parse(e.out);
  REQUIRE(rows.size() == 4);
  CHECK(rows[0].at("bits") == 4);
  CHECK(rows[1].at("context") == 128);
  CHECK(rows[2].at("bits") == 3);
  CHECK(rows[2].at("method") == "fpm");
  CHECK(!rows[3].contains("bits"));
  for (const nlohmann::json& row : rows) {  // the same weights under four names
    CHECK(row.at("perplexity_per_token") == rows[0].at("perplexity_per_token"));
    CHECK(row.at("prompts") == 2);
    CHECK(row.at("continuation") == rows[0].at("continuation"));
  }
  const std::string picture = p.read("grid.svg");
  CHECK(contains(picture, "SF4 fpm"));
  CHECK(contains(picture, "SF3 fpm"));
  CHECK(contains(picture, "</svg>"));

  // Of one prompt both figures are the same.
  p.write("one.txt", "Line 1 of a text\n");
  const Ended one = p.run("wasq " + p.model() + " --prompts " + p.path("one.txt") + " --prompt-tokens 5 --json -");
  REQUIRE(one.exit_code == 0);
  const nlohmann::json row = nlohmann::json::parse(one.out).at(0);
  CHECK(row.at("mean_of_prompt_perplexities").get<double>() == Approx(row.at("perplexity_per_token").get<double>()));
  CHECK(row.at("predictions") == 4);

  CHECK(contains(p.run(models).err, "--prompts, --generate or both"));
  p.write("empty.txt", "\n \n");
  const Ended empty = p.run("wasq " + p.model() + " --prompts " + p.path("empty.txt"));
  CHECK(empty.exit_code == 3);
  CHECK(contains(empty.err, "holds no prompt"));
  CHECK(p.run("wasq " + p.model() + " --prompts " + p.path("one.txt") + " --json " + p.path("one.txt")).exit_code == 2);
  CHECK(p.run("wasq " + p.path("nothing.gguf") + " --prompts " + p.path("one.txt")).exit_code == 3);
}

TEST_CASE("wasq --train: every cell of the grid from one model, the same as single runs, and again only what is missing") {
  const Program p;
  p.write("prompts.txt", "Line 1 of a text\nLine 16 of a text that goes on and on.\n");
  const std::string learns = " --text " + p.path("text.txt") + " --seed 3 --lr 1e-3 ";
  const std::string grid = "wasq --train " + p.model() + learns + "--folder " + p.path("grid") +
                           " --contexts 64,128 --species sf4_fpm,sf8_opt --step-tokens 2048 --epochs 2 --checkpoint-every 3";
  const Ended e = p.run(grid + " --prompts " + p.path("prompts.txt") + " --svg " + p.path("grid.svg"));
  INFO(e.err);
  REQUIRE(e.exit_code == 0);
  CHECK(contains(e.out, "SF4 fpm, perplexity per token\n context     1 epochs     2 epochs\n      64 "));
  CHECK(contains(p.read("grid.svg"), "SF8 opt"));
  for (const char* cell : {"sf4_64_1_fpm", "sf4_64_2_fpm", "sf4_128_1_fpm", "sf8_64_2_opt", "sf8_128_2_opt"})
    CHECK(!p.read("grid/" + std::string(cell) + ".safetensors").empty());
  CHECK(p.shell("ls " + p.path("grid")).out.find("state") == std::string::npos);

  // A run of one epoch, and one of two: the rate is constant, so both are cells of the same run.
  for (const std::string epochs : {"1", "2"}) {
    REQUIRE(p.run("train " + p.model() + learns + "--context 64 --batch 32 --weight-decay 0 --wasq fpm --bits 4 --epochs " +
                  epochs + " --save " + p.path("alone.safetensors"))
                .exit_code == 0);
    CHECK((p.read("alone.safetensors") == p.read("grid/sf4_64_" + epochs + "_fpm.safetensors")));
  }

  // Models that are there stay as they are; a missing one is trained again to the same bytes.
  const std::string last = p.read("grid/sf8_128_2_opt.safetensors"), first = p.read("grid/sf4_64_1_fpm.safetensors");
  REQUIRE(
      p.shell("rm " + p.path("grid/sf8_128_2_opt.safetensors") + " && echo mine > " + p.path("grid/sf8_128_1_opt.safetensors"))
          .exit_code == 0);
  const Ended again = p.run(grid);
  CHECK(again.exit_code == 0);
  CHECK((p.read("grid/sf8_128_2_opt.safetensors") == last));
  CHECK(p.read("grid/sf8_128_1_opt.safetensors") == "mine\n");
  CHECK(!contains(again.out, "sf4_64_1_fpm"));
  CHECK((p.read("grid/sf4_64_1_fpm.safetensors") == first));
}

TEST_CASE("wasq --train: a grid that is killed goes on, and starts again where its cells are gone") {
  const Program p;
  const auto grid = [&](const std::string& folder) {
    return "wasq --train " + p.model() + " --text " + p.path("text.txt") + " --folder " + p.path(folder) +
           " --contexts 64 --species sf4_fpm --step-tokens 1024 --epochs 3 --lr 1e-3 --checkpoint-every 1";
  };
  const std::string state = p.path("cut/sf4_fpm_64.state"), cell = p.path("cut/sf4_64_1_fpm.safetensors");
  REQUIRE(p.run(grid("whole")).exit_code == 0);
  const std::string whole = p.read("whole/sf4_64_3_fpm.safetensors");
  const auto kill_behind = [&](const std::string& file) {
    p.shell(std::string(ANYBIT_PROGRAM) + " " + grid("cut") + " & pid=$!; while [ ! -e " + file +
            " ] && kill -0 $pid 2>/dev/null; do sleep 0.01; done; kill -KILL $pid; wait $pid");
  };
  kill_behind(state);
  REQUIRE(!p.read("cut/sf4_fpm_64.state").empty());
  REQUIRE(p.run(grid("cut")).exit_code == 0);
  CHECK((p.read("cut/sf4_64_3_fpm.safetensors") == whole));

  REQUIRE(p.shell("rm -r " + p.path("cut")).exit_code == 0);
  kill_behind(cell);
  REQUIRE(p.shell("rm " + cell).exit_code == 0);  // the checkpoint is behind it
  REQUIRE(p.run(grid("cut")).exit_code == 0);
  CHECK((p.read("cut/sf4_64_3_fpm.safetensors") == whole));
  CHECK((p.read("cut/sf4_64_1_fpm.safetensors") == p.read("whole/sf4_64_1_fpm.safetensors")));
}

TEST_CASE("wasq --train: what does not fit is said before anything is trained") {
  const Program p;
  const std::string start = "wasq --train " + p.model() + " --text " + p.path("text.txt") + " --folder " + p.path("grid") + " ";
  const auto refused = [&](const std::string& arguments, int code, const std::string& message) {
    const Ended e = p.run(arguments);
    CAPTURE(arguments, e.err);
    CHECK(e.exit_code == code);
    CHECK(contains(e.err, message));
  };
  refused("wasq --train " + p.model(), 2, "--train needs --text");
  refused("wasq --prompts " + p.path("text.txt"), 2, "no model: name some, or give --train");
  refused(start + "--species fpm", 2, "--species fpm: no bits and method: give sf{bits}_{method}");
  refused(start + "--species sf1_fpm", 2, "bits are 2 to 16");
  refused(start + "--species sf4_gptq", 2, "the methods are fpm, opt, fasteropt and vanilla");
  refused(start + "--species sf4_fpm,sf4_fpm", 2, "names sf4_fpm twice");
  refused(start + "--contexts 64,64", 2, "has a length twice");
  refused(start + "--contexts 4096", 3, "the base model's context is 1024");
  refused("wasq " + p.model() + " --folder x --prompts " + p.path("text.txt"), 2, "--train");
  CHECK(p.shell("ls " + p.path("grid")).out.find("safetensors") == std::string::npos);
}

#endif
