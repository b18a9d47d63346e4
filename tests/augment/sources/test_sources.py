"""Source folders with faults, through the command line: junk, broken copies, contradictions, names without patients."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from manifests import contract

RECIPE = "per_class: 20\naugment: [train, val]\nsize: 32\ntransforms: [{KerasAffine: {rotation_range: 9}}]\n"
BUILD = ("build", "--recipe", "set.yaml", "--source", "source", "--workers", "1")
MANIFEST = Path("manifests/set.csv")


@pytest.fixture
def source(tmp_path: Path, make_source, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source folder in the working directory, with a recipe beside it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "set.yaml").write_text(RECIPE)
    return make_source(tmp_path / "source", {"train/NORMAL": 6, "train/b": 9, "test/NORMAL": 2, "test/b": 3})


def expect_same_plan(call) -> dict[str, object]:
    """A dry run and the build count the same sources and reject the same files; what they say."""
    planned = json.loads(call(*BUILD, "--dry-run", "--json").stdout)
    built = json.loads(call(*BUILD, "--json").stdout)
    for key in ("counts", "rejected", "warnings"):
        assert planned[key] == built[key]
    return built


@pytest.mark.parametrize("name", ["Thumbs.db", "desktop.ini", "README.txt", "list.csv", "person1_virus_9.txt"])
def test_the_same_junk_in_two_splits_is_no_leak(source: Path, call, name: str) -> None:
    """It is no image, so it neither leaks nor joins patients; the dry run and the build agree on it."""
    for place in ("train/NORMAL", "test/NORMAL", "test/b"):
        (source / place / name).write_bytes(b"the same bytes")
    found = expect_same_plan(call)
    assert {entry["source"] for entry in found["rejected"]} == {
        f"{place}/{name}" for place in ("train/NORMAL", "test/NORMAL", "test/b")
    }


def test_the_same_broken_image_in_two_splits_is_no_leak(source: Path, call) -> None:
    """A file that begins as a JPEG and ends too soon, in both splits and classes: rejected everywhere, nothing joined."""
    broken = next((source / "train" / "b").iterdir()).read_bytes()[:400]
    places = ["train/NORMAL/x.jpeg", "test/NORMAL/x.jpeg", "test/b/y.jpeg", "train/b/person99_virus_1.jpeg"]
    for place in places:
        (source / place).write_bytes(broken)
    found = expect_same_plan(call)
    assert [entry["source"] for entry in found["rejected"]] == sorted(places)
    assert call("verify", MANIFEST).exit_code == 0


def test_a_broken_image_of_a_patient_of_both_splits_is_no_leak(source: Path, call) -> None:
    """The only image by which a patient would be in train and test doesn't decode."""
    victim = next((source / "test" / "b").iterdir())
    (source / "train" / "b" / f"{victim.stem}0.jpeg").write_bytes(victim.read_bytes()[:300])
    found = expect_same_plan(call)
    assert [entry["source"] for entry in found["rejected"]] == [f"train/b/{victim.stem}0.jpeg"]


def test_what_was_built_before_changes_nothing(source: Path, call, everything, tmp_path: Path) -> None:
    """A broken image that a smaller set samples down: the set is the same after a larger one as in an empty folder."""
    for number in range(4):
        (source / "train" / "b" / f"person7{number}_virus_1.jpeg").write_bytes(
            next((source / "train" / "b").iterdir()).read_bytes()[: 300 + number]
        )
    assert call(*BUILD).exit_code == 0
    (tmp_path / "set.yaml").write_text(RECIPE.replace("20", "5"))
    assert call(*BUILD).exit_code == 0
    after_larger = everything(tmp_path)
    for place in ("data", "manifests"):
        shutil.rmtree(tmp_path / place)
    assert call(*BUILD).exit_code == 0
    assert everything(tmp_path) == after_larger


def test_one_image_in_two_classes_stops_the_build_or_is_dropped(source: Path, call) -> None:
    """A contradiction is one line with both names; with --on-conflict drop neither copy is in the set."""
    original = next((source / "train" / "NORMAL").iterdir())
    (source / "train" / "b" / "person50_virus_1.jpeg").write_bytes(original.read_bytes())
    result = call(*BUILD)
    assert result.exit_code == 2
    for part in ("one image in two classes", original.name, "person50_virus_1.jpeg", "--on-conflict drop"):
        assert part in result.stderr
    assert call(*BUILD, "--on-conflict", "drop").exit_code == 0
    rows, card = contract.read(MANIFEST), contract.read_card(MANIFEST)
    assert not rows["source"].str.contains(f"{original.name}|person50").any()
    assert [entry["reason"] for entry in card["rejected"]] == [
        "dropped: the same image is b too (train/b/person50_virus_1.jpeg)",
        f"dropped: the same image is NORMAL too (train/NORMAL/{original.name})",
    ]
    assert card["on_conflict"] == "drop"
    rows["sha256"] = rows["sha256"].iloc[0]
    MANIFEST.write_text("damaged")
    assert call("verify", MANIFEST, "--repair").exit_code == 0


def test_names_without_a_patient_are_said_in_card_and_gallery(tmp_path: Path, call, monkeypatch) -> None:
    """NIH's names under Kermany's pattern: a warning with a pattern that fits; the card and the page say unknown."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for number in range(60):
        place = tmp_path / "source" / "AB"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (40, 40), dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"{number % 20:08d}_{number // 20:03d}.png")
    (tmp_path / "set.yaml").write_text("size: 32\n")
    result = call(*BUILD)
    assert "matches 0 of 60 file names (not 00000000_000.png)" in result.stdout
    assert "try `group: '([^_]+)_'`" in result.stdout
    assert contract.read_card(MANIFEST)["groups"] == {"known": False, "matched": 0, "of": 60}
    call("gallery", MANIFEST)
    page = MANIFEST.with_suffix(".gallery.html").read_text()
    assert "<b>Groups unknown</b>" in page
    assert "and no identical image" not in page
    assert "each image counts as its own group" in page
    (tmp_path / "set.yaml").write_text("size: 32\ngroup: '([^_]+)_'\ngroup_name: cup\n")
    result = call(*BUILD)
    assert "Warning" not in result.stdout
    assert contract.read(MANIFEST)["group"].nunique() == 20
    call("gallery", MANIFEST)
    assert "No cup and no identical image" in MANIFEST.with_suffix(".gallery.html").read_text()


@pytest.mark.usefixtures("source")
def test_an_update_of_a_package_that_the_recipe_does_not_use_changes_nothing(call) -> None:
    """Only albumentations' recipes depend on albumentations, albucore and scipy."""
    assert call(*BUILD).exit_code == 0
    packages = {"evenset", "numpy", "opencv-python-headless", "pillow", "simplejpeg"}
    assert set(contract.read_card(MANIFEST)["versions"]) == packages
    Path("set.yaml").write_text(RECIPE.replace("transforms: [", "transforms: [HorizontalFlip, "))
    assert call(*BUILD).exit_code == 0
    assert set(contract.read_card(MANIFEST)["versions"]) == packages | {"albumentations", "albucore", "scipy"}


def test_a_file_that_is_rejected_later_is_in_the_card(source: Path, call, everything, tmp_path: Path) -> None:
    """Junk added to a finished set's source changes no image; the card lists it all the same, and the manifest stays."""
    assert call(*BUILD).exit_code == 0
    before = everything(tmp_path)
    (source / "train" / "b" / "notes.txt").write_text("no image")
    assert "Up to date" in call(*BUILD).stdout
    assert [entry["source"] for entry in contract.read_card(MANIFEST)["rejected"]] == ["train/b/notes.txt"]
    after = everything(tmp_path)
    assert before.keys() == after.keys()
    assert {path for path in before if before[path] != after[path]} == {"manifests/set.json"}
