"""One build or repair of a set at a time: real processes that hold the lock, wait, and are killed."""

import os
import re
import shutil
import signal
import time
from pathlib import Path

import pytest

from augment.storage.lock import LockError, held
from manifests import contract

RECIPE = "per_class: 20\naugment: [train, val]\nsize: [32, 24]\ntransforms: [{KerasAffine: {rotation_range: 9}}]\n"
IMAGES, MANIFEST = "data/augmented/set", "manifests/set.csv"
BUILD = ("build", "--recipe", "set.yaml", "--source", "source", "--workers", "1")
# Enters the lock of the places it is given, says so, and waits until its input ends.
HOLD = "import pathlib, sys; from augment.storage.lock import held\nwith held(*map(pathlib.Path, sys.argv[1:])): print('held', flush=True); sys.stdin.read()"


@pytest.fixture
def root(tmp_path: Path, make_source, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a source folder and a recipe."""
    make_source(tmp_path / "source", {"train/NORMAL": 4, "train/b": 6, "test/NORMAL": 2, "test/b": 2})
    (tmp_path / "set.yaml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def hold(root: Path, start):
    """A function (places) -> process that holds their lock until it is asked to end."""

    def holder(*places: str):
        process = start(root, *places, command=("-c", HOLD))
        assert process.stdout.readline() == "held\n"
        return process

    return holder


def let_go(holder) -> None:
    """Tell a holder to end, and see that it ends as if nothing had happened."""
    assert holder.poll() is None
    assert holder.communicate(timeout=60) == ("", "")
    assert holder.returncode == 0


def refusal(process) -> re.Pattern[str]:
    """The message of a held lock: which place, process and machine, and since when, in one line."""
    since = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d"
    return re.compile(
        rf"Error: (\S+) is being worked on by process {process.pid} on {re.escape(os.uname().nodename)} since {since}; "
        r"wait for it, or stop it\n"
    )


@pytest.mark.parametrize("places", [(IMAGES, MANIFEST), (IMAGES,), (MANIFEST,)], ids=" and ".join)
def test_a_second_build_says_who_holds_the_set(root: Path, hold, call, places: tuple[str, ...]) -> None:
    """Image folder or manifest in use: process and since when, exit code 2, nothing begun; later it works."""
    holder = hold(*places)
    for _ in range(2):
        result = call(*BUILD)
        assert (result.exit_code, result.stdout) == (2, "")
        assert refusal(holder).fullmatch(result.stderr)[1] == places[0]
    assert sorted(path.name for path in root.glob("*/**/[!.]*") if "source" not in path.parts) == ["augmented"]
    assert not [path for path in root.rglob(".*") if path.suffix not in (".lock", ".holder")]
    let_go(holder)
    assert call(*BUILD).exit_code == 0
    assert not list(root.rglob("*.holder"))


def test_a_repair_waits_for_nobody_either(root: Path, hold, call) -> None:
    """While another process works on the set, verify only looks, and verify --repair says who does."""
    assert call(*BUILD).exit_code == 0
    victim = next((root / IMAGES).rglob("*.jpg"))
    victim.unlink()
    holder = hold(IMAGES, MANIFEST)
    assert call("verify", MANIFEST).exit_code == 1
    result = call("verify", MANIFEST, "--repair")
    assert result.exit_code == 2
    assert refusal(holder).fullmatch(result.stderr)
    assert not victim.exists()
    (root / MANIFEST).write_text("")
    assert refusal(holder).fullmatch(call("verify", MANIFEST, "--repair").stderr)
    let_go(holder)
    assert call("verify", MANIFEST, "--repair").exit_code == 0
    assert victim.exists()


@pytest.mark.usefixtures("root")
def test_a_set_that_is_up_to_date_is_locked_like_any_other(hold, call) -> None:
    """Another process may be about to change it, so that nothing is said of it meanwhile."""
    assert call(*BUILD).exit_code == 0
    holder = hold(IMAGES, MANIFEST)
    assert refusal(holder).fullmatch(call(*BUILD).stderr)
    let_go(holder)
    assert "Up to date" in call(*BUILD).stdout


@pytest.mark.usefixtures("root")
def test_other_sets_are_not_locked(hold, call) -> None:
    """Two sets that lie side by side are built at the same time."""
    holder = hold("data/augmented/other", "manifests/other.csv")
    assert call(*BUILD).exit_code == 0
    let_go(holder)


def test_a_killed_holder_is_no_obstacle(root: Path, hold, call) -> None:
    """Killed by kill -9 it leaves lock and holder files behind, but no lock: the next build works and tidies up."""
    holder = hold(IMAGES, MANIFEST)
    holder.send_signal(signal.SIGKILL)
    holder.wait(timeout=60)
    assert len(list(root.rglob("*.holder"))) == 2
    assert call(*BUILD).exit_code == 0
    assert not list(root.rglob("*.holder"))
    assert len(contract.read(root / MANIFEST)) == 44


def test_files_of_a_lock_are_no_lock(root: Path, call) -> None:
    """Lock and holder files that were left by a dead process, or copied along with a set, whatever is in them."""
    for place in (root / IMAGES, root / MANIFEST):
        place.parent.mkdir(parents=True)
        place.with_name(f".{place.name}.lock").write_text("stale")
        place.with_name(f".{place.name}.holder").write_bytes(b"process 1 on \xff")
    assert call(*BUILD).exit_code == 0
    assert not list(root.rglob("*.holder"))


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"\xff")], ids=["gone", "no text"])
def test_a_lock_whose_holder_is_not_known_is_still_a_lock(root: Path, hold, call, damage) -> None:
    """Without a readable holder file the second build stops all the same, in one line."""
    holder = hold(IMAGES)
    damage((root / IMAGES).with_name(".set.holder"))
    result = call(*BUILD)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"Error: {IMAGES} is being worked on by ")
    assert result.stderr.count("\n") == 1
    if damage is Path.unlink:
        assert "by another process; wait for it, or stop it" in result.stderr
    holder.communicate(timeout=60)


def test_a_lock_ends_with_its_block(tmp_path: Path) -> None:
    """Left by an error or in peace, it can be had again at once; while it is held, not even by the same process."""
    place = tmp_path / "folder" / "set"
    with pytest.raises(ZeroDivisionError), held(place):
        raise ZeroDivisionError
    with held(place), pytest.raises(LockError, match=f"being worked on by process {os.getpid()} on "), held(place):
        pass
    with held(place, place.with_name("other")):
        assert len(list(place.parent.glob("*.holder"))) == 2
    assert not list(place.parent.glob("*.holder"))


def test_if_one_place_is_taken_the_other_is_let_go(tmp_path: Path) -> None:
    """A build that is refused leaves no lock behind on the place that was free."""
    free, taken = tmp_path / "free", tmp_path / "taken"
    with held(taken):
        with pytest.raises(LockError, match="taken is being worked on"), held(free, taken):
            pass
        with held(free):
            pass


def test_a_place_that_cannot_be_locked_is_one_line(root: Path, call) -> None:
    """A file where a folder should be: the message names the place, the fault and the fix; nothing is written."""
    (root / "taken").write_text("mine")
    result = call(*BUILD, "--manifest", "taken/set.csv")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        "Error: taken/set.csv can't be locked: File exists; mend that, then run the same command again\n"
    )
    assert not [path for path in root.rglob("set*") if path.name != "set.yaml"]


@pytest.mark.slow
def test_the_first_of_two_builds_is_not_disturbed(root: Path, start, call, everything) -> None:
    """A real build is under way: the second prints its process id and stops; the first ends as it would have alone."""
    (root / "set.yaml").write_text(RECIPE.replace("20", "1500"))
    first = start(root, *BUILD)
    holder, deadline = root / MANIFEST, time.monotonic() + 60
    while not holder.with_name(".set.csv.holder").exists():
        assert first.poll() is None
        assert time.monotonic() < deadline
    refused = [call(*BUILD) for _ in range(2)]
    assert first.poll() is None, "the first build ended before it could be disturbed"
    out, complaint = first.communicate(timeout=120)
    assert (first.returncode, complaint) == (0, "")
    assert "Rendered 3,004 images, reused 0" in out
    for result in refused:
        assert result.exit_code == 2
        assert refusal(first).fullmatch(result.stderr)
    disturbed = everything(root)
    shutil.rmtree(root / "data")
    shutil.rmtree(root / "manifests")
    assert call(*BUILD).exit_code == 0
    assert everything(root) == disturbed
