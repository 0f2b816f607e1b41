#!/usr/bin/env python3
"""Measures what anybit costs a compiler: seconds to include its headers, seconds for one more scheme with its kernels.

Every measurement is a process of its own, timed by the processor time of it and what it starts; they take turns, round after
round, and medians are told. Including is measured next to Eigen/Core, without and with generating code (there is none to
generate from an include alone). A scheme's cost is the difference of a source that multiplies with one more scheme and the
same source without it: decoding, products with f32 and with 8-bit activations, the kernel layout, opening from bytes.
Leaves a table and compile.json in out/compile.
"""

import argparse
import json
import os
import pathlib
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Bars: seconds over Eigen/Core's own, seconds of one more scheme, and of a registry with one scheme.
INCLUDE_BAR, SCHEME_BAR, REGISTRY_BAR = 0.6, 0.7, 2.0

EIGEN, ALL = "Eigen/Core", "anybit/anybit.hpp"
HEADERS = [
    [EIGEN],
    [ALL],
    ["anybit/format/formats.hpp"],
    ["anybit/tensor/pack.hpp"],
    ["anybit/tensor/quantize.hpp"],
    ["anybit/kernel/matvec.hpp"],
    ["anybit/kernel/any_packed.hpp"],
    # What docs/use_in_your_engine.md names for an engine that packs and multiplies.
    ["anybit/format/formats.hpp", "anybit/kernel/matvec.hpp", "anybit/tensor/pack.hpp", "anybit/tensor/quantize.hpp"],
]
# A source has the first scheme, or the first and one other. `using namespace anybit` is in force.
FIRST = "Scheme<SInt<4>, PerGroup<128>>"
SCHEMES = [
    "Scheme<Superfloat<5>, PerGroup<128>>",
    "Scheme<UInt<4>, PerGroup<32>>",
    "Scheme<SInt<3>, PerGroup<64>>",
    "Scheme<SInt<8>, PerRow, ScaleF32>",
    "Scheme<Nf4, PerGroup<64>, DoubleQuant<256>>",
    "Scheme<Minifloat<2, 1>, PerGroup<32>, ScaleE8M0>",
    "Scheme<Ternary, PerTensor, ScaleF32, Base3>",
]
KERNELS = """
#include <anybit/kernel/any_packed.hpp>
using namespace anybit;
template <class S>
void use(SchemeRegistry& registry) {
  registry.add<S>();
}
"""
# The same, and rounding to nearest straight from floats.
QUANTIZE = """
#include <anybit/kernel/any_packed.hpp>
#include <anybit/tensor/quantize.hpp>
using namespace anybit;
PackedBytes* keep(PackedBytes*);
template <class S>
void use(SchemeRegistry& registry) {
  registry.add<S>();
  auto packed = pack(quantize_nearest<S>(ConstMatrix(reinterpret_cast<const float*>(&registry), 1, 1)).value());
  keep(&packed.bytes());
}
"""


def arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compiler", default=os.environ.get("CXX", "c++"))
    parser.add_argument("--flags", default="-march=native", help="beside -std=c++20 and include directories")
    parser.add_argument("--include", action="append", default=[], metavar="DIR", help="of Eigen and xsimd, unless found")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--parts", default="include,scheme", help="include, scheme, or both (the default)")
    parser.add_argument("--out", default=str(ROOT / "out" / "compile"), metavar="DIR")
    return parser.parse_args(argv)


def seconds(command):
    """Processor time of a command, user and system, of all its processes."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            log.seek(0)
            sys.exit(f"{shlex.join(command)}\n{log.read().decode(errors='replace')[-4000:]}")
    return usage.ru_utime + usage.ru_stime


def function(schemes):
    uses = "".join(f"  use<{scheme}>(registry);\n" for scheme in schemes)
    return f"void all(SchemeRegistry& registry) {{\n{uses}}}\n"


def tasks(options):
    """(name, kind, source, compiler options) of every measurement."""
    found = []
    if "include" in options.parts:
        for headers in [[]] + HEADERS:
            source = "".join(f"#include <{header}>\n" for header in headers)
            name = " + ".join(headers) or "nothing"
            found += [(name, "syntax", source, ["-fsyntax-only"]), (name, "object", source, ["-O2", "-c"])]
    if "scheme" in options.parts:
        for kind, start in (("kernels", KERNELS), ("quantize", QUANTIZE)):
            for scheme in [None] + SCHEMES:
                schemes = [FIRST] + ([scheme] if scheme else [])
                found.append((scheme or FIRST, kind, start + function(schemes), ["-O2", "-DNDEBUG", "-c"]))
    return found


def measure(options):
    directories = [str(ROOT / "include")]
    system = options.include or [d for d in ("/usr/include/eigen3", "/usr/local/include/eigen3") if os.path.isdir(d)]
    base = [*shlex.split(options.compiler), "-std=c++20", *shlex.split(options.flags)]
    base += [f"-I{d}" for d in directories]
    # The compiler's own directories must keep their place in its order.
    base += [word for d in system if d not in ("", "/usr/include") for word in ("-isystem", d)]
    times = {}
    with tempfile.TemporaryDirectory() as folder:
        work = []
        for number, (name, kind, source, flags) in enumerate(tasks(options)):
            file = pathlib.Path(folder) / f"source{number}.cpp"
            file.write_text(source)
            work.append(((name, kind), [*base, *flags, str(file), *(["-o", os.devnull] if "-c" in flags else [])]))
        warm_up = pathlib.Path(folder) / "warm_up.cpp"
        warm_up.write_text(f"#include <{ALL}>\n")
        seconds([*base, "-fsyntax-only", str(warm_up)])  # reads files that all others then find in memory
        for round_number in range(1, options.rounds + 1):
            for key, command in work:
                times.setdefault(key, []).append(seconds(command))
            if sys.stderr.isatty():
                print(f"round {round_number} of {options.rounds}", file=sys.stderr)
    return times


def verdict(value, bar):
    return f"{value:.2f} s, bar {bar} s: {'holds' if value <= bar else 'MISSED'}"


def report(times, options):
    median = {key: statistics.median(values) for key, values in times.items()}
    result = {
        "compiler": subprocess.run(
            [*shlex.split(options.compiler), "--version"], capture_output=True, text=True, check=True
        ).stdout.split("\n")[0],
        "flags": options.flags,
        "machine": platform.processor() or platform.machine(),
        "rounds": options.rounds,
        "include": [],
        "scheme": [],
    }
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines() if os.path.exists("/proc/cpuinfo") else []:
        if line.startswith("model name"):
            result["machine"] = line.split(":", 1)[1].strip()
            break
    lines = [f"{result['compiler']}, {options.flags}, {result['machine']}; medians of {options.rounds}, seconds"]
    if "include" in options.parts:
        lines += ["", f"{'included':72} -fsyntax-only     -O2 -c"]
        for headers in [[]] + HEADERS:
            name = " + ".join(headers) or "nothing"
            row = {"headers": headers, "syntax": median[name, "syntax"], "object": median[name, "object"]}
            result["include"].append(row)
            short = name if len(headers) < 2 else ", ".join(h.split("/")[-1] for h in headers)
            lines.append(f"{short:72} {row['syntax']:13.2f} {row['object']:10.2f}")
        result["include_over_eigen"] = max(median[ALL, kind] - median[EIGEN, kind] for kind in ("syntax", "object"))
        lines.append(f"{ALL} over {EIGEN}: {verdict(result['include_over_eigen'], INCLUDE_BAR)}")
    if "scheme" in options.parts:
        lines += ["", f"{'one more scheme beside ' + FIRST:72}       kernels  +quantize"]
        for scheme in SCHEMES:
            row = {"scheme": scheme}
            for kind in ("kernels", "quantize"):
                row[kind] = median[scheme, kind] - median[FIRST, kind]
            result["scheme"].append(row)
            lines.append(f"{scheme:72} {row['kernels']:13.2f} {row['quantize']:10.2f}")
        for kind in ("kernels", "quantize"):
            result[f"mean_{kind}"] = statistics.mean(row[kind] for row in result["scheme"])
        lines.append(f"{'mean':72} {result['mean_kernels']:13.2f} {result['mean_quantize']:10.2f}")
        result["registry"] = median[FIRST, "kernels"]
        lines.append(f"a registry with one scheme, headers included: {verdict(result['registry'], REGISTRY_BAR)}")
        result["most_kernels"] = max(row["kernels"] for row in result["scheme"])
        lines.append(f"one more scheme with its kernels, the dearest: {verdict(result['most_kernels'], SCHEME_BAR)}")
    return result, "\n".join(lines)


def main(argv):
    options = arguments(argv)
    result, text = report(measure(options), options)
    out = pathlib.Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "compile.json").write_text(json.dumps(result, indent=1) + "\n")
    (out / "compile.txt").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main(sys.argv[1:])
