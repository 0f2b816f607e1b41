#pragma once
// A reference model's predictions in a file, for KL divergences of models that do not fit into memory beside it, or of the same
// reference on another day. The layout is that of llama.cpp's `--kl-divergence-base`: "_logits_", int32 window length, vocabulary
// and windows, the tokens as int32, then per scored position float32 scale and least and a uint16 code per token, padded to an
// even number. log p = scale * code + least.

#include <anybit/core/macros_begin.hpp>

#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <anybit/evaluate/kl.hpp>
#include <anybit/evaluate/losses.hpp>
#include <anybit/io/atomic_write.hpp>
#include <anybit/io/detail/text.hpp>
#include <anybit/io/mapped_file.hpp>

namespace anybit::evaluate {
inline namespace ANYBIT_CODE {

namespace detail {
inline constexpr std::string_view base_magic = "_logits_";
inline std::size_t base_row_bytes(Index vocabulary) { return static_cast<std::size_t>(8 + 2 * (vocabulary + vocabulary % 2)); }
}  // namespace detail

/// Runs `d` over the windows and writes its predictions, 64 positions at a time. The windows must be llama.cpp's: the layout
/// has no room for another first scored position.
inline Status write_base(const std::string& path, const model::Decoder& d, const Windows& windows, ExecutorRef executor = {},
                         const OnProgress& progress = {}) {
  if (windows.first_scored != windows.length / 2)
    return {ErrorCode::invalid_argument,
            io::detail::text("base file: position ", windows.first_scored, " of windows of ", windows.length,
                             " is the first scored, the layout wants the middle: use llama_cpp_windows()")};
  ANYBIT_TRY(io::AtomicFile file, io::AtomicFile::create(path));
  const std::int32_t sizes[] = {static_cast<std::int32_t>(windows.length), static_cast<std::int32_t>(d.config.vocabulary),
                                static_cast<std::int32_t>(windows.count())};
  ANYBIT_TRY_STATUS(model::check_is_decoder(d, "base file"));
  ANYBIT_TRY_STATUS(file.write(detail::base_magic));
  ANYBIT_TRY_STATUS(file.write(std::as_bytes(std::span(sizes))));
  ANYBIT_TRY_STATUS(file.write(std::as_bytes(std::span(windows.tokens))));
  ReferenceLogits some(std::min(detail::logit_rows, windows.scored_per_window()), d.config.vocabulary, ReferenceStorage::uint16);
  std::vector<std::byte> row(detail::base_row_bytes(d.config.vocabulary));
  nn::KvCache cache(model::cache_shape(d.config), windows.length);
  Status status = Ok{};
  for (Index i = 0; i < windows.count(); ++i) {
    cache.clear();
    ANYBIT_TRY(const Matrix hidden, model::hidden_states(d, windows.window(i), cache, {executor}));
    const auto targets = windows.targets(i);
    const Index per_window = windows.scored_per_window();
    const auto slot = [&](Index position) { return position % per_window % detail::logit_rows; };
    detail::for_scored_positions(
        d, windows, i, hidden.view(), executor,
        [&](Index position, std::span<const float> logits) {
          some.set(slot(position), logits, targets[static_cast<std::size_t>(position % per_window)]);
        },
        [&](Index begin, Index end) {
          for (Index position = begin; position < end && status; ++position) {
            const ReferenceLogits::Stored stored = some.stored(slot(position));
            std::memcpy(row.data(), &stored.scale, 4);
            std::memcpy(row.data() + 4, &stored.least, 4);
            std::memcpy(row.data() + 8, stored.codes.data(), stored.codes.size_bytes());
            status = file.write(row);
          }
        });
    ANYBIT_TRY_STATUS(status);
    if (progress) progress(i + 1, windows.count());
  }
  return file.commit();
}

/// A file that write_base() or llama.cpp wrote, mapped and not read into memory.
class BaseFile {
 public:
  static Result<BaseFile> open(const std::string& path) {
    BaseFile out;
    ANYBIT_TRY(out.file_, io::MappedFile::open(path));
    const auto bytes = out.file_.bytes();
    const auto bad = [&](auto... what) {
      return Error{ErrorCode::corrupt_data, io::detail::text(path, ": ", what..., ": write the base anew")};
    };
    if (bytes.size() < 20 || std::memcmp(bytes.data(), detail::base_magic.data(), 8) != 0)
      return bad("does not start with \"_logits_\" and three sizes, so it is no base of predictions");
    std::int32_t sizes[3];
    std::memcpy(sizes, bytes.data() + 8, sizeof sizes);
    if (sizes[0] < 3 || sizes[1] < 1 || sizes[2] < 1)
      return bad("has ", sizes[2], " windows of ", sizes[0], " tokens of a vocabulary of ", sizes[1]);
    out.windows_.length = sizes[0], out.windows_.first_scored = sizes[0] / 2, out.vocabulary_ = sizes[1];
    const std::uint64_t tokens = static_cast<std::uint64_t>(sizes[0]) * static_cast<std::uint64_t>(sizes[2]);
    const std::uint64_t scored =
        static_cast<std::uint64_t>(sizes[2]) * static_cast<std::uint64_t>(out.windows_.scored_per_window());
    const std::uint64_t needed = 20 + 4 * tokens + scored * detail::base_row_bytes(out.vocabulary_);
    if (bytes.size() != needed) return bad("has ", bytes.size(), " bytes, its sizes need ", needed);
    out.windows_.tokens.resize(static_cast<std::size_t>(tokens));
    std::memcpy(out.windows_.tokens.data(), bytes.data() + 20, static_cast<std::size_t>(4 * tokens));
    for (const std::int32_t id : out.windows_.tokens)
      if (id < 0 || id >= out.vocabulary_) return bad("has the token ", id, " outside its vocabulary of ", out.vocabulary_);
    out.rows_ = static_cast<std::size_t>(20 + 4 * tokens);
    return out;
  }

  const Windows& windows() const { return windows_; }
  Index vocabulary() const { return vocabulary_; }

  /// A model, with a cache of the kind `kv`, against the base, position by position.
  Result<std::vector<TokenComparison>> compare(const model::Decoder& d, ExecutorRef executor = {},
                                               const OnProgress& progress = {}, const nn::KvCacheConfig& kv = {}) const {
    ANYBIT_TRY_STATUS(model::check_is_decoder(d, "comparison"));
    ANYBIT_TRY_STATUS(check(kv, model::cache_shape(d.config)));
    if (d.config.vocabulary != vocabulary_)
      return Error{ErrorCode::shape_mismatch,
                   io::detail::text("the base has a vocabulary of ", vocabulary_, ", the model one of ", d.config.vocabulary,
                                    ": compare models of one vocabulary")};
    std::vector<TokenComparison> tokens(static_cast<std::size_t>(windows_.scored()));
    ReferenceLogits some(std::min(detail::logit_rows, windows_.scored_per_window()), vocabulary_, ReferenceStorage::uint16);
    nn::KvCache cache(model::cache_shape(d.config), windows_.length, kv);
    const Index per_window = windows_.scored_per_window();
    for (Index i = 0; i < windows_.count(); ++i) {
      cache.clear();
      ANYBIT_TRY(const Matrix hidden, model::hidden_states(d, windows_.window(i), cache, {executor}));
      const auto targets = windows_.targets(i);
      detail::for_scored_positions(d, windows_, i, hidden.view(), executor, [&](Index position, std::span<const float> logits) {
        const Index within = position % per_window, slot = within % detail::logit_rows;
        some.set_stored(slot, stored(position), targets[static_cast<std::size_t>(within)]);
        tokens[static_cast<std::size_t>(position)] = some.compare(slot, logits);
      });
      if (progress) progress(i + 1, windows_.count());
    }
    return tokens;
  }

 private:
  ReferenceLogits::Stored stored(Index position) const {
    const std::byte* const row =
        file_.bytes().data() + rows_ + static_cast<std::size_t>(position) * detail::base_row_bytes(vocabulary_);
    ReferenceLogits::Stored s;
    std::memcpy(&s.scale, row, 4);
    std::memcpy(&s.least, row + 4, 4);
    s.codes = {reinterpret_cast<const std::uint16_t*>(row + 8), static_cast<std::size_t>(vocabulary_)};
    return s;
  }

  io::MappedFile file_;
  Windows windows_;
  Index vocabulary_ = 0;
  std::size_t rows_ = 0;
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::evaluate

#include <anybit/core/macros_end.hpp>
