#!/usr/bin/env python3
"""The tables of a peers.json.

table.py peers.json                              prints them
table.py peers.json --write PAGE.md --name KIND  puts them into the page, between <!-- peers KIND: begin --> and
                                                 <!-- peers KIND: end -->, and the picture into images/ beside it
"""

import argparse
import json
import pathlib
import sys

OURS = "anybit"


def whole_bits(row):
    return int(row["bits_per_weight"])


def grouped(document, threads):
    """(bits, [(library, format, bits per weight, {n: row})]), most bits first; in a group anybit, then the fastest first."""
    products = {}
    for row in document["rows"]:
        if row["threads"] == threads:
            products.setdefault((row["library"], row["format"]), {})[row["n"]] = row
    groups = {}
    for (library, name), by_n in products.items():
        any_row = next(iter(by_n.values()))
        groups.setdefault(whole_bits(any_row), []).append((library, name, any_row["bits_per_weight"], by_n))
    for entries in groups.values():
        entries.sort(key=lambda e: (e[0] != OURS, -max(r["gmac_per_s"] for r in e[3].values()), e[:2]))
    return sorted(groups.items(), reverse=True)


def axis(document, name):
    return sorted({row[name] for row in document["rows"]})


def cell(row):
    if row is None:
        return "-"
    if row["of_probe"] is not None:
        return f"{row['us']:.0f} ({row['of_probe']:.2f})"
    return f"{row['gmac_per_s']:.0f}"


def products(document, threads):
    ns = axis(document, "n")
    probed = {row["n"] for row in document["rows"] if row["of_probe"] is not None}
    heads = ["library", "format", "bits", *(f"N={n}" + (" us" if n in probed else "") for n in ns), "error"]
    lines = []
    for _, entries in grouped(document, threads):
        for library, name, bits, by_n in entries:
            worst = max(r["error"] for r in by_n.values())
            lines.append([library, name, f"{bits:.2f}", *(cell(by_n.get(n)) for n in ns), f"{worst:.4f}"])
    return heads, lines


def best(entries, n, ours):
    rows = [
        (by_n[n], f"{library} {name}") for library, name, _, by_n in entries if n in by_n and (library == OURS) == ours
    ]
    return max(rows, key=lambda r: r[0]["gmac_per_s"], default=(None, ""))


def ratios(document, threads):
    """The fastest of ours over the fastest peer of as many whole bits, with the peer's name."""
    ns = axis(document, "n")
    lines = []
    for bits, entries in grouped(document, threads):
        cells = []
        for n in ns:
            (ours, _), (peer, name) = best(entries, n, True), best(entries, n, False)
            cells.append(f"{ours['gmac_per_s'] / peer['gmac_per_s']:.2f} {name}" if ours and peer else "-")
        if any(c != "-" for c in cells):
            lines.append([str(bits), *cells])
    return ["bits", *(f"N={n}" for n in ns)], lines


def times_best(row, peers, what):
    fastest = max((p[what] for p in peers), default=None)
    return f"{row[what] / fastest:.2f}" if fastest and row["library"] == OURS else ""


def model_table(document):
    """Tokens a second; for each of ours also the ratio to the best peer of at most as many bits, and to the best of all."""
    heads = [
        "threads",
        "library",
        "model",
        "bits",
        "prompt",
        "x peer, <= bits",
        "x any peer",
        "decode",
        "x peer, <= bits",
        "x any peer",
    ]
    lines = []
    for r in sorted(
        document["model"], key=lambda r: (r["threads"], r["library"] != OURS, r["library"], -r["bits_per_weight"])
    ):
        peers = [p for p in document["model"] if p["library"] != OURS and p["threads"] == r["threads"]]
        smaller = [p for p in peers if p["bits_per_weight"] <= r["bits_per_weight"] + 0.01]
        line = [str(r["threads"]), r["library"], r["format"], f"{r['bits_per_weight']:.2f}"]
        for what in ("prompt", "decode"):
            line += [f"{r[what]:.0f}", times_best(r, smaller, what), times_best(r, peers, what)]
        lines.append(line)
    return heads, lines


def limits_line(document, threads):
    peak, read = document["limits"]["gmac_per_s"], document["limits"]["read_gb_per_s"]
    of = lambda kind: f"{peak[kind][str(threads)]:.0f}"
    return (
        f"from registers {of('dot7')} GMAC/s of 8-bit dot products ({of('dot8')} with 8-bit weights), {of('f32')} of f32; "
        f"reading {read[str(threads)]:.1f} GB/s"
    )


def aligned(heads, lines):
    widths = [max(len(row[i]) for row in [heads, *lines]) for i in range(len(heads))]
    left = {i for i, head in enumerate(heads) if head in ("library", "format", "model")}
    put = lambda row: "  ".join(
        c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths))
    ).rstrip()
    return "\n".join([put(heads), *map(put, lines)])


def markdown(heads, lines):
    return "\n".join("| " + " | ".join(row) + " |" for row in [heads, ["---"] * len(heads), *lines])


def sections(document):
    """(title, note, heads, lines)"""
    found = []
    for threads in axis(document, "threads"):
        title = f"{threads} thread{'s' if threads > 1 else ''}"
        if document["rows"]:
            note = limits_line(document, threads) + "."
            found.append(
                (
                    f"GMAC/s, {title}; us is microseconds with the share of the read probe",
                    note,
                    *products(document, threads),
                )
            )
            found.append(
                (f"anybit over the fastest peer of as many whole bits, {title}", "", *ratios(document, threads))
            )
    if document.get("model"):
        title = f"The whole model: tokens a second, {document['prompt']} of a prompt at once, {document['decode']} one by one"
        found.append((title, "", *model_table(document)))
    return found


def not_run(document):
    return [f"{r['library']} {r['format']}: {r['reason']}" for r in document["not_run"]]


def text(document):
    parts = [document["machine"]]
    for title, note, heads, lines in sections(document):
        parts.append("\n".join(filter(None, [title, note, aligned(heads, lines)])))
    parts += [f"Doubtful: {note}" for note in document["notes"]]
    if document["not_run"]:
        parts.append("Not run:\n" + "\n".join("  " + line for line in not_run(document)))
    return "\n\n".join(parts) + "\n"


def leaders(document):
    """Of the rows, ours and those peers that are the fastest of their whole bits somewhere."""
    fast = {(OURS, row["format"]) for row in document["rows"] if row["library"] == OURS}
    for threads in axis(document, "threads"):
        for _, entries in grouped(document, threads):
            for n in axis(document, "n"):
                peer, _ = best(entries, n, False)
                if peer:
                    fast.add((peer["library"], peer["format"]))
    return {**document, "rows": [row for row in document["rows"] if (row["library"], row["format"]) in fast]}


def page(document, picture):
    parts = [f"Measured on: {document['machine']}."]
    if document["rows"]:
        parts[0] += " Of the peers, those that are the fastest of their whole bits somewhere."
        parts.append(
            f"![Speed over tokens at a time: the fastest of anybit and of the peers, at each number of bits]({picture})"
        )
    for title, note, heads, lines in sections(leaders(document)):
        parts += [f"**{title}**" + (f" ({note.rstrip('.')})" if note else ""), markdown(heads, lines)]
    parts += [f"Doubtful: {note}." for note in document["notes"]]
    if document["not_run"]:
        parts.append("Not run:\n\n" + "\n".join("- " + line for line in not_run(document)))
    return "\n\n".join(parts)


def write_into(old, document, name):
    """The page with what stands between the markers replaced; ValueError where they are missing."""
    begin, end = f"<!-- peers {name}: begin -->", f"<!-- peers {name}: end -->"
    head, found_begin, rest = old.partition(begin)
    _, found_end, tail = rest.partition(end)
    if not found_begin or not found_end:
        raise ValueError(f"no {begin} and {end} in it")
    return f"{head}{begin}\n\n{page(document, f'images/peers_{name}.svg')}\n\n{end}{tail}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--write", metavar="PAGE")
    parser.add_argument("--name", help="of the kind of machine, as in the page's markers")
    options = parser.parse_args()
    document = json.loads(pathlib.Path(options.file).read_text(encoding="utf-8"))
    if not options.write:
        print(text(document), end="")
        return 0
    if not options.name:
        parser.error("--write needs --name")
    import picture

    target = pathlib.Path(options.write)
    try:
        target.write_text(write_into(target.read_text(encoding="utf-8"), document, options.name), encoding="utf-8")
        if document["rows"]:
            image = target.parent / "images" / f"peers_{options.name}.svg"
            image.parent.mkdir(exist_ok=True)
            image.write_text(picture.draw(document), encoding="utf-8")
    except ValueError as problem:
        print(f"{target}: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
