#!/usr/bin/env python3
"""What of the comparison needs neither network nor libraries: selection, tables, picture, the talk with workers."""

import contextlib
import io
import json
import pathlib
import sys
import tempfile
import unittest
import xml.etree.ElementTree
import zipfile
from unittest import mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "bench" / "peers"))
sys.dont_write_bytecode = True

import catalog  # noqa: E402
import picture  # noqa: E402
import run  # noqa: E402
import table  # noqa: E402
from remote import Refused, Remote  # noqa: E402


def row(library, name, bits, n, threads, speed, probe=None):
    return {
        "library": library,
        "format": name,
        "bits_per_weight": bits,
        "n": n,
        "threads": threads,
        "us": 4096 * 4096 * n / speed / 1e3,
        "gmac_per_s": speed,
        "of_probe": probe,
        "of_peak": speed / 200,
        "error": 0.1,
        "error_of_own_weights": 0.006,
        "rounds": 3,
        "spread": 0.02,
    }


def model_row(library, name, bits, prompt, decode):
    return {
        "library": library,
        "format": name,
        "bits_per_weight": bits,
        "threads": 1,
        "prompt": prompt,
        "decode": decode,
        "rounds": 3,
    }


DOCUMENT = {
    "machine": "a <machine> & more",
    "prompt": 512,
    "decode": 128,
    "limits": {"gmac_per_s": {"dot7": {"1": 200}, "dot8": {"1": 190}, "f32": {"1": 50}}, "read_gb_per_s": {"1": 20}},
    "rows": [
        row("anybit", "sf4", 4.125, 1, 1, 40, 0.9),
        row("anybit", "sf4", 4.125, 512, 1, 180),
        row("other", "q4", 4.5, 1, 1, 20, 0.5),
        row("other", "q4", 4.5, 512, 1, 60),
        row("third", "k4", 4.25, 512, 1, 90),
        row("third", "f32", 32, 512, 1, 45),
    ],
    "model": [
        model_row("anybit", "sf4", 5.05, 400, 100),
        model_row("other", "q4", 5.35, 500, 80),
        model_row("other", "q2", 5.0, 200, 90),
    ],
    "notes": [],
    "not_run": [{"library": "other", "format": "q9", "reason": "no such type"}],
}


class Tables(unittest.TestCase):
    def test_products_are_grouped_by_bits_and_ours_leads_its_group(self):
        heads, lines = table.products(DOCUMENT, 1)
        self.assertEqual(heads, ["library", "format", "bits", "N=1 us", "N=512", "error"])
        self.assertEqual(
            [line[:2] for line in lines], [["third", "f32"], ["anybit", "sf4"], ["third", "k4"], ["other", "q4"]]
        )
        self.assertEqual(lines[1][3:], ["419 (0.90)", "180", "0.1000"])
        self.assertEqual(lines[2][3], "-")

    def test_ratio_is_to_the_fastest_peer_of_each_cell(self):
        _, lines = table.ratios(DOCUMENT, 1)
        self.assertEqual(lines, [["4", "2.00 other q4", "2.00 third k4"]])

    def test_models_compare_with_peers_of_no_more_bits_and_with_all(self):
        _, lines = table.model_table(DOCUMENT)
        self.assertEqual(lines[0], ["1", "anybit", "sf4", "5.05", "400", "2.00", "0.80", "100", "1.11", "1.11"])

    def test_text_names_what_was_not_run(self):
        self.assertIn("other q9: no such type", table.text(DOCUMENT))

    def test_page_is_written_between_markers_and_again(self):
        page = "before\n<!-- peers a: begin -->\nold\n<!-- peers a: end -->\nafter\n"
        once = table.write_into(page, DOCUMENT, "a")
        self.assertTrue(once.startswith("before\n") and once.endswith("\nafter\n"))
        self.assertNotIn("\nold\n", once)
        self.assertIn("images/peers_a.svg", once)
        self.assertEqual(table.write_into(once, DOCUMENT, "a"), once)
        with self.assertRaises(ValueError):
            table.write_into(page, DOCUMENT, "b")

    def test_page_leaves_out_peers_that_lead_nowhere(self):
        names = {(r["library"], r["format"]) for r in table.leaders(DOCUMENT)["rows"]}
        self.assertEqual(names, {("anybit", "sf4"), ("other", "q4"), ("third", "k4"), ("third", "f32")})
        slow = row("slow", "q4", 4.5, 512, 1, 1)
        self.assertNotIn(slow, table.leaders({**DOCUMENT, "rows": [*DOCUMENT["rows"], slow]})["rows"])

    def test_nothing_measured_still_gives_a_text(self):
        self.assertIn("a <machine>", table.text({**DOCUMENT, "rows": [], "model": [], "not_run": []}))

    def test_weights_that_come_faster_than_memory_are_told(self):
        notes = run.suspicious(
            [row("a", "f", 4, 1, 1, 40, 1.0), row("b", "f", 4, 1, 1, 90, 2.0), row("c", "f", 4, 2, 1, 99)]
        )
        self.assertEqual([note.split()[0] for note in notes], ["b"])
        self.assertIn("Doubtful: b f", table.text({**DOCUMENT, "notes": notes}))

    def test_a_disturbed_run_is_told(self):
        self.assertEqual(run.busy({1: 200.0, 2: 380.0}), [])
        self.assertEqual(run.busy({2: 380.0}), [])
        self.assertEqual(len(run.busy({1: 200.0, 2: 210.0})), 1)


class Picture(unittest.TestCase):
    def test_it_is_well_formed(self):
        root = xml.etree.ElementTree.fromstring(picture.draw(DOCUMENT))
        self.assertTrue(root.tag.endswith("svg"))
        self.assertIn("anybit, 4 bits", "".join(root.itertext()))


class Installation(unittest.TestCase):
    def place(self, folder, files):
        """With a wheel of these files where pip would leave it."""
        place = run.install.Place(folder, 1)
        source = catalog.Source("some==1.0", "some-wheel", (), wheel="some.libs")
        archives = place.folder / "archives" / "some==1.0-wheel"
        archives.mkdir(parents=True)
        with zipfile.ZipFile(archives / "some-1.0-py3-none-any.whl", "w") as wheel:
            for file in files:
                wheel.writestr(file, "content")
        return place, source

    def test_a_wheel_is_unpacked_not_built(self):
        with tempfile.TemporaryDirectory() as folder, mock.patch.object(run.install, "step") as step:
            place, source = self.place(folder, ["include/some.h", "some.libs/libsome-1a2b.so"])
            place.source(source)
            place.source(source)
            self.assertEqual(step.call_count, 1)
            self.assertIn("--only-binary", step.call_args.args)
            self.assertTrue((place.build_folder(source) / "libsome-1a2b.so").is_file())
            self.assertTrue((place.source_folder(source) / "include" / "some.h").is_file())

    def test_what_does_not_install_is_named_and_the_others_go_on(self):
        with tempfile.TemporaryDirectory() as folder, mock.patch.object(run.install, "step"):
            place, source = self.place(folder, ["include/some.h"])
            place.packages = lambda wanted: None
            contest = run.Contest(run.arguments([]), place)
            broken = catalog.Library("broken", ("q4",), program="none", source=source)
            good = catalog.Library("good", ("q4",), script="none", packages=("numpy==1",))
            with contextlib.redirect_stdout(io.StringIO()):
                self.assertEqual(contest.install({broken: broken.formats, good: good.formats}), [good])
        self.assertEqual([n["library"] for n in contest.not_run], ["broken"])
        self.assertIn("some.libs", contest.not_run[0]["reason"])


class Selection(unittest.TestCase):
    def test_patterns(self):
        chosen = {library.name: formats for library, formats in catalog.select(["llama.cpp:q4_0*", "Eigen"]).items()}
        self.assertEqual(chosen, {"llama.cpp": ("q4_0", "q4_0+repack"), "Eigen": ("f32",)})
        self.assertEqual(len(catalog.select([])), len(catalog.LIBRARIES))

    def test_names_are_unique(self):
        for library in catalog.LIBRARIES:
            self.assertEqual(len(set(library.formats)), len(library.formats), library.name)

    def test_list_and_only_touch_nothing(self):
        with tempfile.TemporaryDirectory() as folder:
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                status = run.main(
                    ["--list", "--only", "torch:bf16", "--work", f"{folder}/work", "--out", f"{folder}/out"]
                )
            self.assertEqual(status, 0)
            self.assertIn("torch", out.getvalue())
            self.assertIn("anybit", out.getvalue())
            self.assertNotIn("Eigen", out.getvalue())
            with contextlib.redirect_stderr(io.StringIO()) as problem:
                self.assertEqual(run.main(["--only", "no such thing", "--work", f"{folder}/work"]), 2)
            self.assertIn("no such thing", problem.getvalue())
            self.assertEqual(list(pathlib.Path(folder).iterdir()), [])


WORKER = """
import sys
print("ready", flush=True)
for line in sys.stdin:
    words = line.split()
    if words[0] == "crash": sys.exit("out of luck")
    print("no such thing" if words[0] == "bad" else "ok " + " ".join(words[1:]), flush=True)
"""


class Talk(unittest.TestCase):
    def test_answers_refusals_and_crashes(self):
        remote = Remote([sys.executable, "-c", WORKER], patience=20)
        try:
            self.assertEqual(remote.ask("echo", 1, "two"), ["1", "two"])
            with self.assertRaisesRegex(Refused, "^such thing$"):
                remote.ask("bad")
            with self.assertRaisesRegex(Refused, "out of luck"):
                remote.ask("crash")
            with self.assertRaises(Refused):
                remote.ask("echo")
        finally:
            remote.close()

    def test_silence_ends_the_program(self):
        with self.assertRaisesRegex(Refused, "no answer"):
            Remote([sys.executable, "-c", "import time; time.sleep(60)"], patience=0.2)


class Contest(unittest.TestCase):
    """A whole round with workers of this file's own: one is good, one computes something else."""

    def test_a_format_that_ends_its_program_takes_no_other_with_it(self):
        program = WORKER.replace('words[0] == "crash"', 'words[1:2] == ["bad"]').replace(
            '" ".join(words[1:])', '"1000"'
        )
        with tempfile.TemporaryDirectory() as folder:
            contest = run.Contest(run.arguments([]), run.install.Place(folder, 1))
            contest.checker = type("Checks", (), {"ask": lambda *_: [], "close": lambda _: None})()
            opens = contest.open
            contest.open = lambda *what: ((contest.place.data / "own.f32").touch(), opens(*what))
            with contextlib.redirect_stdout(io.StringIO()):
                make = lambda: Remote([sys.executable, "-c", program], patience=20)
                contest.launch("other", make, ["one", "bad", "two"])
            self.assertEqual(contest.remotes["other"].ask("open", "one"), ["1000"])
            contest.close()
        self.assertEqual([name for _, name in contest.formats], ["one", "two"])
        self.assertEqual([n["format"] for n in contest.not_run], ["bad"])

    def test_wrong_results_are_not_timed(self):
        options = run.arguments(["--tokens", "1,8", "--threads", "1", "--rounds", "2"])
        with tempfile.TemporaryDirectory() as folder:
            contest = run.Contest(options, run.install.Place(folder, 1))
            answers = {
                "read": ["2e10"],
                "dot7": ["2e11"],
                "dot8": ["2e11"],
                "f32": ["5e10"],
                "drop": [],
                "run": ["0.001", "3"],
            }
            fake = type(
                "Fake",
                (),
                {
                    "ask": lambda self, command, *words: answers[command],
                    "process": type("Lives", (), {"poll": staticmethod(lambda: None)}),
                    "close": lambda self: None,
                },
            )()
            checks = type(
                "Checks",
                (),
                {
                    "close": lambda self: None,
                    "ask": lambda self, _, name, *words: ["0.1", "0.9" if name.endswith("bad") else "0.006"],
                },
            )()
            contest.limits, contest.checker, contest.remotes = fake, checks, {"other": fake}
            contest.formats = {("other", "good"): 8388608, ("other", "bad"): 8388608}
            with contextlib.redirect_stdout(io.StringIO()):
                contest.round(0)
                contest.round(1)
            rows = contest.rows(contest.best)
            contest.close()
        self.assertEqual({(r["format"], r["n"], r["rounds"]) for r in rows}, {("good", 1, 2), ("good", 8, 2)})
        one = next(r for r in rows if r["n"] == 1)
        self.assertAlmostEqual(one["of_probe"], 8388608 / 0.001 / 2e10)
        self.assertAlmostEqual(one["gmac_per_s"], 16.777216)
        self.assertEqual([(n["format"], "wrong" in n["reason"]) for n in contest.not_run], [("bad", True)])
        json.dumps(rows)


if __name__ == "__main__":
    unittest.main()
