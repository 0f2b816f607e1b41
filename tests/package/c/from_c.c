/* The C interface from C11: what is quantized multiplies, opens again, and errors are lines. */

#include <anybit/c/anybit.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                        \
  do {                                                                          \
    if (!(condition)) {                                                         \
      fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);   \
      exit(1);                                                                  \
    }                                                                           \
  } while (0)

enum { rows = 37, cols = 200, tokens = 5 };
static float weights[rows * cols], x[tokens * cols], y[tokens * rows], z[tokens * rows], decoded[rows * cols];

/* The call failed with this code, and its message has this text in it. */
static void expect(anybit_status got, anybit_status code, const anybit_error* error, const char* text) {
  if (got == code && error->code == code && strstr(error->message, text)) return;
  fprintf(stderr, "code %d instead of %d, message '%s' without '%s'\n", (int)got, (int)code, error->message, text);
  exit(1);
}

static int calls;
/* Two slices whose border is at no multiple of the grain. */
static void two_slices(void* context, int64_t n, int64_t grain, anybit_body body, void* body_context) {
  (void)grain;
  CHECK(context == &calls);
  ++calls;
  if (n > 1) body(body_context, n / 2, n);
  body(body_context, 0, n > 1 ? n / 2 : n);
}

static void fill(void) {
  unsigned state = 1;
  int i;
  for (i = 0; i < rows * cols; ++i) state = state * 1664525u + 1013904223u, weights[i] = (float)(state >> 8) / 8388608.0f - 1;
  for (i = 0; i < tokens * cols; ++i) state = state * 1664525u + 1013904223u, x[i] = (float)(state >> 8) / 8388608.0f - 1;
}

/* y against the product with the decoded weights, in double. */
static double worst_error(const anybit_tensor* w) {
  anybit_error error;
  double worst = 0;
  int t, r, c;
  CHECK(anybit_dequantize(w, 0, rows, decoded, cols, &error) == ANYBIT_OK);
  for (t = 0; t < tokens; ++t)
    for (r = 0; r < rows; ++r) {
      double sum = 0;
      for (c = 0; c < cols; ++c) sum += (double)x[t * cols + c] * (double)decoded[r * cols + c];
      if (fabs(sum - (double)y[t * rows + r]) > worst) worst = fabs(sum - (double)y[t * rows + r]);
    }
  return worst;
}

static void every_scheme(anybit_workspace* space) {
  int64_t i;
  anybit_error error;
  CHECK(anybit_scheme_count() > 20 && anybit_scheme_name(-1) == NULL && anybit_scheme_name(anybit_scheme_count()) == NULL);
  for (i = 0; i < anybit_scheme_count(); ++i) {
    anybit_tensor *w = NULL, *copy = NULL;
    size_t size = 0;
    const void* bytes;
    if (anybit_quantize(anybit_scheme_name(i), weights, rows, cols, cols, &w, &error) != ANYBIT_OK) {
      fprintf(stderr, "%s\n", error.message);
      exit(1);
    }
    CHECK(anybit_rows(w) == rows && anybit_cols(w) == cols && strcmp(anybit_scheme(w), anybit_scheme_name(i)) == 0);
    CHECK(anybit_multiply(w, x, tokens, cols, y, rows, ANYBIT_F32, 0, NULL, space, &error) == ANYBIT_OK);
    CHECK(worst_error(w) < 1e-3);
    bytes = anybit_bytes(w, &size);
    CHECK(anybit_open_copy(bytes, size, &copy, &error) == ANYBIT_OK);
    CHECK(anybit_multiply(copy, x, tokens, cols, z, rows, ANYBIT_F32, 0, NULL, space, &error) == ANYBIT_OK);
    CHECK(memcmp(y, z, sizeof y) == 0);
    anybit_free(w);
    anybit_free(copy);
  }
}

static void prepared_and_sliced(const char* scheme, anybit_workspace* space) {
  anybit_error error;
  anybit_prepared made;
  anybit_tensor* w = NULL;
  anybit_executor executor = {&calls, 2, two_slices};
  CHECK(anybit_quantize(scheme, weights, rows, cols, cols, &w, &error) == ANYBIT_OK);
  CHECK(anybit_multiply(w, x, tokens, cols, y, rows, ANYBIT_INT8_PER_TOKEN, 0, NULL, space, &error) == ANYBIT_OK);
  calls = 0;
  CHECK(anybit_multiply(w, x, tokens, cols, z, rows, ANYBIT_INT8_PER_TOKEN, 0, &executor, space, &error) == ANYBIT_OK);
  CHECK(calls > 0 && memcmp(y, z, sizeof y) == 0);
  calls = 0;
  CHECK(anybit_prepare(w, ANYBIT_INT8_PER_TOKEN, 0, 0, &executor, &made, &error) == ANYBIT_OK);
  CHECK(calls > 0 && made.made == 1 && made.bytes > 0 && made.why_not[0] == '\0');
  memset(z, 0, sizeof z);
  CHECK(anybit_multiply(w, x, tokens, cols, z, rows, ANYBIT_INT8_PER_TOKEN, 0, &executor, space, &error) == ANYBIT_OK);
  CHECK(memcmp(y, z, sizeof y) == 0);
  anybit_free(w);
}

/* Two tensors share one rounding; rows in odd slices; the bits of anybit_multiply. */
static void rounded_once(const char* scheme, anybit_workspace* space) {
  static const anybit_compute computes[] = {ANYBIT_F32,  ANYBIT_INT8_PER_TOKEN, ANYBIT_INT8_PER_BLOCK,
                                           ANYBIT_BF16, ANYBIT_INT8_STATIC,    ANYBIT_INT8_FOLDED};
  anybit_error error;
  anybit_tensor *w = NULL, *v = NULL, *other = NULL;
  const anybit_tensor* both[2];
  anybit_activations* a = anybit_activations_new();
  anybit_executor executor = {&calls, 2, two_slices};
  size_t i;
  int prepared, j;
  CHECK(a != NULL);
  CHECK(anybit_quantize(scheme, weights, rows, cols, cols, &w, &error) == ANYBIT_OK);
  CHECK(anybit_quantize(scheme, weights + cols, 20, cols, cols, &v, &error) == ANYBIT_OK);
  both[0] = w, both[1] = v;
  for (prepared = 0; prepared < 2; ++prepared)
    for (i = 0; i < sizeof computes / sizeof *computes; ++i) {
      const float scale = computes[i] == ANYBIT_INT8_STATIC ? 0.01f : 0;
      if (prepared) {
        CHECK(anybit_prepare(w, computes[i], 0, 0, NULL, NULL, &error) == ANYBIT_OK);
        CHECK(anybit_prepare(v, computes[i], 0, 0, NULL, NULL, &error) == ANYBIT_OK);
      }
      CHECK(anybit_multiply(w, x, tokens, cols, y, rows, computes[i], scale, NULL, space, &error) == ANYBIT_OK);
      CHECK(anybit_round(a, both, 2, x, tokens, cols, computes[i], scale, &executor, &error) == ANYBIT_OK);
      CHECK(anybit_multiply_rows(w, a, 17, rows, z, rows, 0, &error) == ANYBIT_OK);
      CHECK(anybit_multiply_rows(w, a, 0, 17, z, rows, 0, &error) == ANYBIT_OK);
      CHECK(memcmp(y, z, sizeof y) == 0);
      CHECK(anybit_multiply_rows(w, a, 0, rows, z, rows, 1, &error) == ANYBIT_OK);
      for (j = 0; j < tokens * rows; ++j) CHECK(z[j] == 2 * y[j]);
      CHECK(anybit_multiply(v, x, tokens, cols, y, rows, computes[i], scale, NULL, space, &error) == ANYBIT_OK);
      CHECK(anybit_multiply_rows(v, a, 0, 20, z, rows, 0, &error) == ANYBIT_OK);
      for (j = 0; j < tokens; ++j) CHECK(memcmp(y + j * rows, z + j * rows, 20 * sizeof(float)) == 0);
    }
  expect(anybit_multiply_rows(w, a, 3, rows + 1, z, rows, 0, &error), ANYBIT_INVALID_ARGUMENT, &error, "rows 3 to 38 are none of the 37");
  expect(anybit_multiply_rows(w, a, 0, rows, z, rows - 1, 0, &error), ANYBIT_INVALID_ARGUMENT, &error, "overlap");
  expect(anybit_multiply_rows(NULL, a, 0, rows, z, rows, 0, &error), ANYBIT_INVALID_ARGUMENT, &error, "tensor is null");
  expect(anybit_multiply_rows(w, NULL, 0, rows, z, rows, 0, &error), ANYBIT_INVALID_ARGUMENT, &error, "activations is null");
  expect(anybit_round(a, both, 0, x, tokens, cols, ANYBIT_F32, 0, NULL, &error), ANYBIT_INVALID_ARGUMENT, &error, "count is 0");
  expect(anybit_multiply_rows(w, a, 0, rows, z, rows, 0, &error), ANYBIT_INVALID_ARGUMENT, &error, "anybit_round first");
  expect(anybit_round(a, both, 2, x, 0, cols, ANYBIT_F32, 0, NULL, &error), ANYBIT_INVALID_ARGUMENT, &error, "0 rows");
  executor.parallel_for = NULL;
  expect(anybit_round(a, both, 2, x, tokens, cols, ANYBIT_F32, 0, &executor, &error), ANYBIT_INVALID_ARGUMENT, &error, "is null");
  CHECK(anybit_quantize(scheme, weights, 9, cols - 72, cols, &other, &error) == ANYBIT_OK);
  both[1] = other;
  expect(anybit_round(a, both, 2, x, tokens, cols, ANYBIT_F32, 0, NULL, &error), ANYBIT_SHAPE_MISMATCH, &error, "tensors[1]");
  CHECK(anybit_round(a, both, 1, x, tokens, cols, ANYBIT_INT8_PER_TOKEN, 0, NULL, &error) == ANYBIT_OK);
  expect(anybit_multiply_rows(other, a, 0, 9, z, rows, 0, &error), ANYBIT_SHAPE_MISMATCH, &error, "other tensors");
  anybit_free(w), anybit_free(v), anybit_free(other);
  anybit_activations_free(a), anybit_activations_free(NULL);
}

/* In memory of the caller, and from there again. */
static void placed(const char* scheme, anybit_workspace* space) {
  static unsigned char memory[20000];
  unsigned char* const start = memory + (64 - (uintptr_t)memory % 64) % 64;
  const anybit_compute compute = ANYBIT_INT8_PER_TOKEN;
  anybit_error error;
  anybit_prepared made;
  anybit_tensor *w = NULL, *again = NULL;
  int64_t bytes = 0;
  CHECK(anybit_quantize(scheme, weights, rows, cols, cols, &w, &error) == ANYBIT_OK);
  CHECK(anybit_multiply(w, x, tokens, cols, y, rows, compute, 0, NULL, space, &error) == ANYBIT_OK);
  CHECK(anybit_prepared_bytes(w, ANYBIT_F32, 0, &bytes, &error) == ANYBIT_OK && bytes == 0);
  CHECK(anybit_prepared_bytes(w, compute, 0, &bytes, &error) == ANYBIT_OK && bytes > 0 && bytes < 19000);
  expect(anybit_prepare_into(w, compute, 0, 0, start, (size_t)bytes - 1, NULL, NULL, &error), ANYBIT_INVALID_ARGUMENT, &error, "needed");
  expect(anybit_prepare_into(w, compute, 0, 0, start + 4, (size_t)bytes, NULL, NULL, &error), ANYBIT_INVALID_ARGUMENT, &error,
         "4 bytes past a multiple of 64");
  expect(anybit_prepare_into(w, compute, 0, 0, NULL, 0, NULL, NULL, &error), ANYBIT_INVALID_ARGUMENT, &error, "memory is null");
  CHECK(anybit_prepare_into(w, compute, 0, 0, start, (size_t)bytes, NULL, &made, &error) == ANYBIT_OK && made.made == 1);
  CHECK(anybit_multiply(w, x, tokens, cols, z, rows, compute, 0, NULL, space, &error) == ANYBIT_OK);
  CHECK(memcmp(y, z, sizeof y) == 0);
  anybit_free(w);
  CHECK(anybit_quantize(scheme, weights, rows, cols, cols, &again, &error) == ANYBIT_OK);
  CHECK(anybit_use_prepared(again, compute, 0, 0, start, (size_t)bytes, NULL, &error) == ANYBIT_OK);
  memset(z, 0, sizeof z);
  CHECK(anybit_multiply(again, x, tokens, cols, z, rows, compute, 0, NULL, space, &error) == ANYBIT_OK);
  CHECK(memcmp(y, z, sizeof y) == 0);
  expect(anybit_use_prepared(again, ANYBIT_INT8_PER_BLOCK, 0, 0, start, (size_t)bytes, NULL, &error), ANYBIT_INVALID_ARGUMENT, &error,
         "compute int8_per_token, and here it is int8_per_block");
  anybit_free(again);
}

static void computes_by_name(void) {
  anybit_error error;
  anybit_compute compute = ANYBIT_F32, found;
  for (; anybit_compute_name(compute); ++compute)
    CHECK(anybit_compute_of(anybit_compute_name(compute), &found, &error) == ANYBIT_OK && found == compute);
  CHECK(compute == ANYBIT_INT8_FOLDED + 1 && anybit_compute_name(-1) == NULL);
  CHECK(strcmp(anybit_compute_name(ANYBIT_INT8_FOLDED), "int8_folded") == 0);
  expect(anybit_compute_of("int8", &found, &error), ANYBIT_INVALID_ARGUMENT, &error, "no compute is called 'int8'");
  expect(anybit_compute_of(NULL, &found, &error), ANYBIT_INVALID_ARGUMENT, &error, "name is null");
}

/* Rows are folded as far as the bound allows, and no result is far from that of int8_per_token; unfolded it has the same bits. */
static void folded(const char* scheme, anybit_workspace* space) {
  static unsigned char memory[20000];
  unsigned char* const start = memory + (64 - (uintptr_t)memory % 64) % 64;
  const anybit_compute compute = ANYBIT_INT8_FOLDED;
  const float any_error = 1000;
  anybit_error error;
  anybit_prepared made;
  anybit_tensor *w = NULL, *again = NULL;
  int64_t bytes = 0;
  int i;
  CHECK(anybit_quantize(scheme, weights, rows, cols, cols, &w, &error) == ANYBIT_OK);
  CHECK(anybit_multiply(w, x, tokens, cols, y, rows, ANYBIT_INT8_PER_TOKEN, 0, NULL, space, &error) == ANYBIT_OK);
  CHECK(anybit_multiply(w, x, tokens, cols, z, rows, compute, 0, NULL, space, &error) == ANYBIT_OK);
  CHECK(memcmp(y, z, sizeof y) == 0);
  CHECK(anybit_prepare(w, compute, 0, 0, NULL, &made, &error) == ANYBIT_OK && made.made == 1 && made.folded_rows == 0);
  CHECK(anybit_multiply(w, x, tokens, cols, z, rows, compute, 0, NULL, space, &error) == ANYBIT_OK);
  CHECK(memcmp(y, z, sizeof y) == 0);
  CHECK(anybit_prepare(w, compute, 0, any_error, NULL, &made, &error) == ANYBIT_OK && made.folded_rows == rows);
  CHECK(anybit_multiply(w, x, tokens, cols, z, rows, compute, 0, NULL, space, &error) == ANYBIT_OK);
  CHECK(memcmp(y, z, sizeof y) != 0);
  for (i = 0; i < tokens * rows; ++i) CHECK(fabs((double)(y[i] - z[i])) < 0.5);
  /* The same in memory of the caller, and from there again. */
  CHECK(anybit_quantize(scheme, weights, rows, cols, cols, &again, &error) == ANYBIT_OK);
  CHECK(anybit_prepared_bytes(again, compute, 0, &bytes, &error) == ANYBIT_OK && bytes > 0 && bytes < 19000);
  CHECK(anybit_prepare_into(again, compute, 0, any_error, start, (size_t)bytes, NULL, &made, &error) == ANYBIT_OK);
  CHECK(made.made == 1 && made.folded_rows == rows);
  CHECK(anybit_multiply(again, x, tokens, cols, y, rows, compute, 0, NULL, space, &error) == ANYBIT_OK);
  CHECK(memcmp(y, z, sizeof y) == 0);
  anybit_free(w);
  CHECK(anybit_quantize(scheme, weights, rows, cols, cols, &w, &error) == ANYBIT_OK);
  CHECK(anybit_use_prepared(w, compute, 0, any_error, start, (size_t)bytes, &made, &error) == ANYBIT_OK && made.folded_rows == rows);
  memset(y, 0, sizeof y);
  CHECK(anybit_multiply(w, x, tokens, cols, y, rows, compute, 0, NULL, space, &error) == ANYBIT_OK);
  CHECK(memcmp(y, z, sizeof y) == 0);
  anybit_free(w), anybit_free(again);
}

static void files(const char* scheme, anybit_workspace* space) {
  const char* const path = "from_c.safetensors";
  const char* names[] = {"first", "second"};
  const anybit_tensor* both[2];
  anybit_error error;
  anybit_tensor *w = NULL, *read = NULL;
  CHECK(anybit_quantize(scheme, weights, rows, cols, cols, &w, &error) == ANYBIT_OK);
  both[0] = both[1] = w;
  CHECK(anybit_write_file(path, names, both, 2, &error) == ANYBIT_OK);
  CHECK(anybit_multiply(w, x, tokens, cols, y, rows, ANYBIT_F32, 0, NULL, space, &error) == ANYBIT_OK);
  anybit_free(w);
  CHECK(anybit_open_file(path, "second", &read, &error) == ANYBIT_OK);
  CHECK(anybit_multiply(read, x, tokens, cols, z, rows, ANYBIT_F32, 0, NULL, space, &error) == ANYBIT_OK);
  CHECK(memcmp(y, z, sizeof y) == 0);
  anybit_free(read);
  expect(anybit_open_file(path, "third", &read, &error), ANYBIT_INVALID_ARGUMENT, &error, "third");
  expect(anybit_open_file("no such file", "third", &read, &error), ANYBIT_IO, &error, "no such file");
  remove(path);
}

static void wrong_use(const char* scheme, anybit_workspace* space) {
  anybit_error error;
  anybit_tensor* w = NULL;
  anybit_executor executor = {&calls, 2, NULL};
  const float infinite = (float)HUGE_VAL;
  float one = weights[3];
  expect(anybit_quantize("uint4/g17", weights, rows, cols, cols, &w, &error), ANYBIT_UNSUPPORTED, &error, "'uint4/g17'");
  expect(anybit_quantize(NULL, weights, rows, cols, cols, &w, &error), ANYBIT_INVALID_ARGUMENT, &error, "scheme is null");
  expect(anybit_quantize(scheme, NULL, rows, cols, cols, &w, &error), ANYBIT_INVALID_ARGUMENT, &error, "weights is null");
  expect(anybit_quantize(scheme, weights, 0, cols, cols, &w, &error), ANYBIT_INVALID_ARGUMENT, &error, "0 rows");
  expect(anybit_quantize(scheme, weights, rows, cols, cols - 1, &w, &error), ANYBIT_INVALID_ARGUMENT, &error, "overlap");
  weights[3] = infinite;
  expect(anybit_quantize(scheme, weights, rows, cols, cols, &w, &error), ANYBIT_NOT_FINITE, &error, "inf");
  weights[3] = one;
  expect(anybit_open_copy(weights, sizeof weights, &w, &error), ANYBIT_CORRUPT_DATA, &error, "ANYB");
  CHECK(anybit_quantize(scheme, weights, rows, cols, cols, &w, &error) == ANYBIT_OK && error.message[0] == '\0');
  CHECK(anybit_quantize(NULL, NULL, 0, 0, 0, NULL, NULL) == ANYBIT_INVALID_ARGUMENT); /* without an error to fill in */
  expect(anybit_multiply(w, x, 0, cols, y, rows, ANYBIT_F32, 0, NULL, space, &error), ANYBIT_INVALID_ARGUMENT, &error, "0 rows");
  expect(anybit_multiply(w, x, 2, cols - 1, y, rows, ANYBIT_F32, 0, NULL, space, &error), ANYBIT_INVALID_ARGUMENT, &error, "overlap");
  expect(anybit_multiply(w, x, 2, cols, y, rows - 1, ANYBIT_F32, 0, NULL, space, &error), ANYBIT_INVALID_ARGUMENT, &error, "overlap");
  expect(anybit_multiply(w, x, 1, cols, y, rows, 6, 0, NULL, space, &error), ANYBIT_INVALID_ARGUMENT, &error, "compute is 6");
  expect(anybit_multiply(w, x, 1, cols, y, rows, ANYBIT_INT8_STATIC, 0, NULL, space, &error), ANYBIT_INVALID_ARGUMENT, &error, "scale");
  expect(anybit_multiply(w, x, 1, cols, y, rows, ANYBIT_F32, 1, NULL, space, &error), ANYBIT_INVALID_ARGUMENT, &error, "scale");
  expect(anybit_multiply(w, x, 1, cols, y, rows, ANYBIT_F32, 0, &executor, space, &error), ANYBIT_INVALID_ARGUMENT, &error,
         "parallel_for is null");
  expect(anybit_multiply(w, x, 1, cols, y, rows, ANYBIT_F32, 0, NULL, NULL, &error), ANYBIT_INVALID_ARGUMENT, &error, "workspace");
  expect(anybit_dequantize(w, 3, rows + 1, decoded, cols, &error), ANYBIT_INVALID_ARGUMENT, &error, "rows 3 to 38");
  expect(anybit_prepare(w, ANYBIT_INT8_PER_TOKEN, infinite, 0, NULL, NULL, &error), ANYBIT_INVALID_ARGUMENT, &error, "level_error");
  expect(anybit_prepare(w, ANYBIT_INT8_FOLDED, 0, infinite, NULL, NULL, &error), ANYBIT_INVALID_ARGUMENT, &error, "fold_error");
  expect(anybit_prepare(w, ANYBIT_INT8_FOLDED, 0, -1, NULL, NULL, &error), ANYBIT_INVALID_ARGUMENT, &error, "fold_error is -1");
  /* An infinite activation spoils its own token. */
  one = x[cols], x[cols] = infinite;
  CHECK(anybit_multiply(w, x, tokens, cols, y, rows, ANYBIT_INT8_PER_TOKEN, 0, NULL, space, &error) == ANYBIT_OK);
  CHECK(!isfinite(y[rows]) && isfinite(y[0]) && isfinite(y[2 * rows]));
  x[cols] = one;
  anybit_free(w);
  anybit_free(NULL);
  anybit_workspace_free(NULL);
  CHECK(anybit_rows(NULL) == 0 && anybit_cols(NULL) == 0 && anybit_scheme(NULL) == NULL && anybit_bytes(NULL, NULL) == NULL);
}

int main(void) {
  anybit_workspace* space = anybit_workspace_new();
  CHECK(anybit_abi_version() == ANYBIT_C_ABI_VERSION && space != NULL);
  fill();
  every_scheme(space);
  prepared_and_sliced("int4/g128/f16/bits", space);
  rounded_once("int4/g128/f16/bits", space);
  rounded_once("nf4/g64/f32/bits", space);
  placed("int4/g128/f16/bits", space);
  computes_by_name();
  folded("int4/g128/f16/bits", space);
  files("int4/g128/f16/bits", space);
  wrong_use("int4/g128/f16/bits", space);
  anybit_workspace_free(space);
  printf("anybit %s from C on %s\n", anybit_version(), anybit_isa());
  return 0;
}
