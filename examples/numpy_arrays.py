"""numpy_arrays.py LIBRARY [SCHEME [COMPUTE]]: packs a numpy array and multiplies with it, through the C interface and ctypes.

LIBRARY is libanybit_c.so (cmake -DANYBIT_BUILD_C=ON).
"""
import ctypes, sys
import numpy as np

lib = ctypes.CDLL(sys.argv[1])
scheme, compute_name = (sys.argv[2:] + ["int4/g128/f16/bits", "int8_folded"][len(sys.argv[2:]):])[:2]
lib.anybit_workspace_new.restype = ctypes.c_void_p
lib.anybit_bits_per_weight.restype = ctypes.c_double
lib.anybit_bits_per_weight.argtypes = [ctypes.c_void_p]
error = (ctypes.c_char * 512)()  # anybit_error: a code of 4 bytes, then the message
i32, i64, pointer = ctypes.c_int32, ctypes.c_int64, lambda a: ctypes.c_void_p(a.ctypes.data)

class Prepared(ctypes.Structure):
    _fields_ = [("bytes", i64), ("folded_rows", i64), ("made", i32), ("why_not", ctypes.c_char * 252)]

def call(function, *arguments):
    if function(*arguments, error):
        raise ValueError(error[4:].split(b"\0")[0].decode())

def quantize(weights):
    tensor = ctypes.c_void_p()
    rows, cols = weights.shape
    call(lib.anybit_quantize, scheme.encode(), pointer(weights), i64(rows), i64(cols), i64(cols), ctypes.byref(tensor))
    return tensor

def prepare(tensor, compute, fold_error=0.01):
    made = Prepared()
    call(lib.anybit_prepare, tensor, compute, ctypes.c_float(0), ctypes.c_float(fold_error), None, ctypes.byref(made))
    return made

def multiply(tensor, rows, x, compute, workspace=ctypes.c_void_p(lib.anybit_workspace_new())):
    y = np.empty((len(x), rows), np.float32)
    call(lib.anybit_multiply, tensor, pointer(x), i64(len(x)), i64(x.shape[1]), pointer(y), i64(rows), compute,
         ctypes.c_float(0), None, workspace)
    return y

random = np.random.default_rng(1)
weights = random.standard_normal((300, 500)).astype(np.float32)
x = random.standard_normal((7, 500)).astype(np.float32)
packed = quantize(weights)
compute = i32()
call(lib.anybit_compute_of, compute_name.encode(), ctypes.byref(compute))
made = prepare(packed, compute)
y, exact = multiply(packed, len(weights), x, compute), x @ weights.T
worst = np.linalg.norm(y - exact) / np.linalg.norm(exact)
print(f"{scheme}: {lib.anybit_bits_per_weight(packed):.3f} bits per weight, relative error {worst:.3f};",
      f"{compute_name}: prepared, {made.folded_rows} rows folded" if made.made else made.why_not.decode())
sys.exit(int(worst > 0.2))
