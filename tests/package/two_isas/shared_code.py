#!/usr/bin/env python3
"""shared_code.py BASELINE AVX2

Lists functions of anybit that two objects define under one name although the second one's contain AVX instructions.
Given two build folders, compares all objects of the same path in them.
The linker keeps either body; if it is that one, the program dies on a processor without AVX. Such a function belongs in
`inline namespace ANYBIT_CODE`, or is small enough for ANYBIT_INLINE. (Instantiations of std:: and Eigen:: templates have
the same trouble, outside anybit's reach.)
"""

import pathlib
import re
import subprocess
import sys


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def merged_functions(path):
    """Names of functions that the linker merges with others of the same name."""
    return {line.split()[2] for line in run("nm", "--defined-only", path).splitlines() if re.match(r"\S+ [WVu] ", line)}


def functions_with_avx(path):
    found, name = set(), None
    for line in run("objdump", "-d", "--no-show-raw-insn", "--no-addresses", path).splitlines():
        if heading := re.match(r"<(\S+)>:$", line):
            name = heading[1]
        elif name and re.match(r"\tv(?!err|erw)[a-z0-9]+ ", line):
            found.add(name)
    return found


def pairs(baseline, avx2):
    if baseline.is_file():
        return [(baseline, avx2)]
    return [(path, avx2 / path.relative_to(baseline)) for path in sorted(baseline.rglob("*.o"))
            if (avx2 / path.relative_to(baseline)).is_file()]


def main():
    own = re.compile(r"_ZZ?N[KVRO]*6anybit")
    shared, wrong, any_avx = set(), set(), False
    for baseline, avx2 in pairs(*map(pathlib.Path, sys.argv[1:])):
        with_avx = functions_with_avx(avx2)
        any_avx = any_avx or bool(with_avx)
        here = {name for name in merged_functions(baseline) & merged_functions(avx2) if own.match(name)}
        shared |= here
        wrong |= here & with_avx
    for name in sorted(wrong):
        print("depends on -m flags, but its name does not:", run("c++filt", name).strip())
    print(f"{len(wrong)} of {len(shared)} shared functions of anybit depend on -m flags")
    if not any_avx:
        print(f"{sys.argv[2]} has no AVX instruction at all: was it compiled for AVX2?")
    return 1 if wrong or not any_avx else 0


sys.exit(main())
