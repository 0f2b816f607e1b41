#include <anybit/io/atomic_write.hpp>
#include <anybit/io/mapped_file.hpp>

#include <filesystem>
#include <fstream>
#include <string>

#if defined(__unix__)
#include <sys/resource.h>
#include <csignal>
#endif

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

using namespace anybit;
using io::AtomicFile;
using io::MappedFile;

namespace {

std::string contents(const std::string& path) {
  const auto file = MappedFile::open(path);
  REQUIRE(file.ok());
  return {reinterpret_cast<const char*>(file->bytes().data()), file->bytes().size()};
}

}  // namespace

TEST_CASE("atomic write: a committed file is whole, an uncommitted one never was") {
  const test_support::TemporaryFolder folder;
  const std::string path = folder / "out.bin";
  {
    auto file = AtomicFile::create(path);
    REQUIRE(file.ok());
    REQUIRE(file->write("half").ok());
    CHECK(!std::filesystem::exists(path));
    CHECK(folder.files() == 1);
  }
  CHECK(folder.files() == 0);

  {
    auto file = AtomicFile::create(path);
    REQUIRE(file->write("first").ok());
    REQUIRE(file->write(" and second").ok());
    AtomicFile moved = std::move(*file);
    REQUIRE(moved.commit().ok());
  }
  CHECK(contents(path) == "first and second");
  CHECK(folder.files() == 1);
}

TEST_CASE("atomic write: an old file stays until the new one is committed, and its readers keep it") {
  const test_support::TemporaryFolder folder;
  const std::string path = folder / "out.bin";
  std::ofstream(path) << "old";
  std::filesystem::permissions(path, std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
  const auto reader = MappedFile::open(path);
  auto file = AtomicFile::create(path);
  REQUIRE(file->write("new!").ok());
  CHECK(contents(path) == "old");
  REQUIRE(file->commit().ok());
  CHECK(contents(path) == "new!");
  CHECK(std::to_integer<char>(reader->bytes()[0]) == 'o');
#if defined(__unix__)
  CHECK((std::filesystem::status(path).permissions() & std::filesystem::perms::others_all) == std::filesystem::perms::none);
#endif
}

TEST_CASE("atomic write: a read-only file is not replaced") {
  const test_support::TemporaryFolder folder;
  const std::string path = folder / "out.bin";
  std::ofstream(path) << "old";
  std::filesystem::permissions(path, std::filesystem::perms::owner_read);
  const auto file = AtomicFile::create(path);
  REQUIRE(!file.ok());
  CHECK(file.error().message.rfind(path + ": is read-only", 0) == 0);
  CHECK(contents(path) == "old");
  CHECK(folder.files() == 1);
}

TEST_CASE("atomic write: places that cannot be written") {
  const test_support::TemporaryFolder folder;
  const auto missing = AtomicFile::create(folder / "no/such/out.bin");
  REQUIRE(!missing.ok());
  CHECK(missing.error().code == ErrorCode::io);
  CHECK(missing.error().message.find("no/such/out.bin: cannot create") != std::string::npos);
  CHECK(!AtomicFile::create("").ok());
  CHECK(!AtomicFile::create(folder / "").ok());  // a folder
  CHECK(!AtomicFile::create(std::string("a\0b", 3)).ok());
  CHECK(folder.files() == 0);
  if (std::filesystem::exists("/dev/null")) CHECK(!AtomicFile::create("/dev/null").ok());  // must not be replaced

  // The name becomes a folder while the file is written: the rename fails and nothing is left.
  auto late = AtomicFile::create(folder / "out");
  REQUIRE(late->write("x").ok());
  std::filesystem::create_directory(folder / "out");
  CHECK(!late->commit().ok());
  {
    const AtomicFile gone = std::move(*late);
  }
  CHECK(folder.files() == 1);
}

#if defined(__unix__)
TEST_CASE("atomic write: a disk that is full leaves the old file and nothing else") {
  const test_support::TemporaryFolder folder;
  const std::string path = folder / "out.bin";
  std::ofstream(path) << "old";
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit old_limit{};
  REQUIRE(getrlimit(RLIMIT_FSIZE, &old_limit) == 0);
  {
    auto file = AtomicFile::create(path);
    REQUIRE(file.ok());
    rlimit small = old_limit;
    small.rlim_cur = 1000;  // bytes a file may have: stands for the space that is left
    REQUIRE(setrlimit(RLIMIT_FSIZE, &small) == 0);
    const auto written = file->write(std::string(5000, 'x'));
    REQUIRE(setrlimit(RLIMIT_FSIZE, &old_limit) == 0);
    REQUIRE(!written.ok());
    CHECK(written.error().message.rfind(path + ": cannot write (", 0) == 0);
  }
  std::signal(SIGXFSZ, old_handler);
  CHECK(contents(path) == "old");
  CHECK(folder.files() == 1);
}
#endif

TEST_CASE("atomic write: mapped files") {
  const test_support::TemporaryFolder folder;
  std::ofstream(folder / "empty").flush();
  CHECK(MappedFile::open(folder / "empty")->bytes().empty());
  std::ofstream(folder / "one") << 'x';
  auto one = MappedFile::open(folder / "one");
  REQUIRE(one.ok());
  const std::byte* const at = one->bytes().data();
  MappedFile moved = std::move(*one);
  CHECK(moved.bytes().data() == at);
  CHECK(moved.bytes().size() == 1);
  CHECK(one->bytes().empty());  // NOLINT(bugprone-use-after-move): moved-from is empty by contract
  moved = MappedFile();
  CHECK(moved.bytes().empty());
  CHECK(!MappedFile::open(folder / "").ok());
  CHECK(!MappedFile::open(std::string("one\0", 4)).ok());
}
