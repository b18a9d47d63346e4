"""Looking at a source folder before building, and leaks that `build` refuses or leaves out."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from PIL import Image

from augment.audit import audit
from augment.recipe import KERMANY
from manifests import contract
from manifests.pixels import MAX_PIXELS

Call = Callable[..., Result]


def report(source: Path, **settings: Any) -> dict[str, Any]:
    """The findings, with the defaults of the command line."""
    asked = {"group": KERMANY, "distance": 20, "max_pixels": MAX_PIXELS, "workers": 2, **settings}
    return audit(source, progress=lambda *_: None, **asked).report


@pytest.fixture
def source(make_source: Callable[..., Path], tmp_path: Path) -> Path:
    """Train and test of two classes, large enough for perceptual hashes to tell images apart."""
    counts = {"train/NORMAL": 3, "train/PNEUMONIA": 6, "test/NORMAL": 2, "test/PNEUMONIA": 2}
    return make_source(tmp_path / "source", counts, size=(256, 192))


def test_a_sound_folder_is_counted_and_has_no_findings(source: Path) -> None:
    """Counts by split and class, formats with bit depth, sizes; and nothing unreadable, leaking or alike."""
    found = report(source)
    assert found["counts"] == {"train": {"NORMAL": 3, "PNEUMONIA": 6}, "test": {"NORMAL": 2, "PNEUMONIA": 2}}
    assert found["formats"] == {"JPEG L 8 bits": 13}
    assert found["width"] == {"least": 256, "median": 256, "most": 256}
    assert found["groups"] == 3 + 2 + 2 + 1
    for kind in ("unreadable", "groups_in_several_splits", "byte_identical", "pixel_identical", "near_identical"):
        assert found[kind] == []


def test_formats_and_unreadable_files_are_told(source: Path) -> None:
    """Sixteen bits and colour are seen for what they are, and a file that is no image has its reason."""
    Image.new("I;16", (40, 30), 900).save(source / "train" / "NORMAL" / "deep.png")
    Image.new("RGB", (500, 30), (9, 0, 0)).save(source / "train" / "NORMAL" / "colour.bmp")
    (source / "test" / "NORMAL" / "broken.jpeg").write_bytes(b"\xff\xd8 no image")
    found = report(source)
    assert found["formats"] == {"BMP RGB 8 bits": 1, "JPEG L 8 bits": 13, "PNG I;16 16 bits": 1}
    assert found["width"] == {"least": 40, "median": 256, "most": 500}
    assert [entry["source"] for entry in found["unreadable"]] == ["test/NORMAL/broken.jpeg"]
    assert found["unreadable"][0]["reason"]


def test_a_patient_in_several_splits_depends_on_the_reading(source: Path) -> None:
    """person7_virus and person7_bacteria are two patients by kind and number, and one by number alone."""
    image = next(source.glob("train/PNEUMONIA/*"))
    Image.open(image).rotate(90, expand=True).save(source / "train/PNEUMONIA/person7_virus_1.jpeg")
    Image.open(image).rotate(180).save(source / "test/PNEUMONIA/person7_bacteria_2.jpeg")
    assert report(source)["groups_in_several_splits"] == []
    told = report(source, group=r"person(\d+)")["groups_in_several_splits"]
    assert {"group": "7", "images": {"test": 1, "train": 1}} in told


def test_images_alike_are_found_by_bytes_by_pixels_and_by_looks(source: Path) -> None:
    """Each pair is told once, by the strictest likeness, with what it crosses; different drawings are not."""
    first, second, third = sorted(source.glob("train/PNEUMONIA/*"))[::2]
    shutil.copy(first, source / "train" / "NORMAL" / "copy.jpeg")
    for ending in ("png", "bmp"):
        Image.open(second).save(source / "test" / "PNEUMONIA" / f"same.{ending}")
    drawn = np.random.default_rng(3).integers(0, 256, (48, 64), dtype=np.uint8)  # as rich in detail as an X-ray
    Image.fromarray(drawn).resize((256, 192), Image.Resampling.BICUBIC).save(third)
    Image.open(third).resize((200, 150)).save(source / "train" / "PNEUMONIA" / "reduced.jpeg", quality=60)

    found = report(source)
    names = [path.relative_to(source).as_posix() for path in (first, second, third)]
    assert found["byte_identical"] == [
        {"files": ["train/NORMAL/copy.jpeg", names[0]], "where": "across classes"},
    ]
    assert found["pixel_identical"] == [
        {"files": ["test/PNEUMONIA/same.bmp", "test/PNEUMONIA/same.png", names[1]], "where": "across splits"},
    ]
    (near,) = found["near_identical"]
    assert near["files"] == [names[2], "train/PNEUMONIA/reduced.jpeg"]
    assert near["where"] == "within a split and class"
    assert 0 <= near["distance"] <= 20


def test_the_command_tells_writes_json_and_fails_when_it_is_to(source: Path, tmp_path: Path, call: Call) -> None:
    """Findings alone are no failure; with --strict a leak is, and a sound folder still is not."""
    assert call("audit", source, "--strict").exit_code == 0
    train, test = next(source.glob("train/NORMAL/*")), source / "test" / "NORMAL" / "copy.jpeg"
    shutil.copy(train, test)
    plain = call("audit", source, "--json", tmp_path / "found.json")
    assert plain.exit_code == 0, plain.output
    assert "1 groups of byte-identical images" in plain.output
    assert "across splits" in plain.output
    written = json.loads((tmp_path / "found.json").read_text())
    assert written["byte_identical"][0]["files"] == [
        "test/NORMAL/copy.jpeg",
        train.relative_to(source).as_posix(),
    ]
    assert call("audit", source, "--strict").exit_code == 1


@pytest.mark.parametrize("what", ["patient", "image"])
def test_a_build_refuses_a_leak_or_leaves_it_out_of_train(source: Path, tmp_path: Path, call: Call, what: str) -> None:
    """Both files are named; --on-leak drop keeps test as it is and lists what train lost among the rejected."""
    train = min(source.glob("train/NORMAL/*"))
    if what == "image":
        leak = source / "test" / "NORMAL" / "other.jpeg"
        shutil.copy(train, leak)
    else:
        leak = source / "test" / "NORMAL" / f"{train.stem}-2.jpeg"
        Image.open(train).rotate(180).save(leak)
    (tmp_path / "small.yaml").write_text("per_class: 8\nval: 0\ntransforms: [HorizontalFlip]\n")
    words = ("build", "--recipe", tmp_path / "small.yaml", "--source", source, "--root", tmp_path)
    refused = call(*words)
    assert refused.exit_code == 2
    assert train.name in refused.output
    assert leak.name in refused.output
    assert not (tmp_path / "manifests" / "small.csv").exists()

    dropped = call(*words, "--on-leak", "drop")
    assert dropped.exit_code == 0, dropped.output
    rows = contract.read(tmp_path / "manifests" / "small.csv")
    name = train.relative_to(source).as_posix()
    assert name not in set(rows["source"])
    assert leak.relative_to(source).as_posix() in set(rows.loc[rows["split"] == "test", "source"])
    (entry,) = contract.read_card(tmp_path / "manifests" / "small.csv")["rejected"]
    assert entry["source"] == name
    assert leak.name in entry["reason"]
    assert "Up to date" in call(*words, "--on-leak", "drop").output


@pytest.mark.slow
def test_the_real_xrays_are_as_they_are_known_to_be(xrays_224: Path) -> None:
    """30 groups of identical files, none across splits; no patient in two splits, but 170 by number alone."""
    found = report(xrays_224)
    assert found["images"] == 5856
    assert len(found["byte_identical"]) == 30
    assert not any("splits" in alike["where"] for alike in found["byte_identical"])
    assert found["groups_in_several_splits"] == []
    assert found["near_identical"] == []
    assert len(report(xrays_224, group=r"person(\d+)")["groups_in_several_splits"]) == 170
