#!/usr/bin/env python3
"""shared_code.py OBJECT OBJECT...

Lists functions of anybit that two of the objects define under one name although one body contains AVX instructions. Given two build
folders, compares all objects of the same path in them.
The linker keeps either body; if it is that one, the program dies on a processor without AVX. Such a function belongs in
`inline namespace ANYBIT_CODE`, or is small enough for ANYBIT_INLINE. (Instantiations of std:: and Eigen:: templates have
the same trouble, outside anybit's reach.)
"""

import collections
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


def groups(paths):
    """Objects that one program may be linked from."""
    if all(path.is_file() for path in paths):
        return [paths]
    one, *others = paths
    return [group for path in sorted(one.rglob("*.o"))
            if len(group := [path, *(p for o in others if (p := o / path.relative_to(one)).is_file())]) > 1]


def main():
    own = re.compile(r"_ZZ?N[KVRO]*6anybit")
    shared, wrong, any_avx = set(), set(), False
    for group in groups([pathlib.Path(argument) for argument in sys.argv[1:]]):
        defined, with_avx = collections.Counter(), set()
        for path in group:
            defined.update(name for name in merged_functions(path) if own.match(name))
            with_avx |= functions_with_avx(path)
        any_avx = any_avx or bool(with_avx)
        here = {name for name, objects in defined.items() if objects > 1}
        shared |= here
        wrong |= here & with_avx
    wrong = sorted(run("c++filt", n).strip() for n in wrong)
    for name in wrong:
        print("depends on -m flags, but its name does not:", name)
    print(f"{len(wrong)} of {len(shared)} shared functions of anybit depend on -m flags")
    if not any_avx:
        print("no object has an AVX instruction: were they compiled for AVX2?")
    return 1 if wrong or not any_avx else 0


sys.exit(main())
