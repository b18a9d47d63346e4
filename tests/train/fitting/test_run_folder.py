"""The run folder: one process at a time, nothing of another run lost, and no run under its name before it is finished."""

import contextlib
import json
import multiprocessing
import shutil
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from train.fitting import run_folder as runs

FIRST, SECOND = {"set": "tiny", "seed": 0}, {"set": "tiny", "seed": 1}


def finish(folder: Path, description: dict[str, object], content: str) -> list[str]:
    """Write a run of one file; gives what was said."""
    notices: list[str] = []
    with runs.written(folder, description, notices.append) as partial:
        assert partial
        (partial / "content").write_text(content)
    return notices


def begin(folder: Path, description: dict[str, object]) -> None:
    """Leave what a run leaves that is killed after its first epoch."""
    with contextlib.suppress(KeyboardInterrupt), runs.written(folder, description) as partial:
        assert partial
        (partial / runs.CHECKPOINTS).mkdir()
        (partial / runs.CHECKPOINTS / "frozen.npz").write_text(json.dumps(description))
        raise KeyboardInterrupt


def hold(folder: Path, pipe: Connection) -> None:
    """Train until it is let go."""
    with runs.written(folder, FIRST) as partial:
        assert partial
        (partial / "content").write_text("first")
        pipe.send("begun")
        pipe.recv()


@pytest.fixture
def held(tmp_path: Path) -> Callable[[], None]:
    """Another process that trains a run; call it to let that finish."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=hold, args=(tmp_path / "runs" / "tiny", there))
    process.start()
    assert here.recv() == "begun"

    def let_go() -> None:
        if process.is_alive():
            here.send("finish")
            process.join()

    yield let_go
    let_go()


def test_a_second_fit_is_refused_and_changes_nothing(held: Callable[[], None], tmp_path: Path) -> None:
    """Of the same settings or of others; what the first has done so far, and then has finished, stays."""
    folder = tmp_path / "runs" / "tiny"
    before = sorted(path.name for path in folder.parent.rglob("*"))
    for description in (FIRST, SECOND):
        with pytest.raises(runs.RunError, match="another process is training it"), runs.written(folder, description):
            pytest.fail("two at once")
    assert sorted(path.name for path in folder.parent.rglob("*")) == before
    held()
    assert (folder / "content").read_text() == "first"


def test_the_lock_stays_where_it_is(tmp_path: Path) -> None:
    """Beside the folder, before, while and after: who waits for it and who comes later hold the same one."""
    folder = tmp_path / "runs" / "tiny"
    lock = folder.parent / ".tiny.lock"
    finish(folder, FIRST, "first")
    number = lock.stat().st_ino
    with runs.written(folder, SECOND) as partial:
        assert partial
        assert lock.stat().st_ino == number
        assert (folder / "content").read_text() == "first", "until the other is finished it has the name"
    assert lock.stat().st_ino == number
    assert {path.name for path in folder.iterdir()} == {"settings.json", "checksums.json"}


def test_a_run_that_was_finished_meanwhile_is_not_trained_again(tmp_path: Path) -> None:
    """Asked again once the lock is held."""
    folder = tmp_path / "runs" / "tiny"
    finish(folder, FIRST, "first")
    with runs.written(folder, FIRST) as partial:
        assert partial is None
    assert (folder / "content").read_text() == "first"
    assert [path.name for path in folder.parent.glob("[!.]*")] == ["tiny"]


def test_what_is_there_is_moved_aside_and_named(tmp_path: Path) -> None:
    """A finished run, and a folder or a file that is none; to the next free number."""
    folder = tmp_path / "runs" / "tiny"
    finish(folder, FIRST, "first")
    (folder.parent / "tiny.1").write_text("mine")
    assert finish(folder, SECOND, "second") == [f"What was at {folder} is now at {folder.parent / 'tiny.2'}."]
    assert (folder.parent / "tiny.1").read_text() == "mine"
    assert (folder.parent / "tiny.2" / "content").read_text() == "first"
    shutil.rmtree(folder)
    folder.write_text("a file")
    finish(folder, FIRST, "third")
    assert (folder.parent / "tiny.3").read_text() == "a file"


def test_a_killed_run_of_other_settings_is_kept_and_taken_up_again(tmp_path: Path) -> None:
    """Its checkpoints are in a folder that can be seen; with its own settings training goes on from them."""
    folder = tmp_path / "runs" / "tiny"
    aside = folder.parent / "tiny.unfinished.1"
    begin(folder, FIRST)
    assert finish(folder, SECOND, "second") == [
        f"A killed run of other settings was there; what it had done is kept at {aside}."
    ]
    assert (aside / runs.CHECKPOINTS / "frozen.npz").is_file()
    notices: list[str] = []
    with runs.written(folder, FIRST, notices.append) as partial:
        assert partial
        assert json.loads((partial / runs.CHECKPOINTS / "frozen.npz").read_text()) == FIRST
    assert notices[0] == f"Going on from {aside}."
    assert sorted(path.name for path in folder.parent.glob("[!.]*")) == ["tiny", "tiny.1"]
    assert not (folder / runs.CHECKPOINTS).exists()


@pytest.mark.parametrize("name", [".", "..", "runs/.."])
def test_what_is_no_name_is_refused_in_one_line(name: str) -> None:
    """The message shows a name that is one."""
    with pytest.raises(runs.RunError, match=r"is no name for a folder; give one"), runs.written(Path(name), FIRST):
        pytest.fail("no folder can be called so")


@pytest.mark.parametrize("harm", [Path.unlink, lambda path: path.write_text("cut")])
def test_a_damaged_run_is_set_aside_and_trained_again(harm: Callable[[Path], object], tmp_path: Path) -> None:
    """A finished run whose file is gone or altered is no finished run: the same command makes it anew."""
    folder = tmp_path / "runs" / "tiny"
    finish(folder, FIRST, "first")
    harm(folder / "content")
    notices = finish(folder, FIRST, "again")
    assert (folder / "content").read_text() == "again"
    assert notices == [f"What was at {folder} is now at {folder}.1."]
    with runs.written(folder, FIRST) as partial:
        assert partial is None


def test_a_run_killed_behind_its_last_step_is_tidied(tmp_path: Path) -> None:
    """Checkpoints that a kill left in a finished run go when the same command comes again."""
    folder = tmp_path / "runs" / "tiny"
    finish(folder, FIRST, "first")
    (folder / runs.CHECKPOINTS).mkdir()
    with runs.written(folder, FIRST) as partial:
        assert partial is None
    assert not (folder / runs.CHECKPOINTS).exists()


def test_an_option_that_an_older_version_lacked_is_as_by_default(tmp_path: Path) -> None:
    """A run that was finished, or begun, before there was `--folds` is the one without folds, and no other."""
    run = tmp_path / "runs" / "tiny"
    finish(run, FIRST, "old")
    assert runs.is_finished(run, FIRST | {"folds": 0, "repeats": 1, "patience": 3})
    assert runs.begun(run, FIRST | {"folds": 0}) == FIRST
    assert not runs.is_finished(run, FIRST | {"folds": 5})
    assert runs.begun(run, FIRST | {"patience": 4}) == {}
