#pragma once
// Packed weights whose scheme is known only at run time, as in models and files.

#include <anybit/core/macros_begin.hpp>

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <anybit/kernel/exl3_matmul.hpp>
#include <anybit/kernel/isa.hpp>
#include <anybit/kernel/prepared.hpp>
#include <anybit/kernel/repack.hpp>
#include <anybit/scheme/presets.hpp>
#include <anybit/tensor/pack.hpp>

namespace anybit::kernel {
inline namespace ANYBIT_ABI {

/// A scheme behind the handle AnyPacked. Tensors are PackedTensors of the scheme.
struct PackedOps : SchemeOps {
  /// Bytes that check() finds nothing wrong with as a tensor, which the other functions take; and where the bytes are then.
  std::shared_ptr<const void> (*own)(PackedBytes&&, const PackedBytes** bytes);
  void (*dequantize_row)(const void* tensor, Index row, std::span<float> out);
  std::string_view isa;  ///< of the code behind these pointers: compiled_isa()
  /// What products read of their activations; `tiled` is null or what tile() made of the tensor. `tensor` is null if its bytes
  /// were released, here and in rows().
  ActivationPlan (*plan)(const void* tensor, const void* tiled, ActivationMode);
  /// Rows begin .. end - 1 of y, by activations whose plan serves the one above.
  void (*rows)(const void* tensor, const void* tiled, const Activations&, const OutputTokens& y, Index begin, Index end);
  /// The kernel layout of the tensor, TiledWeights, for the compute and with the level_error of `prepared`, which says then what
  /// was made, or would be; null, and why, where none was.
  std::shared_ptr<const void> (*tile)(const void* tensor, ExecutorRef, Prepared& prepared, const Placement&);
};

}  // namespace ANYBIT_ABI
}  // namespace anybit::kernel

namespace anybit::kernel {
inline namespace ANYBIT_CODE {

// Not inlined, so that schemes share them, and templates, so that only programs with schemes at run time compile them.
[[gnu::noinline]] inline void dequantize_row(const PackedRows& w, const PackedBytes& bytes, Index row, std::span<float> out) {
  const auto [rows, cols] = w.extents;
  ANYBIT_CHECK(0 <= row && row < rows && static_cast<Index>(out.size()) == cols,
               "AnyPacked::dequantize_row: no such row, or a wrong length");
  float block[static_cast<std::size_t>(block_cols + decode_slack)];
  for (Index first = 0; first < cols; first += block_cols) {
    const Index n = std::min(block_cols, cols - first);
    w.ops->weights(w.tensor, row, 1, first, n, block, 0);
    for (Index i = 0; i < n; ++i)
      out[static_cast<std::size_t>(bytes.has_column_order() ? bytes.original_column(first + i) : first + i)] = block[i];
  }
}
template <class = void>
[[gnu::noinline]] ActivationPlan plan_packed(const PackedRows& w, const PackedBytes& bytes, const TiledWeights* tiled,
                                             ActivationMode mode) {
  ActivationPlan p = tiled && reads_tiles(*tiled, mode) ? plan_activations(*tiled, mode) : plan_activations(w, mode);
  if (bytes.has_column_order()) p.order = bytes.order();
  return p;
}
template <class = void>
[[gnu::noinline]] void packed_rows(const PackedRows& w, const TiledWeights* tiled, const Activations& a, const OutputTokens& y,
                                   Index begin, Index end) {
  const bool tiles = tiled && reads_tiles(*tiled, a.plan.mode);
  product_rows_to(y, a, begin, end, [&](const Activations& some, MutableMatrix to, Index from, Index stop) {
    if (tiles)
      product_rows(*tiled, some, to, from, stop);
    else
      product_rows(w, some, to, from, stop);
  });
}
template <class = void>
[[gnu::noinline]] std::shared_ptr<const void> tile(const TileOps& ops, const PackedRows& w, ExecutorRef executor,
                                                   Prepared& prepared, const Placement& place) {
  if (ops.integer_rows) {
    prepared.in_place = true;
    prepared.why_not = "products in integers read the packed bytes";
    return nullptr;
  }
  auto tiled = plan_tiles(ops, w, prepared.compute, prepared.level_error);
  if (!tiled) {
    prepared.why_not = ops.bits == 0              ? ops.why_not
                       : prepared.level_error > 0 ? "no step has a multiple within level_error of every level"
                                                  : "the format's levels are no multiples of a step: allow them a level_error";
    return nullptr;
  }
  prepared.bytes = tiled->bytes();
  if (place.what == Placement::nowhere) return nullptr;
  if (place.what == Placement::made)
    tiled->start = place.bytes;
  else
    make_tiles(ops, w, *tiled, place.what == Placement::given ? place.memory : nullptr, executor);
  if (prepared.compute == Compute::int8_folded) {
    fold_weights(ops, w, *tiled, prepared.fold_error, executor);
    if (tiled->folded) prepared.folded_rows = tiled->folded->rows;
  }
  prepared.tiled = true;
  return std::make_shared<const TiledWeights>(*std::move(tiled));
}
/// The products of tiles whose packed weights were released.
template <class = void>
[[gnu::noinline]] const TiledWeights& tiles_alone(const void* tiled, ActivationMode mode) {
  const auto* const w = static_cast<const TiledWeights*>(tiled);
  ANYBIT_CHECK(w != nullptr && reads_tiles(*w, mode),
               "AnyPacked: the packed bytes were released; only products of the compute that was prepared are left");
  return *w;
}

namespace detail {

template <PackedScheme S>
struct PackedFunctions {
  static const PackedTensor<S>& tensor_of(const void* p) { return *static_cast<const PackedTensor<S>*>(p); }

  static std::shared_ptr<const void> own(PackedBytes&& bytes, const PackedBytes** where) {
    auto* const tensor = new PackedTensor<S>(typename PackedTensor<S>::Checked{}, std::move(bytes));
    *where = &tensor->bytes();
    // With a pointer to a function all schemes share one kind of control block.
    return {static_cast<const void*>(tensor), static_cast<void (*)(const void*)>([](const void* t) { delete &tensor_of(t); })};
  }
  static void dequantize_row(const void* tensor, Index row, std::span<float> out) {
    kernel::dequantize_row(PackedRows(tensor_of(tensor)), tensor_of(tensor).bytes(), row, out);
  }
  static ActivationPlan plan(const void* tensor, const void* tiled, ActivationMode mode) {
    if (tensor == nullptr) return plan_activations(tiles_alone(tiled, mode), mode);
    if constexpr (is_exl3_v<S>)
      return plan_exl3(tensor_of(tensor), mode);
    else
      return plan_packed(PackedRows(tensor_of(tensor)), tensor_of(tensor).bytes(), static_cast<const TiledWeights*>(tiled), mode);
  }
  static void rows(const void* tensor, const void* tiled, const Activations& a, const OutputTokens& y, Index begin, Index end) {
    if (tensor == nullptr) return matmul_rows(tiles_alone(tiled, a.plan.mode), a, y, begin, end);
    if constexpr (is_exl3_v<S>)
      product_rows_to(y, a, begin, end, [tensor](const Activations& some, MutableMatrix to, Index from, Index stop) {
        exl3_rows(tensor_of(tensor), some, to, from, stop);
      });
    else
      packed_rows(PackedRows(tensor_of(tensor)), static_cast<const TiledWeights*>(tiled), a, y, begin, end);
  }
  static std::shared_ptr<const void> tile(const void* tensor, ExecutorRef executor, Prepared& prepared, const Placement& place) {
    return kernel::tile(tile_ops_v<S>, PackedRows(tensor_of(tensor)), executor, prepared, place);
  }
};

}  // namespace detail

template <PackedScheme S>
inline constexpr PackedOps packed_ops_v{scheme_ops_v<S>,
                                        &detail::PackedFunctions<S>::own,
                                        &detail::PackedFunctions<S>::dequantize_row,
                                        compiled_isa(),
                                        &detail::PackedFunctions<S>::plan,
                                        &detail::PackedFunctions<S>::rows,
                                        &detail::PackedFunctions<S>::tile};

}  // namespace ANYBIT_CODE
}  // namespace anybit::kernel

namespace anybit {
inline namespace ANYBIT_ABI {

/// A handle on a packed tensor of any scheme, a user's own included. Copies share the bytes, which never change.
class AnyPacked {
 public:
  AnyPacked() = default;
  template <PackedScheme S>
  ANYBIT_INLINE AnyPacked(PackedTensor<S> tensor)  // NOLINT(google-explicit-constructor)
      : AnyPacked(kernel::packed_ops_v<S>, std::move(tensor.bytes())) {}
  /// Bytes of a file, or why they are no tensor of this scheme.
  static Result<AnyPacked> open(const kernel::PackedOps& scheme, PackedBytes bytes) {
    ANYBIT_TRY_STATUS(scheme.check(bytes));
    return AnyPacked(scheme, std::move(bytes));
  }
  /// All zeros, to be filled in, or to learn the size.
  static ANYBIT_INLINE AnyPacked blank(const kernel::PackedOps& scheme, Extents e, bool with_column_order,
                                       std::string_view provenance) {
    return AnyPacked(scheme, scheme.allocate(e, with_column_order, provenance));
  }

  bool empty() const { return ops_ == nullptr; }
  Extents extents() const { return some().extents_; }
  std::string_view scheme_name() const { return some().ops_->name; }
  double bits_per_weight() const { return bytes().bits_per_weight(); }
  Index payload_bytes() const { return bytes().payload_bytes(); }
  const PackedBytes& bytes() const {
    ANYBIT_CHECK(some().bytes_ != nullptr, "AnyPacked: the packed bytes were released");
    return *bytes_;
  }

  /// One row of weights in original column order.
  void dequantize_row(Index row, std::span<float> out) const {
    bytes();
    ops_->dequantize_row(tensor_.get(), row, out);
  }
  /// Makes the order of weights that products of this kind read fastest, if there is one (formats of up to 8 bits whose levels
  /// are multiples of a step, and activations rounded to int8). It takes about as much memory again, copies made later share it,
  /// and results keep their bits. Other formats of up to 8 bits go on multiplying in float, unless their levels may move by up to
  /// `level_error` times the largest (0.004 is enough for NF4): then they too multiply in integers, with levels moved so. Says
  /// what it made, or why nothing. There is one such order at a time: preparing for another compute replaces it.
  /// With Compute::int8_folded the scales of groups are folded in rows whose quantization error gains at most `fold_error` of its
  /// energy by that, as far as levels tell (16 rows together); Prepared::folded_rows are how many. What was prepared for it
  /// serves int8_per_token, too.
  kernel::Prepared prepare(Compute compute, ExecutorRef executor = {}, float level_error = 0,
                           float fold_error = default_fold_error) {
    if (const auto* nothing = kernel::why_not_prepared(compute)) return {false, compute, level_error, 0, nothing};
    if (tiled_ && prepared_.compute == compute && prepared_.level_error == level_error && prepared_.fold_error == fold_error)
      return prepared_;
    bytes();
    prepared_ = {false, compute, level_error, 0, {}, fold_error};
    tiled_ = ops_->tile(tensor_.get(), executor, prepared_, {});
    return prepared_;
  }
  /// Bytes that prepare_into() needs for the same arguments; 0 where it would make nothing. Folding needs none of them: its 2
  /// bytes for each group of a row are in memory of the handle's own.
  Index prepared_bytes(Compute compute, float level_error = 0) const {
    if (kernel::why_not_prepared(compute)) return 0;
    kernel::Prepared would{false, compute, level_error, 0, {}};
    ops_->tile(tensor(), {}, would, {.what = kernel::Placement::nowhere});
    return would.bytes > 0 ? static_cast<Index>(sizeof(kernel::PreparedHeader)) + would.bytes : 0;
  }
  /// prepare() into memory of the caller, at a multiple of 64, which stays until no copy of this handle is used. With it comes a
  /// header that says what it is: kept in a file, the same bytes serve use_prepared() another time.
  Result<kernel::Prepared> prepare_into(std::span<std::byte> memory, Compute compute, ExecutorRef executor = {},
                                        float level_error = 0, float fold_error = default_fold_error) {
    const Index needed = prepared_bytes(compute, level_error);
    if (needed > 0) ANYBIT_TRY_STATUS(kernel::check_place(memory, needed));
    std::byte* const place = needed > 0 ? memory.data() + sizeof(kernel::PreparedHeader) : nullptr;
    ANYBIT_TRY(const kernel::Prepared made,
               put(compute, level_error, fold_error, executor, {.what = kernel::Placement::given, .memory = place}));
    if (!made) return made;
    const kernel::PreparedHeader header = kernel::header_of(*ops_, ops_->isa, bytes(), made);
    std::memcpy(memory.data(), &header, sizeof header);
    return made;
  }
  /// What prepare_into() made of this tensor, in this program or another, at a multiple of 64, where it stays. Refused unless
  /// version of the layout, instruction set, tensor, compute and level_error are the same. What Compute::int8_folded folds is
  /// made anew, of the tiles.
  Result<kernel::Prepared> use_prepared(std::span<const std::byte> made, Compute compute, float level_error = 0,
                                        float fold_error = default_fold_error) {
    kernel::Prepared would{false, compute, level_error, 0, {}};
    would.bytes = std::max<Index>(prepared_bytes(compute, level_error) - static_cast<Index>(sizeof(kernel::PreparedHeader)), 0);
    ANYBIT_TRY_STATUS(kernel::check_prepared(made, kernel::header_of(*ops_, ops_->isa, bytes(), would)));
    return put(compute, level_error, fold_error, {},
               {.what = kernel::Placement::made, .bytes = made.data() + sizeof(kernel::PreparedHeader)});
  }
  /// Lets go of the packed bytes: products of the prepared compute go on, everything else that reads them (bytes(), rows as
  /// floats, other products) is a mistake from then on. Copies that did not release keep them. False, and nothing happens, where
  /// nothing was prepared, or products need the order of columns that is with the bytes.
  bool release_packed() {
    if (!tiled_ || (bytes_ && bytes_->has_column_order())) return false;
    tensor_.reset(), bytes_ = nullptr;
    return true;
  }
  /// The answer of the prepare() that is in force; nothing was made before one.
  const kernel::Prepared& prepared() const { return prepared_; }
  /// What products read of activations that enter as `mode` says: to round them once for several tensors. Another prepare()
  /// changes it.
  ActivationPlan plan(ActivationMode mode) const {
    some();
    return ops_->plan(tensor_.get(), tiled_.get(), mode);
  }
  /// Rows begin .. end - 1 of y = x W^T with activations made by round_activations() from a plan that this tensor's joined.
  /// No allocation, no threads; any slices of rows give the same bits, best multiples of ActivationPlan::row_grain.
  void matmul_rows(const Activations& a, const OutputTokens& y, Index begin, Index end) const {
    kernel::check_rows(extents(), plan(a.plan.mode), a, y, begin, end);
    product_rows(a, y, begin, end);
  }
  /// The same without its checks.
  void product_rows(const Activations& a, const OutputTokens& y, Index begin, Index end) const {
    ops_->rows(tensor_.get(), tiled_.get(), a, y, begin, end);
  }
  /// y = x W^T with x (tokens, cols) in original column order, y (tokens, rows).
  template <class = UnderTheseFlags>
  void matmul(const InputTokens& x, const OutputTokens& y, ActivationMode mode, ExecutorRef executor,
              Workspace& workspace) const {
    kernel::check_shapes(extents(), x, y);
    const ActivationPlan needed = plan(mode);
    const Activations a = round_activations(x, needed, workspace, executor);
    parallel_tiles(executor, extents().rows, needed.row_grain, [&](Index begin, Index end) { product_rows(a, y, begin, end); });
  }

 private:
  ANYBIT_INLINE AnyPacked(const kernel::PackedOps& scheme, PackedBytes&& bytes) : ops_(&scheme), extents_(bytes.extents()) {
    tensor_ = scheme.own(std::move(bytes), &bytes_);
  }
  const AnyPacked& some() const {
    ANYBIT_CHECK(ops_ != nullptr, "AnyPacked: nothing is in it");
    return *this;
  }
  const void* tensor() const { return bytes(), tensor_.get(); }
  /// Tiles in the caller's memory in place of those that are there.
  Result<kernel::Prepared> put(Compute compute, float level_error, float fold_error, ExecutorRef executor,
                               const kernel::Placement& place) {
    if (const auto* nothing = kernel::why_not_prepared(compute)) return kernel::Prepared{false, compute, level_error, 0, nothing};
    kernel::Prepared made{false, compute, level_error, 0, {}, fold_error};
    auto tiled = ops_->tile(tensor(), executor, made, place);
    if (!made) return made;
    tiled_ = std::move(tiled);
    return prepared_ = made;
  }
  std::shared_ptr<const void> tensor_, tiled_;
  kernel::Prepared prepared_;
  const PackedBytes* bytes_ = nullptr;
  const kernel::PackedOps* ops_ = nullptr;
  Extents extents_;
};

/// Finds the scheme of bytes by the name they carry.
class SchemeRegistry {
 public:
  /// Adding a scheme twice does nothing.
  template <PackedScheme S>
  ANYBIT_INLINE void add() {
    if (find(S::name) == nullptr) schemes_.push_back(&kernel::packed_ops_v<S>);
  }
  Result<AnyPacked> open(PackedBytes bytes) const {
    const kernel::PackedOps* scheme = find(bytes.scheme_name());
    if (scheme == nullptr)
      return Error{ErrorCode::unsupported, "packed tensor: scheme '" + std::string(bytes.scheme_name()) + "' is none of the " +
                                               std::to_string(schemes_.size()) +
                                               " registered; add it with SchemeRegistry::add<Scheme<...>>()"};
    return AnyPacked::open(*scheme, std::move(bytes));
  }
  std::vector<std::string> names() const {
    std::vector<std::string> out;
    for (const kernel::PackedOps* scheme : schemes_) out.emplace_back(scheme->name);
    return out;
  }

 private:
  const kernel::PackedOps* find(std::string_view name) const {
    for (const kernel::PackedOps* scheme : schemes_)
      if (scheme->name == name) return scheme;
    return nullptr;
  }
  std::vector<const kernel::PackedOps*> schemes_;
};

}  // namespace ANYBIT_ABI
}  // namespace anybit

namespace anybit {
inline namespace ANYBIT_CODE {

/// Every scheme of scheme/presets.hpp. A template, so that only programs that call it compile all their kernels.
template <class List = Presets>
SchemeRegistry preset_registry() {
  SchemeRegistry r;
  for_each_type(List{}, [&r]<class S>() { r.add<S>(); });
  return r;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit

#include <anybit/core/macros_end.hpp>
