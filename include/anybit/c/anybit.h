#ifndef ANYBIT_C_ANYBIT_H
#define ANYBIT_C_ANYBIT_H
/* anybit for C, and for whatever can call C. Link with the library `anybit_c`, which has the kernels of every architecture in it
   and takes those of the present processor. C99 and C++98 or newer read this file.

   Handles are opaque and made and freed here. Nothing throws and nothing aborts on what it is given: a function that can fail
   returns ANYBIT_OK or a code, and writes one line to the anybit_error that it is given (a null pointer stands for none).
   Matrices are row-major floats; a stride counts floats from one row to the next. Functions that read a handle may run at the
   same time on many threads, each with a workspace of its own; anybit_prepare and anybit_free may not. */

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32)
#define ANYBIT_C_API
#else
#define ANYBIT_C_API __attribute__((visibility("default")))
#endif

/* Rises when a function or a structure of this file changes its meaning; new ones do not change it. */
#define ANYBIT_C_ABI_VERSION 2

typedef int32_t anybit_status;
enum {
  ANYBIT_OK = 0,
  ANYBIT_INVALID_ARGUMENT = 1, /* a value outside its range, a null pointer */
  ANYBIT_SHAPE_MISMATCH = 2,   /* data of another size than its partner's */
  ANYBIT_CORRUPT_DATA = 3,     /* bytes that contradict themselves */
  ANYBIT_UNSUPPORTED = 4,      /* well formed, but nothing here can read or do it */
  ANYBIT_NOT_FINITE = 5,       /* NaN or infinity where numbers are needed */
  ANYBIT_INSUFFICIENT_DATA = 6,
  ANYBIT_NUMERICAL = 7,
  ANYBIT_IO = 8, /* the operating system said no */
  ANYBIT_DEGRADED = 9,
  ANYBIT_CANCELLED = 10,
  ANYBIT_OUT_OF_MEMORY = 11,
  ANYBIT_INTERNAL = 12 /* a fault of anybit: please report it */
};

/* A code and one line that says where, what was wrong (with the value) and what to do. */
typedef struct anybit_error {
  anybit_status code;
  char message[508];
} anybit_error;

/* ANYBIT_C_ABI_VERSION of the library that runs: compare it with the one that was compiled. */
ANYBIT_C_API uint32_t anybit_abi_version(void);
/* "0.1.0" */
ANYBIT_C_API const char* anybit_version(void);
/* The architecture whose kernels run: "avx512-vbmi". The environment variable ANYBIT_ISA forces one. Empty where the processor
   can run none: then every function that can fail says so. */
ANYBIT_C_API const char* anybit_isa(void);
/* How many schemes there are, and the name of number `index`, or null. Names live as long as the program. */
ANYBIT_C_API int64_t anybit_scheme_count(void);
ANYBIT_C_API const char* anybit_scheme_name(int64_t index);

/* Runs the parts of a loop on threads of the caller. parallel_for must call body(body_context, begin, end) for slices that cover
   0 .. n - 1 once each, in any order, on any thread, and return when all are done. Slices that begin at multiples of `grain`
   are faster; any others give the same bits. A null executor stands for the calling thread alone. */
typedef void (*anybit_body)(void* body_context, int64_t begin, int64_t end);
typedef struct anybit_executor {
  void* context;
  int64_t concurrency; /* slices that may run at once, at least 1 */
  void (*parallel_for)(void* context, int64_t n, int64_t grain, anybit_body body, void* body_context);
} anybit_executor;

/* Memory that is kept between products. One for each thread that calls. */
typedef struct anybit_workspace anybit_workspace;
ANYBIT_C_API anybit_workspace* anybit_workspace_new(void); /* null if there is no memory */
ANYBIT_C_API void anybit_workspace_free(anybit_workspace*);

/* A packed weight matrix (rows = outputs, cols = inputs) of any scheme. */
typedef struct anybit_tensor anybit_tensor;

/* Rounds every weight to nearest in the scheme of that name, each group fitted as the format does. */
ANYBIT_C_API anybit_status anybit_quantize(const char* scheme, const float* weights, int64_t rows, int64_t cols, int64_t stride,
                                           anybit_tensor** out, anybit_error*);
/* Packed bytes as anybit_bytes gives them. The first form takes a copy. The second goes on reading the caller's bytes, which must
   stay until the handle is freed; products are fastest where they start at a multiple of 64. */
ANYBIT_C_API anybit_status anybit_open_copy(const void* bytes, size_t size, anybit_tensor** out, anybit_error*);
ANYBIT_C_API anybit_status anybit_open_view(const void* bytes, size_t size, anybit_tensor** out, anybit_error*);
/* One packed tensor of a file that anybit wrote, mapped. */
ANYBIT_C_API anybit_status anybit_open_file(const char* path, const char* tensor, anybit_tensor** out, anybit_error*);
/* `count` tensors under their names, as one file: whole or not at all. */
ANYBIT_C_API anybit_status anybit_write_file(const char* path, const char* const* names, const anybit_tensor* const* tensors,
                                             int64_t count, anybit_error*);
ANYBIT_C_API void anybit_free(anybit_tensor*);

/* Of a null handle: 0, null. */
ANYBIT_C_API int64_t anybit_rows(const anybit_tensor*);
ANYBIT_C_API int64_t anybit_cols(const anybit_tensor*);
ANYBIT_C_API const char* anybit_scheme(const anybit_tensor*); /* lives as long as the handle */
ANYBIT_C_API double anybit_bits_per_weight(const anybit_tensor*);
/* The packed bytes, the same on every machine; they live as long as the handle. */
ANYBIT_C_API const void* anybit_bytes(const anybit_tensor*, size_t* size);

/* The weights of rows begin .. end - 1 as floats. */
ANYBIT_C_API anybit_status anybit_dequantize(const anybit_tensor*, int64_t begin, int64_t end, float* out, int64_t stride,
                                             anybit_error*);

/* The form in which activations enter a product; docs/use_in_your_engine.md has the errors of each. */
typedef int32_t anybit_compute;
enum {
  ANYBIT_F32 = 0,
  ANYBIT_INT8_PER_TOKEN = 1,
  ANYBIT_INT8_PER_BLOCK = 2,
  ANYBIT_BF16 = 3,
  ANYBIT_INT8_STATIC = 4, /* with one scale for all tokens */
  ANYBIT_INT8_FOLDED = 5  /* of weights prepared for it: anybit_prepare folds the scales of groups where that costs little */
};
/* "int8_folded"; null for a number that is none of these. */
ANYBIT_C_API const char* anybit_compute_name(anybit_compute);
ANYBIT_C_API anybit_status anybit_compute_of(const char* name, anybit_compute* out, anybit_error*);

/* The answer of anybit_prepare. */
typedef struct anybit_prepared {
  int64_t bytes;       /* that the order for fast products takes beside the packed bytes; 0 if none was made */
  int64_t folded_rows; /* of ANYBIT_INT8_FOLDED; products with other rows are those of ANYBIT_INT8_PER_TOKEN */
  int32_t made;        /* 1 if products of that compute are faster now */
  char why_not[252];   /* why nothing was made; empty if made */
} anybit_prepared;

/* Makes the order of weights that products of this compute read fastest. Results keep their bits unless level_error is above 0:
   then levels that are no multiples of a step may move by so much of the largest. Of ANYBIT_INT8_FOLDED alone, rows are folded
   (16 together) whose quantization error gains at most fold_error of its energy by that: ANYBIT_DEFAULT_FOLD_ERROR unless you
   know better, 0 for none. `out` may be null. */
#define ANYBIT_DEFAULT_FOLD_ERROR 0.01f
ANYBIT_C_API anybit_status anybit_prepare(anybit_tensor*, anybit_compute, float level_error, float fold_error,
                                          const anybit_executor*, anybit_prepared* out, anybit_error*);

/* The same in memory of the caller, at a multiple of 64, which must stay until the handle is freed. anybit_prepared_bytes says
   how much: *bytes is 0 where nothing would be made, which is no error. The memory may be kept in a file: anybit_use_prepared
   takes what was once made of the same tensor, by the same version and architecture, and refuses everything else. What is folded
   is kept by the handle, at 2 bytes for each group of a row, and anybit_use_prepared makes it anew. */
ANYBIT_C_API anybit_status anybit_prepared_bytes(const anybit_tensor*, anybit_compute, float level_error, int64_t* bytes,
                                                 anybit_error*);
ANYBIT_C_API anybit_status anybit_prepare_into(anybit_tensor*, anybit_compute, float level_error, float fold_error, void* memory,
                                               size_t size, const anybit_executor*, anybit_prepared* out, anybit_error*);
ANYBIT_C_API anybit_status anybit_use_prepared(anybit_tensor*, anybit_compute, float level_error, float fold_error,
                                               const void* memory, size_t size, anybit_prepared* out, anybit_error*);

/* y = x W^T: x is (tokens, cols), y (tokens, rows). `scale` is that of ANYBIT_INT8_STATIC, else 0. NaN or infinity in a token
   spoil that token's results and no other's. */
ANYBIT_C_API anybit_status anybit_multiply(const anybit_tensor*, const float* x, int64_t tokens, int64_t x_stride, float* y,
                                           int64_t y_stride, anybit_compute, float scale, const anybit_executor*,
                                           anybit_workspace*, anybit_error*);

/* Activations rounded once, for products with one or more tensors, by row range and on any threads. Handles of their own. */
typedef struct anybit_activations anybit_activations;
ANYBIT_C_API anybit_activations* anybit_activations_new(void); /* null if there is no memory */
ANYBIT_C_API void anybit_activations_free(anybit_activations*);
/* Puts x, (tokens, cols), into the form that products with all `count` tensors read. They must share their columns, the length of
   their groups and the order of their columns: the error says which does not, and needs activations of its own. Tensors that are
   prepared later need new activations; for ANYBIT_F32, x itself is read and must stay. */
ANYBIT_C_API anybit_status anybit_round(anybit_activations*, const anybit_tensor* const* tensors, int64_t count, const float* x,
                                        int64_t tokens, int64_t x_stride, anybit_compute, float scale, const anybit_executor*,
                                        anybit_error*);
/* Columns begin .. end - 1 of y = x W^T, of as many tokens as were rounded. Any slices, at once on any threads, give the bits of
   anybit_multiply; slices that begin at multiples of 64 are faster. Where `add` is not 0 they are added to y. */
ANYBIT_C_API anybit_status anybit_multiply_rows(const anybit_tensor*, const anybit_activations*, int64_t begin, int64_t end,
                                                float* y, int64_t y_stride, int32_t add, anybit_error*);

#ifdef __cplusplus
}
#endif
#endif
