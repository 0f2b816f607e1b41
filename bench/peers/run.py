#!/usr/bin/env python3
"""Times anybit against the libraries that package registries offer, on the same matrices, in turns.

Fetches and builds them below build/peers (the first time takes a while), then goes through rounds: in each, every product of
every library is timed once for each number of tokens and threads, each library in a process of its own. Products of one token
read weights that rotate through more memory than caches hold, next to plain reading of as much. Every result is compared
with the exact product. A whole model is timed too: a prompt of 512 tokens, and 128 tokens one by one. Leaves a table, peers.json and peers.svg in out/peers.
"""

import argparse
import contextlib
import fcntl
import json
import os
import pathlib
import platform
import random
import statistics
import sys
import time

import catalog
import install
import picture
import table
from remote import Refused, Remote

ROWS = COLS = 4096
WEIGHTS = ROWS * COLS
# Rounding activations to 8 bits costs up to 1 %, to bf16 less; beyond this a product is not that of its own weights.
WRONG = 0.05
# Seconds for threads of the library before to stop spinning: OpenBLAS waits 2^26 cycles for more work.
SETTLE = 0.04


def arguments(argv):
    numbers = lambda text: [int(n) for n in text.split(",")]
    root = install.HERE.parent.parent
    parser = argparse.ArgumentParser(
        prog="scripts/peers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--list", action="store_true", help="what would be timed; fetches and builds nothing")
    parser.add_argument(
        "--only",
        action="append",
        metavar="LIBRARY[:FORMAT]",
        default=[],
        help="* stands for any text; may be repeated. anybit is always timed too, in all formats unless named",
    )
    parser.add_argument("--tokens", type=numbers, default=[1, 2, 4, 8, 16, 32, 128, 512], metavar="N,N,..")
    parser.add_argument("--threads", type=numbers, default=[1, 2], metavar="N,N,..")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.1, help="of one timing in one round (default 0.1)")
    parser.add_argument(
        "--rotate", type=int, default=320, metavar="MB", help="weights that products of one token go through"
    )
    parser.add_argument(
        "--rotate-up-to", type=int, default=1, metavar="N", help="the same for products of up to N tokens"
    )
    parser.add_argument("--parts", default="products,model", help="products, model, or both (the default)")
    parser.add_argument(
        "--model", metavar="FILE.gguf", help="the whole model; unless given, the one that scripts/demo fetches"
    )
    parser.add_argument("--model-rounds", type=int, default=3)
    parser.add_argument("--prompt", type=int, default=512, help="tokens of the model's prompt")
    parser.add_argument("--decode", type=int, default=128, help="tokens that the model decodes")
    parser.add_argument("--out", default=str(root / "out" / "peers"), metavar="DIR")
    parser.add_argument(
        "--work", default=str(root / "build" / "peers"), metavar="DIR", help="where libraries are fetched and built"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="of compilers")
    parser.add_argument("--no-install", action="store_true", help="use the libraries that are in place already")
    parser.add_argument(
        "--lock",
        action="append",
        default=[],
        metavar="FILE",
        help="held while working on matrices and models, for other jobs that take it too; may be repeated, taken in this order",
    )
    return parser.parse_args(argv)


class Turns:
    """Holds the lock files while timing, at most about `most` seconds at a time."""

    def __init__(self, paths, most=45):
        self.paths, self.most, self.files, self.since = paths, most, [], 0.0

    def take(self):
        if self.files and time.monotonic() - self.since > self.most:
            self.give()
            time.sleep(0.5)
        if not self.files:
            for path in self.paths:
                self.files.append(open(path, "w"))
                fcntl.flock(self.files[-1], fcntl.LOCK_EX)
            self.since = time.monotonic()

    def give(self):
        for file in reversed(self.files):
            file.close()
        self.files = []


class Contest:
    def __init__(self, options, place):
        self.options, self.place = options, place
        self.remotes, self.formats, self.samples, self.errors, self.not_run = {}, {}, {}, {}, []
        self.turns = Turns(options.lock)
        self.limits = self.checker = None
        self.make, self.best = {}, {"gmac_per_s": {}, "read_gb_per_s": {}}

    def refuse(self, library, name, reason):
        self.not_run.append({"library": library, "format": name, "reason": str(reason)})
        print(f"   not run: {library} {name}: {reason}", flush=True)

    def install(self, chosen):
        """Returns the libraries that are in place."""
        if self.options.no_install:
            self.place.build_workers()
            return list(chosen)
        print("== Fetching and building", flush=True)
        self.place.packages(catalog.TOOLS)
        ready, sources = [], {}
        for library in chosen:
            try:
                if library.packages:
                    self.place.packages(library.packages)
                if library.source:
                    self.place.source(library.source)
                    sources[self.place.name(library.source).upper().replace(".", "_").replace("-", "_")] = library.source
                ready.append(library)
            except (install.Failed, OSError, StopIteration) as problem:
                self.refuse(library.name, "*", problem)
        self.place.worker_programs(sources)
        return ready

    def start(self, ready, chosen):
        print("== Quantizing with every library", flush=True)
        python, folder = self.place.python, self.place.data
        self.checker = Remote([python, install.HERE / "work_check.py", folder])
        self.checker.ask("data")
        self.limits = Remote([self.place.programs / "work_limits"])
        for library in ready:
            command = (
                [python, install.HERE / library.script] if library.script else [self.place.programs / library.program]
            )
            self.launch(
                library.name, lambda c=command, e=library.environment: Remote([*c, folder], dict(e)), chosen[library]
            )

    def launch(self, library, make, formats):
        """Starts a library's program and has it quantize."""
        begin = time.monotonic()
        self.make[library] = make
        try:
            self.remotes[library] = make()
        except (Refused, OSError) as problem:
            self.refuse(library, "*", problem)
            return
        for name in formats:
            try:
                self.open(library, name)
            except (Refused, OSError) as problem:
                self.refuse(library, name, problem)
                self.revive(library)
        print(f"   {library}: {time.monotonic() - begin:.0f} s", flush=True)

    def revive(self, library):
        """If the program has ended, starts it again with the formats that it had; a format that ended it stays away."""
        if self.remotes[library].process.poll() is None:
            return
        had = [name for of, name in self.formats if of == library]
        try:
            self.remotes[library] = self.make[library]()
            for name in had:
                self.remotes[library].ask("open", name)
        except (Refused, OSError) as problem:
            for name in had:
                self.drop_format((library, name), problem)

    def open(self, library, name):
        self.turns.take()  # quantizing would disturb others that time
        byte_count = int(self.remotes[library].ask("open", name)[0])
        weights = self.place.data / "own.f32"
        self.remotes[library].ask("weights", name, weights)
        self.checker.ask("learn", f"{library}:{name}", weights)
        weights.unlink()
        self.formats[library, name] = byte_count

    def drop_format(self, key, problem):
        self.formats.pop(key, None)
        for sample in [s for s in self.samples if s[:2] == key]:
            del self.samples[sample]
        self.refuse(*key, problem)

    def read_rate(self, threads):
        return float(self.limits.ask("read", self.options.rotate * 1000000, threads)[0])

    def round(self, number):
        """Every product once. The order changes from round to round, so that nobody always follows the same neighbour."""
        self.peaks()
        for tokens in self.options.tokens:
            order = list(self.formats)
            random.Random(number * 1000 + tokens).shuffle(order)
            for key in order:
                for threads in self.options.threads:
                    if key not in self.formats:
                        continue
                    try:
                        self.sample(key, tokens, threads)
                    except Refused as problem:
                        self.drop_format(key, problem)
                        self.revive(key[0])
                if key[0] in self.remotes:
                    with contextlib.suppress(Refused):
                        self.remotes[key[0]].ask("drop")
            print(
                f"   round {number + 1} of {self.options.rounds}: {tokens} token{'s' if tokens > 1 else ''}", flush=True
            )
        self.turns.give()

    def sample(self, key, tokens, threads):
        library, name = key
        rotates = tokens <= self.options.rotate_up_to
        rotate = self.options.rotate * 1000000 if rotates else 0
        what = (*key, tokens, threads)
        first = what not in self.errors
        result = self.place.data / "y.f32"
        self.turns.take()
        time.sleep(SETTLE)
        before = self.read_rate(threads) if rotates else None
        seconds, _ = map(
            float,
            self.remotes[library].ask(
                "run", name, tokens, threads, rotate, self.options.seconds, result if first else "-"
            ),
        )
        after = self.read_rate(threads) if rotates else None
        if first:
            self.check(what, result)
        share = self.formats[key] / seconds / ((before + after) / 2) if rotates else None
        self.samples.setdefault(what, []).append((seconds, share))

    def check(self, what, result):
        """Whether this product of this library is what its weights make it, before its time counts."""
        library, name, tokens, _ = what
        error, own = map(float, self.checker.ask("check", f"{library}:{name}", result, tokens))
        if not own < WRONG:
            raise Refused(f"its result is wrong: {own:.3g} off the product of its own weights, {tokens} tokens")
        self.errors[what] = (error, own)

    def peaks(self):
        """Multiply-adds a second from registers, by kind and threads, and bytes read: once more, keeping the best."""
        self.turns.take()
        time.sleep(SETTLE)
        for threads in self.options.threads:
            for kind in ("dot7", "dot8", "f32"):
                rate = float(self.limits.ask(kind, threads)[0]) * 1e-9
                best = self.best["gmac_per_s"].setdefault(kind, {})
                best[threads] = max(best.get(threads, 0), rate)
            reads = self.best["read_gb_per_s"]
            reads[threads] = max(reads.get(threads, 0), self.read_rate(threads) * 1e-9)

    def rows(self, limits):
        rows = []
        for (library, name, tokens, threads), samples in self.samples.items():
            seconds = statistics.median(s for s, _ in samples)
            byte_count = self.formats[library, name]
            error, own = self.errors[library, name, tokens, threads]
            speed = WEIGHTS * tokens / seconds * 1e-9
            rows.append(
                {
                    "library": library,
                    "format": name,
                    "bits_per_weight": 8 * byte_count / WEIGHTS,
                    "n": tokens,
                    "threads": threads,
                    "us": seconds * 1e6,
                    "gmac_per_s": speed,
                    "of_probe": statistics.median(p for _, p in samples) if samples[0][1] else None,
                    "of_peak": speed / limits["gmac_per_s"]["dot7"][threads],
                    "error": error,
                    "error_of_own_weights": own,
                    "rounds": len(samples),
                    "spread": (max(s for s, _ in samples) - min(s for s, _ in samples)) / seconds,
                }
            )
        return rows

    def close(self):
        self.turns.give()
        for remote in [*self.remotes.values(), self.limits, self.checker]:
            if remote:
                remote.close()
        self.remotes, self.limits, self.checker = {}, None, None
        for left in ("own.f32", "y.f32"):
            (self.place.data / left).unlink(missing_ok=True)


class ModelContest:
    """The same for a whole model."""

    def __init__(self, options, place, turns, not_run):
        self.options, self.place, self.turns, self.not_run = options, place, turns, not_run
        self.commands, self.remotes, self.bits, self.samples = {}, {}, {}, {}

    def refuse(self, library, name, reason):
        self.not_run.append({"library": library, "format": f"whole model, {name}", "reason": str(reason)})
        print(f"   not run: whole model, {library} {name}: {reason}", flush=True)

    def start(self, file, libraries):
        for library, program, formats in catalog.MODELS:
            if library not in libraries:
                continue
            folder = self.place.folder / "models" / program
            folder.mkdir(parents=True, exist_ok=True)
            self.commands[library] = [self.place.programs / program, file, folder]
            self.open(library, formats)

    def open(self, library, formats):
        """In a new program."""
        try:
            remote = self.remotes[library] = Remote(self.commands[library])
        except (Refused, OSError) as problem:
            self.refuse(library, "*", problem)
            formats = []
        for name in formats:
            self.turns.take()
            try:
                self.bits[library, name] = float(remote.ask("open", name)[0])
            except Refused as problem:
                self.refuse(library, name, problem)

    def drop(self, library, name, problem):
        """Goes on without a format that could not be run. Its program may be at an end: the others get another."""
        self.refuse(library, name, problem)
        del self.bits[library, name]
        self.samples = {k: v for k, v in self.samples.items() if k[:2] != (library, name)}
        others = [n for (l, n) in self.bits if l == library]
        self.bits = {k: v for k, v in self.bits.items() if k[0] != library}
        self.remotes.pop(library).close()
        self.open(library, others)

    def round(self, number):
        order = list(self.bits)
        random.Random(number).shuffle(order)
        for key in order:
            for threads in self.options.threads if key in self.bits else []:
                self.turns.take()
                time.sleep(SETTLE)
                try:
                    answer = self.remotes[key[0]].ask("run", key[1], threads, self.options.prompt, self.options.decode)
                except Refused as problem:
                    self.drop(*key, problem)
                    break
                self.samples.setdefault((*key, threads), []).append(tuple(map(float, answer)))
        self.turns.give()
        print(f"   round {number + 1} of {self.options.model_rounds}: whole model", flush=True)

    def rows(self):
        return [
            {
                "library": library,
                "format": name,
                "bits_per_weight": self.bits[library, name],
                "threads": threads,
                "prompt": statistics.median(p for p, _ in samples),
                "decode": statistics.median(d for _, d in samples),
                "rounds": len(samples),
            }
            for (library, name, threads), samples in self.samples.items()
        ]

    def close(self):
        self.turns.give()
        for remote in self.remotes.values():
            remote.close()


def suspicious(rows):
    """Sentences on rows that cannot be what they claim."""
    return [
        f"{r['library']} {r['format']}, {r['n']} tokens, {r['threads']} threads reads its weights {r['of_probe']:.2f} times as fast as "
        "memory does: they stay in a cache, or equal ones are stored once"
        for r in rows
        if r["of_probe"] and r["of_probe"] > 1.15
    ]


def busy(peaks):
    """A sentence if threads did not add up: then something else ran on the machine."""
    one, most = min(peaks), max(peaks)
    if peaks[most] / most > 0.8 * peaks[one] / one:
        return []
    return [
        f"{most} threads reach {peaks[most]:.0f} GMAC/s from registers, {one} {peaks[one]:.0f}: other work disturbed this run"
    ]


def model_file(options):
    """The file, or why there is none."""
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "anybit"
    file = pathlib.Path(options.model) if options.model else cache / "SmolLM2-135M-Instruct.Q4_1.gguf"
    return (
        (file, "")
        if file.is_file()
        else (None, f"there is no {file}: pass --model FILE.gguf, or run scripts/demo once")
    )


def machine():
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def show_list(chosen):
    for library, formats in chosen.items():
        origin = library.source.package if library.source else ", ".join(library.packages) or "this machine"
        print(f"{library.name} ({origin})\n   {' '.join(formats)}")


def rounds(count, contest):
    try:
        for number in range(count):
            contest.round(number)
    except KeyboardInterrupt:
        print("   stopped: what there is goes into the table", flush=True)


def save(options, document):
    """Writes what there is, and gives it back as a reader of the file would find it."""
    out = pathlib.Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(document, indent=1)
    (out / "peers.json").write_text(text + "\n", encoding="utf-8")
    document = json.loads(text)
    if document["rows"]:
        (out / "peers.svg").write_text(picture.draw(document), encoding="utf-8")
    return document


def compare(options, chosen):
    """What becomes peers.json; saved after each part too, because both take long."""
    place = install.Place(options.work, options.jobs)
    contest = Contest(options, place)
    document = {
        "machine": machine(),
        "rows_and_columns": ROWS,
        "rotated_mb": options.rotate,
        "prompt": options.prompt,
        "decode": options.decode,
        "limits": {},
        "rows": [],
        "model": [],
        "notes": [],
        "not_run": contest.not_run,
    }
    try:
        ready = contest.install(chosen)
        contest.start(ready if "products" in options.parts else [], chosen)
        if contest.formats:
            print(f"== Timing {len(contest.formats)} products in turns", flush=True)
            rounds(options.rounds, contest)
            document["limits"] = contest.best
            document["rows"] = contest.rows(contest.best)
            document["notes"] = suspicious(document["rows"]) + busy(contest.best["gmac_per_s"]["dot7"])
    finally:
        contest.close()
    save(options, document)
    if "model" in options.parts:
        models = ModelContest(options, place, contest.turns, contest.not_run)
        document["model"] = compare_models(options, models, {library.name for library in ready})
    return save(options, document)


def compare_models(options, models, libraries):
    file, problem = model_file(options)
    if not file:
        models.refuse("*", "*", problem)
        return []
    try:
        print(f"== Converting {file.name} for every library", flush=True)
        models.start(file, libraries)
        print(f"== Timing {len(models.bits)} models in turns", flush=True)
        rounds(options.model_rounds, models)
        return models.rows()
    finally:
        models.close()


def main(argv=None):
    options = arguments(argv)
    ours = [] if not options.only or any(o.startswith("anybit") for o in options.only) else ["anybit"]
    chosen = catalog.select(options.only + ours)
    if options.list:
        show_list(chosen)
        return 0
    missing = [o for o in options.only if not catalog.select([o])]
    if missing:
        print(f"scripts/peers: --only {missing[0]} names nothing; see --list", file=sys.stderr)
        return 2
    try:
        document = compare(options, chosen)
    except (install.Failed, Refused) as problem:
        print(f"scripts/peers: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(table.text(document))
    for name in ("peers.json", "peers.svg") if document["rows"] else ("peers.json",):
        print(pathlib.Path(options.out) / name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
