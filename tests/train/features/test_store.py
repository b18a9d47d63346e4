"""Activations on disk: found by checksum, grown in batches, cut off by a kill."""

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.features.store import FORMAT, Store, is_stale, stored, versions

SHAPES = ((2, 3), (4,))


def checksum(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def arrays(numbers: list[int]) -> list[np.ndarray]:
    """Activations that tell whose they are."""
    return [
        np.full((len(numbers), *shape), 0, np.float32) + np.reshape(numbers, (-1, *[1] * len(shape)))
        for shape in SHAPES
    ]


def filled(folder: Path, count: int, dtype: str = "float32") -> Store:
    store = Store(folder, SHAPES, np.dtype(dtype))
    store.create({"backbone": "tiny"})
    for start in range(0, count, 4):
        numbers = list(range(start, min(start + 4, count)))
        store.append([checksum(n) for n in numbers], arrays(numbers))
    return store


@pytest.mark.parametrize("dtype", [np.dtype(np.float32), np.dtype(ml_dtypes.bfloat16)])
def test_what_was_added_is_found_by_checksum(tmp_path: Path, dtype: np.dtype) -> None:
    """Each row of each array is that of its image, in the dtype of the store, and the size is what is on disk."""
    store = filled(tmp_path / "a", 10, dtype.name)
    index, read = store.index(), store.read()
    assert index == {checksum(n): n for n in range(10)}
    for array, shape in zip(read, SHAPES, strict=True):
        assert array.dtype == dtype
        assert array.shape == (10, *shape)
        for n in range(10):
            assert (array[index[checksum(n)]] == n).all()
    on_disk = sum(path.stat().st_size for path in (tmp_path / "a").iterdir() if path.name != "about.json")
    assert on_disk == 10 * store.row_bytes
    assert [(found, about["backbone"]) for found, about in stored(tmp_path)] == [(store, "tiny")]


def test_an_empty_store_has_no_rows(tmp_path: Path) -> None:
    """Made, but nothing added: no image is found, and the arrays have no rows."""
    store = filled(tmp_path / "a", 0)
    assert store.index() == {}
    assert [array.shape for array in store.read()] == [(0, *shape) for shape in SHAPES]


@given(torn=st.integers(0, 400), lost=st.integers(0, 64))
def test_what_a_kill_leaves_half_written_is_written_over(
    tmp_path_factory: pytest.TempPathFactory, torn: int, lost: int
) -> None:
    """Rows beyond the index, and a line of it that is cut off, are as if they had never been."""
    folder = tmp_path_factory.mktemp("store") / "a"
    store = filled(folder, 8)
    with (folder / "0.bin").open("ab") as file:
        file.write(b"\xff" * torn)
    with (folder / "index").open("ab") as file:
        file.write(checksum(99).encode()[:lost])
    assert store.index() == {checksum(n): n for n in range(8)}
    store.append([checksum(8)], arrays([8]))
    assert store.index() == {checksum(n): n for n in range(9)}
    assert all((array[8] == 8).all() for array in store.read())
    assert (folder / "index").stat().st_size == 9 * 74


def test_a_killed_writer_loses_its_last_batch_at_most(tmp_path: Path) -> None:
    """Real kills at random moments: every line of the index has its rows, and the next writer goes on."""
    code = (
        "import sys; from pathlib import Path; from tests.train.features.test_store import *\n"
        "store = Store(Path(sys.argv[1]), SHAPES, np.dtype('float32')); store.create({})\n"
        "print(flush=True); start = len(store.index())\n"
        "for n in range(start, 10**6, 4): store.append([checksum(k) for k in range(n, n + 4)], arrays(list(range(n, n + 4))))\n"
    )
    rng = np.random.default_rng(0)
    store, before = Store(tmp_path / "a", SHAPES, np.dtype("float32")), 0
    root = Path(__file__).parents[3]
    for _ in range(5):
        process = subprocess.Popen(
            [sys.executable, "-c", code, tmp_path / "a"],
            cwd=root,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(root)},
        )
        assert process.stdout
        process.stdout.readline()
        goal = before + int(rng.integers(1, 200))
        while len(store.index()) < goal:
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        index = store.index()
        assert index == {checksum(n): n for n in range(len(index))}
        assert all((array == arrays(list(range(len(index))))[at]).all() for at, array in enumerate(store.read()))
        assert len(index) >= goal
        before = len(index)


def test_only_what_is_asked_for_is_kept(tmp_path: Path) -> None:
    """Pruned to some images, a store has just these, and it goes if none is left."""
    store = filled(tmp_path / "a", 10)
    assert store.keep({checksum(n) for n in (1, 5, 77)}) == 8
    assert set(store.index()) == {checksum(1), checksum(5)}
    for array in store.read():
        assert [(array[store.index()[checksum(n)]] == n).all() for n in (1, 5)] == [True, True]
    assert store.keep({checksum(1), checksum(5)}) == 0
    assert [about["backbone"] for _, about in stored(tmp_path)] == ["tiny"]
    assert store.keep(set()) == 2
    assert list(tmp_path.iterdir()) == []


def test_folders_that_are_no_store_are_passed_over(tmp_path: Path) -> None:
    """Somebody's about.json that isn't ours, or is broken, is neither listed nor touched."""
    for name, text in (
        ("a", "{}"),
        ("b", "not json"),
        ("c", '{"shapes": 3, "dtype": "float32"}'),
        ("d", '{"shapes": [], "dtype": "x"}'),
        ("e", '{"shapes": [[2]], "dtype": "object"}'),
        ("f", '{"shapes": [[-2]], "dtype": "float32"}'),
        ("g", '{"shapes": [[2.5]], "dtype": "float32"}'),
        ("h", '{"shapes": [[99999999999]], "dtype": "float32"}'),
        ("i", '{"shapes": "ab", "dtype": "float32"}'),
        ("j", '["shapes"]'),
        ("k", "[" * 50_000),
        ("l", '{"shapes": [[2]], "dtype": "float32", "x": "' + "x" * 200_000 + '"}'),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "about.json").write_text(text)
    (tmp_path / "m").mkdir()
    os.mkfifo(tmp_path / "m" / "about.json")  # reading it would wait for good
    assert stored(tmp_path) == []
    filled(tmp_path / "elsewhere" / "n", 2)
    (tmp_path / "n").symlink_to(tmp_path / "elsewhere" / "n")
    assert stored(tmp_path) == [], "what lies elsewhere is not this folder's to drop"


def zeros(folder: Path) -> None:
    """Four bytes of the second image's activations."""
    with (folder / "0.bin").open("r+b") as file:
        file.seek(24 + 8)
        file.write(bytes(4))


def swapped(folder: Path) -> None:
    """The checksums of two images, each with its CRC-32."""
    lines = (folder / "index").read_bytes().splitlines(keepends=True)
    (folder / "index").write_bytes(
        b"".join([lines[0], lines[2][:64], lines[1][64:], lines[1][:64], lines[2][64:], *lines[3:]])
    )


def cut_rows(folder: Path) -> None:
    """An array ends in the midst of the sixth image's row."""
    os.truncate(folder / "1.bin", 5 * 16 + 3)


def cut_index(folder: Path) -> None:
    """The index ends in the midst of the fourth line."""
    os.truncate(folder / "index", 3 * 74 + 70)


def junk_line(folder: Path) -> None:
    """A line of the index isn't text."""
    with (folder / "index").open("r+b") as file:
        file.seek(74)
        file.write(b"\xff" * 30)


def no_array(folder: Path) -> None:
    """One of the arrays is gone."""
    (folder / "1.bin").unlink()


@pytest.mark.parametrize(
    ("damage", "lost"),
    [
        (zeros, {1}),
        (swapped, {1, 2}),
        (cut_rows, {5, 6, 7}),
        (cut_index, {3, 4, 5, 6, 7}),
        (junk_line, {1}),
        (no_array, set(range(8))),
    ],
)
def test_what_is_damaged_is_found_and_the_rest_is_taken(
    tmp_path: Path, damage: Callable[[Path], None], lost: set[int]
) -> None:
    """Nothing that isn't as it was written passes for whole, and what is added again counts."""
    store = filled(tmp_path / "a", 8)
    damage(tmp_path / "a")
    everything = [checksum(n) for n in range(8)]
    seen: list[tuple[int, int]] = []
    whole = store.index().keys() - store.damaged(everything, lambda *step: seen.append(step))
    assert whole == {checksum(n) for n in range(8)} - {checksum(n) for n in lost}
    assert all(done <= total for done, total in seen)
    again = sorted(lost)
    store.append([checksum(n) for n in again], arrays(again))
    assert store.damaged(everything, lambda *_: None) == set()
    index, read = store.index(), store.read()
    assert all((array[index[checksum(n)]] == n).all() for array in read for n in range(8))


def test_dropping_others_gives_no_damaged_row_a_new_checksum(tmp_path: Path) -> None:
    """What is damaged goes with what isn't needed."""
    store = filled(tmp_path / "a", 8)
    zeros(tmp_path / "a")
    assert store.keep({checksum(n) for n in range(4)}) == 5
    assert set(store.index()) == {checksum(0), checksum(2), checksum(3)}


def test_activations_of_other_versions_are_stale() -> None:
    """Those of another Keras, TensorFlow or OpenVINO, or of another format; not those of packages that aren't here."""
    mine = {"format": FORMAT, "versions": versions()}
    assert not is_stale(mine)
    assert is_stale(mine | {"versions": mine["versions"] | {"tensorflow": "2.0.0"}})
    assert is_stale(mine | {"versions": mine["versions"] | {"keras": 3}})
    assert is_stale(mine | {"format": FORMAT - 1})
    assert is_stale({"format": FORMAT, "versions": ["2.0.0"]})
    assert is_stale({})


HOLD = """
import sys; from pathlib import Path
from train.features.store import locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True); sys.stdin.readline()
    (Path(sys.argv[1]) / "ended").touch()
"""


WAIT = """
import signal, sys; from pathlib import Path
from train.features.store import locked
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a process in the background doesn't have
try:
    with locked(Path(sys.argv[1]), lambda: print("waiting", flush=True)):
        print("locked", flush=True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline()


def test_a_second_writer_waits_for_the_first_and_says_so(tmp_path: Path, environment: dict[str, str]) -> None:
    """It says so once, goes on when the first is done, and Ctrl-C ends the waiting."""

    def started(program: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", program, str(tmp_path)]
        return subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    first, second = started(HOLD), None
    try:
        assert _line(first) == "locked\n"
        second = started(WAIT)
        assert _line(second) == "waiting\n"
        second.send_signal(signal.SIGINT)
        assert second.communicate() == ("interrupted\n", None)
        second = started(WAIT)
        assert _line(second) == "waiting\n"
        first.communicate("\n")
        assert second.communicate() == ("locked\n", None)
        assert (tmp_path / "ended").exists()
    finally:
        for process in filter(None, (first, second)):
            process.kill()
            process.wait()
