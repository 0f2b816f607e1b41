#pragma once
// Files that appear complete or not at all.

#include <anybit/core/macros_begin.hpp>

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include <anybit/core/result.hpp>
#include <anybit/io/detail/text.hpp>

#if defined(__unix__) || defined(__APPLE__)
#define ANYBIT_IO_POSIX_WRITE 1
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#else
#include <filesystem>
#include <system_error>
#endif

namespace anybit::io {
inline namespace ANYBIT_CODE {

/// Writes to a temporary name in the folder of `path`; commit() flushes it to the disk and gives it its name, replacing
/// what was there (on POSIX with its permissions). Without commit(), or after any failure, the destructor removes it and
/// whatever was at `path` is untouched. A file that nobody may write is not replaced.
class AtomicFile {
 public:
  static Result<AtomicFile> create(const std::string& path) {
    if (path.empty() || path.find('\0') != std::string::npos)
      return {ErrorCode::invalid_argument, "the path of a file to write is empty or holds a NUL: give a path"};
    if (is_no_file(path))
      return {ErrorCode::io, path + ": is there and is no regular file (a folder or device): choose another path"};
    if (is_read_only(path)) return {ErrorCode::io, path + ": is read-only: choose another path, or make it writable first"};
    AtomicFile out;
    out.path_ = path;
    if (!out.open_temporary()) return out.cannot("create a temporary file beside it");
    return out;
  }

  AtomicFile(AtomicFile&& other) noexcept
      : path_(std::move(other.path_)),
        temporary_(std::exchange(other.temporary_, {})),
        file_(std::exchange(other.file_, closed)) {}
  AtomicFile& operator=(AtomicFile other) noexcept {
    std::swap(path_, other.path_);
    std::swap(temporary_, other.temporary_);
    std::swap(file_, other.file_);
    return *this;
  }
  ~AtomicFile() {
    close();
    if (!temporary_.empty()) std::remove(temporary_.c_str());
  }

  Status write(std::span<const std::byte> bytes) {
    ANYBIT_CHECK(file_ != closed, "AtomicFile::write after commit");
    if (put(bytes)) return Ok{};
    return cannot("write");
  }
  Status write(std::string_view text) { return write(std::as_bytes(std::span(text.data(), text.size()))); }

  Status commit() {
    ANYBIT_CHECK(file_ != closed, "AtomicFile::commit twice");
    if (!flush()) return cannot("flush to the disk");
    if (!close()) return cannot("close");
    if (const std::string failed = rename(); !failed.empty())
      return Error{ErrorCode::io, path_ + ": cannot rename the finished file to this name (" + failed + "): choose another path"};
    temporary_.clear();
    flush_folder();
    return Ok{};
  }

 private:
  AtomicFile() = default;

  Error cannot(const char* action) const {
    return {ErrorCode::io, detail::text(path_, ": cannot ", action, " (", std::strerror(errno),
                                        "): check the folder, its permissions and the free space")};
  }

#if defined(ANYBIT_IO_POSIX_WRITE)
  using Handle = int;
  static constexpr Handle closed = -1;

  static bool is_no_file(const std::string& path) {
    struct ::stat there{};
    return ::stat(path.c_str(), &there) == 0 && !S_ISREG(there.st_mode);
  }
  static bool is_read_only(const std::string& path) {
    struct ::stat there{};
    return ::stat(path.c_str(), &there) == 0 && (there.st_mode & (S_IWUSR | S_IWGRP | S_IWOTH)) == 0;
  }
  /// Why not; empty if it did.
  std::string rename() const { return std::rename(temporary_.c_str(), path_.c_str()) == 0 ? "" : std::strerror(errno); }
  bool open_temporary() {
    for (int attempt = 0; attempt < 1000; ++attempt) {
      std::string name = detail::text(path_, ".", ::getpid(), "-", attempt, ".tmp");
      file_ = ::open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
      if (file_ >= 0) {
        temporary_ = std::move(name);
        struct ::stat old{};
        if (::stat(path_.c_str(), &old) == 0) static_cast<void>(::fchmod(file_, old.st_mode & 07777));
        return true;
      }
      if (errno != EEXIST) break;
    }
    file_ = closed;
    return false;
  }
  bool put(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const auto written = ::write(file_, bytes.data(), bytes.size());
      if (written < 0 && errno == EINTR) continue;
      if (written <= 0) return false;
      bytes = bytes.subspan(static_cast<std::size_t>(written));
    }
    return true;
  }
  // EINVAL: the file system has nothing to flush.
  bool flush() { return ::fsync(file_) == 0 || errno == EINVAL; }
  bool close() { return file_ == closed || ::close(std::exchange(file_, closed)) == 0; }
  /// Makes the new name itself survive a power cut; the data is safe either way, so a failure is not one of ours.
  void flush_folder() const {
    const std::string folder = detail::folder_of(path_);
    const int handle = ::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_CLOEXEC);
    if (handle < 0) return;
    static_cast<void>(::fsync(handle));
    ::close(handle);
  }
#else
  using Handle = std::FILE*;
  static constexpr Handle closed = nullptr;

  static bool is_no_file(const std::string& path) {
    std::error_code ignored;
    const auto status = std::filesystem::status(path, ignored);
    return std::filesystem::exists(status) && !std::filesystem::is_regular_file(status);
  }
  static bool is_read_only(const std::string& path) {
    std::error_code ignored;
    const auto status = std::filesystem::status(path, ignored);
    constexpr auto write =
        std::filesystem::perms::owner_write | std::filesystem::perms::group_write | std::filesystem::perms::others_write;
    return std::filesystem::exists(status) && (status.permissions() & write) == std::filesystem::perms::none;
  }
  std::string rename() const {
    std::error_code failed;
    std::filesystem::rename(temporary_, path_, failed);
    return failed ? failed.message() : "";
  }
  bool open_temporary() {
    for (int attempt = 0; attempt < 1000; ++attempt) {
      std::string name = detail::text(path_, ".", attempt, ".tmp");
      file_ = std::fopen(name.c_str(), "wbx");
      if (file_) {
        temporary_ = std::move(name);
        return true;
      }
      if (errno != EEXIST) break;
    }
    return false;
  }
  bool put(std::span<const std::byte> bytes) { return std::fwrite(bytes.data(), 1, bytes.size(), file_) == bytes.size(); }
  bool flush() { return std::fflush(file_) == 0; }
  bool close() { return file_ == closed || std::fclose(std::exchange(file_, closed)) == 0; }
  void flush_folder() const {}
#endif

  std::string path_, temporary_;
  Handle file_ = closed;
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::io

#include <anybit/core/macros_end.hpp>
