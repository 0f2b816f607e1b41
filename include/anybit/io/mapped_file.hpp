#pragma once
// A whole file as read-only bytes: mapped where the system can (pages come in as they are touched), read elsewhere.

#include <anybit/core/macros_begin.hpp>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <limits>
#include <span>
#include <string>
#include <utility>

#include <anybit/core/aligned_buffer.hpp>
#include <anybit/core/result.hpp>
#include <anybit/io/detail/text.hpp>

#if defined(__unix__) || defined(__APPLE__)
#define ANYBIT_IO_POSIX 1
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

namespace anybit::io {
inline namespace ANYBIT_CODE {

/// Owner of the bytes of one file. `bytes()` starts at a multiple of 64 and stays where it is when the object is moved.
/// The file must not be shortened by others meanwhile: the system ends a program that touches a vanished page.
class MappedFile {
 public:
  MappedFile() = default;
  MappedFile(MappedFile&& other) noexcept
      : mapped_(std::exchange(other.mapped_, nullptr)), size_(std::exchange(other.size_, 0)), copy_(std::move(other.copy_)) {}
  MappedFile& operator=(MappedFile other) noexcept {
    std::swap(mapped_, other.mapped_);
    std::swap(size_, other.size_);
    std::swap(copy_, other.copy_);
    return *this;
  }
  ~MappedFile() {
#if defined(ANYBIT_IO_POSIX)
    if (mapped_) ::munmap(mapped_, size_);
#endif
  }

  static Result<MappedFile> open(const std::string& path) {
    if (path.empty() || path.find('\0') != std::string::npos)
      return {ErrorCode::invalid_argument, "the path of a file to read is empty or holds a NUL: give a path"};
#if defined(ANYBIT_IO_POSIX)
    return map(path);
#else
    return read(path);
#endif
  }

  std::span<const std::byte> bytes() const {
    return mapped_ ? std::span<const std::byte>(static_cast<const std::byte*>(mapped_), size_) : copy_.bytes();
  }

 private:
  static Error cannot(const char* action, const std::string& path) {
    return {ErrorCode::io,
            detail::text(path, ": cannot ", action, " (", std::strerror(errno), "): check the path and its permissions")};
  }

#if defined(ANYBIT_IO_POSIX)
  static Result<MappedFile> map(const std::string& path) {
    // O_NONBLOCK: a pipe in the place of a file must not make us wait; it means nothing for a regular file.
    const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0) return cannot("open", path);
    struct ::stat info{};
    if (::fstat(file, &info) != 0) {
      Error e = cannot("examine", path);
      ::close(file);
      return e;
    }
    if (!S_ISREG(info.st_mode)) {
      ::close(file);
      return {ErrorCode::io, path + ": not a regular file: give the path of a file"};
    }
    MappedFile out;
    if (info.st_size > 0) {  // mmap refuses length 0; an empty file is simply no bytes
      const auto size = static_cast<std::size_t>(info.st_size);
      void* const where = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file, 0);
      if (where == MAP_FAILED) {
        Error e = cannot("map", path);
        ::close(file);
        return e;
      }
      out.mapped_ = where;
      out.size_ = size;
    }
    ::close(file);
    return out;
  }
#else
  static Result<MappedFile> read(const std::string& path) {
    std::FILE* const file = std::fopen(path.c_str(), "rb");
    if (!file) return cannot("open", path);
    long size = -1;
    if (std::fseek(file, 0, SEEK_END) == 0) size = std::ftell(file);
    if (size < 0 || size == std::numeric_limits<long>::max() || std::fseek(file, 0, SEEK_SET) != 0) {
      Error e = cannot("examine", path);
      std::fclose(file);
      return e;
    }
    MappedFile out;
    out.copy_ = AlignedBuffer(static_cast<std::size_t>(size));
    const std::size_t got = std::fread(out.copy_.data(), 1, out.copy_.size(), file);
    Error e = cannot("read", path);
    std::fclose(file);
    if (got != out.copy_.size()) return e;
    return out;
  }
#endif

  void* mapped_ = nullptr;
  std::size_t size_ = 0;  ///< of the mapping
  AlignedBuffer copy_;    ///< used where nothing can be mapped
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::io

#include <anybit/core/macros_end.hpp>
