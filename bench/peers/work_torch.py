"""torch's linear layers on the CPU: f32 (its BLAS), bf16 and s8 (oneDNN inside), 4 bits in groups with bf16 activations.
Activations come and results go as f32; what that costs is counted."""

import warnings

import numpy as np
import torch
import torch.nn.functional as functional

import worker

warnings.filterwarnings("ignore", "torch.quantize_per", UserWarning)


class Torch:
    def __init__(self, weights, activations):
        self.w, self.x = weights, torch.from_numpy(activations)
        self.made, self.copies, self.copies_key = {}, [], None

    def make(self, name):
        """The weights as the format's product takes them; a new place in memory each time."""
        w = torch.from_numpy(self.w)
        if name == "f32":
            return w.clone()
        if name == "bf16":
            return w.to(torch.bfloat16)
        if name.startswith("s8_"):
            torch.backends.quantized.engine = name[3:]
            scales = w.abs().amax(dim=1).double() / 127
            q = torch.quantize_per_channel(w, scales, torch.zeros(worker.ROWS, dtype=torch.long), 0, torch.qint8)
            return torch.ops.quantized.linear_prepack(q, None)
        block = int(name.removeprefix("b4_g"))
        levels, scales = worker.symmetric_levels(self.w, 4, block)
        codes = torch.from_numpy((levels.reshape(worker.ROWS, worker.COLS) + 8).astype(np.int32))
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)
        scale = torch.from_numpy(scales.reshape(worker.ROWS, -1).T.copy())
        return packed, torch.stack([scale, torch.zeros_like(scale)], dim=2).to(torch.bfloat16).contiguous(), block

    def bytes(self, name):
        count = worker.ROWS * worker.COLS
        if name.startswith("b4_g"):
            return count // 2 + 4 * count // int(name.removeprefix("b4_g"))
        return count * 4 if name == "f32" else count * 2 if name == "bf16" else count + 4 * worker.ROWS

    def product(self, name, weight, x):
        if name == "f32":
            return functional.linear(x, weight)
        if name == "bf16":
            return functional.linear(x.to(torch.bfloat16), weight).float()
        if name.startswith("s8_"):
            return torch.ops.quantized.linear_dynamic(x, weight, False)
        packed, scales, block = weight
        return torch.ops.aten._weight_int4pack_mm_for_cpu(x.to(torch.bfloat16), packed, block, scales).float()

    def open(self, name):
        with torch.inference_mode():
            self.product(name, self.make(name), self.x[:1])
        return self.bytes(name)

    def weights(self, name):
        if name == "f32":
            return self.w
        if name == "bf16":
            return torch.from_numpy(self.w).to(torch.bfloat16).float().numpy()
        if name.startswith("s8_"):
            scales = np.abs(self.w).max(axis=1, keepdims=True) / 127
            return np.rint(self.w / scales) * scales
        levels, scales = worker.symmetric_levels(self.w, 4, int(name.removeprefix("b4_g")))
        rounded = torch.from_numpy(scales).to(torch.bfloat16).float().numpy()
        return (levels * rounded).reshape(worker.ROWS, worker.COLS)

    def run(self, name, tokens, threads, rotate, seconds):
        torch.set_num_threads(threads)
        count = worker.copies_for(self.bytes(name), rotate)
        if self.copies_key != (name, count):
            self.drop()
            self.copies = [self.make(name) for _ in range(count)]
            self.copies_key = (name, count)
        x, y = self.x[:tokens], None

        def one_pass():
            nonlocal y
            for weight in self.copies:
                y = self.product(name, weight, x)

        with torch.inference_mode():
            median, passes = worker.time_passes(seconds, count, one_pass)
        return median, passes, y.numpy()

    def drop(self):
        self.copies, self.copies_key = [], None


raise SystemExit(worker.serve(Torch))
