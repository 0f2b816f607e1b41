"""ONNX Runtime's MatMulNBits at accuracy level 4 (8-bit activations); formats b<bits>_g<block>."""

import re
import tempfile

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

import worker


class OnnxRuntime:
    def __init__(self, weights, activations):
        self.w, self.x = weights, activations
        self.packed = {}
        self.session, self.session_key = None, None

    @staticmethod
    def parts(name):
        return tuple(map(int, re.fullmatch(r"b(\d+)_g(\d+)", name).groups()))

    def open(self, name):
        bits, block = self.parts(name)
        levels, scales = worker.symmetric_levels(self.w, bits, block)
        codes = (levels.astype(np.int16) + (1 << (bits - 1))).astype(np.uint8)  # the zero point it assumes
        per_byte = 8 // bits
        folded = codes.reshape(worker.ROWS, -1, block // per_byte, per_byte)
        data = np.zeros(folded.shape[:3], np.uint8)
        for i in range(per_byte):
            data |= folded[..., i] << (i * bits)
        self.packed[name] = (levels, scales, data)
        self.make_session(name, 1, 1)  # says now whether the operator exists
        return data.nbytes + scales.nbytes

    def weights(self, name):
        levels, scales, _ = self.packed[name]
        return (levels * scales).reshape(worker.ROWS, worker.COLS)

    def make_session(self, name, threads, count):
        key = (name, threads, count)
        if self.session_key == key:
            return
        self.drop()
        bits, block = self.parts(name)
        _, scales, data = self.packed[name]
        nodes, initializers, outputs = [], [], []
        for i in range(count):
            data = data if i == 0 else data.copy()
            data.flat[i] ^= 1 if i else 0  # equal weights would be stored once
            initializers += [numpy_helper.from_array(data, f"w{i}"), numpy_helper.from_array(scales.ravel(), f"s{i}")]
            nodes.append(
                helper.make_node(
                    "MatMulNBits",
                    ["x", f"w{i}", f"s{i}"],
                    [f"y{i}"],
                    domain="com.microsoft",
                    K=worker.COLS,
                    N=worker.ROWS,
                    bits=bits,
                    block_size=block,
                    accuracy_level=4,
                )
            )
            outputs.append(helper.make_tensor_value_info(f"y{i}", TensorProto.FLOAT, ["n", worker.ROWS]))
        inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", worker.COLS])]
        model = helper.make_model(
            helper.make_graph(nodes, "products", inputs, outputs, initializers),
            ir_version=10,
            opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)],
        )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = (
            onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        )  # equal products stay apart
        with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
            onnx.save(model, file.name)
            self.session = onnxruntime.InferenceSession(file.name, options, providers=["CPUExecutionProvider"])
        self.session_key = key

    def run(self, name, tokens, threads, rotate, seconds):
        _, scales, data = self.packed[name]
        count = worker.copies_for(data.nbytes + scales.nbytes, rotate)
        self.make_session(name, threads, count)
        x = onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(self.x[:tokens]))
        y = [onnxruntime.OrtValue.ortvalue_from_shape_and_type([tokens, worker.ROWS], np.float32) for _ in range(count)]
        binding = self.session.io_binding()
        binding.bind_ortvalue_input("x", x)
        for i, value in enumerate(y):
            binding.bind_ortvalue_output(f"y{i}", value)
        median, passes = worker.time_passes(seconds, count, lambda: self.session.run_with_iobinding(binding))
        return median, passes, y[0].numpy()

    def drop(self):
        self.session, self.session_key = None, None


raise SystemExit(worker.serve(OnnxRuntime))
