#!/usr/bin/env python3
"""Every relative link of the project's Markdown leads to a file that exists, and to a heading where it names one; and every page
below docs/ can be reached from the README.

    links.py FOLDER        the source tree
    links.py --self-test
"""

import pathlib
import re
import sys
import tempfile

LINK = re.compile(r"\]\(([^()\s]+)\)")


def without_code(text):
    """Text whose blocks and spans of code are blank, line breaks kept."""
    text = re.sub(r"^( *)```.*?^ *```", lambda m: re.sub(r"[^\n]", " ", m.group(0)), text, flags=re.M | re.S)
    return re.sub(r"`[^`\n]*`", lambda m: " " * len(m.group(0)), text)


def anchors_of(text):
    """The anchors of a page's headings, as GitHub makes them."""
    found = set()
    for title in re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M):
        title = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title).replace("`", "").strip().lower()
        anchor = re.sub(r"[^\w\- ]", "", title).replace(" ", "-")
        count = 0
        while (anchor if count == 0 else f"{anchor}-{count}") in found:
            count += 1
        found.add(anchor if count == 0 else f"{anchor}-{count}")
    return found


def problems(root):
    pages = sorted([*root.glob("*.md"), *(root / "docs").rglob("*.md")])
    text = {page: page.read_text(encoding="utf-8") for page in pages}
    found, leads_to = [], {page: set() for page in pages}
    for page in pages:
        for match in LINK.finditer(without_code(text[page])):
            target = match.group(1)
            if re.match(r"[a-z][a-z0-9+.-]*:", target):
                continue
            line = text[page].count("\n", 0, match.start()) + 1
            path, _, anchor = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            if not file.exists():
                found.append(f"{page}:{line}: {target}: there is no such file")
            elif file in text:
                leads_to[page].add(file)
                if anchor and anchor not in anchors_of(text[file]):
                    found.append(f"{page}:{line}: {target}: that page has no such heading")
    seen, todo = set(), [root / "README.md"]
    while todo:
        page = todo.pop()
        if page not in seen:
            seen.add(page)
            todo.extend(leads_to.get(page, ()))
    found.extend(f"{page}: no link leads here from README.md" for page in pages if page not in seen and (root / "docs") in page.parents)
    return found


def self_test():
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder).resolve()
        (root / "docs").mkdir()
        (root / "README.md").write_text("# A\n[b](docs/b.md#two-words-3) [web](https://x.org/y) `[c](d.md)`\n```\n[e](f.md)\n```\n")
        (root / "docs" / "b.md").write_text("# Two `words`, 3\n[up](../README.md#a)\n")
        assert problems(root) == [], problems(root)
        (root / "docs" / "alone.md").write_text("[x](gone.md)\n[y](b.md#nowhere)\n")
        said = problems(root)
        assert [s.split("alone.md")[1] for s in said] == [
            ":1: gone.md: there is no such file", ":2: b.md#nowhere: that page has no such heading",
            ": no link leads here from README.md"], said


if sys.argv[1:] == ["--self-test"]:
    self_test()
else:
    wrong = problems(pathlib.Path(sys.argv[1]).resolve())
    print("\n".join(wrong) or "every link leads somewhere")
    sys.exit(1 if wrong else 0)
