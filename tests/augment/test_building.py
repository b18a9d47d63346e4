"""Whole builds, on real files: what comes out, what a second run does, what a kill leaves, what is refused."""

import dataclasses
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from augment import building as stage
from augment.planning import PlanError
from augment.planning.build_plan import make_build_plan
from augment.recipe import Recipe, RecipeError
from augment.rendering.work import MODULES
from augment.sources.layout import Rejected
from augment.sources.names import ScanError
from augment.sources.scan import scan
from augment.storage.image_folder import partial
from augment.storage.place import BuildError, Place
from common.images.pixels import decode
from common.workers import Workers
from common.workers.process_pool import ProcessPool
from manifests import contract

THREADS = ThreadPoolExecutor(2)

AFFINE = json.dumps([{"KerasAffine": {"rotation_range": 10, "zoom_range": 0.2}}])
SMALL = Recipe("set", transforms=AFFINE, per_class=20, augment=("train", "val"), size=(32, 24))
COUNTS = {
    "train/NORMAL": 5,
    "train/PNEUMONIA": 12,
    "val/NORMAL": 1,
    "val/PNEUMONIA": 1,
    "test/NORMAL": 2,
    "test/PNEUMONIA": 3,
}


def quiet(done: int, total: int) -> None:
    """Progress that nobody looks at."""


def place(root: Path, source: Path, name: str = "set") -> Place:
    """Where the command line puts a set by default."""
    return Place(root, source, root / "data" / "augmented" / name, root / "manifests" / f"{name}.csv")


def build(
    root: Path,
    source: Path,
    recipe: Recipe = SMALL,
    executor: Executor | None = None,
    progress: Callable[[int, int], None] = quiet,
) -> stage.Built:
    """Scan and build, in a thread unless an executor is given: any executor will do."""
    with executor or ThreadPoolExecutor(1) as pool:
        return stage.build(
            scan(source, recipe.group, THREADS), recipe, place(root, source), Workers(pool, pool), progress
        )


def content(root: Path, name: str = "set") -> dict[str, bytes]:
    """Every file of a finished set, its manifest and its card: path -> bytes."""
    at = place(root, root, name)
    files = [path for path in at.images.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in [*files, at.manifest, contract.card_path(at.manifest)]
    }


def expect_whole(root: Path, name: str = "set") -> pd.DataFrame:
    """The set is there, all of it, and nothing else is in its folders; nothing is left of its making."""
    at = place(root, root, name)
    rows = contract.read(at.manifest)
    for row in rows.itertuples():
        data = (root / row.path).read_bytes()
        assert hashlib.sha256(data).hexdigest() == row.sha256
        assert decode(data).shape[:2] == (row.height, row.width)
    images = {
        path.relative_to(root).as_posix() for path in at.images.rglob("*") if path.is_file() and path.name[0] != "."
    }
    assert images == set(rows["path"])
    assert not partial(at.images).exists()
    return rows


def expect_nothing(root: Path, name: str = "set") -> None:
    """Nothing carries the set's final name."""
    at = place(root, root, name)
    for path in (at.images, at.manifest, contract.card_path(at.manifest)):
        assert not path.exists()


def listing(folder: Path) -> list[tuple[str, int, int]]:
    """Everything below a folder with time of change and size."""
    paths = sorted([folder, *folder.rglob("*")])
    return [(str(path), path.lstat().st_mtime_ns, path.lstat().st_size) for path in paths]


@pytest.fixture
def source(tmp_path, make_source):
    """A small source folder in the Kermany layout."""
    return make_source(tmp_path / "source", COUNTS)


def test_a_set_is_what_the_recipe_says(source: Path, tmp_path: Path) -> None:
    """Balanced train and val, test as it was; every row true to its file; the source folder as it was before."""
    before = listing(source)
    built = build(tmp_path, source)
    rows = expect_whole(tmp_path)
    assert rows.groupby(["split", "label"]).size().to_dict() == {
        ("train", "NORMAL"): 16,
        ("train", "PNEUMONIA"): 16,
        ("val", "NORMAL"): 4,
        ("val", "PNEUMONIA"): 4,
        ("test", "NORMAL"): 2,
        ("test", "PNEUMONIA"): 3,
    }
    assert (built.rendered, built.reused, built.build_plan.rejected) == (45, 0, [])
    assert set(zip(rows["width"], rows["height"], strict=True)) == {(32, 24)}
    for row in rows.itertuples():
        assert row.path.startswith(f"data/augmented/set/{row.split}/{row.label}/")
        assert hashlib.sha256((source / row.source).read_bytes()).hexdigest() == row.source_sha256
        assert row.group in row.source
        assert bool(row.transform) == (row.variant > 0)
    assert listing(source) == before


def test_the_card_records_how_the_set_was_made(source: Path, tmp_path: Path) -> None:
    """Recipe as resolved, source, counts that match the manifest, versions, notice and what was rejected."""
    (source / "NOTICE").write_text("Synthetic.")
    (source / "train" / "NORMAL" / "notes.txt").write_text("no image")
    (source / "train" / "NORMAL" / ".hidden").touch()
    build(tmp_path, source)
    card = contract.read_card(place(tmp_path, source).manifest)
    rows = expect_whole(tmp_path)
    assert card["name"] == "set"
    assert card["recipe"] == SMALL.as_dict()
    assert (card["source"], card["images"], card["notice"]) == ("source", "data/augmented/set", "Synthetic.")
    for (split, label), side in rows.groupby(["split", "label"]):
        assert card["counts"][split][label] == {
            "sources": side["source"].nunique(),
            "images": len(side),
            "augmented": int((side["variant"] > 0).sum()),
        }
    assert {"opencv-python-headless", "pillow", "numpy", "evenset", "simplejpeg"} == set(card["versions"])
    assert [entry["source"] for entry in card["rejected"]] == ["train/NORMAL/.hidden", "train/NORMAL/notes.txt"]
    assert all(entry["reason"] for entry in card["rejected"])


def test_every_file_found_is_in_the_manifest_or_rejected(source: Path, tmp_path: Path) -> None:
    """Sampled down, undecodable, hidden, nested, named oddly: nothing that was found is lost from the record."""
    folder = source / "train" / "PNEUMONIA"
    (folder / "broken.jpeg").write_bytes(next(folder.iterdir()).read_bytes()[:200])
    (folder / "empty.png").touch()
    (folder / ".hidden").touch()
    (folder / "nested").mkdir()
    (folder / os.fsdecode(b"latin \xe9.jpeg")).write_bytes(b"x")
    (folder / "line\nbreak.jpeg").write_bytes(b"x")
    found = sum(len([*names, *(name for name in folders if name == "nested")]) for _, folders, names in os.walk(source))
    built = build(tmp_path, source, dataclasses.replace(SMALL, per_class=10))
    rows = expect_whole(tmp_path)
    card = contract.read_card(place(tmp_path, source).manifest)
    rejected = {entry["source"]: entry["reason"] for entry in card["rejected"]}
    assert len(rejected) == len(card["rejected"]) == len(built.build_plan.rejected)
    assert rows["source"].nunique() + len(rejected) == found
    assert not set(rows["source"]) & set(rejected)
    assert "runcated" in rejected["train/PNEUMONIA/broken.jpeg"]
    assert sum(reason.startswith("sampled down") for reason in rejected.values()) == 12 + 1 - 8 - 2


def test_one_worker_and_three_give_the_same_bytes(source: Path, tmp_path: Path) -> None:
    """Every image, the manifest and the card are equal to the byte; so is a set that a thread built."""
    colour = np.random.default_rng(1).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(colour).save(source / "train" / "NORMAL" / "colour.png")
    recipe = dataclasses.replace(SMALL, per_class=150)
    for workers in (1, 3):
        with ProcessPool(workers, MODULES) as executor:
            build(tmp_path / str(workers), source, recipe, executor)
    build(tmp_path / "thread", source, recipe)
    expect_whole(tmp_path / "1")
    assert content(tmp_path / "1") == content(tmp_path / "3") == content(tmp_path / "thread")


def test_a_second_build_renders_nothing(source: Path, tmp_path: Path) -> None:
    """The same command again: everything is reused and no file is touched, undecodable sources included."""
    (source / "train" / "NORMAL" / "broken.jpeg").write_bytes(b"\xff\xd8\xff")
    first = build(tmp_path, source)
    before = [*listing(tmp_path / "data" / "augmented" / "set"), *listing(place(tmp_path, source).manifest)]
    second = build(tmp_path, source)
    assert (second.rendered, second.reused) == (0, 45)
    assert second.build_plan.rejected == first.build_plan.rejected
    assert second.build_plan.counts.equals(first.build_plan.counts)
    assert [*listing(tmp_path / "data" / "augmented" / "set"), *listing(place(tmp_path, source).manifest)] == before


def test_keras_reads_the_image_folders(source: Path, tmp_path: Path) -> None:
    """`keras.utils.image_dataset_from_directory` finds the classes and every training image, in their size."""
    import keras  # here, since it takes seconds

    build(tmp_path, source)
    train = keras.utils.image_dataset_from_directory(
        tmp_path / "data/augmented/set/train",
        image_size=(24, 32),
        color_mode="grayscale",
        batch_size=None,
        verbose=False,
    )
    assert train.class_names == ["NORMAL", "PNEUMONIA"]
    labels = [int(label) for _, label in train]
    assert (labels.count(0), labels.count(1)) == (16, 16)


def test_a_plain_folder_of_many_classes_is_split_and_balanced(tmp_path, make_source) -> None:
    """CLASS/* without splits, in any format of the brief: train, val and test are made, without common patients."""
    source = make_source(tmp_path / "source", {"a": 9, "b": 12}, suffix=".png")
    make_source(source, {"c": 12}, suffix=".webp", size=(90, 70))
    make_source(source, {"NORMAL": 7}, suffix=".tiff", size=(20, 50))
    build(tmp_path, source)
    rows = expect_whole(tmp_path)
    sizes = rows.groupby(["split", "label"]).size()
    assert sizes["train"].to_dict() == dict.fromkeys(["NORMAL", "a", "b", "c"], 16)
    assert sizes["val"].to_dict() == dict.fromkeys(["NORMAL", "a", "b", "c"], 4)
    assert set(sizes["test"].index) == {"NORMAL", "a", "b", "c"}
    assert rows.groupby("group")["split"].nunique().max() == 1


def test_files_of_one_stem_both_survive(source: Path, tmp_path: Path) -> None:
    """a.png beside a.jpeg in one class are two sources and two images of different content."""
    twin = source / "train" / "NORMAL" / "IM-0001-0001.png"
    Image.fromarray(np.full((24, 32), 200, np.uint8)).save(twin)
    build(tmp_path, source)
    rows = expect_whole(tmp_path)
    both = rows[rows["source"].str.contains("NORMAL/IM-0001-0001") & (rows["variant"] == 0)]
    assert sorted(both["source"].str[-4:]) == [".png", "jpeg"]
    assert both["sha256"].nunique() == 2


def test_an_undecodable_file_is_made_up_for(source: Path, tmp_path: Path) -> None:
    """It is rejected with its reason, and its class still meets the target from the others."""
    whole = build(tmp_path / "whole", source)
    for name in ("IM-0001-0001.jpeg", "IM-0002-0001.jpeg"):
        (source / "train" / "NORMAL" / name).write_bytes(b"this is no JPEG")
    broken = build(tmp_path / "broken", source)
    expect_whole(tmp_path / "broken")
    assert broken.build_plan.counts["images"].tolist() == whole.build_plan.counts["images"].tolist()
    assert [entry.source for entry in broken.build_plan.rejected] == [
        f"train/NORMAL/IM-000{n}-0001.jpeg" for n in (1, 2)
    ]
    assert all(entry.reason.startswith("not an image of a known format") for entry in broken.build_plan.rejected)


def test_a_file_beyond_the_limit_is_made_up_for(source: Path, tmp_path: Path) -> None:
    """A source that declares more pixels than the recipe allows is rejected by that, and its class meets the target."""
    Image.fromarray(np.zeros((60, 60), np.uint8)).save(source / "train" / "NORMAL" / "IM-0099-0001.png")
    built = build(tmp_path, source, dataclasses.replace(SMALL, max_pixels=48 * 36))
    assert built.build_plan.rejected[0].source == "train/NORMAL/IM-0099-0001.png"
    assert built.build_plan.rejected[0].reason == "declares 60 x 60 pixels, more than the limit of 1,728"
    assert (expect_whole(tmp_path)["label"] == "NORMAL").sum() == 22


def test_a_file_that_vanishes_is_made_up_for(source: Path, tmp_path: Path) -> None:
    """Gone between scan and render: rejected, its class meets the target; there again, it is used again."""
    victim = source / "train" / "NORMAL" / "IM-0001-0001.jpeg"
    scanned, data = scan(source, SMALL.group, THREADS), victim.read_bytes()
    victim.unlink()
    with ThreadPoolExecutor(1) as pool:
        built = stage.build(scanned, SMALL, place(tmp_path, source), Workers(pool, pool), quiet)
    rows = expect_whole(tmp_path)
    assert [(entry.source, entry.reason) for entry in built.build_plan.rejected] == [
        ("train/NORMAL/IM-0001-0001.jpeg", "can't be read: No such file or directory")
    ]
    assert (rows["label"].eq("NORMAL") & rows["split"].eq("train")).sum() == 16
    victim.write_bytes(data)
    assert build(tmp_path, source).build_plan.rejected == []
    assert "train/NORMAL/IM-0001-0001.jpeg" in set(expect_whole(tmp_path)["source"])


def test_a_class_without_a_readable_image_is_refused(source: Path, tmp_path: Path) -> None:
    """No file of a class is an image: one line that names class, file and reason; nothing under a final name."""
    for number, path in enumerate(sorted(source.glob("*/NORMAL/*"))):
        path.write_bytes(b"no image %d" % number)
    with pytest.raises(
        ScanError, match=r"class NORMAL: no readable image \(.*NORMAL/IM-.*: not an image of a known format"
    ) as caught:
        build(tmp_path, source)
    assert "\n" not in str(caught.value)
    expect_nothing(tmp_path)


def test_a_class_without_an_image_that_decodes_is_refused(source: Path, tmp_path: Path) -> None:
    """The files of a class begin as images and end too soon: the same, found by decoding."""
    for path in sorted(source.glob("*/NORMAL/*")):
        path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(PlanError, match=r"class NORMAL: no readable image \(.*NORMAL/IM-.*runcated"):
        build(tmp_path, source)
    expect_nothing(tmp_path)


@pytest.mark.parametrize(
    ("recipe", "error", "named"),
    [
        (Recipe("set", per_class=20), PlanError, "NORMAL in train: the recipe wants 16 images"),
        (dataclasses.replace(SMALL, transforms='[{"Flip9": {}}]'), RecipeError, "transform 'Flip9' is not known"),
        (dataclasses.replace(SMALL, transforms='[{"Normalize": {}}]'), RecipeError, "Normalize makes float32"),
    ],
)
def test_a_set_that_cannot_be_made_leaves_nothing(
    source: Path, tmp_path: Path, recipe: Recipe, error: type[Exception], named: str
) -> None:
    """Targets that can't be met and transforms that don't work: known before the first image is rendered."""
    with pytest.raises(error, match=named):
        build(tmp_path, source, recipe)
    expect_nothing(tmp_path)
    assert not list(tmp_path.rglob("*.jpg"))


@pytest.mark.parametrize(
    "changes",
    [
        {"transforms": '[{"HorizontalFlip": {"p": 1}}]'},
        {"size": (24, 24)},
        {"quality": 50},
        {"seed": 1},
        {"per_class": 10},
        {"per_class": 40},
        {"val": 0.5},
        {"per_class": None, "transforms": "[]", "keep_source_val": True},
    ],
    ids="+".join,
)
def test_a_changed_recipe_never_mixes_old_and_new_images(source: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    """Another recipe under the same name: the result equals a build from scratch, to the byte."""
    changed = dataclasses.replace(SMALL, **changes)
    build(tmp_path / "updated", source)
    build(tmp_path / "updated", source, changed)
    build(tmp_path / "scratch", source, changed)
    expect_whole(tmp_path / "updated")
    assert content(tmp_path / "updated") == content(tmp_path / "scratch")


def add_source(source: Path) -> None:
    Image.fromarray(np.full((30, 30), 111, np.uint8)).save(source / "train" / "NORMAL" / "IM-0099-0001.png")


def remove_source(source: Path) -> None:
    min((source / "train" / "PNEUMONIA").iterdir()).unlink()


def edit_source(source: Path) -> None:
    Image.fromarray(np.full((30, 30), 99, np.uint8)).save(min((source / "train" / "NORMAL").iterdir()))


def add_class(source: Path) -> None:
    for split, count in (("train", 4), ("val", 1), ("test", 1)):
        (source / split / "OTHER").mkdir()
        for number in range(count):
            shade = np.full((30, 30), 9 * number + len(split), np.uint8)
            Image.fromarray(shade).save(source / split / "OTHER" / f"{split}{number}.png")


@pytest.mark.parametrize(
    "change", [add_source, remove_source, edit_source, add_class], ids=lambda change: change.__name__
)
def test_a_changed_source_renders_only_what_differs(
    source: Path, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    """A source added, removed or edited, or one more class: most is reused, and the result is that of a fresh build."""
    build(tmp_path / "updated", source)
    change(source)
    built = build(tmp_path / "updated", source)
    build(tmp_path / "scratch", source)
    expect_whole(tmp_path / "updated")
    assert content(tmp_path / "updated") == content(tmp_path / "scratch")
    assert built.rendered > 0
    assert built.reused >= 20


def test_what_was_deleted_or_altered_is_rebuilt(source: Path, tmp_path: Path) -> None:
    """Two images deleted, one edited, one file added by hand: exactly those are mended, all others reused."""
    build(tmp_path, source)
    before = content(tmp_path)
    images = sorted((tmp_path / "data/augmented/set/train").rglob("*.jpg"))
    images[0].unlink()
    images[5].unlink()
    images[9].write_bytes(images[10].read_bytes())
    images[0].with_name("stray.jpg").write_bytes(b"stray")
    (tmp_path / "data/augmented/set/train/.DS_Store").write_bytes(b"left by a file manager")
    built = build(tmp_path, source)
    assert (built.rendered, built.reused) == (3, 42)
    expect_whole(tmp_path)
    assert content(tmp_path) == before


@pytest.mark.parametrize("lost", ["set.csv", "set.json"])
def test_a_lost_manifest_or_card_is_written_again(source: Path, tmp_path: Path, lost: str) -> None:
    """Without manifest or card the set is made again, the same to the byte."""
    build(tmp_path, source)
    before = content(tmp_path)
    (tmp_path / "manifests" / lost).unlink()
    build(tmp_path, source)
    expect_whole(tmp_path)
    assert content(tmp_path) == before


@pytest.mark.parametrize("damage", ["cut", "edited", "emptied"])
def test_a_damaged_manifest_is_written_again(source: Path, tmp_path: Path, damage: str) -> None:
    """A manifest that was cut off between two lines, edited or emptied is not taken for the finished set's."""
    build(tmp_path, source)
    before = content(tmp_path)
    manifest = tmp_path / "manifests" / "set.csv"
    text = manifest.read_text()
    lines = text.splitlines(keepends=True)
    manifest.write_text(
        {"cut": "".join(lines[:-5]), "edited": text.replace("NORMAL,train", "PNEUMONIA,train", 1), "emptied": ""}[
            damage
        ]
    )
    os.utime(manifest)
    build(tmp_path, source)
    assert content(tmp_path) == before


def test_a_folder_of_somebody_elses_is_refused(source: Path, tmp_path: Path) -> None:
    """--images names a folder or file that Evenset didn't make: refused by name, and not touched."""
    images = tmp_path / "data" / "augmented" / "set"
    (images / "train").mkdir(parents=True)
    (images / "train" / "thesis.txt").write_text("the only copy")
    before = listing(images)
    with pytest.raises(BuildError, match=r"set exists and is no image set of Evenset's; move it away"):
        build(tmp_path, source)
    assert listing(images) == before
    assert not (tmp_path / "manifests" / "set.csv").exists()
    (images / "train" / "thesis.txt").rename(tmp_path / "thesis")
    (images / "train").rmdir()
    images.rmdir()
    (tmp_path / "thesis").rename(images)
    with pytest.raises(BuildError, match="no image set of Evenset's"):
        build(tmp_path, source)
    assert images.read_text() == "the only copy"


def test_an_empty_folder_is_nobodys(source: Path, tmp_path: Path) -> None:
    """A folder that was made for the set beforehand is used."""
    (tmp_path / "data" / "augmented" / "set").mkdir(parents=True)
    build(tmp_path, source)
    expect_whole(tmp_path)


@pytest.mark.parametrize(
    ("images", "manifest", "named"),
    [
        ("source/augmented", "set.csv", "--images .* and the source .* overlap"),
        ("source", "set.csv", "--images .* and the source .* overlap"),
        ("link/augmented", "set.csv", "--images .* and the source .* overlap"),
        ("images", "source/set.csv", "--manifest .* and the source .* overlap"),
        ("images", "source/train/NORMAL/set.csv", "--manifest .* and the source .* overlap"),
        ("images", "link/set.csv", "--manifest .* and the source .* overlap"),
        (".", "set.csv", "--images .* is not inside"),
        ("..", "set.csv", "--images .* is not inside"),
        ("../elsewhere", "set.csv", "--images .* is not inside"),
        ("images", "set.txt", r"--manifest .* should end in \.csv"),
    ],
)
def test_a_place_that_puts_files_at_risk_is_refused(
    source: Path, tmp_path: Path, images: str, manifest: str, named: str
) -> None:
    """Inside the source, around it, through a link into it, or outside the root: refused, nothing written."""
    (tmp_path / "link").symlink_to(source)
    before = listing(tmp_path)
    at = Place(tmp_path, source, tmp_path / images, tmp_path / manifest)
    with ThreadPoolExecutor(1) as pool, pytest.raises(BuildError, match=named):
        stage.build(scan(source, SMALL.group, THREADS), SMALL, at, Workers(pool, pool), quiet)
    assert listing(tmp_path) == before


def test_a_set_can_be_moved_with_its_root(source: Path, tmp_path: Path) -> None:
    """Paths in the manifest are relative to the root: the whole root can be moved, and the set stays valid."""
    (tmp_path / "root").mkdir()
    build(tmp_path / "root", source)
    (tmp_path / "root").rename(tmp_path / "moved")
    expect_whole(tmp_path / "moved")


class Stopped(Exception):  # noqa: N818  # no error: what a test stops a build with
    """Raised out of a build's progress."""


def stop_at(share: float) -> Callable[[int, int], None]:
    """Progress that ends the build when this share of the images is done."""

    def progress(done: int, total: int) -> None:
        if done >= share * total:
            raise Stopped

    return progress


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8, 1.0])
def test_a_build_that_was_stopped_goes_on(source: Path, tmp_path: Path, share: float) -> None:
    """Stopped anywhere: nothing under a final name; run again, what was done is reused and the result is the same."""
    with pytest.raises(Stopped):
        build(tmp_path / "stopped", source, progress=stop_at(share))
    expect_nothing(tmp_path / "stopped")
    built = build(tmp_path / "stopped", source)
    build(tmp_path / "whole", source)
    expect_whole(tmp_path / "stopped")
    assert content(tmp_path / "stopped") == content(tmp_path / "whole")
    assert built.reused >= int(share * 45)
    assert built.rendered + built.reused == 45


def test_a_damaged_journal_costs_time_and_nothing_else(source: Path, tmp_path: Path) -> None:
    """A torn line, noise, and images that are not as the journal has them are rendered again, not believed."""
    with pytest.raises(Stopped):
        build(tmp_path / "stopped", source, progress=stop_at(1.0))
    folder = partial(place(tmp_path / "stopped", source).images)
    done = sorted(folder.rglob("*.jpg"))
    done[0].write_bytes(done[0].read_bytes()[:-7])
    done[1].unlink()
    done[2].with_name(".tmp1234").write_bytes(b"half an image")
    (journal,) = folder.glob(".journal*")
    text = journal.read_text()
    journal.write_text("noise,1\n\n,,,,,\n../../x,1,,1,1,y\n" + text[:-30])
    built = build(tmp_path / "stopped", source)
    build(tmp_path / "whole", source)
    assert 3 <= built.rendered <= 12
    assert content(tmp_path / "stopped") == content(tmp_path / "whole")


def test_what_was_stopped_under_another_recipe_is_not_mixed_in(source: Path, tmp_path: Path) -> None:
    """Half a set of one recipe, then another recipe under the same name: all of it is the new recipe's."""
    changed = dataclasses.replace(SMALL, quality=40)
    with pytest.raises(Stopped):
        build(tmp_path / "stopped", source, progress=stop_at(0.7))
    assert build(tmp_path / "stopped", source, changed).reused == 0
    build(tmp_path / "whole", source, changed)
    assert content(tmp_path / "stopped") == content(tmp_path / "whole")


def test_workers_that_are_killed_are_replaced(source: Path, tmp_path: Path) -> None:
    """A worker killed by the system, again and again: its images are rendered by another, and come out the same."""
    kills = 0

    def kill_workers(pool: ProcessPool) -> Callable[[int, int], None]:
        def progress(done: int, total: int) -> None:
            nonlocal kills
            for worker in pool._workers if done * 5 // total > kills else []:
                if worker:
                    worker.kill()
                    kills += 1
                    break

        return progress

    recipe = dataclasses.replace(SMALL, per_class=800)
    with ProcessPool(2, MODULES) as executor:
        build(tmp_path / "killed", source, recipe, executor, kill_workers(executor))
    assert kills >= 4
    build(tmp_path / "whole", source, recipe)
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


Start = Callable[[Path], "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def start(environment: dict[str, str]) -> Start:
    """A function that starts the real command in a folder, in a process of its own."""
    command = [sys.executable, "-m", "augment", "build", "--recipe", "set.yaml", "--source", "source", "--workers", "2"]

    def process(root: Path) -> "subprocess.Popen[str]":
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=root, env=environment, stdout=pipe, stderr=pipe, text=True)

    return process


@pytest.fixture(scope="module")
def long_build(tmp_path_factory, make_source, start: Start) -> tuple[Path, dict[str, bytes]]:
    """A folder with a source and a recipe whose set takes seconds, and what the uninterrupted build makes of them."""
    root = tmp_path_factory.mktemp("long")
    counts = {
        f"{split}/{label}": 45 if split == "train" else 3 for split in ("train", "test") for label in ("NORMAL", "b")
    }
    make_source(root / "source", counts)
    (root / "set.yaml").write_text(
        "per_class: 1500\naugment: [train, val]\nsize: 64\ntransforms: [{KerasAffine: {rotation_range: 9}}]\n"
    )
    process = start(root)
    _, complaint = process.communicate(timeout=120)
    assert (process.returncode, complaint) == (0, "")
    expect_whole(root)
    return root, content(root)


def journaled(root: Path) -> int:
    """How many images the journal of the set in the making records."""
    try:
        return (partial(place(root, root).images) / ".journal.csv").read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def await_images(process: "subprocess.Popen[str]", root: Path, count: int) -> None:
    """Return as soon as the journal records `count` images."""
    deadline = time.monotonic() + 60
    while journaled(root) < count:
        assert process.poll() is None, "the build ended before it could be interrupted"
        assert time.monotonic() < deadline, f"{count} images took longer than a minute"


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 1000])
def test_a_killed_build_is_finished_by_the_next(
    long_build: tuple[Path, dict[str, bytes]], start: Start, tmp_path: Path, count: int
) -> None:
    """Killed by kill -9 with `count` images done: no final name, no worker left; the next run reuses them; the same bytes."""
    origin, expected = long_build
    shutil.copytree(origin / "source", tmp_path / "source")
    shutil.copy(origin / "set.yaml", tmp_path)
    process = start(tmp_path)
    await_images(process, tmp_path, count)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)  # returns once the last process that shares its output has ended
    assert process.returncode == -signal.SIGKILL
    expect_nothing(tmp_path)
    assert journaled(tmp_path) >= count
    finishing = start(tmp_path)
    message, _ = finishing.communicate(timeout=120)
    assert finishing.returncode == 0
    rendered, reused = (
        int(text.replace(",", "")) for text in message.split("Rendered ")[1].split(": ")[0].split(" images, reused ")
    )
    assert rendered + reused == 3006
    assert reused >= count - 1
    expect_whole(tmp_path)
    assert content(tmp_path) == expected


@pytest.mark.slow
def test_while_a_set_is_updated_a_manifest_means_a_whole_set(
    long_build: tuple[Path, dict[str, bytes]], start: Start, tmp_path: Path
) -> None:
    """Watched all through a build that replaces a set: whenever a manifest is there, so is every image behind it."""
    origin, expected = long_build
    root = shutil.copytree(origin, tmp_path / "root")
    at = place(root, root)
    (root / "set.yaml").write_text((root / "set.yaml").read_text().replace("per_class: 1500", "per_class: 1000"))
    seen: set[bytes] = set()
    process = start(root)
    try:
        while process.poll() is None:
            try:
                before = at.manifest.read_bytes()
                rows = contract.read(at.manifest)
                missing = [path for path in rows["path"] if not (root / path).exists()]
                after = at.manifest.read_bytes()
            except (FileNotFoundError, contract.ContractError):
                continue  # gone while it was looked at
            assert not missing or before != after
            seen.add(before)
    finally:
        process.communicate(timeout=120)
    assert process.returncode == 0
    seen.add(at.manifest.read_bytes())
    assert seen >= {expected["manifests/set.csv"], at.manifest.read_bytes()}
    assert len(expect_whole(root)) == 2006


def test_names_of_files_that_are_no_images_say_nothing_of_patients(source: Path) -> None:
    """The warning of names that the pattern doesn't match counts images alone, and goes with the last of those."""
    (source / "train" / "NORMAL" / "half.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    scanned = scan(source, SMALL.group, THREADS)
    assert "(not half.jpg)" in make_build_plan(scanned, SMALL).groups.warning
    known = make_build_plan(scanned, SMALL, [Rejected("train/NORMAL/half.jpg", "damaged")]).groups
    assert (known.warning, known.matched) == ("", known.of)


@pytest.mark.parametrize("manifest", [None, "other/place/of.csv"])
def test_images_may_lie_on_any_disk(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call, manifest: str | None
) -> None:
    """Outside the root they have one of their own, which the card says: no command needs --root, wherever it is run."""
    (tmp_path / "set.yaml").write_text("per_class: 20\nsize: 32\ntransforms: [HorizontalFlip]\n")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    disk = tmp_path / "disk"
    given = ("--manifest", disk / manifest) if manifest else ()
    words = (
        "build",
        "--recipe",
        tmp_path / "set.yaml",
        "--source",
        source,
        "--images",
        disk / "images" / "set",
        *given,
    )
    done = call(*words)
    assert done.exit_code == 0, done.output
    written = disk / (manifest or "images/set.csv")
    assert contract.read_card(written)["root"] == ("../.." if manifest else ".")
    assert call("verify", written).exit_code == 0
    monkeypatch.chdir(tmp_path)
    image = next((disk / "images" / "set").rglob("*.jpg"))
    image.unlink()
    assert call("verify", written, "--repair").exit_code == 0
    assert image.exists()
    assert call("gallery", written).exit_code == 0
    monkeypatch.chdir(tmp_path / "here")
    assert "Up to date" in call(*words).output
    assert list((tmp_path / "here").iterdir()) == []


def test_a_root_in_a_card_leads_only_upwards(tmp_path: Path) -> None:
    """A card may come from anyone: a root that is elsewhere is not taken."""
    manifest = tmp_path / "a" / "b" / "set.csv"
    manifest.parent.mkdir(parents=True)
    for given, root in (("..", tmp_path / "a"), ("../..", tmp_path), (".", tmp_path / "a" / "b")):
        manifest.with_suffix(".json").write_text(json.dumps({"root": given}))
        assert contract.root_of(manifest) == root
        assert contract.root_seen_from(manifest, root) == given
    for given in ("../../etc", "/", "c", "..\\..", None, 3, "./.."):
        manifest.with_suffix(".json").write_text(json.dumps({"root": given}))
        assert contract.root_of(manifest) == Path()
    assert contract.root_of(manifest, tmp_path) == tmp_path
    assert contract.root_seen_from(manifest, tmp_path / "c") is None
