"""Activations on disk: found by checksum, grown in batches, cut off by a kill."""

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.store import Store, stored

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
    assert (folder / "index").stat().st_size == 9 * 65


def test_a_killed_writer_loses_its_last_batch_at_most(tmp_path: Path) -> None:
    """Real kills at random moments: every line of the index has its rows, and the next writer goes on."""
    code = (
        "import sys; from pathlib import Path; from tests.train.test_store import *\n"
        "store = Store(Path(sys.argv[1]), SHAPES, np.dtype('float32')); store.create({})\n"
        "print(flush=True); start = len(store.index())\n"
        "for n in range(start, 10**6, 4): store.append([checksum(k) for k in range(n, n + 4)], arrays(list(range(n, n + 4))))\n"
    )
    rng = np.random.default_rng(0)
    store, before = Store(tmp_path / "a", SHAPES, np.dtype("float32")), 0
    root = Path(__file__).parents[2]
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
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "about.json").write_text(text)
    assert stored(tmp_path) == []
