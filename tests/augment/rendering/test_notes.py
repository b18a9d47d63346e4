"""Doubtful pictures: what the audit lists, the build warns of once, and the card keeps."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from augment.building import build as run_build
from augment.recipe import load
from augment.rendering.tasks import Style
from augment.sources.scan import scan
from augment.storage.place import Place
from common.images.notes import FEW_BITS, NEARLY_BLACK, TRANSPARENT
from common.images.pixels import decode
from common.workers import Workers
from manifests import contract

THREADS = ThreadPoolExecutor(2)

TWELVE = (np.arange(48 * 36).reshape(36, 48) % 4096).astype(np.uint16)
RECIPE = "size: [48, 36]\n"


@pytest.fixture
def source(tmp_path: Path, make_source) -> Path:
    """A source folder with three deep images of few bits, one that is transparent and one that is black."""
    folder = make_source(tmp_path / "source", {"train/NORMAL": 4, "train/b": 7, "test/NORMAL": 2, "test/b": 2})
    for number in range(3):
        Image.fromarray(TWELVE + np.uint16(2000 + number)).save(folder / "train" / "b" / f"person{number}_virus_90.png")
    clear = np.dstack([np.full((9, 9, 3), 200, np.uint8), np.zeros((9, 9), np.uint8)])
    Image.fromarray(clear).save(folder / "train" / "b" / "person8_virus_91.png")
    Image.new("L", (48, 36), 3).save(folder / "test" / "b" / "person77_virus_1.png")
    return folder


@pytest.fixture
def build(tmp_path: Path, source: Path, call):
    """A function (recipe's text, options) -> result that builds the source folder."""

    def invoke(recipe: str = RECIPE, *options: str):
        (tmp_path / "set.yaml").write_text(recipe)
        return call("build", "--recipe", tmp_path / "set.yaml", "--source", source, "--root", tmp_path, *options)

    return invoke


def noted(root: Path) -> list[tuple[str, str]]:
    """The notes of the set's card."""
    return [(e["source"], e["note"]) for e in contract.read_card(root / "manifests" / "set.csv")["notes"]]


EXPECTED = [
    ("test/b/person77_virus_1.png", NEARLY_BLACK),
    *((f"train/b/person{number}_virus_90.png", FEW_BITS) for number in range(3)),
    ("train/b/person8_virus_91.png", TRANSPARENT),
]


def test_a_build_warns_once_of_each_kind(tmp_path: Path, build) -> None:
    """With the number, the largest sample and the setting that helps; the card has them all by name."""
    result = build()
    assert result.exit_code == 0, result.output
    warnings = [line for line in result.stdout.splitlines() if line.startswith("Warning")]
    first = (
        f"Warning: 3 source images: {FEW_BITS}, the largest sample is 3,729; they come out dark unless the recipe "
        f"sets the range, such as value_range: [0, 4095]. First: {EXPECTED[1][0]}"
    )
    assert warnings == [
        first,
        f"Warning: 1 source image: {TRANSPARENT}. First: train/b/person8_virus_91.png",
        f"Warning: 1 source image: {NEARLY_BLACK}. First: test/b/person77_virus_1.png",
    ]
    assert noted(tmp_path) == EXPECTED
    again = build()
    assert "Warning" not in again.stdout
    assert "Up to date" in again.stdout
    assert noted(tmp_path) == EXPECTED


def test_notes_outlive_an_update(tmp_path: Path, source: Path, build) -> None:
    """A build that renders one more image keeps what is known of the others, but not of one that is gone."""
    assert build().exit_code == 0
    shutil.copy(source / "train" / "b" / "person8_virus_91.png", source / "train" / "b" / "person9_virus_1.png")
    (source / "train" / "b" / "person0_virus_90.png").unlink()
    result = build()
    assert result.exit_code == 0, result.output
    assert [line for line in result.stdout.splitlines() if line.startswith("Warning")] == [
        f"Warning: 1 source image: {TRANSPARENT}. First: train/b/person9_virus_1.png"
    ]
    gone = [each for each in EXPECTED if "person0" not in each[0]]
    assert noted(tmp_path) == [*gone, ("train/b/person9_virus_1.png", TRANSPARENT)]


def test_a_value_range_is_built_with(tmp_path: Path, source: Path, build) -> None:
    """The deep images use all levels and are no longer warned of; setting it renders them again, and float is used."""
    assert build().exit_code == 0
    Image.fromarray((TWELVE + 2000).astype(np.float32)).save(source / "train" / "b" / "person7_virus_7.tiff")
    result = build(f"{RECIPE}value_range: [0, 4095]\n")
    assert result.exit_code == 0, result.output
    assert FEW_BITS not in result.stdout
    rows = contract.read(tmp_path / "manifests" / "set.csv").set_index("source")
    for name in ("train/b/person0_virus_90.png", "train/b/person7_virus_7.tiff"):
        level = decode((tmp_path / rows.loc[name, "path"]).read_bytes())
        assert abs(int(level[35, 47]) - round(3727 * 255 / 4095)) <= 4
    card = contract.read_card(tmp_path / "manifests" / "set.csv")
    assert card["recipe"]["value_range"] == [0, 4095]
    assert not card["rejected"]


def test_a_source_that_needs_a_range_is_tried_again_with_one(tmp_path: Path, source: Path, build) -> None:
    """Without it a float image is rejected by that reason, and remembered; setting one takes it in."""
    name = "train/b/person7_virus_7.tiff"
    Image.fromarray((TWELVE + 2000).astype(np.float32)).save(source / name)
    assert build().exit_code == 0
    (rejected,) = contract.read_card(tmp_path / "manifests" / "set.csv")["rejected"]
    assert rejected["source"] == name
    assert "set value_range: [black, white] in the recipe" in rejected["reason"]
    assert build(f"{RECIPE}value_range: [0, 4095]\n").exit_code == 0
    assert contract.read_card(tmp_path / "manifests" / "set.csv")["rejected"] == []


def test_json_has_the_notes(build) -> None:
    """For scripts: by source, with the largest sample."""
    printed = json.loads(build(RECIPE, "--json").stdout)
    assert [
        (each["source"], each["note"]) for each in sorted(printed["notes"], key=lambda each: each["source"])
    ] == EXPECTED
    assert max(each["largest"] or 0 for each in printed["notes"]) == 3729


def test_a_style_without_a_range_is_what_it_was() -> None:
    """So that a set built before there was the setting is still up to date."""
    recipe = load("augment1")
    assert Style.of(recipe).settings == [[224, 224], 95, recipe.transforms, recipe.max_pixels]
    assert Style.of(recipe)._replace(value_range=(0, 4095)).settings[4:] == [[0, 4095]]


def test_the_audit_lists_samples_and_notes(tmp_path: Path, source: Path, call) -> None:
    """The largest sample beside the bit depth, for each format and file, and what is odd, file by file."""
    (source / "train" / "b" / "person5_virus_5.jpeg").write_bytes(
        min((source / "train" / "b").glob("*.jpeg")).read_bytes()[:-2]
    )
    result = call("audit", source, "--json", tmp_path / "report.json")
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["largest_samples"] == {"PNG I;16 16 bits": {"least": 3727, "median": 3728, "most": 3729}}
    assert "PNG I;16 16 bits (largest sample 3,727 to 3,729, median 3,728): 3" in result.stdout
    notes = {entry["source"]: entry["note"] for entry in report["notes"]}
    assert notes == dict(EXPECTED) | {"train/b/person5_virus_5.jpeg": "its end marker is missing"}
    assert "6 notes on images that are used:\n" in result.stdout
    files = {entry["source"]: entry for entry in report["files"]}
    assert files["train/b/person1_virus_90.png"] == {
        "source": "train/b/person1_virus_90.png",
        "format": "PNG",
        "mode": "I;16",
        "bits": 16,
        "width": 48,
        "height": 36,
        "largest": 3728,
        "notes": [FEW_BITS],
    }
    assert len(files) == report["images"]


@pytest.mark.parametrize("share", [0.3, 0.99])
def test_notes_of_a_build_that_was_stopped_are_kept(tmp_path: Path, source: Path, build, everything, share) -> None:
    """Stopped anywhere, and finished by the same command: the card is to the byte that of an uninterrupted build."""

    class Stopped(Exception):  # noqa: N818  # no error
        """Raised out of a build's progress."""

    def stop(done: int, total: int) -> None:
        if done > share * total:
            raise Stopped

    assert build().exit_code == 0
    expected = everything(tmp_path)
    for place in ("data", "manifests"):
        shutil.rmtree(tmp_path / place)
    recipe = load(str(tmp_path / "set.yaml"))
    at = Place(tmp_path, source, tmp_path / "data/augmented/set", tmp_path / "manifests/set.csv")
    with pytest.raises(Stopped), ThreadPoolExecutor(1) as executor:
        run_build(scan(source, recipe.group, THREADS), recipe, at, Workers(executor, executor), stop)
    assert build().exit_code == 0
    assert everything(tmp_path) == expected
    assert noted(tmp_path)
