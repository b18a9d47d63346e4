"""Work that kills its workers or takes more memory than there is: by the real commands, and file by file."""

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from augment.sources.scan import digest
from common.workers.dispatch import DispatchError, results
from common.workers.process_pool import ProcessPool
from manifests import contract

PRELOAD = ["common.images.memory", "tasks_of_dispatch"]
TASKS = '''
import os

def look(batch):
    """Each file's length; a file that starts with a number kills the process by that signal."""
    for path in batch:
        start = path.read_bytes()[:2]
        if start == b"MM":
            raise MemoryError
        if start.isdigit():
            os.kill(os.getpid(), int(start))
    return [(path.name, path.stat().st_size) for path in batch]
'''


@pytest.fixture
def look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The function above, importable in workers."""
    (tmp_path / "tasks_of_dispatch.py").write_text(TASKS)
    monkeypatch.syspath_prepend(str(tmp_path))
    import tasks_of_dispatch  # type: ignore[import-not-found]

    yield tasks_of_dispatch.look
    del sys.modules["tasks_of_dispatch"]


def write(folder: Path, starts: list[str]) -> list[Path]:
    """Files that start as given."""
    folder.mkdir()
    for number, start in enumerate(starts):
        (folder / f"{number:03d}").write_text(f"{start} and so on")
    return sorted(folder.iterdir())


def run(look, files: list[Path], executor, batch: int = 8) -> dict[str, object]:
    """What `results` gives for files, by name."""
    batches = iter([files[at : at + batch] for at in range(0, len(files), batch)])
    each = results(look, batches, executor, lambda file: file, lambda file, error: (file.name, error.reason))
    return dict(entry for batch in each for entry in batch)


def test_files_that_crash_their_worker_are_named_and_the_others_get_their_results(look, tmp_path: Path) -> None:
    """Several in one batch and one alone in its own, each with the name of its signal."""
    crashing = {3: "SIGSEGV", 4: "SIGABRT", 17: "SIGILL", 24: "SIGBUS", 25: "SIGFPE"}
    numbers = {at: f"{int(signal.Signals[name]):02d}" for at, name in crashing.items()}
    files = write(tmp_path / "files", [numbers.get(at, "fine") for at in range(26)])
    with ProcessPool(2, PRELOAD) as pool:
        found = run(look, files, pool)
    assert found == {
        file.name: f"crashes its decoder ({crashing[at]})" if at in crashing else file.stat().st_size
        for at, file in enumerate(files)
    }


@pytest.mark.parametrize("start", ["09", "15"])
@pytest.mark.parametrize("batch", [1, 8])
def test_a_file_whose_workers_are_killed_each_time_is_named_and_the_others_get_their_results(
    look, tmp_path: Path, start: str, batch: int
) -> None:
    """By the system, that has no memory for it, say: it was alone with each of the last workers that died."""
    files = write(tmp_path / "files", ["fine"] * 11 + [start] + ["fine"] * 9)
    with ProcessPool(2, PRELOAD) as pool:
        found = run(look, files, pool, batch)
    cause = signal.Signals(int(start)).name
    assert found.pop("011") == f"each worker that reads it is killed ({cause}; out of memory?)"
    assert found == {file.name: file.stat().st_size for file in files if file.name != "011"}


@pytest.mark.parametrize("batch", [1, 8])
def test_a_file_that_there_is_no_memory_for_stops_the_work(look, tmp_path: Path, batch: int) -> None:
    """It may be fine on another machine, so it is never called unreadable."""
    files = write(tmp_path / "files", ["fine"] * 11 + ["MM"] + ["fine"] * 9)
    with (
        ProcessPool(2, PRELOAD) as pool,
        pytest.raises(DispatchError, match=r"files/011: not enough memory.*fewer --workers"),
    ):
        run(look, files, pool, batch)


def test_a_machine_on_which_every_worker_crashes_is_not_taken_for_bad_files(look, tmp_path: Path) -> None:
    """A library built for another processor, say: the work stops with the signal."""
    files = write(tmp_path / "files", ["04"] * 100)
    with (
        ProcessPool(2, PRELOAD) as pool,
        pytest.raises(DispatchError, match=r"workers died one after the other, the last at .*SIGILL"),
    ):
        run(look, files, pool)


def test_any_executor_will_do(look, tmp_path: Path) -> None:
    """Threads; and Python's own processes, which don't replace one that died and say so."""
    files = write(tmp_path / "files", ["fine"] * 20)
    expected = {file.name: file.stat().st_size for file in files}
    with ThreadPoolExecutor(2) as threads:
        assert run(look, files, threads) == expected
    (tmp_path / "files" / "011").write_text("09")
    with ProcessPoolExecutor(2) as processes, pytest.raises(BrokenExecutor):
        run(look, files, processes)


# In the place of a decoder with a fault: Pillow, in every process of a command, crashes at files with these words.
CRASHING_DECODER = """
import os, signal
from PIL import Image
opened = Image.open
def crash(file, *args, **kwargs):
    data = file.getvalue() if hasattr(file, "getvalue") else b""  # a large file's header is read from the file itself
    for number in (signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL):
        if b"crash the decoder by " + number.name.encode() in data:
            os.kill(os.getpid(), number)
    return opened(file, *args, **kwargs)
Image.open = crash
"""

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def command(tmp_path: Path, environment) -> Command:
    """A function (words) -> finished process that runs the command line in tmp_path, with that decoder."""
    (tmp_path / "faulty").mkdir()
    (tmp_path / "faulty" / "sitecustomize.py").write_text(CRASHING_DECODER)
    path = os.pathsep.join([str(tmp_path / "faulty"), environment["PYTHONPATH"]])

    def call(*words: str, **options) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "augment", *words], cwd=tmp_path, env={**environment, "PYTHONPATH": path},
            capture_output=True, text=True, check=False, timeout=120, **options,
        )  # fmt: skip

    return call


@pytest.fixture
def source(tmp_path: Path, make_source) -> Path:
    """Two classes with a test split, and a recipe for them."""
    (tmp_path / "set.yaml").write_text(
        "per_class: 60\naugment: [train, val]\nsize: 48\ntransforms: [{KerasAffine: {rotation_range: 9}}]\n"
    )
    counts = {"train/NORMAL": 12, "train/01": 12, "test/NORMAL": 3, "test/01": 3}
    return make_source(tmp_path / "source", counts)


def name_of(source: Path, folder: str) -> str:
    """The first image in a class folder, relative to the source."""
    return min((source / folder).iterdir()).relative_to(source).as_posix()


def crash_at(file: Path, number: str) -> None:
    """Let the decoder crash at an image of the source folder, which is right for any other."""
    file.write_bytes(file.read_bytes() + f"crash the decoder by {number}".encode())


BUILD = ("build", "--recipe", "set.yaml", "--source", "source", "--workers", "2")


def test_a_build_rejects_what_crashes_its_decoder_and_finishes(tmp_path: Path, source: Path, command: Command) -> None:
    """By name, signal and checksum; the next build knows that, and the set is as if the images had been text."""
    killers = {name_of(source, "train/01"): "SIGSEGV", name_of(source, "test/NORMAL"): "SIGABRT"}
    for name, number in killers.items():
        crash_at(source / name, number)
    done = command(*BUILD)
    assert (done.returncode, done.stderr) == (0, "")
    rejected = {entry["source"]: entry for entry in contract.read_card(tmp_path / "manifests" / "set.csv")["rejected"]}
    assert {name: entry["reason"] for name, entry in rejected.items()} == {
        name: f"crashes its decoder ({number})" for name, number in killers.items()
    }
    assert {name: entry["source_sha256"] for name, entry in rejected.items()} == {
        name: digest(source / name)[0] for name in killers
    }
    rows = contract.read(tmp_path / "manifests" / "set.csv")
    assert rows[rows["split"] == "train"].groupby("label").size().to_dict() == {"01": 48, "NORMAL": 48}
    assert not set(rows["source"]) & killers.keys()
    again = command(*BUILD)
    assert (again.returncode, again.stderr) == (0, "")
    assert "Up to date" in again.stdout


def test_a_build_goes_on_without_a_source_whose_workers_are_killed(
    tmp_path: Path, source: Path, command: Command
) -> None:
    """It is rejected by name, but not for good: it may be fine on a larger machine, so the next build tries it again."""
    name = name_of(source, "train/01")
    victim = source / name
    fine = victim.read_bytes()
    crash_at(victim, "SIGKILL")
    done = command(*BUILD)
    assert (done.returncode, done.stderr) == (0, "")
    (rejected,) = contract.read_card(tmp_path / "manifests" / "set.csv")["rejected"]
    assert rejected == {
        "source": name,
        "reason": "each worker that reads it is killed (SIGKILL; out of memory?)",
        "source_sha256": "",
    }
    rows = contract.read(tmp_path / "manifests" / "set.csv")
    assert rows[rows["split"] == "train"].groupby("label").size().to_dict() == {"01": 48, "NORMAL": 48}
    victim.write_bytes(fine)
    done = command(*BUILD)
    assert (done.returncode, done.stderr) == (0, "")
    assert name in set(contract.read(tmp_path / "manifests" / "set.csv")["source"])


def test_an_audit_lists_what_crashes_its_decoder(tmp_path: Path, source: Path, command: Command) -> None:
    """As unreadable, with the name of the signal, beside all the others."""
    name = name_of(source, "train/01")
    crash_at(source / name, "SIGSEGV")
    done = command("audit", "source", "--workers", "2", "--json", "audit.json")
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads((tmp_path / "audit.json").read_text())
    assert [(entry["source"], entry["reason"]) for entry in report["unreadable"]] == [
        (name, "crashes its decoder (SIGSEGV)")
    ]
    assert sum(report["formats"].values()) == 29


@pytest.mark.usefixtures("source")
def test_a_gallery_leaves_out_what_crashes_its_decoder(tmp_path: Path, command: Command) -> None:
    """The page is made; that image is not compared."""
    assert command(*BUILD).returncode == 0
    crash_at(next((tmp_path / "data" / "augmented" / "set" / "train" / "01").glob("*-v1.jpg")), "SIGSEGV")
    done = command("gallery", "manifests/set.csv", "--workers", "2")
    assert (done.returncode, done.stderr) == (0, "")


def limited(megabytes: int) -> Callable[[], None]:
    """What a child process runs first, so that it and its workers have no more memory than that."""
    return lambda: resource.setrlimit(resource.RLIMIT_AS, (megabytes * 2**20,) * 2)


@pytest.mark.slow
@pytest.mark.parametrize("words", [BUILD, ("audit", "source", "--workers", "2")])
@pytest.mark.parametrize("suffix", ["png", "tiff", "webp"])
def test_too_little_memory_stops_a_command_and_names_the_file(
    tmp_path: Path, source: Path, command: Command, suffix: str, words: tuple[str, ...]
) -> None:
    """One line, exit code 2, nothing remembered: with more memory, the image is in the set."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    large = coarse.resize((12_000, 10_000), Image.Resampling.BILINEAR)
    large.save(source / "train" / "01" / f"person900_virus_1.{suffix}")
    done = command(*words, preexec_fn=limited(1000))
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.startswith(f"Error: source/train/01/person900_virus_1.{suffix}: not enough memory")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "manifests" / "set.csv").exists()
    done = command(*words)
    assert (done.returncode, done.stderr) == (0, "")
    if words == BUILD:
        card = contract.read_card(tmp_path / "manifests" / "set.csv")
        assert card["rejected"] == []
        assert f"train/01/person900_virus_1.{suffix}" in set(
            contract.read(tmp_path / "manifests" / "set.csv")["source"]
        )
