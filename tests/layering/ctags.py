#!/usr/bin/env python3
"""ctags.py CTAGS INCLUDE_FOLDER

Every class, enumeration and function that a plain scan of the headers finds is in what Universal Ctags lists, so that editors find it too.
"""

import collections
import pathlib
import re
import subprocess
import sys

# Names before a parenthesis that define nothing.
NO_FUNCTIONS = {"if", "for", "while", "switch", "return", "sizeof", "alignas", "alignof", "decltype", "requires", "defined", "noexcept",
                "static_assert", "operator", "__attribute__", "catch", "assert", "ANYBIT_CHECK", "ANYBIT_TRY", "ANYBIT_TRY_STATUS"}


def code_of(text):
    """The text without comments, strings and preprocessor lines."""
    text = re.sub(r"//[^\n]*|/\*.*?\*/", lambda m: "\n" * m[0].count("\n"), text, flags=re.S)
    text = re.sub(r'"(?:\\.|[^"\\\n])*"|(?<![0-9A-Za-z_])\'(?:\\.|[^\'\\\n])\'', '""', text)
    return re.sub(r"^[ \t]*#(?:\\\n|[^\n])*", "", text, flags=re.M)


def defined_in(code):
    """Names of classes, enumerations and functions defined at namespace or class scope."""
    names = set()
    scopes, start, i, parentheses = [], 0, 0, 0
    while i < len(code):
        c = code[i]
        if c in "([":
            parentheses += 1
        elif c in ")]":
            parentheses -= 1
        elif parentheses == 0 and c in ";{}":
            head = code[start:i].strip()
            open_scope = not scopes or scopes[-1]
            if c == "{":
                kind = False
                if open_scope:
                    if re.search(r"\bnamespace\b[^;=()]*$", head):
                        kind = True
                    elif (m := re.search(r"(?:^|[>\s])(?:struct|class|union)\s+(?:\[\[[^\]]*\]\]\s*|alignas\([^)]*\)\s*)*(\w+)(?:<[^{}]*>)?(?:\s+final)?\s*(?::[^:].*)?$", head, re.S)) and "(" not in m[0].split(":")[0]:
                        names.add(m[1])
                        kind = True
                    elif (m := re.search(r"\benum\s+(?:class\s+)?(\w+)", head)):
                        names.add(m[1])
                    elif (name := function_name(head)):
                        names.add(name)
                scopes.append(kind)
            elif c == "}":
                if scopes:
                    scopes.pop()
            start = i + 1
        i += 1
    return names


def function_name(head):
    head = re.sub(r"^(?:public|private|protected)\s*:", "", head.strip())
    depth = 0
    for m in re.finditer(r"[<>()]|\b\w+\s*\(", head):
        token = m[0]
        if token == "<":
            depth += 1
        elif token == ">" and head[m.start() - 1] != "-":
            depth = max(depth - 1, 0)
        elif depth == 0 and len(token) > 1:
            name = token[:-1].strip()
            if name in NO_FUNCTIONS or re.search(r"=\s*\[|\bauto\s+\w+\s*=|=\s*$", head[:m.start()]):
                return None
            return None if re.search(r"\boperator\b", head) else name
    return None


def main():
    ctags, root = sys.argv[1], pathlib.Path(sys.argv[2])
    version = subprocess.run([ctags, "--version"], capture_output=True, text=True).stdout
    if "Universal Ctags" not in version:
        print("skipped: no Universal Ctags (Debian: universal-ctags)")
        return 0
    listed = collections.defaultdict(set)
    tags = subprocess.run([ctags, "-R", "--languages=C++", "--kinds-C++=+p", "-f", "-", str(root)], check=True, capture_output=True,
                          text=True).stdout
    for line in tags.splitlines():
        name, file = line.split("\t")[:2]
        listed[file].add(name)
    missing, found = [], 0
    for header in sorted(root.rglob("*.hpp")):
        for name in sorted(defined_in(code_of(header.read_text()))):
            found += 1
            if name not in listed[str(header)] and "~" + name not in listed[str(header)]:
                missing.append(f"{header.relative_to(root)}: {name}")
    print("\n".join(missing))
    print(f"{found} definitions, {len(missing)} of them unknown to ctags")
    return 1 if missing or found < 1000 else 0


sys.exit(main())
