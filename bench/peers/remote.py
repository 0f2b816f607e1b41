"""A program that answers lines of text with lines of text (worker.hpp)."""

import os
import re
import select
import subprocess
import tempfile


class Refused(Exception):
    """It answered `no`, with the reason; or it ended or went silent."""


class Remote:
    def __init__(self, command, environment=None, patience=300):
        self.log = tempfile.TemporaryFile()
        self.patience = patience
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            bufsize=0,
            env={**os.environ, **(environment or {})},
        )
        self.rest = b""
        try:
            self.expect("ready")
        except Refused:
            self.close()
            raise

    def line(self):
        while b"\n" not in self.rest:
            ready, _, _ = select.select([self.process.stdout], [], [], self.patience)
            more = os.read(self.process.stdout.fileno(), 65536) if ready else b""
            if not more:
                raise Refused(self.end(f"no answer in {self.patience} s" if not ready else "ended"))
            self.rest += more
        line, self.rest = self.rest.split(b"\n", 1)
        return line.decode(errors="replace")

    def expect(self, word):
        """The rest of the answer `word`. Lines that are no answer are passed over: libraries print on their way out, too."""
        while True:
            first, _, rest = self.line().partition(" ")
            if first == word:
                return rest.split()
            if first == "no":
                raise Refused(rest or first)

    def ask(self, *words):
        if self.process.poll() is not None:
            raise Refused("its program has ended")
        try:
            self.process.stdin.write((" ".join(map(str, words)) + "\n").encode())
        except BrokenPipeError:
            raise Refused(self.end("ended")) from None
        return self.expect("ok")

    def end(self, how):
        """Stops the program and says how it went, with the last complaint that it printed, or the last line."""
        self.process.kill()
        status = self.process.wait()
        self.log.seek(0)
        lines = self.log.read().decode(errors="replace").strip().splitlines()
        complaints = [line for line in lines if "assert" in line.lower() or "error" in line.lower()]
        self.close()
        # A failed assertion names its source by the path on the machine that compiled it.
        last = re.sub(r"^/\S*/(?=[^/\s]+:\d+:)", "", (complaints or lines or [""])[-1])
        return f"its program {how} (status {status})" + (f": {last[:200]}" if last else "")

    def close(self):
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.log.close()
