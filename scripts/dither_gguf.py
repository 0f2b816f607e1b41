#!/usr/bin/env python3
"""dither_gguf.py MODEL.gguf OUT.gguf: a float model to measure quality on, out of one that is to be had in Q4_1 only.

Weights of a Q4_1 file lie on 16 levels in every block of 32, which flatters any format with such a grid. Uniform noise as wide as
a block's step gives them a continuous distribution again. Other tensors and the metadata stay. Matrices are written as F16. The
same bytes on every machine: the noise comes from PCG64 with a fixed seed, tensors in the order of the file.

Needs numpy and gguf (PyPI).
"""
import sys

import gguf
import numpy as np

SEED = 20261121
BLOCK, BLOCK_BYTES = 32, 20  # of Q4_1: step and minimum as f16, then 32 codes of 4 bits


def dithered(tensor, random):
    weights = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
    if tensor.tensor_type == gguf.GGMLQuantizationType.Q4_1:
        blocks = np.ascontiguousarray(tensor.data).reshape(-1, BLOCK_BYTES)
        step = blocks[:, :2].copy().view(np.float16).astype(np.float32)
        noise = random.random((step.size, BLOCK), dtype=np.float32) - np.float32(0.5)
        weights = weights.reshape(-1, BLOCK) + noise * step
    weights = weights.reshape([int(n) for n in reversed(tensor.shape)])
    return weights.astype(np.float16) if weights.ndim > 1 else weights


def main(source, target):
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents())
    of_the_file = ("general.architecture", "general.file_type", "general.quantization_version")
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key in of_the_file:
            continue
        kind = field.types[0]
        inner = {"sub_type": field.types[-1]} if kind == gguf.GGUFValueType.ARRAY else {}
        writer.add_key_value(key, field.contents(), kind, **inner)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    random = np.random.Generator(np.random.PCG64(SEED))
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, dithered(tensor, random))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
