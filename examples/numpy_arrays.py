"""numpy_arrays.py LIBRARY [SCHEME]: packs a numpy array and multiplies with it, through the C interface and ctypes.

LIBRARY is libanybit_c.so (cmake -DANYBIT_BUILD_C=ON).
"""
import ctypes, sys
import numpy as np

lib = ctypes.CDLL(sys.argv[1])
scheme = sys.argv[2] if len(sys.argv) > 2 else "int4/g128/f16/bits"
lib.anybit_workspace_new.restype = ctypes.c_void_p
lib.anybit_bits_per_weight.restype = ctypes.c_double
lib.anybit_bits_per_weight.argtypes = [ctypes.c_void_p]
error = (ctypes.c_char * 512)()  # anybit_error: a code of 4 bytes, then the message
i64, pointer = ctypes.c_int64, lambda a: ctypes.c_void_p(a.ctypes.data)

def call(function, *arguments):
    if function(*arguments, error):
        raise ValueError(error[4:].split(b"\0")[0].decode())

def quantize(weights):
    tensor = ctypes.c_void_p()
    rows, cols = weights.shape
    call(lib.anybit_quantize, scheme.encode(), pointer(weights), i64(rows), i64(cols), i64(cols), ctypes.byref(tensor))
    return tensor

def multiply(tensor, rows, x, workspace=ctypes.c_void_p(lib.anybit_workspace_new())):
    y = np.empty((len(x), rows), np.float32)
    call(lib.anybit_multiply, tensor, pointer(x), i64(len(x)), i64(x.shape[1]), pointer(y), i64(rows), 0, ctypes.c_float(0), None,
         workspace)
    return y

random = np.random.default_rng(1)
weights = random.standard_normal((300, 500)).astype(np.float32)
x = random.standard_normal((7, 500)).astype(np.float32)
packed = quantize(weights)
y, exact = multiply(packed, len(weights), x), x @ weights.T
worst = np.linalg.norm(y - exact) / np.linalg.norm(exact)
print(f"{scheme}: {lib.anybit_bits_per_weight(packed):.3f} bits per weight, relative error {worst:.3f}")
sys.exit(int(worst > 0.2))
