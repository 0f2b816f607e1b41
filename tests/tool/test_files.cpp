// What the program does to files: no input is lost, nothing half written stays, and names cannot do harm.

#ifdef ANYBIT_PROGRAM

#include <filesystem>
#include <string>

#include <anybit/model/load.hpp>
#include <anybit/model/tokenizer/unicode.hpp>

#include "program.hpp"
#include "shared/file_roles.hpp"
#include "shared/printable.hpp"
#include "support/catch.hpp"

namespace fs = std::filesystem;
using namespace anybit;
using test_tool::contains, test_tool::Ended, test_tool::Program;

namespace {

bool is_utf8(std::string_view text) {
  for (; !text.empty(); text.remove_prefix(model::decode_utf8(text).bytes))
    if (!model::decode_utf8(text).valid) return false;
  return true;
}

/// The tiny model with another name of at most 4 bytes for "tiny".
void rename_model(const Program& p, const std::string& from, const std::string& to, const std::string& name) {
  std::string bytes = p.read(from);
  const std::size_t at = bytes.find("general.name");
  REQUIRE(at != std::string::npos);
  const std::size_t text = at + 12 + 4 + 8;  // behind type and length
  for (std::size_t i = 0; i < name.size(); ++i) bytes[text + i] = name[i];
  p.write(to, bytes);
}

}  // namespace

TEST_CASE("no output replaces an input, however its path is spelled") {
  const Program p;
  p.write("tokenizer.bin", "beside the model");
  p.write("other.txt", p.read("text.txt"));
  fs::create_symlink(p.model(), p.path("link.gguf"));
  fs::create_hard_link(p.model(), p.path("hard.gguf"));
  fs::create_directory(p.path("folder"));
  fs::create_directory_symlink(p.path("folder"), p.path("linked"));
  const std::string model = p.read("tiny.gguf"), text = p.read("text.txt");
  const std::string recipe = "--recipe nearest-int4-g128 ";
  const struct {
    std::string arguments, option, input;
  } cases[] = {
      {"--save " + p.model(), "--save ", "the model"},
      {"--save " + p.path("link.gguf"), "--save ", "the model"},
      {"--save " + p.path("hard.gguf"), "--save ", "the model"},
      {"--save " + p.path("folder/../tiny.gguf"), "--save ", "the model"},
      {"--save " + p.path("absent/../tiny.gguf"), "--save ", "the model"},
      {"--save " + p.path("linked/../tiny.gguf"), "--save ", "the model"},
      {"--json " + p.model(), "--json ", "the model"},
      {"--svg " + p.path("text.txt"), "--svg ", "--calibrate"},
      {"--evaluate " + p.path("other.txt") + " --json " + p.path("other.txt"), "--json ", "--evaluate"},
      {"--save " + p.path("tokenizer.bin"), "--save ", "the tokenizer beside the model"},
      {"--tokenizer " + p.path("hard.gguf") + " --save " + p.path("hard.gguf"), "--save ", "the model"},
  };
  const std::size_t before = p.files();
  for (const auto& c : cases) {
    // The option given last counts, so --evaluate may be given again.
    const Ended o = c.arguments.starts_with("--evaluate")
                        ? p.run("compare " + p.model() + " --calibrate " + p.path("text.txt") + " " + recipe + c.arguments)
                        : p.compare(recipe + c.arguments);
    INFO(c.arguments << "\n" << o.err);
    CHECK(o.exit_code == 2);
    CHECK(contains(o.err, c.option));
    CHECK(contains(o.err, "would overwrite " + c.input));
    CHECK(o.out.empty());
  }
  // A folder of models, one of which would land on an input: that text is named like the file of a recipe.
  fs::create_directory(p.path("models"));
  fs::copy_file(p.path("text.txt"), p.path("models/nearest-sf4-g128.safetensors"));
  const Ended o =
      p.run("compare " + p.model() + " --evaluate " + p.path("models/nearest-sf4-g128.safetensors") + " --calibrate " +
            p.path("text.txt") + " " + recipe + "--recipe nearest-sf4-g128 --save " + p.path("models"));
  CHECK(o.exit_code == 2);
  CHECK(contains(o.err, "would overwrite --evaluate"));
  CHECK(p.read("tiny.gguf") == model);
  CHECK(p.read("text.txt") == text);
  CHECK(p.files() == before + 1);
  const Ended reproduce = p.run("reproduce " + p.model() + " --evaluate " + p.path("text.txt") + " --json " + p.path("text.txt"));
  CHECK(reproduce.exit_code == 2);
  CHECK(contains(reproduce.err, "--json " + p.path("text.txt") + " would overwrite --evaluate"));
}

TEST_CASE("two outputs are never one file") {
  const Program p;
  const std::string x = p.path("x");
  for (const std::string& arguments :
       {"--save " + x + " --json " + x, "--json " + x + " --svg " + x, "--save " + x + " --svg " + p.path("absent/../x"),
        "--sequential --state " + x + " --json " + x, "--sequential --state " + x + " --json " + p.path("x/nearest-int4-g128")}) {
    const Ended o = p.compare("--recipe nearest-int4-g128 " + arguments);
    INFO(arguments << "\n" << o.err);
    CHECK(o.exit_code == 2);
    CHECK(contains(o.err, "are one file: give each its own path"));
    CHECK(!fs::exists(x));
  }
  const Ended widths = p.compare("--target-bpw 5 --widths-svg " + x + " --svg " + x);
  CHECK(widths.exit_code == 2);
  CHECK(contains(widths.err, "--widths-svg " + x + " and --svg " + x));
}

TEST_CASE("a read-only file is not replaced") {
  const Program p;
  p.write("kept.json", "kept");
  fs::permissions(p.path("kept.json"), fs::perms::owner_read);
  const Ended o = p.compare("--recipe nearest-int4-g128 --json " + p.path("kept.json"));
  CHECK(o.exit_code == 4);
  CHECK(contains(o.err, "kept.json: is read-only"));
  CHECK(p.read("kept.json") == "kept");
}

TEST_CASE("a disk that is full ends with 4 and leaves nothing half written") {
  const Program p;
  const std::size_t before = p.files();
  // A limit of one block: SIGXFSZ would end the program in the middle of the write.
  const Ended o = p.compare("--recipe nearest-int4-g128 --save " + p.path("m.safetensors"), "ulimit -f 16; ");
  INFO(o.err);
  CHECK(o.exit_code == 4);
  CHECK(contains(o.err, "m.safetensors: cannot write"));
  CHECK(p.files() == before);
  CHECK(contains(o.out, "reference"));
  if (fs::exists("/dev/full")) {
    CHECK(p.run("compare --list >/dev/full").exit_code == 4);
    CHECK(p.run("compare --help >/dev/full").exit_code == 4);
    CHECK(p.run("--help >/dev/full").exit_code == 4);
    const Ended table = p.compare("--recipe nearest-int4-g128 --json " + p.path("r.json") + " >/dev/full");
    CHECK(table.exit_code == 4);
    CHECK(contains(table.err, "standard output cannot be written"));
    CHECK(contains(p.read("r.json"), "nearest-int4-g128"));  // what could be written was
  }
}

TEST_CASE("names that are no UTF-8 or move the cursor: files have U+FFFD, the terminal sees an escape") {
  const Program p;
  rename_model(p, "tiny.gguf", "m\xe9.gguf", "m\xe9!!");
  const std::string files = " --json " + p.path("r.json") + " --svg " + p.path("r.svg") + " --save " + p.path("m.safetensors");
  const std::string texts = " --calibrate " + p.path("text.txt") + " --evaluate " + p.path("text.txt") +
                            " --tokens 128 --calibration-tokens 64 --recipe nearest-int4-g128";
  Ended o = p.run("compare '" + p.path("m\xe9.gguf") + "'" + texts + files);
  INFO(o.err);
  REQUIRE(o.exit_code == 0);
  CHECK(is_utf8(o.out));
  CHECK(is_utf8(p.read("r.json")));
  CHECK(is_utf8(p.read("r.svg")));
  CHECK(contains(p.read("r.svg"), "m\xef\xbf\xbd!!"));
  CHECK(model::load_model(p.path("m.safetensors"), {.schemes = preset_registry()}).value().name.starts_with("m\xef\xbf\xbd!!"));

  rename_model(p, "tiny.gguf", "esc.gguf", "\x1b[1m");
  o = p.run("compare " + p.path("esc.gguf") + texts);
  REQUIRE(o.exit_code == 0);
  CHECK(!contains(o.out, "\x1b"));
  CHECK(contains(o.out, "\\x1b[1m"));
  o = p.run("compare '" + p.path("no\x1b[2Jsuch") + "'" + texts);
  CHECK(o.exit_code == 3);
  CHECK(!contains(o.err, "\x1b"));
}

TEST_CASE("text for a terminal") {
  CHECK(tool::printable("a\x1b[31m\r\n\tb\x7f\xc2\x9b") == "a\\x1b[31m\\x0d\n\tb\\x7f\\x9b");
  CHECK(tool::printable("\xc3\xa9\xe9") == "\xc3\xa9\xef\xbf\xbd");
  CHECK(tool::utf8("\x1b\xed\xa0\x80z") == "\x1b\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbdz");
}

TEST_CASE("the files that a model is read from") {
  const test_support::TemporaryFolder folder;
  for (const char* name : {"m-00001-of-00002.gguf", "m-00002-of-00002.gguf", "n-00001-of-00002.gguf", "tok512.bin", "tokyo.bin"})
    std::ofstream(folder / name) << name;
  const auto has = [](const std::vector<tool::FileRole>& files, const std::string& name) {
    return std::any_of(files.begin(), files.end(), [&](const tool::FileRole& f) { return f.path.ends_with(name); });
  };
  const auto files = tool::model_inputs(folder / "m-00001-of-00002.gguf", "");
  CHECK(has(files, "m-00002-of-00002.gguf"));
  CHECK(!has(files, "n-00001-of-00002.gguf"));
  CHECK(has(files, "tok512.bin"));
  CHECK(!has(files, "tokyo.bin"));
  CHECK(!has(tool::model_inputs(folder / "m", "t"), "tok512.bin"));
  CHECK(tool::check_roles({{"a", ""}}, {{"b", ""}, {"c", "-"}, {"d", "-"}}).ok());
}

TEST_CASE("the program itself: commands, version, and what is near a wrong name") {
  const Program p;
  CHECK(p.run("--version").out == "anybit 0.1.0\n");
  CHECK(p.run("--help").exit_code == 0);
  CHECK(p.run("").exit_code == 2);
  const Ended o = p.run("compose");
  CHECK(o.exit_code == 2);
  CHECK(contains(o.err, "the nearest is compare"));
}

#endif
