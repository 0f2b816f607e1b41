#!/usr/bin/env python3
"""Holds docs/file_format.md against the sources: every metadata key and tensor name that they spell is named in the page, and the
page's dump is what the page says, read by nothing but the page's own rules.

    file_format.py SOURCE_ROOT
"""

import json
import pathlib
import re
import struct
import sys

SOURCES = ("io/anybit_file.hpp", "model/container.hpp", "quantize/state.hpp", "model/decoder.hpp", "model/load_tensors.hpp")
KEY = re.compile(r'"((?:anybit|general|llama|tokenizer|compute|activation_scale|rotation|state)\.[a-z0-9_.]*)"')
TENSOR = re.compile(r'"([a-z_]+\.weight)"')
PREFIXES = ("anybit.", "tokenizer.")  # whole names of families, not keys


def missing(page, root):
    found = set()
    for source in SOURCES:
        file = root / "include" / "anybit" / source
        if file.exists():
            text = file.read_text()
            found.update(KEY.findall(text)), found.update(TENSOR.findall(text))
    if len(found) < 30:
        return [f"only {len(found)} keys found in {', '.join(SOURCES)}: has the code moved?"]
    named = page.replace("`compute.<tensor>`", "`compute.`").replace("`activation_scale.<tensor>`", "`activation_scale.`")
    named = named.replace("`anybit.scheme.<tensor>`", "`anybit.scheme.`").replace("`anybit.shape.<tensor>`", "`anybit.shape.`")
    named = named.replace("`state.layer.0`", "`state.layer.`")
    return [f"{key} is not named" for key in sorted(found - set(PREFIXES)) if f"`{key}`" not in named]


def wrong_dump(page):
    data = bytearray()
    for line in re.search(r"```hexdump\n(.*?)```", page, re.S).group(1).splitlines():
        at, rest = int(line[:8], 16), bytes.fromhex(line[10:49].replace(" ", ""))
        data.extend(bytes(at - len(data)) + rest)
    size = struct.unpack_from("<Q", data)[0]
    header = json.loads(data[8 : 8 + size])
    meta = header.pop("__metadata__")
    if list(header) != ["w"] or (8 + size) % 64 or meta["anybit.version"] != "1":
        return ["the header is not the one that is described"]
    begin, end = header["w"]["data_offsets"]
    data.extend(bytes(8 + size + end - len(data)))
    packed = bytes(data[8 + size + begin : 8 + size + end])
    magic, version, name, provenance, head, rows, cols, codes, scales, zeros, order = struct.unpack_from("<4sHHIIQQQQQQ", packed)
    scheme = packed[64 : 64 + name].decode()
    if (magic, version, scheme, f"{rows}x{cols}") != (b"ANYB", 1, meta["anybit.scheme.w"], meta["anybit.shape.w"]):
        return ["the packed header contradicts the metadata"]
    if (scheme, rows, cols, head, codes, scales, zeros, order) != ("int4/g32/f16/bits", 2, 64, 128, 64, 8, 0, 0):
        return ["the packed header is not the one that is described"]
    scale = struct.unpack_from("<4e", packed, head + 64)
    wrong = []
    for i in range(2):
        for j in range(64):
            code = packed[head + 32 * i + j // 2] >> 4 * (j % 2) & 15
            level = code - 16 if code > 7 else code
            weight = (0.5, 0.25)[i] * (j % 16 - 8)
            got = level * scale[2 * i + j // 32]
            if abs(got - weight) > 0.5001 * scale[2 * i + j // 32] or (weight < 0) != (got < 0):
                wrong.append(f"weight ({i}, {j}) is {got}, not about {weight}")
    return wrong


def main():
    root = pathlib.Path(sys.argv[1])
    page = (root / "docs" / "file_format.md").read_text()
    faults = missing(page, root) + wrong_dump(page)
    for fault in faults:
        print(f"docs/file_format.md: {fault}")
    assert missing(page.replace("`tokenizer.lengths`", ""), root), "a missing key goes unnoticed"
    assert wrong_dump(page.replace("a9cb dcfe", "a9cb dcff", 1)), "a wrong byte goes unnoticed"
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
