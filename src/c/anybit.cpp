// The C interface over the C++ library. Arguments are checked here, so that no check behind it fails; if one does all the same,
// guard.hpp makes it an error of the call.

#include "guard.hpp"

#include <anybit/c/anybit.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include <anybit/io/anybit_file.hpp>
#include <anybit/version.hpp>

#include "kernels.hpp"

#define ANYBIT_C_TEXT_(x) #x
#define ANYBIT_C_TEXT(x) ANYBIT_C_TEXT_(x)

struct anybit_workspace {
  anybit::Workspace workspace;
};

struct anybit_activations {
  anybit::Workspace workspace;
  anybit::Activations activations;
};

struct anybit_tensor {
  anybit::AnyPacked packed;
  std::optional<anybit::io::AnybitFile> file;  ///< whose bytes `packed` views
  std::string scheme;
};

namespace {

using namespace anybit;

/// Empty where the processor, or the environment variable ANYBIT_ISA, allows none of the architectures in this library.
const std::string& isa() {
#if defined(ANYBIT_ARCHS)
  static const std::string found(kernel::find_isa(ANYBIT_ARCHS));
#else
  static const std::string found(compiled_isa());
#endif
  return found;
}

const SchemeRegistry& registry() {
  static const SchemeRegistry schemes = c::anybit_c_kernels().schemes();
  return schemes;
}

const std::vector<std::string>& scheme_names() {
  static const std::vector<std::string> names = isa().empty() ? std::vector<std::string>() : registry().names();
  return names;
}

void copy_text(std::string_view text, std::span<char> out) {
  const std::size_t n = std::min(text.size(), out.size() - 1);
  std::copy_n(text.data(), n, out.data());
  out[n] = '\0';
}

anybit_status report(anybit_error* error, anybit_status code, std::string_view message) {
  if (error) {
    error->code = code;
    copy_text(message, error->message);
  }
  return code;
}

/// Runs f, which returns a Status, and reports as the C interface promises.
template <class F>
anybit_status guarded(const char* function, anybit_error* error, F&& f) {
  const auto failed = [&](anybit_status code, std::string_view message) {
    std::string text;
    try {
      text.append(function).append(": ").append(message);
    } catch (...) {
      return report(error, code, message);
    }
    return report(error, code, text);
  };
  try {
    if (isa().empty())
      return failed(ANYBIT_UNSUPPORTED, "this library has no kernels for this processor, or not those that ANYBIT_ISA names");
    const Status status = f();
    if (status) return report(error, ANYBIT_OK, "");
    return failed(static_cast<anybit_status>(status.error().code) + 1, status.error().message);
  } catch (const c::FailedCheck& check) {
    return failed(ANYBIT_INTERNAL, check.message);
  } catch (const std::bad_alloc&) {
    return failed(ANYBIT_OUT_OF_MEMORY, "there is not enough memory");
  } catch (...) {
    return failed(ANYBIT_INTERNAL, "an unknown exception");
  }
}
static_assert(static_cast<int>(ErrorCode::invalid_argument) + 1 == ANYBIT_INVALID_ARGUMENT &&
              static_cast<int>(ErrorCode::cancelled) + 1 == ANYBIT_CANCELLED);
static_assert(static_cast<int>(Compute::int8_per_token) == ANYBIT_INT8_PER_TOKEN &&
              static_cast<int>(Compute::int8_per_block) == ANYBIT_INT8_PER_BLOCK &&
              static_cast<int>(Compute::bf16) == ANYBIT_BF16 && static_cast<int>(Compute::int8_static) == ANYBIT_INT8_STATIC &&
              static_cast<int>(Compute::int8_folded) == ANYBIT_INT8_FOLDED && ANYBIT_DEFAULT_FOLD_ERROR == default_fold_error);

Error wrong(std::string message) { return {ErrorCode::invalid_argument, std::move(message)}; }

Status need(const void* pointer, const char* name) {
  if (pointer) return Ok{};
  return wrong(std::string(name) + " is null");
}

/// A matrix of the caller, of at least one row and column.
Status check_matrix(const char* name, const void* data, Index rows, Index cols, Index stride) {
  ANYBIT_TRY_STATUS(need(data, name));
  if (rows < 1 || cols < 1)
    return wrong(std::string(name) + " has " + std::to_string(rows) + " rows of " + std::to_string(cols) +
                 ": there must be one of each at least");
  if (rows > 1 && stride < cols)
    return wrong(std::string(name) + " has rows of " + std::to_string(cols) + " floats that lie " + std::to_string(stride) +
                 " apart: they overlap");
  return Ok{};
}

class Threads {
 public:
  explicit Threads(const anybit_executor* e) : e_(e) {}
  static Status check(const anybit_executor* e) {
    if (!e) return Ok{};
    if (!e->parallel_for) return wrong("the executor's parallel_for is null");
    if (e->concurrency < 1)
      return wrong("the executor's concurrency is " + std::to_string(e->concurrency) + ": it must be at least 1");
    return Ok{};
  }
  Index concurrency() const { return e_ ? e_->concurrency : 1; }
  void parallel_for(Index n, Index grain, BodyRef body) const {
    if (n <= 0) return;
    if (!e_) return body(0, n);
    e_->parallel_for(
        e_->context, n, grain, [](void* b, std::int64_t begin, std::int64_t end) { (*static_cast<BodyRef*>(b))(begin, end); },
        &body);
  }

 private:
  const anybit_executor* e_;
};

bool is_compute(anybit_compute compute) { return ANYBIT_F32 <= compute && compute <= ANYBIT_INT8_FOLDED; }

Result<ActivationMode> mode_of(anybit_compute compute, float scale) {
  if (!is_compute(compute))
    return wrong("compute is " + std::to_string(compute) + ": it must be one of anybit_compute, 0 to " +
                 std::to_string(ANYBIT_INT8_FOLDED));
  if (compute == ANYBIT_INT8_STATIC) {
    if (!ActivationMode::valid_scale(scale))
      return wrong("scale is " + std::to_string(scale) + ": ANYBIT_INT8_STATIC needs one that is finite and above 0");
    return ActivationMode::int8_static(scale);
  }
  if (scale != 0) return wrong("scale is " + std::to_string(scale) + ": only ANYBIT_INT8_STATIC has one, give 0");
  return ActivationMode(static_cast<Compute>(compute));
}

/// Checks the arguments that the functions that prepare have in common.
Result<Compute> to_prepare(const anybit_tensor* tensor, anybit_compute compute, float level_error, float fold_error = 0) {
  ANYBIT_TRY_STATUS(need(tensor, "tensor"));
  ANYBIT_TRY(const ActivationMode mode, mode_of(compute, compute == ANYBIT_INT8_STATIC ? 1.0f : 0.0f));
  if (!is_within(level_error, 0.0f, 1.0f)) return wrong("level_error is " + std::to_string(level_error) + ": give 0 to 1");
  if (!is_finite(fold_error) || fold_error < 0)
    return wrong("fold_error is " + std::to_string(fold_error) + ": give 0 or more, ANYBIT_DEFAULT_FOLD_ERROR as a rule");
  return mode.compute();
}
void answer(const kernel::Prepared& made, anybit_prepared* out) {
  if (!out) return;
  *out = {};
  out->bytes = made.bytes;
  out->folded_rows = made.folded_rows;
  out->made = made.tiled ? 1 : 0;
  copy_text(made.why_not, out->why_not);
}

anybit_tensor* new_tensor(AnyPacked packed, std::optional<io::AnybitFile> file = {}) {
  auto* const out = new anybit_tensor{std::move(packed), std::move(file), {}};
  out->scheme = out->packed.scheme_name();
  return out;
}

}  // namespace

extern "C" {

uint32_t anybit_abi_version(void) { return ANYBIT_C_ABI_VERSION; }
const char* anybit_version(void) { return ANYBIT_C_TEXT(ANYBIT_VERSION_MAJOR.ANYBIT_VERSION_MINOR.ANYBIT_VERSION_PATCH); }
const char* anybit_isa(void) { return isa().c_str(); }
int64_t anybit_scheme_count(void) { return static_cast<int64_t>(scheme_names().size()); }
const char* anybit_scheme_name(int64_t index) {
  return index < 0 || index >= anybit_scheme_count() ? nullptr : scheme_names()[static_cast<std::size_t>(index)].c_str();
}

const char* anybit_compute_name(anybit_compute compute) {
  return is_compute(compute) ? name(static_cast<Compute>(compute)).data() : nullptr;  // of a literal, which ends with a zero
}
anybit_status anybit_compute_of(const char* name, anybit_compute* out, anybit_error* error) {
  return guarded("anybit_compute_of", error, [&]() -> Status {
    ANYBIT_TRY_STATUS(need(name, "name"));
    ANYBIT_TRY_STATUS(need(out, "out"));
    std::string known;
    for (std::size_t i = 0; i < compute_names.size(); ++i) {
      if (name == compute_names[i]) {
        *out = static_cast<anybit_compute>(i);
        return Ok{};
      }
      known.append(i > 0 ? ", " : "").append(compute_names[i]);
    }
    return wrong("no compute is called '" + std::string(name) + "': give one of " + known);
  });
}

anybit_workspace* anybit_workspace_new(void) { return new (std::nothrow) anybit_workspace; }
void anybit_workspace_free(anybit_workspace* workspace) { delete workspace; }

anybit_status anybit_quantize(const char* scheme, const float* weights, int64_t rows, int64_t cols, int64_t stride,
                              anybit_tensor** out, anybit_error* error) {
  return guarded("anybit_quantize", error, [&]() -> Status {
    ANYBIT_TRY_STATUS(need(scheme, "scheme"));
    ANYBIT_TRY_STATUS(need(out, "out"));
    ANYBIT_TRY_STATUS(check_matrix("weights", weights, rows, cols, stride));
    ANYBIT_TRY(AnyPacked packed, c::anybit_c_kernels().quantize(scheme, ConstMatrix(weights, rows, cols, stride)));
    *out = new_tensor(std::move(packed));
    return Ok{};
  });
}

anybit_status anybit_open_copy(const void* bytes, size_t size, anybit_tensor** out, anybit_error* error) {
  return guarded("anybit_open_copy", error, [&]() -> Status {
    ANYBIT_TRY_STATUS(need(bytes, "bytes"));
    ANYBIT_TRY_STATUS(need(out, "out"));
    ANYBIT_TRY(PackedBytes copy, PackedBytes::copy({static_cast<const std::byte*>(bytes), size}));
    ANYBIT_TRY(AnyPacked packed, registry().open(std::move(copy)));
    *out = new_tensor(std::move(packed));
    return Ok{};
  });
}

anybit_status anybit_open_view(const void* bytes, size_t size, anybit_tensor** out, anybit_error* error) {
  return guarded("anybit_open_view", error, [&]() -> Status {
    ANYBIT_TRY_STATUS(need(bytes, "bytes"));
    ANYBIT_TRY_STATUS(need(out, "out"));
    ANYBIT_TRY(PackedBytes view, PackedBytes::view({static_cast<const std::byte*>(bytes), size}));
    ANYBIT_TRY(AnyPacked packed, registry().open(std::move(view)));
    *out = new_tensor(std::move(packed));
    return Ok{};
  });
}

anybit_status anybit_open_file(const char* path, const char* tensor, anybit_tensor** out, anybit_error* error) {
  return guarded("anybit_open_file", error, [&]() -> Status {
    ANYBIT_TRY_STATUS(need(path, "path"));
    ANYBIT_TRY_STATUS(need(tensor, "tensor"));
    ANYBIT_TRY_STATUS(need(out, "out"));
    ANYBIT_TRY(io::AnybitFile file, io::AnybitFile::open(path));
    ANYBIT_TRY(PackedBytes bytes, file.packed(tensor));
    auto packed = registry().open(std::move(bytes));
    if (!packed) return in_context(packed.error(), std::string(path) + ": tensor " + tensor);
    *out = new_tensor(*std::move(packed), std::move(file));
    return Ok{};
  });
}

anybit_status anybit_write_file(const char* path, const char* const* names, const anybit_tensor* const* tensors, int64_t count,
                                anybit_error* error) {
  return guarded("anybit_write_file", error, [&]() -> Status {
    ANYBIT_TRY_STATUS(need(path, "path"));
    ANYBIT_TRY_STATUS(need(names, "names"));
    ANYBIT_TRY_STATUS(need(tensors, "tensors"));
    if (count < 1) return wrong("count is " + std::to_string(count) + ": give one tensor at least");
    io::AnybitWriter writer;
    for (int64_t i = 0; i < count; ++i) {
      ANYBIT_TRY_STATUS(need(names[i], ("names[" + std::to_string(i) + "]").c_str()));
      ANYBIT_TRY_STATUS(need(tensors[i], ("tensors[" + std::to_string(i) + "]").c_str()));
      writer.add(names[i], tensors[i]->packed.bytes());
    }
    return writer.write(path);
  });
}

void anybit_free(anybit_tensor* tensor) { delete tensor; }

int64_t anybit_rows(const anybit_tensor* tensor) { return tensor ? tensor->packed.extents().rows : 0; }
int64_t anybit_cols(const anybit_tensor* tensor) { return tensor ? tensor->packed.extents().cols : 0; }
const char* anybit_scheme(const anybit_tensor* tensor) { return tensor ? tensor->scheme.c_str() : nullptr; }
double anybit_bits_per_weight(const anybit_tensor* tensor) { return tensor ? tensor->packed.bits_per_weight() : 0; }
const void* anybit_bytes(const anybit_tensor* tensor, size_t* size) {
  if (size) *size = tensor ? tensor->packed.bytes().bytes().size() : 0;
  return tensor ? tensor->packed.bytes().bytes().data() : nullptr;
}

anybit_status anybit_dequantize(const anybit_tensor* tensor, int64_t begin, int64_t end, float* out, int64_t stride,
                                anybit_error* error) {
  return guarded("anybit_dequantize", error, [&]() -> Status {
    ANYBIT_TRY_STATUS(need(tensor, "tensor"));
    const auto [rows, cols] = tensor->packed.extents();
    if (begin < 0 || end > rows || begin >= end)
      return wrong("rows " + std::to_string(begin) + " to " + std::to_string(end) + " are none of the " + std::to_string(rows));
    ANYBIT_TRY_STATUS(check_matrix("out", out, end - begin, cols, stride));
    for (Index r = begin; r < end; ++r)
      tensor->packed.dequantize_row(r, {out + (r - begin) * stride, static_cast<std::size_t>(cols)});
    return Ok{};
  });
}

anybit_status anybit_prepare(anybit_tensor* tensor, anybit_compute compute, float level_error, float fold_error,
                             const anybit_executor* executor, anybit_prepared* out, anybit_error* error) {
  return guarded("anybit_prepare", error, [&]() -> Status {
    ANYBIT_TRY_STATUS(Threads::check(executor));
    ANYBIT_TRY(const Compute asked, to_prepare(tensor, compute, level_error, fold_error));
    Threads threads(executor);
    answer(tensor->packed.prepare(asked, threads, level_error, fold_error), out);
    return Ok{};
  });
}

anybit_status anybit_prepared_bytes(const anybit_tensor* tensor, anybit_compute compute, float level_error, int64_t* bytes,
                                    anybit_error* error) {
  return guarded("anybit_prepared_bytes", error, [&]() -> Status {
    ANYBIT_TRY_STATUS(need(bytes, "bytes"));
    ANYBIT_TRY(const Compute asked, to_prepare(tensor, compute, level_error));
    *bytes = tensor->packed.prepared_bytes(asked, level_error);
    return Ok{};
  });
}

anybit_status anybit_prepare_into(anybit_tensor* tensor, anybit_compute compute, float level_error, float fold_error,
                                  void* memory, size_t size, const anybit_executor* executor, anybit_prepared* out,
                                  anybit_error* error) {
  return guarded("anybit_prepare_into", error, [&]() -> Status {
    ANYBIT_TRY_STATUS(Threads::check(executor));
    ANYBIT_TRY_STATUS(need(memory, "memory"));
    ANYBIT_TRY(const Compute asked, to_prepare(tensor, compute, level_error, fold_error));
    Threads threads(executor);
    ANYBIT_TRY(const kernel::Prepared made,
               tensor->packed.prepare_into({static_cast<std::byte*>(memory), size}, asked, threads, level_error, fold_error));
    answer(made, out);
    return Ok{};
  });
}

anybit_status anybit_use_prepared(anybit_tensor* tensor, anybit_compute compute, float level_error, float fold_error,
                                  const void* memory, size_t size, anybit_prepared* out, anybit_error* error) {
  return guarded("anybit_use_prepared", error, [&]() -> Status {
    ANYBIT_TRY_STATUS(need(memory, "memory"));
    ANYBIT_TRY(const Compute asked, to_prepare(tensor, compute, level_error, fold_error));
    ANYBIT_TRY(const kernel::Prepared made,
               tensor->packed.use_prepared({static_cast<const std::byte*>(memory), size}, asked, level_error, fold_error));
    if (!made) return wrong("nothing is prepared for " + std::string(name(asked)) + ": " + std::string(made.why_not));
    answer(made, out);
    return Ok{};
  });
}

anybit_status anybit_multiply(const anybit_tensor* tensor, const float* x, int64_t tokens, int64_t x_stride, float* y,
                              int64_t y_stride, anybit_compute compute, float scale, const anybit_executor* executor,
                              anybit_workspace* workspace, anybit_error* error) {
  return guarded("anybit_multiply", error, [&]() -> Status {
    ANYBIT_TRY_STATUS(need(tensor, "tensor"));
    ANYBIT_TRY_STATUS(need(workspace, "workspace"));
    ANYBIT_TRY_STATUS(Threads::check(executor));
    const auto [rows, cols] = tensor->packed.extents();
    ANYBIT_TRY_STATUS(check_matrix("x", x, tokens, cols, x_stride));
    ANYBIT_TRY_STATUS(check_matrix("y", y, tokens, rows, y_stride));
    ANYBIT_TRY(const ActivationMode mode, mode_of(compute, scale));
    Threads threads(executor);
    tensor->packed.matmul(ConstMatrix(x, tokens, cols, x_stride), MutableMatrix(y, tokens, rows, y_stride), mode, threads,
                          workspace->workspace);
    return Ok{};
  });
}

anybit_activations* anybit_activations_new(void) { return new (std::nothrow) anybit_activations; }
void anybit_activations_free(anybit_activations* activations) { delete activations; }

anybit_status anybit_round(anybit_activations* activations, const anybit_tensor* const* tensors, int64_t count, const float* x,
                           int64_t tokens, int64_t x_stride, anybit_compute compute, float scale, const anybit_executor* executor,
                           anybit_error* error) {
  return guarded("anybit_round", error, [&]() -> Status {
    ANYBIT_TRY_STATUS(need(activations, "activations"));
    activations->activations = {};
    ANYBIT_TRY_STATUS(need(tensors, "tensors"));
    ANYBIT_TRY_STATUS(Threads::check(executor));
    if (count < 1) return wrong("count is " + std::to_string(count) + ": give one tensor at least");
    ANYBIT_TRY(const ActivationMode mode, mode_of(compute, scale));
    ActivationPlan plan;
    for (int64_t i = 0; i < count; ++i) {
      const std::string number = "tensors[" + std::to_string(i) + "]";
      ANYBIT_TRY_STATUS(need(tensors[i], number.c_str()));
      const AnyPacked& w = tensors[i]->packed;
      if (i == 0)
        plan = w.plan(mode);
      else if (!plan.join(w.plan(mode)))
        return Error{ErrorCode::shape_mismatch,
                     number + ", " + std::string(w.scheme_name()) + " of " + std::to_string(w.extents().cols) +
                         " columns, cannot share activations with tensors[0], " + std::string(tensors[0]->packed.scheme_name()) +
                         " of " + std::to_string(plan.cols) + ": columns, groups or their order differ; round for it alone"};
    }
    ANYBIT_TRY_STATUS(check_matrix("x", x, tokens, plan.cols, x_stride));
    Threads threads(executor);
    activations->activations =
        round_activations(ConstMatrix(x, tokens, plan.cols, x_stride), plan, activations->workspace, threads);
    return Ok{};
  });
}

anybit_status anybit_multiply_rows(const anybit_tensor* tensor, const anybit_activations* activations, int64_t begin, int64_t end,
                                   float* y, int64_t y_stride, int32_t add, anybit_error* error) {
  return guarded("anybit_multiply_rows", error, [&]() -> Status {
    ANYBIT_TRY_STATUS(need(tensor, "tensor"));
    ANYBIT_TRY_STATUS(need(activations, "activations"));
    const Activations& a = activations->activations;
    const AnyPacked& w = tensor->packed;
    const Index rows = w.extents().rows;
    if (a.tokens == 0) return wrong("activations hold nothing: call anybit_round first");
    if (begin < 0 || end > rows || begin > end)
      return wrong("rows " + std::to_string(begin) + " to " + std::to_string(end) + " are none of the " + std::to_string(rows));
    ANYBIT_TRY_STATUS(check_matrix("y", y, a.tokens, rows, y_stride));
    if (!a.plan.serves(w.plan(a.plan.mode)))
      return Error{ErrorCode::shape_mismatch,
                   "the activations were rounded for other tensors, or before this one was prepared: "
                   "give it to anybit_round"};
    OutputTokens to(MutableMatrix(y, a.tokens, rows, y_stride));
    if (add != 0) to = to.added();
    w.product_rows(a, to, begin, end);
    return Ok{};
  });
}

}  // extern "C"
