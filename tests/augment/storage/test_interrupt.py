"""Builds that are stopped from outside: by signals, by kill -9 at many moments, and by a disk that is full."""

import csv
import errno
import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from augment.rendering.render import render, run
from augment.rendering.tasks import RenderTask, Style, Variant
from augment.sources.scan import digest
from manifests import contract

RECIPE = "per_class: {}\naugment: [train, val]\nsize: [64, 64]\ntransforms: [{{KerasAffine: {{rotation_range: 9, zoom_range: 0.2}}}}]\n"
IMAGES, PARTIAL, MANIFEST = "data/augmented/set", "data/augmented/.set.partial", "manifests/set.csv"
BUILD = ("build", "--recipe", "set.yaml", "--source", "source", "--workers", "2")
TARGETS = (300, 400)  # images a class

Process = subprocess.Popen[str]


def write_sources(folder: Path) -> None:
    """40 images of 600 x 600, two classes."""
    for number in range(40):
        place = folder / ("test" if number >= 36 else "train") / ("NORMAL", "b")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        coarse = np.random.default_rng(number).integers(0, 256, (9, 9), dtype=np.uint8)
        Image.fromarray(coarse).resize((600, 600), Image.Resampling.BICUBIC).save(place / f"{number}.jpeg")


@pytest.fixture(scope="module")
def large(tmp_path_factory, environment, everything) -> tuple[Path, dict[int, dict[str, bytes]]]:
    """A source folder, and every file that an uninterrupted build makes of it, by images a class."""
    folder = tmp_path_factory.mktemp("large")
    write_sources(folder / "source")
    expected = {}
    for per_class in TARGETS:
        root = folder / str(per_class)
        shutil.copytree(folder / "source", root / "source")
        (root / "set.yaml").write_text(RECIPE.format(per_class))
        command = [sys.executable, "-m", "augment", *BUILD]
        subprocess.run(command, cwd=root, env=environment, check=True, capture_output=True)
        expected[per_class] = everything(root)
    return folder / "source", expected


@pytest.fixture
def root(large, tmp_path: Path) -> Path:
    """A working directory with these sources and a recipe for 300 images a class."""
    shutil.copytree(large[0], tmp_path / "source")
    (tmp_path / "set.yaml").write_text(RECIPE.format(TARGETS[0]))
    return tmp_path


def journaled(root: Path) -> int:
    """How many images the journal of the set in the making records."""
    try:
        return (root / PARTIAL / ".journal.csv").read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def wait_until(holds: Callable[[], bool], process: Process) -> bool:
    """Return true as soon as something holds, or false once the process has ended."""
    deadline = time.monotonic() + 120
    while process.poll() is None:
        if holds():
            return True
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return False


def expect_truth(root: Path) -> None:
    """If the manifest exists, every image behind it is there and right, and so is its card."""
    if (root / MANIFEST).exists():
        assert contract.read_card(root / MANIFEST)["manifest_sha256"] == digest(root / MANIFEST)[0]
        rows = contract.read(root / MANIFEST)
        for path, sha256 in zip(rows["path"], rows["sha256"], strict=True):
            assert digest(root / path).sha256 == sha256, path


def is_locked(root: Path) -> bool:
    """Whether a build has begun."""
    return (root / "manifests" / ".set.csv.holder").exists()


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["beginning", "rendering"])
@pytest.mark.parametrize("how", ["Ctrl-C in a terminal", "SIGINT", "SIGTERM"])
def test_a_signal_ends_a_build_that_can_go_on(root: Path, large, start, everything, how: str, stage: str) -> None:
    """It ends and says how to go on, nothing has a final name, and the same command makes the uninterrupted set."""
    process = start(root, *BUILD)
    reached = {"beginning": lambda: is_locked(root), "rendering": lambda: journaled(root) > 64}[stage]
    assert wait_until(reached, process), "the build ended before it could be interrupted"
    if how == "Ctrl-C in a terminal":
        os.killpg(process.pid, signal.SIGINT)  # every process of the terminal gets it
    else:
        process.send_signal(signal.Signals[how])
    printed, complaint = process.communicate(timeout=20)  # returns once the last worker has ended, too
    assert process.returncode in (130, -signal.SIGINT), complaint  # one and the same to a shell
    assert (printed, complaint) == ("", "Interrupted. Run the same command again to go on from here.\n")
    for name in (IMAGES, MANIFEST, "manifests/set.json"):
        assert not (root / name).exists()
    finishing = start(root, *BUILD)
    printed, complaint = finishing.communicate(timeout=120)
    assert (finishing.returncode, complaint) == (0, "")
    assert stage == "beginning" or int(re.search(r"reused ([\d,]+):", printed)[1]) >= 64
    assert everything(root) == large[1][TARGETS[0]]


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_does_not_wait_for_large_images(tmp_path: Path, start, how: signal.Signals) -> None:
    """With images that take half a minute a batch to decode, it ends as it does with small ones."""
    (tmp_path / "large.png").parent.mkdir(exist_ok=True)
    Image.new("L", (12_000, 12_000)).save(tmp_path / "large.png", compress_level=1)
    data = (tmp_path / "large.png").read_bytes()
    for number in range(160):
        place = tmp_path / "source" / ("NORMAL", "b")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.png").write_bytes(data + b"%d" % number)  # PNG ends before that; no two files are alike
    (tmp_path / "set.yaml").write_text("size: 64\n")
    process = start(tmp_path, *BUILD)
    assert wait_until(lambda: next((tmp_path / PARTIAL).rglob("*.jpg"), None) is not None, process)
    process.send_signal(how)
    _, complaint = process.communicate(timeout=20)
    assert complaint.startswith("Interrupted. ")


def finished(root: Path) -> dict[str, tuple[int, int]]:
    """The images that are whole, by manifest or journal: path in the set -> inode and time of change."""
    if (root / MANIFEST).exists():
        folder, names = (
            root / IMAGES,
            [path.removeprefix(f"{IMAGES}/") for path in contract.read(root / MANIFEST)["path"]],
        )
    else:
        folder = root / (PARTIAL if (root / PARTIAL).exists() else IMAGES)
        if not (folder / ".journal.csv").exists():
            return {}
        with (folder / ".journal.csv").open(encoding="utf-8", newline="") as file:
            lines = [line for line in csv.reader(file) if len(line) == 6]
        names = [line[0] for line in lines if digest(folder / line[0])[0] == line[-1]]
    return {name: (stat.st_ino, stat.st_mtime_ns) for name in names if (stat := (folder / name).stat())}


def kill_at_random(root: Path, process: Process, rng: random.Random) -> bool:
    """Kill a build at a moment that the dice choose: a time, a count of images, or as a folder gets its name."""
    sort = rng.choice(["time", "count", "count", "opening", "closing"])
    if sort == "time":
        due = time.monotonic() + rng.uniform(0.05, 4)
        running = wait_until(lambda: time.monotonic() > due, process)
    elif sort == "count":
        count = journaled(root) + rng.randrange(1, 400)
        running = wait_until(lambda: journaled(root) >= count, process)
    else:
        appears, goes = (PARTIAL, IMAGES) if sort == "opening" else (IMAGES, PARTIAL)
        running = wait_until(lambda: (root / appears).exists() and not (root / goes).exists(), process)
        due = time.monotonic() + rng.uniform(0, 0.03)
        running = running and wait_until(lambda: time.monotonic() > due, process)
    if running:
        process.kill()
    return running


@pytest.mark.slow
def test_builds_killed_at_many_moments_lose_nothing(root: Path, large, start, everything) -> None:
    """32 x kill -9 (or EVENSET_KILLS), in new sets and in updates: a manifest means a whole set, and no image that was done is done again.

    Each time the same command is run again, until the set is finished; then it equals one that was never interrupted.
    """
    rng, wanted = random.Random(40), int(os.environ.get("EVENSET_KILLS", "32"))
    kills, sets, target = 0, 0, 0
    while kills < wanted or sets < 4:
        expected = large[1][TARGETS[target]]
        before = finished(root)
        process = start(root, *BUILD)
        killed = kills < wanted and kill_at_random(root, process, rng)
        _, complaint = process.communicate(timeout=120)  # returns once the last worker has ended, too
        expect_truth(root)
        for name, identity in before.items():
            if f"{IMAGES}/{name}" in expected:
                # Killed in the midst of taking over what the old set has, the new one has some of it, the old one all.
                here = next(path for folder in (PARTIAL, IMAGES) if (path := root / folder / name).exists())
                stat = here.stat()
                assert (stat.st_ino, stat.st_mtime_ns) == identity, f"{name} was made again"
        if killed and process.returncode == -signal.SIGKILL:
            kills += 1
            continue
        assert (process.returncode, complaint) == (0, "")
        assert everything(root) == expected
        sets += 1
        target = 1 - target  # the next set is an update of this one, or, every third time, a new one
        (root / "set.yaml").write_text(RECIPE.format(TARGETS[target]))
        if sets % 3 == 0:
            shutil.rmtree(root / "data")
            shutil.rmtree(root / "manifests")
    assert kills == wanted


# Runs the command line and kills itself just before its n-th change to the files of a root, those of images aside.
KILLED_AT = """
import os, signal, sys
left, root = int(sys.argv[1]), sys.argv[2]
def watch(event, args):
    global left
    writes = event in ("os.rename", "os.remove") or (event == "open" and (args[2] or 0) & 3)
    if writes and str(args[0]).startswith(root) and not str(args[0]).endswith((".jpg", ".lock", ".holder")):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(watch)
from augment.cli import main
if __name__ == "__main__":
    main(sys.argv[3:])
"""


@pytest.mark.slow
def test_an_update_killed_before_any_of_its_steps_is_never_half_of_each(
    tmp_path: Path, make_source, start, call, everything
) -> None:
    """A finished set becomes another; kill -9 before each change of a file: a manifest means a whole set, and it goes on."""
    make_source(tmp_path / "source", {"train/NORMAL": 4, "train/b": 6, "test/NORMAL": 2, "test/b": 2})
    (tmp_path / "script.py").write_text(KILLED_AT)
    (tmp_path / "set.yaml").write_text(RECIPE.format(20))
    words = ("build", "--recipe", tmp_path / "set.yaml", "--source", tmp_path / "source", "--workers", "1", "--root")
    assert call(*words, tmp_path / "old").exit_code == 0
    (tmp_path / "set.yaml").write_text(RECIPE.format(30))
    assert call(*words, tmp_path / "new").exit_code == 0
    expected, steps = everything(tmp_path / "new"), 0
    for step in range(1, 100):
        root = tmp_path / f"killed{step}"
        shutil.copytree(tmp_path / "old", root)
        process = start(tmp_path, step, root, *words, root, command=(str(tmp_path / "script.py"),))
        process.communicate(timeout=60)
        expect_truth(root)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL
        steps = step
        assert call(*words, root).exit_code == 0
        assert everything(root) == expected
    assert everything(root) == expected
    assert 10 < steps < 99


def test_what_a_kill_at_the_very_end_leaves_is_tidied_up(tmp_path: Path, make_source, call, everything) -> None:
    """The manifest is there but the journal not yet gone: the next build has nothing to do but remove that."""
    make_source(tmp_path / "source", {"train/NORMAL": 4, "train/b": 6, "test/NORMAL": 2, "test/b": 2})
    (tmp_path / "set.yaml").write_text(RECIPE.format(20))
    words = ("build", "--recipe", tmp_path / "set.yaml", "--source", tmp_path / "source", "--root", tmp_path)
    assert call(*words).exit_code == 0
    whole = everything(tmp_path)
    (tmp_path / IMAGES / ".journal.csv").write_text("\n")
    assert "Up to date, nothing to render" in call(*words).stdout
    assert everything(tmp_path) == whole


@pytest.fixture
def noisy(tmp_path: Path) -> Path:
    """Sources whose images take several blocks of a file system each, so that one may be cut off in the middle."""
    for number in range(16):
        place = tmp_path / "source" / ("test" if number >= 12 else "train") / ("NORMAL", "b")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (160, 160), dtype=np.uint8)
        Image.fromarray(noise).save(place / f"{number}.png")
    return tmp_path / "source"


def space(root: Path) -> int:
    """The bytes in use on a file system."""
    stat = os.statvfs(root)
    return (stat.f_blocks - stat.f_bfree) * stat.f_frsize


def test_an_image_is_whole_or_it_has_no_name(tmp_path: Path, noisy: Path, disk: Callable[[int], Path]) -> None:
    """Whatever room is left, down to a part of an image: it is written whole, or there is an error and no file."""
    source = noisy / "train" / "NORMAL" / "0.png"
    data, style = source.read_bytes(), Style((160, 160), 95, "[]", 2**20)
    ((whole, _),) = render(data, [Variant("", 0, 0)], style)
    job = RenderTask(source, hashlib.sha256(data).hexdigest(), tmp_path / "disk", (Variant("image.jpg", 0, 0),), style)
    for room in range(2, len(whole) // 4096 + 4):
        image = disk(room * 4096) / "image.jpg"
        try:
            run(job)
        except OSError as error:
            assert error.errno == errno.ENOSPC  # noqa: PT017  # either outcome is right
            assert list(image.parent.iterdir()) == []
        else:
            assert image.read_bytes() == whole
            image.unlink()
            return
    pytest.fail("there was room, but no image")


@pytest.mark.parametrize("share", [0, 0.2, 0.6, 0.97, 0.995])
def test_a_full_disk_is_an_error_and_the_build_goes_on_later(
    tmp_path: Path, noisy: Path, disk: Callable[[int], Path], call, everything, share: float
) -> None:
    """One line that names place, fault and fix, again and again; nothing half-done; with more room, the same set."""
    (tmp_path / "set.yaml").write_text(RECIPE.format(100).replace("64", "160"))
    words = ("build", "--recipe", tmp_path / "set.yaml", "--source", noisy, "--workers", "2", "--root")
    assert call(*words, tmp_path / "elsewhere").exit_code == 0
    expected = everything(tmp_path / "elsewhere")
    blocks = sum(-(-len(data) // 4096) for data in expected.values())
    root = disk(int(blocks * share) * 4096 + 4096)
    for _ in range(2):
        result = call(*words, root)
        assert (result.exit_code, result.stdout) == (2, "")
        assert re.fullmatch(
            rf"Error: {re.escape(str(root))}/\S+( can't be locked)?: No space left on device; "
            r"mend that, then run the same command again( to go on)?\n",
            result.stderr,
        )
        assert not {MANIFEST, "manifests/set.json"} & everything(root).keys()
        if (root / IMAGES).exists():  # all that was left to do was to write the manifest
            assert {path for path in expected if path.startswith(IMAGES)} <= everything(root).keys()
    disk(2**26)
    result = call(*words, root)
    assert result.exit_code == 0, result.output
    assert everything(root) == expected
    assert share < 0.5 or "reused 0" not in result.stdout


@pytest.mark.parametrize("room", [0, 20, 200])
def test_a_full_disk_harms_no_finished_set(
    tmp_path: Path, noisy: Path, disk: Callable[[int], Path], call, everything, room: int
) -> None:
    """The disk fills up while a set is updated: its manifest goes or stays true, and with more room it is updated."""
    (tmp_path / "set.yaml").write_text(RECIPE.format(60).replace("64", "160"))
    words = ("build", "--recipe", tmp_path / "set.yaml", "--source", noisy, "--workers", "2", "--root")
    assert call(*words, tmp_path / "elsewhere").exit_code == 0
    expected = everything(tmp_path / "elsewhere")
    (tmp_path / "set.yaml").write_text(RECIPE.format(20).replace("64", "160"))
    root = disk(2**26)
    assert call(*words, root).exit_code == 0
    (tmp_path / "set.yaml").write_text(RECIPE.format(60).replace("64", "160"))
    disk(space(root) + room * 4096)
    result = call(*words, root)
    assert result.exit_code == 2
    assert "No space left on device; mend that" in result.stderr
    assert result.stderr.count("\n") == 1
    expect_truth(root)
    disk(2**26)
    result = call(*words, root)
    assert result.exit_code == 0, result.output
    assert everything(root) == expected
    assert int(re.search(r"reused ([\d,]+):", result.stdout)[1]) >= 40


@pytest.mark.parametrize("damaged", ["an image", "the manifest"])
def test_a_full_disk_stops_a_repair_that_can_go_on(
    tmp_path: Path, noisy: Path, disk: Callable[[int], Path], call, everything, damaged: str
) -> None:
    """Repair tells it in one line as well; with more room, the same command gives back the very bytes."""
    (tmp_path / "set.yaml").write_text(RECIPE.format(20).replace("64", "160"))
    root = disk(2**26)
    assert call("build", "--recipe", tmp_path / "set.yaml", "--source", noisy, "--root", root).exit_code == 0
    expected = everything(root)
    victim = next((root / IMAGES).rglob("*.jpg")) if damaged == "an image" else root / MANIFEST
    victim.write_bytes(b"damaged")
    disk(space(root))
    words = ("verify", root / MANIFEST, "--root", root, "--repair")
    result = call(*words)
    assert result.exit_code == 2
    assert "No space left on device; mend that" in result.stderr
    assert result.stderr.count("\n") == 1
    disk(2**26)
    assert call(*words).exit_code == 0
    assert everything(root) == expected
