"""Fetches and builds what the catalogue names, all of it below one folder."""

import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile

HERE = pathlib.Path(__file__).resolve().parent


class Failed(Exception):
    pass


def step(label, log, *command, environment=None):
    """Runs a command with its output in `log` and tells every 15 seconds that it still runs."""
    begin = told = time.monotonic()
    with open(log, "ab") as sink:
        process = subprocess.Popen(
            [str(c) for c in command], stdout=sink, stderr=subprocess.STDOUT, env={**os.environ, **(environment or {})}
        )
        try:
            while process.poll() is None:
                time.sleep(0.2)
                if time.monotonic() - told > 15:
                    told = time.monotonic()
                    print(f"   {label} ... {told - begin:.0f} s", flush=True)
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise Failed(f"{label} failed, see {log}")
    print(f"   {label}: {time.monotonic() - begin:.0f} s", flush=True)


class Place:
    def __init__(self, folder, jobs):
        self.folder, self.jobs = pathlib.Path(folder).resolve(), jobs
        self.logs, self.venv = self.folder / "logs", self.folder / "venv"
        self.programs, self.data = self.folder / "programs", self.folder / "data"
        for path in (self.logs, self.data):
            path.mkdir(parents=True, exist_ok=True)

    @property
    def python(self):
        return self.venv / "bin" / "python"

    def packages(self, wanted):
        """Installs Python packages, name==version each, unless they are there."""
        if not self.python.exists():
            step("a Python environment", self.logs / "venv.log", sys.executable, "-m", "venv", self.venv)
        ask = (
            "import sys, importlib.metadata as m\nfor w in sys.argv[1:]: n, v = w.split('=='); assert m.version(n) == v"
        )
        if subprocess.run([str(self.python), "-c", ask, *wanted], stderr=subprocess.DEVNULL, check=False).returncode:
            step(
                "pip install " + " ".join(wanted),
                self.logs / "pip.log",
                self.python,
                "-m",
                "pip",
                "install",
                "--disable-pip-version-check",
                *wanted,
            )

    def source_folder(self, source):
        if source.wheel:
            return self.folder / "src" / (source.package.replace("==", "-") + "-wheel")
        return self.folder / "src" / source.package.replace("==", "-") / source.folder

    def build_folder(self, source):
        if source.wheel:
            return self.source_folder(source) / source.wheel
        return self.folder / source.folder.rpartition("/")[2]

    @staticmethod
    def name(source):
        return source.folder.rpartition("/")[2]

    def wheel(self, source):
        """Downloads and unpacks a wheel."""
        if self.build_folder(source).exists():
            return
        archives = self.folder / "archives" / (source.package + "-wheel")
        step(
            f"pip download {source.package}, its wheel",
            self.logs / (self.name(source) + ".log"),
            self.python,
            "-m",
            "pip",
            "download",
            "--disable-pip-version-check",
            "--no-deps",
            "--only-binary",
            ":all:",
            "--dest",
            archives,
            source.package,
        )
        unpacked = self.folder / "src" / "unpacking"
        shutil.rmtree(unpacked, ignore_errors=True)
        with zipfile.ZipFile(next(archives.glob("*.whl"))) as archive:
            archive.extractall(unpacked)
        if not (unpacked / source.wheel).is_dir():
            raise Failed(f"the wheel of {source.package} has no {source.wheel}")
        unpacked.rename(self.source_folder(source))

    def source(self, source):
        """Downloads a source archive and builds the library in it, compiled for this machine's processor."""
        if source.wheel:
            self.wheel(source)
            return
        log = self.logs / (self.name(source) + ".log")
        if not self.source_folder(source).exists():
            archives = self.folder / "archives" / source.package
            step(
                f"pip download {source.package}",
                log,
                self.python,
                "-m",
                "pip",
                "download",
                "--disable-pip-version-check",
                "--no-deps",
                "--no-binary",
                ":all:",
                "--dest",
                archives,
                source.package,
            )
            unpacked = self.folder / "src" / "unpacking"
            shutil.rmtree(unpacked, ignore_errors=True)
            with tarfile.open(next(archives.glob("*.tar.gz"))) as archive:
                archive.extractall(unpacked)
            next(unpacked.iterdir()).rename(self.folder / "src" / source.package.replace("==", "-"))
        build = self.build_folder(source)
        if not (build / "build.ninja").exists():
            step(
                f"configuring {build.name}",
                log,
                "cmake",
                "-S",
                self.source_folder(source),
                "-B",
                build,
                "-G",
                "Ninja",
                "-DCMAKE_BUILD_TYPE=Release",
                "-DBUILD_SHARED_LIBS=ON",
                "-DGGML_NATIVE=ON",
                "-DGGML_CCACHE=OFF",
                "-DLLAMA_BUILD_TESTS=OFF",
                "-DLLAMA_BUILD_EXAMPLES=OFF",
                "-DLLAMA_BUILD_SERVER=OFF",
                "-DLLAMA_CURL=OFF",
                *source.options,
            )
        step(
            f"building {build.name}",
            log,
            "cmake",
            "--build",
            build,
            "--parallel",
            self.jobs,
            "--target",
            *source.targets,
        )

    def worker_programs(self, sources):
        """Builds the C++ programs of this folder; `sources` by the CMake names of their folders."""
        log = self.logs / "programs.log"
        options = []
        for name, source in sources.items():
            options += [f"-D{name}={self.source_folder(source)}", f"-D{name}_BUILD={self.build_folder(source)}"]
        step("configuring the workers", log, "cmake", "-S", HERE, "-B", self.programs, "-G", "Ninja", *options)
        self.build_workers()

    def build_workers(self):
        log = self.logs / "programs.log"
        step("building the workers", log, "cmake", "--build", self.programs, "--parallel", self.jobs)
