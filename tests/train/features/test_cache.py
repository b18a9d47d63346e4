"""What of the kept activations is listed, and what may go."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from manifests import contract
from train import dataset as datasets
from train.cli import main
from train.features import backbone, cache, engine, extract
from train.features.forward import NetworkCache
from train.features.store import FORMAT, Store, locked, stored, versions

ABOUT = {
    "format": FORMAT,
    "versions": versions(),
    "size": [64, 64],
    "name": "tensorflow",
    "precision": "float32",
}


def call(root: Path, *words: str | Path) -> Result:
    return CliRunner().invoke(main, ["cache", "--root", str(root), *map(str, words)])


def fill(root: Path, name: str, checksums: list[str], size: int = 64) -> Store:
    """A store of one number an image: the first eight digits of its checksum."""
    store = Store(root / "data" / "activations" / name, ((3,),), np.dtype(np.float32))
    store.create({**ABOUT, "size": [size, size], "layers": ["pooled"]})
    numbers = np.array([int(checksum[:4], 16) for checksum in checksums], np.float32)
    store.append(checksums, [np.repeat(numbers[:, None], 3, axis=1)])
    return store


def total(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def checksums_of(manifest: Path) -> list[str]:
    return contract.read(manifest)["sha256"].drop_duplicates().tolist()


OTHERS = [f"{number:064x}" for number in range(5)]


def test_the_list_says_which_sets_need_how_many(image_set: Callable[..., Path]) -> None:
    """A row a store, with what it is of, what it takes, and how many of its images each manifest has."""
    manifest = image_set()
    root = manifest.parent.parent
    larger = image_set(train=11, name="larger")
    mine = checksums_of(manifest)
    store = fill(root, "b", [*mine, *OTHERS])
    fill(root, "a", OTHERS, size=96)
    table = cache.listed(root / "data" / "activations", cache.needed(root / "manifests"))
    assert table["store"].tolist() == ["b", "a"]
    assert table["size"].tolist() == ["64 x 64", "96 x 96"]
    assert table["images"].tolist() == [str(len(mine) + 5), "5"]
    shared = len(set(mine) & set(checksums_of(larger)))
    assert table["needed by"].tolist() == [f"larger {shared}, tiny {len(mine)}", "nothing"]
    result = call(root)
    assert result.exit_code == 0
    for word in (*table["needed by"], "pooled", "tensorflow", "float32"):
        assert word in result.output
    assert len(store.index()) == len(mine) + 5, "listing drops nothing"


@pytest.mark.slow
def test_what_training_keeps_is_listed_and_pruned(image_set: Callable[..., Path]) -> None:
    """The stores of a real pass: after pruning for a smaller set, training on it computes nothing anew."""
    manifest = image_set()
    root = manifest.parent.parent
    folder = root / "data" / "activations"
    part = backbone.cut(backbone.load_backbone("resnet50v2", "random", (64, 64), seed=0), 5)
    larger = image_set(train=11, name="larger")
    chosen = engine.Engine("tensorflow", "float32")

    def computed(of: Path) -> int:
        return extract.features(
            datasets.read(of, root), NetworkCache(part, "w", folder), chosen, lambda *_: None
        ).computed

    computed(larger)
    computed(manifest)
    mine = len(checksums_of(manifest))
    extra = len(set(checksums_of(larger)) - set(checksums_of(manifest)))
    table = cache.listed(folder, cache.needed(root / "manifests"))
    assert sorted(table["layers"]) == ["conv5_block3_2_relu, conv5_block2_out", "pooled"]
    assert table[["size", "engine", "precision"]].drop_duplicates().to_numpy().tolist() == [
        ["64 x 64", "tensorflow", "float32"]
    ]
    before = total(folder)
    larger.unlink()
    pruned = cache.prune(folder, root / "manifests")
    assert pruned == (2 * extra, before - total(folder))
    assert cache.listed(folder, cache.needed(root / "manifests"))["needed by"].tolist() == [f"tiny {mine}"] * 2
    assert computed(manifest) == 0


def test_pruning_drops_what_no_manifest_needs(image_set: Callable[..., Path]) -> None:
    """Needed activations stay as they were, the others and leftovers go, and the output says how much; twice is nothing."""
    manifest = image_set()
    root = manifest.parent.parent
    mine = checksums_of(manifest)
    store = fill(root, "a", [*OTHERS[:3], *mine, *OTHERS[3:]])
    fill(root, "b", OTHERS)
    folder = root / "data" / "activations"
    (folder / ".c.partial").mkdir()
    (folder / ".c.partial" / "0.bin").write_bytes(b"left" * 1000)
    (folder / "mine.txt").write_text("somebody's notes")
    result = call(root, "--prune")
    assert result.exit_code == 0, result.output
    assert "Dropped 10 images' activations" in result.output
    assert set(store.index()) == set(mine)
    (array,) = store.read()
    assert [array[row, 0] for row in store.index().values()] == [int(name[:4], 16) for name in store.index()]
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "a", "mine.txt"]
    assert "Dropped 0 images" in call(root, "--prune").output


def test_stale_activations_are_listed_and_dropped(image_set: Callable[..., Path]) -> None:
    """Those of other versions, and of an older format, say so, and --prune drops them though a set has their images."""
    manifest = image_set()
    root = manifest.parent.parent
    mine = checksums_of(manifest)
    fill(root, "a", mine)
    older = fill(root, "b", mine)
    about = json.loads((older.folder / "about.json").read_text())
    about["versions"]["tensorflow"] = "2.0.0"
    (older.folder / "about.json").write_text(json.dumps(about))
    oldest = fill(root, "c", mine)
    about["format"] = 3
    del about["versions"]
    (oldest.folder / "about.json").write_text(json.dumps(about))
    (oldest.folder / "index").write_text("".join(f"{checksum}\n" for checksum in mine))  # as format 3 had it
    table = cache.listed(root / "data" / "activations", cache.needed(root / "manifests")).set_index("store")
    assert table["needed by"].to_dict() == {"a": f"tiny {len(mine)}", "b": cache.STALE, "c": cache.STALE}
    assert table["images"].tolist() == [str(len(mine))] * 3
    result = call(root, "--prune")
    assert f"Dropped {2 * len(mine)} images' activations" in result.output
    assert sorted(path.name for path in (root / "data" / "activations").iterdir()) == [".lock", "a"]


def test_a_hostile_description_is_shown_as_text(image_set: Callable[..., Path]) -> None:
    """What a terminal would obey is escaped, what isn't a list is left out, and nothing of it is a traceback."""
    root = image_set().parent.parent
    store = fill(root, "a", OTHERS)
    about = json.loads((store.folder / "about.json").read_text())
    about |= {"size": 7, "layers": ["\x1b[2J", {"a": []}], "name": "x\ny", "precision": None}
    (store.folder / "about.json").write_text(json.dumps(about))
    result = call(root)
    assert result.exit_code == 0, result.output
    assert "\x1b" not in result.output
    assert "'\\x1b[2J'" in result.output
    assert "'x\\ny'" in result.output


def test_a_broken_manifest_is_no_licence_to_drop(image_set: Callable[..., Path]) -> None:
    """One manifest that can't be read, or none at all, is an error, and everything stays."""
    manifest = image_set()
    root = manifest.parent.parent
    store = fill(root, "a", [*checksums_of(manifest), *OTHERS])
    before = store.index()
    (manifest.parent / "other.csv").write_text(manifest.read_text()[:-30])
    for words in ((), ("--prune",)):
        result = call(root, *words)
        assert result.exit_code == 2
        assert "other.csv, line" in result.output.splitlines()[-1]
    for path in manifest.parent.iterdir():
        path.unlink()
    result = call(root, "--prune")
    assert result.exit_code == 2
    assert "no manifest is there" in result.output.splitlines()[-1]
    assert store.index() == before


def test_a_run_at_work_is_not_disturbed(image_set: Callable[..., Path]) -> None:
    """While somebody holds the lock, pruning is refused; the list is given all the same."""
    manifest = image_set()
    root = manifest.parent.parent
    store = fill(root, "a", [*checksums_of(manifest), *OTHERS])
    with locked(root / "data" / "activations"):
        result = call(root, "--prune")
        assert result.exit_code == 2
        assert "another run is computing" in result.output.splitlines()[-1]
        assert call(root).exit_code == 0
    assert len(store.index()) == len(checksums_of(manifest)) + 5


def test_without_any_activations_it_says_so(image_set: Callable[..., Path]) -> None:
    """No folder, or an empty one: one line, exit code 0, and no folder is made."""
    root = image_set().parent.parent
    for words in ((), ("--prune",)):
        result = call(root, *words)
        assert result.exit_code == 0, result.output
        assert "No activations are kept in" in result.output
    assert not (root / "data" / "activations").exists()


def test_a_full_disk_leaves_the_store_as_it_was(image_set: Callable[..., Path]) -> None:
    """Pruning in a process that may write no more than a few bytes a file: one line, nothing lost, nothing left behind."""
    resource = pytest.importorskip("resource", reason="limits a file's size, which only POSIX systems can")
    manifest = image_set()
    root = manifest.parent.parent
    store = fill(root, "a", [*checksums_of(manifest), *OTHERS])
    before = store.index(), store.read()[0].tobytes()

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))

    here = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-m", "train", "cache", "--prune", "--root", root],
        cwd=here, capture_output=True, text=True, check=False, preexec_fn=limited,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "nothing of it went" in done.stderr.splitlines()[-1]
    assert (store.index(), store.read()[0].tobytes()) == before
    assert sorted(path.name for path in store.folder.parent.iterdir()) == [".lock", "a"]
    assert [about["size"] for _, about in stored(store.folder.parent)] == [[64, 64]]


def test_listing_does_not_load_tensorflow(tmp_path: Path) -> None:
    """It answers in a blink."""
    code = "import sys, train.features.cache; print([m for m in ('tensorflow', 'keras') if m in sys.modules])"
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert json.loads("[]") == list(tmp_path.iterdir())
    assert isinstance(cache.listed(tmp_path, {}), pd.DataFrame)
