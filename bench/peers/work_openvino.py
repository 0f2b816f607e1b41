"""OpenVINO's matrix products with packed weights: u<bits>_g<block> with 8-bit activations in the same groups (its dynamic
quantization), with _bf16 behind it products in bfloat16; bf16 alone has weights of that type."""

import re

import numpy as np
import openvino
import openvino.opset13 as ops
from openvino import properties

import worker


class OpenVino:
    def __init__(self, weights, activations):
        self.w, self.x = weights, activations
        self.core = openvino.Core()
        self.quantized, self.kept, self.request, self.request_key = {}, [], None, None

    @staticmethod
    def parts(name):
        """Bits, columns of a group, whether products are bfloat16; 16 bits for weights that are, too."""
        found = re.fullmatch(r"bf16|u(\d)_g(\d+)(_bf16)?", name)
        return (16, worker.COLS, True) if name == "bf16" else (int(found[1]), int(found[2]), bool(found[3]))

    def open(self, name):
        bits, block, _ = self.parts(name)
        if bits < 16:
            self.quantized[name] = worker.symmetric_levels(self.w, bits, block)
        self.make_request(name, 1, 1)  # says now whether there is such a product
        return self.bytes(name)

    def bytes(self, name):
        bits, block, _ = self.parts(name)
        count = worker.ROWS * worker.COLS
        return count * 2 if bits == 16 else count * bits // 8 + 2 * count // block

    def weights(self, name):
        if name not in self.quantized:
            return self.w
        levels, scales = self.quantized[name]
        return (levels * scales.astype(np.float16).astype(np.float32)).reshape(worker.ROWS, worker.COLS)

    def matrix(self, name, copy):
        """The nodes that stand for the weights; the plugin keeps them packed. No two copies are equal, or one would be kept."""
        bits, block, _ = self.parts(name)
        if bits == 16:
            w = self.w.copy()
            w.flat[copy] *= 1 if copy == 0 else 1.01
            return ops.constant(w, dtype=np.float32)
        levels, scales = self.quantized[name]
        half = 1 << (bits - 1)
        codes = (levels.astype(np.int16) + half).astype(np.uint8)  # symmetric_levels' shape: rows, groups, columns of a group
        codes.flat[copy] ^= 1 if copy else 0
        kind = {4: openvino.Type.u4, 8: openvino.Type.u8, 2: openvino.Type.u2}[bits]
        shape, data, none = list(codes.shape), codes.ravel(), np.array([half], np.uint8)
        if bits < 8:  # the first code lies in the lowest bits
            per_byte = 8 // bits
            data = sum(data[i::per_byte].astype(np.uint8) << np.uint8(i * bits) for i in range(per_byte)).astype(np.uint8)
        self.kept += [data, none]  # tensors refer to them
        code = ops.convert(ops.constant(openvino.Tensor(data, shape, kind)), np.float16)
        zero = ops.constant(openvino.Tensor(none, [1, 1, 1], kind))
        level = ops.subtract(code, ops.convert(zero, np.float16))
        scaled = ops.multiply(level, ops.constant(scales.astype(np.float16)))
        flat = ops.reshape(scaled, np.array([worker.ROWS, worker.COLS]), False)
        return ops.convert(flat, np.float32)

    def make_request(self, name, threads, count):
        key = (name, threads, count)
        if self.request_key == key:
            return
        self.drop()
        _, block, bf16 = self.parts(name)
        x = ops.parameter([-1, worker.COLS], np.float32)
        results = [ops.matmul(x, self.matrix(name, i), False, True) for i in range(count)]
        config = {
            properties.inference_num_threads(): threads,
            properties.hint.inference_precision(): openvino.Type.bf16 if bf16 else openvino.Type.f32,
            properties.hint.dynamic_quantization_group_size(): 0 if bf16 else block,
            properties.hint.performance_mode(): properties.hint.PerformanceMode.LATENCY,
        }
        model = self.core.compile_model(openvino.Model(results, [x], "products"), "CPU", config)
        self.request, self.request_key = model.create_infer_request(), key

    def run(self, name, tokens, threads, rotate, seconds):
        count = worker.copies_for(self.bytes(name), rotate)
        self.make_request(name, threads, count)
        self.request.set_input_tensor(openvino.Tensor(np.ascontiguousarray(self.x[:tokens])))
        median, passes = worker.time_passes(seconds, count, self.request.infer)
        return median, passes, self.request.get_output_tensor(0).data.copy()

    def drop(self):
        self.request, self.request_key, self.kept = None, None, []


raise SystemExit(worker.serve(OpenVino))
