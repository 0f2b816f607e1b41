#!/usr/bin/env python3
"""Compiles every ```cpp block of one Markdown page.

    snippets.py PAGE --compiler CXX --flags RESPONSE_FILE --work FOLDER [--prepared FOLDER] [--run-with=WORDS]

A block that starts with #include or defines main is a whole file, and stands alone. Every other block says what it is
in an HTML comment on the lines just before it:

    <!-- snippet: body -->          statements: wrapped in a function
    <!-- snippet: declarations -->  stands at namespace scope
    <!-- snippet: continue -->      more of the block before it: both are compiled as one
    <!-- snippet: run -->           a whole file, which is also linked and run (exit status 0 wanted)
    <!-- snippet: skip REASON -->   not compiled

Further lines of the comment are code that the reader does not see, put before the block: the variables it takes for granted.

    <!-- snippet: body
    Matrix w(64, 256);
    -->

Bodies and declarations see `#include <anybit/anybit.hpp>` and `using namespace anybit;`.
"""

import argparse
import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys

KINDS = ("body", "declarations", "continue", "run", "skip")


class Snippet:
    def __init__(self, kind, line, hidden, code):
        self.kind, self.line, self.hidden, self.code = kind, line, hidden, code
        self.parts = [(line, code)]

    def source(self, page):
        visible = "".join(f'#line {line} "{page}"\n{code}\n' for line, code in self.parts)
        if self.kind in ("file", "run"):
            return visible
        umbrella, start = "#include <anybit/anybit.hpp>\n", "using namespace anybit;\n"
        if self.kind == "declarations":
            return f"{umbrella}{start}{self.hidden}\n{visible}"
        # Local includes of a body would land inside the function: they are moved to the top.
        includes = "\n".join(re.findall(r"^#include .*$", visible, re.M))
        visible = re.sub(r"^#include .*$", "", visible, flags=re.M)
        return f"{umbrella}{includes}\n{start}void anybit_snippet() {{\n{self.hidden}\n{visible}}}\n"


def snippets_of(text):
    """The page's snippets in order; raises ValueError with a line number for a block that does not say what it is."""
    found = []
    lines = text.split("\n")
    at = 0
    while at < len(lines):
        fence = re.match(r"^( *)```(\w[\w+-]*)", lines[at])
        if not fence:
            at += 1
            continue
        opening = at
        at += 1
        while at < len(lines) and not re.match(r"^ *```\s*$", lines[at]):
            at += 1
        if at == len(lines):
            raise ValueError(f"{opening + 1}: this block is never closed")
        block, at = lines[opening + 1:at], at + 1
        if fence.group(2).lower() not in ("cpp", "c++", "cxx", "cc"):
            continue
        indent = len(fence.group(1))
        code = "\n".join(l[indent:] for l in block)
        before = "\n".join(lines[:opening]).rstrip()
        marker = re.search(r"<!--\s*snippet:((?:(?!-->).)*)-->$", before, re.S)
        if marker:
            first, _, hidden = marker.group(1).strip().partition("\n")
            kind, _, reason = first.strip().partition(" ")
            if kind not in KINDS:
                raise ValueError(f"{opening + 1}: unknown kind of snippet '{kind}'; known: {', '.join(KINDS)}")
            if kind == "skip" and not reason:
                raise ValueError(f"{opening + 1}: `snippet: skip` needs a reason")
        elif code.lstrip().startswith("#include") or re.search(r"\bint main\(", code):
            kind, hidden = "file", ""
        else:
            raise ValueError(f"{opening + 1}: this block is a fragment: put <!-- snippet: body --> (or declarations, "
                             "continue, skip REASON) on the line before it")
        if kind == "continue":
            if not found or found[-1].kind == "skip":
                raise ValueError(f"{opening + 1}: `snippet: continue` has no compiled block before it")
            found[-1].parts.append((opening + 2, hidden + code))
        else:
            found.append(Snippet(kind, opening + 2, hidden, code))
    return found


def compile_one(number, snippet, page, options):
    source = options.work / f"{page.stem}_{number}.cpp"
    source.write_text(snippet.source(page), encoding="utf-8")
    command = [options.compiler, f"@{options.flags}", "-Wall", "-Wextra", "-Wno-unused"]
    if options.prepared and not (snippet.kind == "run" and options.run_with):  # whose flags are not those of the prepared header
        command.insert(1, f"-I{options.prepared}")
    if snippet.kind == "run":
        program = source.with_suffix("")
        command += ["-pthread", str(source), *options.run_with.split(), "-o", str(program)]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode == 0:
            result = subprocess.run([str(program)], cwd=options.work, capture_output=True, text=True)
    else:
        result = subprocess.run(command + ["-fsyntax-only", str(source)], capture_output=True, text=True)
    return result.returncode, result.stdout + result.stderr


def self_test():
    page = ("```cpp\n#include <x>\n```\n<!-- snippet: body\nint a = 1;\n-->\n```cpp\nf(a);\n```\n"
            "<!-- snippet: continue -->\n```cpp\ng(a);\n```\n```sh\nls\n```\n<!-- snippet: skip not C++ yet -->\n```cpp\n?\n```\n")
    kinds = [(s.kind, len(s.parts)) for s in snippets_of(page)]
    assert kinds == [("file", 1), ("body", 2), ("skip", 1)], kinds
    body = snippets_of(page)[1].source("p.md")
    assert body.index("int a = 1;") < body.index("f(a);") < body.index("g(a);"), body
    assert '#line 8 "p.md"\nf(a);' in body, body
    for wrong in ("```cpp\nf();\n```\n", "<!-- snippet: skip -->\n```cpp\n?\n```\n", "```cpp\n#include <x>\n",
                  "<!-- snippet: continue -->\n```cpp\n?\n```\n", "<!-- snippet: bodi -->\n```cpp\n?\n```\n"):
        try:
            snippets_of(wrong)
        except ValueError:
            continue
        raise AssertionError(f"accepted: {wrong!r}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("page", type=pathlib.Path, nargs="?")
    parser.add_argument("--compiler", default="c++")
    parser.add_argument("--flags", type=pathlib.Path)
    parser.add_argument("--work", type=pathlib.Path)
    parser.add_argument("--prepared", type=pathlib.Path, help="where anybit/anybit.hpp.gch is, compiled with the flags alone")
    parser.add_argument("--run-with", default="", help="more flags and libraries for what is run")
    parser.add_argument("--self-test", action="store_true", help="check the extraction itself")
    options = parser.parse_args()
    if options.self_test:
        self_test()
        return 0
    if not (options.page and options.flags and options.work):
        parser.error("a page, --flags and --work are needed")
    options.work.mkdir(parents=True, exist_ok=True)
    try:
        snippets = snippets_of(options.page.read_text(encoding="utf-8"))
    except ValueError as error:
        print(f"{options.page}:{error}")
        return 1
    compiled = [s for s in snippets if s.kind != "skip"]
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        jobs = [pool.submit(compile_one, i, s, options.page, options) for i, s in enumerate(compiled, 1)]
        for snippet, job in zip(compiled, jobs):
            status, output = job.result()
            if status != 0:
                failed += 1
                print(f"{options.page}:{snippet.line}: this {snippet.kind} snippet fails (status {status}):\n{output}")
    print(f"{options.page.name}: {len(compiled) - failed} snippets passed, {failed} failed, {len(snippets) - len(compiled)} skipped")
    return 1 if failed else 0


sys.exit(main())
