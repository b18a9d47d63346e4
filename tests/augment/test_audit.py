"""The audit of a source folder: what it counts and finds, what `build` makes of leaks, and the real X-rays."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from manifests import contract

COUNTS = {"train/NORMAL": 4, "train/b": 7, "test/NORMAL": 2, "test/b": 2}


@pytest.fixture
def source(tmp_path: Path, make_source) -> Path:
    """A source folder without a fault: 15 images of 48 x 36."""
    return make_source(tmp_path / "source", COUNTS)


@pytest.fixture
def audit(tmp_path: Path, source: Path, call):
    """A function (options) -> result and JSON report of the audit of `source`."""

    def invoke(*options: str, exit_code: int = 0):
        result = call("audit", source, "--json", tmp_path / "report.json", *options)
        assert (result.exit_code, result.stderr) == (exit_code, ""), result.output
        return result, json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))

    return invoke


def first(folder: Path) -> Path:
    """The first image of a class folder."""
    return min(folder.iterdir())


def xray(number: int) -> Image.Image:
    """A drawing that shares its outline with every other: two dark fields on gray, with spots of its own."""
    rng = np.random.default_rng(number)
    image = Image.new("L", (256, 256), 120)
    draw = ImageDraw.Draw(image)
    for left in (30, 140):
        draw.ellipse((left, 40, left + 85, 220), fill=60)
    for x, y, radius, level in zip(
        *rng.integers(10, 246, (2, 30)), rng.integers(5, 40, 30), rng.integers(0, 255, 30), strict=True
    ):
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=int(level))
    return image


def test_a_folder_without_fault_is_counted(source: Path, audit) -> None:
    """Counts by split and class, patients, formats with mode and bit depth, and sizes; nothing found; nothing written."""
    Image.new("L", (60, 20), 7).save(source / "train" / "NORMAL" / "small.png")
    before = sorted((path, path.lstat().st_mtime_ns) for path in source.rglob("*"))
    result, report = audit("--strict")
    assert report["images"] == 16
    assert report["counts"] == {"test": {"NORMAL": 2, "b": 2}, "train": {"NORMAL": 5, "b": 7}}
    assert report["groups"] == 4 + 3 + 2 + 1 + 1
    assert report["formats"] == {"JPEG L 8 bits": 15, "PNG L 8 bits": 1}
    assert report["width"] == {"least": 48, "median": 48, "most": 60}
    assert report["height"] == {"least": 20, "median": 36, "most": 36}
    for kind in ("unreadable", "groups_in_several_splits", "byte_identical", "pixel_identical", "near_identical"):
        assert report[kind] == []
    assert result.stdout.startswith(f"16 images of 11 groups in {source}\n")
    for line in (
        "  test   NORMAL 2, b 2",
        "  train  NORMAL 5, b 7",
        "  width: 48 to 60, median 48",
        "0 groups in several",
    ):
        assert line in result.stdout
    assert sorted((path, path.lstat().st_mtime_ns) for path in source.rglob("*")) == before


def test_modes_and_bit_depths_are_listed(source: Path, audit) -> None:
    """As the files declare them: 16 bits, colour, alpha, CMYK, one bit, palette, each counted by format."""
    folder = source / "train" / "NORMAL"
    rng = np.random.default_rng(1)
    Image.fromarray(rng.integers(0, 65536, (9, 9), dtype=np.uint16)).save(folder / "1.png")
    Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(folder / "2.png")
    Image.fromarray(rng.integers(0, 256, (9, 9, 4), dtype=np.uint8)).save(folder / "3.png")
    Image.fromarray(rng.integers(0, 256, (9, 9, 4), dtype=np.uint8), mode="CMYK").save(folder / "4.jpeg")
    Image.fromarray(rng.integers(0, 2, (9, 9), dtype=np.uint8) > 0).save(folder / "5.tiff")
    Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).quantize(8).save(folder / "6.gif")
    _, report = audit()
    findings = {
        "PNG I;16 16 bits",
        "PNG RGB 8 bits",
        "PNG RGBA 8 bits",
        "JPEG CMYK 8 bits",
        "TIFF 1 1 bits",
        "GIF P 8 bits",
    }
    assert report["formats"] == {"JPEG L 8 bits": 15, **dict.fromkeys(findings, 1)}


def test_unreadable_files_are_listed(source: Path, audit) -> None:
    """Broken, empty, hidden, stray and too large: each with its reason; --strict makes it exit code 1."""
    folder = source / "train" / "NORMAL"
    (folder / "broken.jpeg").write_bytes(first(folder).read_bytes()[:200])
    (folder / "empty.png").touch()
    (folder / ".hidden").touch()
    (source / "notes.txt").write_text("beside")
    Image.new("L", (100, 90), 7).save(folder / "large.png")
    result, report = audit("--max-pixels", "8999")
    assert {entry["source"]: entry["reason"] for entry in report["unreadable"]} == {
        "notes.txt": "beside the folders train, val and test",
        "train/NORMAL/.hidden": "hidden",
        "train/NORMAL/broken.jpeg": report["unreadable"][2]["reason"],
        "train/NORMAL/empty.png": "empty file (0 bytes)",
        "train/NORMAL/large.png": "declares 100 x 90 pixels, more than the limit of 8,999",
    }
    assert "runcated" in report["unreadable"][2]["reason"]
    assert (
        "5 not taken: unreadable, no image or left out:\n  notes.txt: beside the folders train, val and test\n"
        in result.stdout
    )
    assert len(audit("--strict", exit_code=1)[1]["unreadable"]) == 4


def test_a_patient_in_several_splits_is_found(source: Path, audit) -> None:
    """By kind and number together as by default, or by another reading with --group."""
    folder = source / "test" / "b"
    # Another patient than train's person6_virus, unless the kind is ignored.
    xray(1).save(folder / "person6_bacteria_1.jpeg")
    assert first(source / "train" / "b").name.startswith("person6_virus")
    assert audit()[1]["groups_in_several_splits"] == []
    number_alone = r"person(\d+)"
    result, report = audit("--group", number_alone)
    assert report["groups_in_several_splits"] == [{"group": "6", "images": {"test": 1, "train": 3}}]
    assert "1 groups in several splits:\n  6: test, train\n" in result.stdout
    assert audit("--strict")[0].exit_code == 0
    audit("--strict", "--group", number_alone, exit_code=1)


def test_byte_identical_images_are_found(source: Path, audit) -> None:
    """Groups of files with the same bytes, each with whether it crosses splits or classes."""
    original = first(source / "train" / "NORMAL")
    shutil.copy(original, source / "train" / "NORMAL" / "copy.jpeg")
    other = first(source / "train" / "b")
    shutil.copy(other, source / "train" / "NORMAL" / "twin.jpeg")
    shutil.copy(first(source / "test" / "b"), source / "test" / "NORMAL" / "twin.jpeg")
    result, report = audit("--strict")
    train, test = f"train/b/{other.name}", f"test/b/{first(source / 'test' / 'b').name}"
    assert report["byte_identical"] == [
        {"files": ["test/NORMAL/twin.jpeg", test], "where": "across classes"},
        {"files": [f"train/NORMAL/{original.name}", "train/NORMAL/copy.jpeg"], "where": "within a split and class"},
        {"files": ["train/NORMAL/twin.jpeg", train], "where": "across classes"},
    ]
    assert (report["pixel_identical"], report["near_identical"]) == ([], [])
    assert f"3 groups of byte-identical images:\n  test/NORMAL/twin.jpeg = {test} (across classes)\n" in result.stdout
    shutil.copy(original, source / "test" / "b" / "leak.jpeg")
    _, report = audit("--strict", exit_code=1)
    files = ["test/b/leak.jpeg", f"train/NORMAL/{original.name}", "train/NORMAL/copy.jpeg"]
    assert {"files": files, "where": "across splits and across classes"} in report["byte_identical"]


def test_pixel_identical_images_are_found(source: Path, audit) -> None:
    """The same pixels as PNG and BMP, gray and RGB, across splits: one group, which --strict minds."""
    image = xray(1)
    image.save(source / "train" / "NORMAL" / "x.png")
    image.save(source / "test" / "NORMAL" / "x.bmp")
    image.convert("RGB").save(source / "test" / "NORMAL" / "rgb.png")
    xray(2).save(source / "train" / "NORMAL" / "other.png")
    result, report = audit("--strict", exit_code=1)
    files = ["test/NORMAL/rgb.png", "test/NORMAL/x.bmp", "train/NORMAL/x.png"]
    assert report["pixel_identical"] == [{"files": files, "where": "across splits"}]
    assert (report["byte_identical"], report["near_identical"]) == ([], [])
    assert f"1 groups of pixel-identical images:\n  {' = '.join(files)} (across splits)\n" in result.stdout


def test_a_group_of_identical_bytes_is_not_listed_twice(source: Path, audit) -> None:
    """Equal bytes are equal pixels; only where more files have the pixels is that group listed as well."""
    xray(1).save(source / "train" / "NORMAL" / "x.png")
    shutil.copy(source / "train" / "NORMAL" / "x.png", source / "train" / "NORMAL" / "y.png")
    _, report = audit()
    assert [len(report[kind]) for kind in ("byte_identical", "pixel_identical", "near_identical")] == [1, 0, 0]
    xray(1).save(source / "train" / "b" / "z.bmp")
    _, report = audit()
    assert [len(report[kind]) for kind in ("byte_identical", "pixel_identical", "near_identical")] == [1, 1, 0]
    assert len(report["pixel_identical"][0]["files"]) == 3


def test_near_identical_images_are_found(source: Path, audit) -> None:
    """A copy that was reduced, recompressed or brightened is found, another drawing is not; distance is an option."""
    folder = source / "train" / "NORMAL"
    for number in range(12):
        xray(number).save(folder / f"xray{number}.png")
    xray(3).resize((128, 128), Image.Resampling.LANCZOS).save(source / "test" / "b" / "reduced.jpeg", quality=60)
    xray(5).point(lambda level: min(255, level + 12)).save(folder / "brightened.jpeg", quality=80)
    result, report = audit()
    found = {tuple(pair["files"]): pair["where"] for pair in report["near_identical"]}
    assert found == {
        ("test/b/reduced.jpeg", "train/NORMAL/xray3.png"): "across splits and across classes",
        ("train/NORMAL/brightened.jpeg", "train/NORMAL/xray5.png"): "within a split and class",
    }
    most = max(pair["distance"] for pair in report["near_identical"])
    assert 0 < most <= 20
    assert "2 groups of near-identical images:\n  test/b/reduced.jpeg = train/NORMAL/xray3.png (across" in result.stdout
    audit("--strict", exit_code=1)
    assert len(audit("--distance", str(most - 1))[1]["near_identical"]) < 2
    assert len(audit("--distance", "128")[1]["near_identical"]) > 100


def test_a_folder_without_splits_has_no_leaks(tmp_path: Path, make_source, call) -> None:
    """CLASS/*: counted under 'all', and look-alikes are listed, but nothing crosses splits."""
    make_source(tmp_path / "plain", {"NORMAL": 3, "b": 3})
    shutil.copy(first(tmp_path / "plain" / "b"), tmp_path / "plain" / "NORMAL" / "copy.jpeg")
    result = call("audit", tmp_path / "plain", "--strict")
    assert result.exit_code == 0
    assert "  all    NORMAL 4, b 3\n" in result.stdout
    assert "1 groups of byte-identical images:\n  NORMAL/copy.jpeg = b/" in result.stdout


def test_long_lists_are_cut_on_the_screen_only(source: Path, audit) -> None:
    """Of many findings the first eight are printed, those across splits before others; the JSON has them all."""
    for number in range(12):
        for place in ("train/b", "test/b" if number == 11 else "train/NORMAL"):
            Image.new("L", (20, 20), 20 * number).save(source / place / f"image{number:02}.png")
    result, report = audit()
    assert len(report["byte_identical"]) == 12
    findings = result.stdout.partition("12 groups of byte-identical images:\n")[2].splitlines()
    assert findings[0] == "  test/b/image11.png = train/b/image11.png (across splits)"
    assert findings[8] == "  ... and 4 more; --json has them all"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--group", "person"], "--group: group is 'person', expected a regular expression with one (group)"),
        (["--group", "("], "--group: group is '(', not a regular expression"),
    ],
)
def test_a_wrong_option_is_one_line(source: Path, call, options: list[str], named: str) -> None:
    """A pattern that is none: exit code 2, and the value and what was expected."""
    result = call("audit", source, *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert named in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_report_that_cannot_be_written_is_one_line(source: Path, tmp_path: Path, call) -> None:
    """--json names a folder: the message names it and the fault."""
    (tmp_path / "report").mkdir()
    result = call("audit", source, "--json", tmp_path / "report")
    assert result.exit_code == 2
    assert f"{tmp_path / 'report'}" in result.stderr
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.glob(".report*")) == []


def test_json_without_a_file_prints_the_report(source: Path, audit, call) -> None:
    """As of every command: one JSON value in place of text, the same as the file would hold."""
    _, report = audit()
    result = call("audit", source, "--json")
    assert json.loads(result.stdout) == report


def test_a_source_that_is_no_set_is_one_line(tmp_path: Path, call) -> None:
    """No such folder, or no classes: the message that `build` gives."""
    result = call("audit", tmp_path / "none")
    assert result.exit_code == 2
    assert (
        result.stderr
        == f"Error: {tmp_path / 'none'}: no such folder; --source takes a folder with one sub-folder a class, or a list\n"
    )


@pytest.fixture
def build(tmp_path: Path, source: Path, call):
    """A function (options) -> result that builds the source folder."""
    (tmp_path / "set.yaml").write_text(
        "per_class: 20\naugment: [train, val]\nsize: 32\ntransforms: [{KerasAffine: {rotation_range: 9}}]\n"
    )

    def invoke(*options: str):
        words = ("--recipe", tmp_path / "set.yaml", "--source", source, "--root", tmp_path)
        return call("build", *words, *options)

    return invoke


def same_patient(source: Path) -> tuple[str, str, str]:
    xray(1).save(source / "test" / "NORMAL" / "IM-0002-0009.jpeg")
    return "group", "test/NORMAL/IM-0002-0009.jpeg", "train/NORMAL/IM-0002-0001.jpeg"


def same_image(source: Path) -> tuple[str, str, str]:
    shutil.copy(source / "train" / "NORMAL" / "IM-0002-0001.jpeg", source / "test" / "NORMAL" / "leak.jpeg")
    return "identical image", "test/NORMAL/leak.jpeg", "train/NORMAL/IM-0002-0001.jpeg"


@pytest.mark.parametrize("leak", [same_patient, same_image], ids=lambda leak: leak.__name__)
def test_a_build_refuses_a_leak_or_drops_it_from_train(tmp_path: Path, source: Path, build, leak) -> None:
    """A patient or image in train and test: an error that names both files; with --on-leak drop, train goes without it."""
    what, in_test, in_train = leak(source)
    for options in ([], ["--dry-run"], ["--on-leak", "error"]):
        result = build(*options)
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr == (
            f"Error: one {what} in two splits: {in_test} is in test, {in_train} in train; take one of them out of the "
            "source folder, or let --on-leak drop leave it out of train\n"
        )
        assert not list(tmp_path.glob("manifests/set*"))
    result = build("--on-leak", "drop")
    assert result.exit_code == 0, result.output
    card = contract.read_card(tmp_path / "manifests" / "set.csv")
    assert card["rejected"] == [
        {
            "source": in_train,
            "reason": f"dropped: its group or image is in test too ({in_test})",
            "source_sha256": "",
        }
    ]
    rows = contract.read(tmp_path / "manifests" / "set.csv")
    in_the_test_folder = {path.relative_to(source).as_posix() for path in source.glob("test/*/*")}
    assert set(rows[rows["split"] == "test"]["source"]) == in_the_test_folder
    assert in_train not in set(rows["source"])
    assert rows.groupby(["split", "label"]).size()["train"].to_dict() == {"NORMAL": 16, "b": 16}
    assert "Up to date" in build("--on-leak", "drop").stdout


@pytest.fixture(scope="module")
def real(xrays_224: Path, tmp_path_factory, call):
    """A function (options) -> report on the real X-rays."""

    def audit(*options: str):
        path = tmp_path_factory.mktemp("real") / "report.json"
        result = call("audit", xrays_224, "--json", path, *options)
        assert result.exit_code == 0, result.output
        return json.loads(path.read_text())

    return audit


@pytest.mark.slow
def test_the_real_xrays_are_as_they_are_known(real) -> None:
    """5,856 images, 30 groups of byte-identical files, and no patient in two splits by kind and number together."""
    report = real()
    assert report["images"] == 5856
    assert report["counts"] == {
        "test": {"NORMAL": 234, "PNEUMONIA": 390},
        "train": {"NORMAL": 1341, "PNEUMONIA": 3875},
        "val": {"NORMAL": 8, "PNEUMONIA": 8},
    }
    assert report["unreadable"] == []
    assert report["width"] == report["height"] == {"least": 224, "median": 224, "most": 224}
    assert len(report["byte_identical"]) == 30
    assert not any("splits" in found["where"] for found in report["byte_identical"])
    assert report["groups_in_several_splits"] == []


@pytest.mark.slow
def test_by_number_alone_170_real_patients_would_be_in_two_splits(real) -> None:
    """--group reads the number without the kind."""
    report = real("--group", r"person(\d+)", "--distance", "0")
    across = [found for found in report["groups_in_several_splits"] if {"train", "test"} <= found["images"].keys()]
    assert len(across) == 170


def test_the_same_broken_file_in_two_splits_is_no_leak(source: Path, call) -> None:
    """What begins as an image and doesn't decode is unreadable, twice, and neither a leak nor a patient."""
    broken = next((source / "train" / "NORMAL").iterdir()).read_bytes()[:300]
    for place in ("train/NORMAL", "test/NORMAL"):
        (source / place / "person9_virus_1.jpeg").write_bytes(broken)
    report = source.parent / "report.json"
    assert call("audit", source, "--json", report).exit_code == 0
    found = json.loads(report.read_text())
    assert (found["byte_identical"], found["groups_in_several_splits"]) == ([], [])
    names = [entry["source"] for entry in found["unreadable"]]
    assert names == ["test/NORMAL/person9_virus_1.jpeg", "train/NORMAL/person9_virus_1.jpeg"]
    assert found["images"] == sum(
        found["counts"][split][label] for split in found["counts"] for label in found["counts"][split]
    )


def test_patients_that_no_name_shows_are_unknown(audit) -> None:
    """Names that the pattern doesn't match: no assurance that no patient is in two splits."""
    assert "Groups unknown" not in audit("--group", "(.+)")[0].stdout
    result, report = audit("--group", r"(\d{8})_")
    count = report["images"]
    assert rf"Groups unknown: the group pattern (\d{{8}})_ matches 0 of {count} file names" in result.stdout
