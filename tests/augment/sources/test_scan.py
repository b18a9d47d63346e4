"""Source folder -> table of sources: both layouts, odd files and names, links; and that nothing is lost."""

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from augment.recipe import KERMANY
from augment.sources.groups import describe_groups, group_of
from augment.sources.layout import Rejected
from augment.sources.names import ScanError
from augment.sources.scan import Scan, digest, scan
from common.errors import UserError

THREADS = ThreadPoolExecutor(2)


def look(source: Path) -> Scan:
    """Scan with the default naming."""
    return scan(source, KERMANY, THREADS)


def reasons(scanned: Scan) -> dict[str, str]:
    """Rejected path -> reason."""
    return {entry.source: entry.reason for entry in scanned.rejected}


NO_IMAGE = "not an image of a known format (JPEG, PNG, BMP, TIFF, WEBP, GIF, DICOM)"


def files_below(folder: Path) -> list[str]:
    """Everything below `folder` that is no folder, relative to it, without following links."""
    return sorted(
        (Path(place) / name).relative_to(folder).as_posix()
        for place, folders, names in os.walk(folder)
        for name in [*names, *(name for name in folders if (Path(place) / name).is_symlink())]
    )


@pytest.fixture
def kermany(tmp_path, make_source):
    """A small source folder in the Kermany layout."""
    counts = {"train/NORMAL": 3, "train/PNEUMONIA": 5, "val/NORMAL": 1, "val/PNEUMONIA": 1, "test/NORMAL": 2}
    return make_source(tmp_path / "source", {**counts, "test/PNEUMONIA": 2})


def test_reads_the_kermany_layout(kermany: Path) -> None:
    """SPLIT/CLASS/*: every image with its split, class, patient and checksum, sorted by path; nothing rejected."""
    scanned = look(kermany)
    assert scanned.sources["source"].tolist() == files_below(kermany)
    assert scanned.rejected == []
    for row in scanned.sources.itertuples():
        split, label, name = row.source.split("/")
        assert (row.split, row.label) == (split, label)
        assert row.group == name.rpartition("-" if label == "NORMAL" else "_")[0]
        assert row.source_sha256 == hashlib.sha256((kermany / row.source).read_bytes()).hexdigest()


def test_reads_the_plain_layout(tmp_path, make_source) -> None:
    """CLASS/*: as above, but without splits; any number of classes."""
    source = make_source(tmp_path / "source", {"NORMAL": 2, "a": 1, "b": 1})
    scanned = look(source)
    assert scanned.sources["source"].tolist() == files_below(source)
    assert set(scanned.sources["split"]) == {""}
    assert scanned.sources["label"].tolist() == ["NORMAL", "NORMAL", "a", "b"]


def test_one_split_folder_makes_the_split_layout(tmp_path, make_source) -> None:
    """SOURCE/train/CLASS/* alone is enough: train is a split then, and no class."""
    scanned = look(make_source(tmp_path / "source", {"train/NORMAL": 2, "train/b": 1}))
    assert scanned.sources["split"].tolist() == ["train"] * 3
    assert scanned.sources["label"].tolist() == ["NORMAL", "NORMAL", "b"]


def test_everything_found_is_a_source_or_rejected(kermany: Path) -> None:
    """Stray files, hidden ones, nested folders and pipes: each is rejected once, with its reason."""
    (kermany / "notes.txt").write_text("beside")
    (kermany / "train" / "list.csv").write_text("in a split")
    (kermany / "train" / "NORMAL" / ".DS_Store").write_text("hidden")
    (kermany / "train" / ".cache").mkdir()
    (kermany / "val" / "NORMAL" / "older").mkdir()
    (kermany / "val" / "PNEUMONIA" / "nothing").mkdir()
    os.mkfifo(kermany / "test" / "NORMAL" / "pipe")
    (kermany / "train" / "PNEUMONIA" / "readme.txt").write_text("no image, by its first bytes")
    (kermany / "val" / "NORMAL" / "older" / "link").symlink_to(kermany / "train" / "NORMAL")
    scanned = look(kermany)
    assert reasons(scanned) == {
        "notes.txt": "beside the folders train, val and test",
        "test/NORMAL/pipe": "not a regular file",
        "train/.cache": "hidden",
        "train/NORMAL/.DS_Store": "hidden",
        "train/PNEUMONIA/readme.txt": NO_IMAGE,
        "train/list.csv": "not in a class folder",
        "val/NORMAL/older/link": "a link to a folder inside a class folder; its files are not read",
        "val/PNEUMONIA/nothing": "an empty folder",
    }
    found = {*files_below(kermany), "train/.cache", "val/PNEUMONIA/nothing"}
    assert sorted(found) == sorted([*scanned.sources["source"], *reasons(scanned)])
    assert scanned.rejected == sorted(scanned.rejected)


def test_the_kaggle_zip_with_its_copies_is_read_once(kermany: Path) -> None:
    """The Kaggle zip holds __MACOSX and a second chest_xray beside the splits: both are rejected, file by file."""
    shutil.copytree(kermany, kermany.parent / "copy")
    (kermany.parent / "copy").rename(kermany / "chest_xray")
    (kermany / "__MACOSX" / "train" / "NORMAL").mkdir(parents=True)
    (kermany / "__MACOSX" / "train" / "NORMAL" / "._IM-0001-0001.jpeg").write_bytes(b"\0\5\x16\7")
    scanned = look(kermany)
    names = ["__MACOSX/train/NORMAL/._IM-0001-0001.jpeg", *(f"chest_xray/{name}" for name in scanned.sources["source"])]
    assert reasons(scanned) == dict.fromkeys(names, "beside the folders train, val and test")
    assert len(scanned.sources) == 14


ODD = [
    "a b.jpg",
    "it's.jpg",
    'say "a".jpg',
    "a,b.jpg",
    "=1+1.jpg",
    "-rf.jpg",
    "größe 肺.jpg",
    "no ending",
    "a.png",
    "a.jpg",
]


def test_odd_names_are_sources(kermany: Path) -> None:
    """Spaces, quotes, commas, a leading '=', non-ASCII, the same stem twice: all are taken under their own names."""
    for number, name in enumerate(ODD):
        (kermany / "train" / "NORMAL" / name).write_bytes(b"GIF89a%d" % number)
    scanned = look(kermany)
    assert scanned.rejected == []
    assert {f"train/NORMAL/{name}" for name in ODD} < set(scanned.sources["source"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (b"line\nbreak.jpg", r"line\nbreak.jpg"),
        (b"bell\x07.jpg", r"bell\x07.jpg"),
        (b"back\\slash.jpg", "back\\slash.jpg"),
        (b"latin-1 \xe9.jpg", r"latin-1 \udce9.jpg"),
        ("left\u202eto right.jpg".encode(), r"left\u202eto right.jpg"),
    ],
)
def test_names_that_no_csv_holds_are_rejected(kermany: Path, name: bytes, message: str) -> None:
    """Control characters, backslashes and bytes that are no UTF-8: rejected, under a name that can be printed."""
    (Path(os.fsencode(kermany / "train" / "NORMAL").decode()) / os.fsdecode(name)).write_bytes(b"x")
    expected = "a name with control characters, a backslash or bytes that are not UTF-8; rename it"
    assert reasons(look(kermany)) == {f"train/NORMAL/{message}": expected}
    shutil.move(kermany / "train" / "NORMAL" / os.fsdecode(name), kermany / "train" / os.fsdecode(name))
    assert list(reasons(look(kermany))) == [f"train/{message}"]
    shutil.move(kermany / "train" / os.fsdecode(name), kermany / os.fsdecode(name))
    assert list(reasons(look(kermany))) == [message]


def test_a_class_named_like_a_drive_is_rejected(tmp_path, make_source) -> None:
    """No path of a manifest may start as C: does, so neither may the name of a class."""
    scanned = look(make_source(tmp_path / "source", {"NORMAL": 1, "a": 1, "b: benign": 1}))
    (name,) = reasons(scanned)
    assert name.startswith("b: benign/person")
    assert reasons(scanned)[name] == "a class name that starts as a Windows drive does; rename it"


def test_links_are_followed_inside_the_source_only(kermany: Path, tmp_path: Path) -> None:
    """A link to another source is a source; one that leads out, nowhere or to itself is rejected."""
    outside = tmp_path / "secret.jpeg"
    outside.write_bytes(b"secret")
    folder = kermany / "train" / "NORMAL"
    inside = next((kermany / "train" / "PNEUMONIA").iterdir())
    (folder / "inside.jpeg").symlink_to(inside)
    (folder / "out.jpeg").symlink_to(outside)
    (folder / "nowhere.jpeg").symlink_to(tmp_path / "nothing")
    (folder / "loop.jpeg").symlink_to(folder / "loop.jpeg")
    (folder / "up").symlink_to(kermany)
    (kermany / "train" / "loop").symlink_to(kermany / "train" / "loop")
    (kermany / "train" / "out").symlink_to(tmp_path)
    scanned = look(kermany)
    assert reasons(scanned) == {
        "train/NORMAL/loop.jpeg": "a link that leads nowhere",
        "train/NORMAL/nowhere.jpeg": "a link that leads nowhere",
        "train/NORMAL/out.jpeg": "a link that leads out of the source folder",
        "train/NORMAL/up": "a link that leads back to a folder around it",
        "train/loop": "a link that leads nowhere",
        "train/out": "a link that leads out of the source folder",
    }
    digests = scanned.sources.set_index("source")["source_sha256"]
    assert digests["train/NORMAL/inside.jpeg"] == hashlib.sha256(inside.read_bytes()).hexdigest()


def test_a_split_that_is_a_link_leads_nowhere_else(kermany: Path, tmp_path: Path) -> None:
    """A link in place of train, val or test may lead to another place in the source, not out of it."""
    expected = look(kermany)
    (kermany / "test").rename(tmp_path / "elsewhere")
    (kermany / "test").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ScanError, match="test: a link that leads out of the source folder"):
        look(kermany)
    (kermany / "test").unlink()
    (tmp_path / "elsewhere").rename(kermany / ".kept")
    (kermany / "test").symlink_to(kermany / ".kept")
    assert look(kermany).sources.equals(expected.sources)


def test_a_link_to_the_source_folder_is_the_source_folder(kermany: Path, tmp_path: Path) -> None:
    """--source may itself be a link."""
    (tmp_path / "link").symlink_to(kermany)
    assert look(tmp_path / "link").sources.equals(look(kermany).sources)


@pytest.mark.parametrize("message", [".", "./", "../source", "source/../"])
def test_a_relative_source_is_the_same_source(kermany: Path, monkeypatch: pytest.MonkeyPatch, message: str) -> None:
    """However the path to the source folder is spelt, its files have the same names."""
    (kermany / "train" / "NORMAL" / ".hidden").touch()
    expected = look(kermany)
    monkeypatch.chdir(kermany.parent if message.startswith("source") else kermany)
    scanned = look(Path(f"{message}source" if message.startswith("source") else message))
    assert scanned.sources.equals(expected.sources)
    assert scanned.rejected == expected.rejected


def test_a_file_that_may_not_be_read_is_rejected(kermany: Path) -> None:
    """An image without read permission is rejected with the system's reason; the rest is read."""
    locked = kermany / "train" / "NORMAL" / "IM-0001-0001.jpeg"
    locked.chmod(0)
    code = f"from augment.sources.scan import *; print(scan(Path({str(kermany)!r}), 'x', ThreadPoolExecutor(2)).rejected == {[REFUSED]})"
    message = subprocess.run([*_unprivileged(), sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert message.stdout == "True\n", message


REFUSED = Rejected("train/NORMAL/IM-0001-0001.jpeg", "can't be read: Permission denied")


def _unprivileged() -> list[str]:
    """What a command starts with so that permissions bind it, even where the tests run as root."""
    if os.geteuid() != 0:
        return []
    if not shutil.which("setpriv"):
        pytest.skip("root reads every file, and there is no setpriv to give that up")
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search"]


def test_empty_files_are_rejected_at_once(kermany: Path) -> None:
    """Files of 0 bytes are all alike; they are rejected before they could pass for one image in two splits."""
    empty = ["test/PNEUMONIA/empty.jpeg", "train/NORMAL/empty.jpeg", "train/NORMAL/empty.png"]
    for name in empty:
        (kermany / name).touch()
    assert reasons(look(kermany)) == dict.fromkeys(empty, "empty file (0 bytes)")


def test_a_file_that_is_gone_has_no_digest(tmp_path: Path) -> None:
    """What vanishes between listing and reading is rejected, not raised."""
    assert digest(tmp_path / "gone.jpeg") == ("", "can't be read: No such file or directory", "")


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("person21_virus_3.jpeg", "person21_virus"),
        ("person21_bacteria_72.jpeg", "person21_bacteria"),
        ("person1_virus_6.jpeg", "person1_virus"),
        ("IM-0115-0001.jpeg", "IM-0115"),
        ("IM-0011-0001-0002.jpeg", "IM-0011"),
        ("NORMAL2-IM-0115-0001.jpeg", "NORMAL2-IM-0115"),
        ("scan.jpeg", "train/NORMAL/scan.jpeg"),
        ("my-IM-0115-0001.jpeg", "train/NORMAL/my-IM-0115-0001.jpeg"),
        ("person_virus_3.jpeg", "train/NORMAL/person_virus_3.jpeg"),
    ],
)
def test_the_patient_is_read_from_the_name(name: str, group: str) -> None:
    """Kermany's names: kind and number together; any other name is a group of its own."""
    assert group_of(f"train/NORMAL/{name}", KERMANY) == group


def test_a_pattern_of_ones_own_reads_other_names() -> None:
    """The recipe's pattern sees the file's name, from its start, and no folder."""
    pattern = r"(pat\d+)_"
    assert group_of("pat7_x/pat12_left.png", pattern) == "pat12"
    assert group_of("pat7_x/left_pat12_.png", pattern) == "pat7_x/left_pat12_.png"


def test_real_names_keep_train_and_test_apart(xrays_224: Path) -> None:
    """Under the default reading, no patient of the published train folder is in the published test folder."""
    scanned = look(xrays_224)
    assert scanned.rejected == []
    assert scanned.sources.groupby("split").size().to_dict() == {"test": 624, "train": 5216, "val": 16}
    groups = scanned.sources.groupby("split")["group"].agg(set)
    assert groups["train"].isdisjoint(groups["test"])
    assert not scanned.sources["group"].str.contains("/").any()  # none is a group of its own: all names were read


def test_the_notice_is_handed_on(kermany: Path) -> None:
    """The text of SOURCE/NOTICE, on one line, is part of the scan, and no rejected file."""
    assert look(kermany).notice == ""
    (kermany / "NOTICE").write_text("Synthetic.\n\n  Not   for  diagnosis.\n")
    scanned = look(kermany)
    assert scanned.notice == "Synthetic. Not for diagnosis."
    assert scanned.rejected == []


def test_a_notice_lies_beside_plain_classes_too(tmp_path, make_source) -> None:
    """The same in the plain layout, whatever its length and bytes; anywhere else NOTICE is a file like others."""
    source = make_source(tmp_path / "source", {"NORMAL": 1, "a": 1})
    (source / "NOTICE").write_bytes(b"\xff broken" + b"x" * 10_000)
    (source / "a" / "NOTICE").write_text("not mine")
    scanned = look(source)
    assert reasons(scanned) == {"a/NOTICE": NO_IMAGE}
    assert 0 < len(scanned.notice) <= 500


def test_the_source_folder_is_only_read(kermany: Path) -> None:
    """Listing and times of change are the same after a scan; it does without the right to write, too."""
    (kermany / "train" / "NORMAL" / "link").symlink_to(kermany)

    def state() -> list[tuple[str, int, int]]:
        paths = sorted([kermany, *kermany.rglob("*")])
        return [(str(path), path.lstat().st_mtime_ns, path.lstat().st_mode) for path in paths]

    before = state()
    look(kermany)
    assert state() == before


def test_progress_counts_every_file(kermany: Path) -> None:
    """Progress ends with all files done, and never goes back."""
    message: list[tuple[int, int]] = []
    scan(kermany, KERMANY, THREADS, lambda done, of: message.append((done, of)))
    assert message == sorted(message)
    assert message[-1] == (14, 14)


def test_the_number_of_workers_changes_nothing(kermany: Path) -> None:
    """One thread and eight give the same table."""
    assert scan(kermany, KERMANY, ThreadPoolExecutor(1)).sources.equals(
        scan(kermany, KERMANY, ThreadPoolExecutor(8)).sources
    )


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([], "found 0 files in 0 classes"),
        (["A/1.jpg"], r"found 1 files in 1 classes"),
        (["train/A/1.jpg", "test/A/2.jpg"], r"found 2 files in 1 classes"),
        (
            ["chest_xray/train/A/1.jpg", "chest_xray/train/B/1.jpg"],
            r"found 0 files in 0 classes.*chest_xray looks right, it has class folders A, B: give --source .*chest_xray$",
        ),
        (["a/b/A/1.jpg", "a/b/B/1.jpg"], r"found 2 files in 1 classes.*source/a/b looks right"),
        (["data/A/1.jpg", "data/B/1.jpg"], r"found 2 files in 1 classes.*source/data looks right"),
        (["1.jpg", "2.jpg"], r"found 0 files in 0 classes.*First of 2 rejected: 1\.jpg: not in a class folder"),
        (["train/1.jpg", "test/2.jpg"], r"found 0 files.*First of 2 rejected: test/2\.jpg: not in a class folder"),
        (["A/train/1.jpg", "B/train/1.jpg"], r"found 0 files.*A/train/1\.jpg: no class folder: it holds train/"),
        (["A/1.jpg", "B/2.jpg", "C/.hidden"], r"class C: no readable image \(C/\.hidden: hidden\)"),
        (["A/1.jpg", "B/2.jpg", "C/Thumbs.db"], r"class C: no readable image \(C/Thumbs\.db: the operating system's"),
        (["A/1.jpg", "B/2.jpg", "C/D/notes.txt"], r"class C: no readable image \(C/D/notes\.txt: not an image"),
        (["A/1.jpg", "B/2.jpg", "C/"], "class C: no readable image; add images or move the folder away"),
        (["train/A/1.jpg", "train/B/2.jpg", "test/C/"], "class C: no readable image; add images"),
        (["e\u0301/1.jpg", "A/1.jpg", "E\u0301/1.jpg"], r"classes 'E\\xc9'|'\\xc9' .* look the same"),
        (
            ["Normal/1.jpg", "NORMAL/1.jpg"],
            r"'NORMAL' \(NORMAL\) and 'Normal' \(Normal\) have names that look the same",
        ),
        (["train/A/1.jpg", "test/A\u200b/1.jpg"], r"'A' \(train/A\) and 'A\\u200b'"),
        (["A/1.jpg", "A ./1.jpg"], "look the same, or are the same on some file systems"),
    ],
)
def test_a_source_that_makes_no_set_is_refused(tmp_path: Path, places: list[str], expected: str) -> None:
    """No class, one class, a wrapper around the set, a class without images, two of one look: one line with the fix."""
    source = tmp_path / "source"
    source.mkdir()
    write(source, places)
    with pytest.raises(ScanError, match=expected) as caught:
        look(source)
    assert str(caught.value).startswith(f"{source}: ")
    assert "\n" not in str(caught.value)


def write(source: Path, places: list[str]) -> None:
    """Files that begin as GIFs do, but for text and hidden ones, all different; a name that ends in / is a folder's."""
    for place in places:
        (source / place).parent.mkdir(parents=True, exist_ok=True)
        if place.endswith("/"):
            (source / place).mkdir()
        else:
            (source / place).write_text(("" if place.endswith(".txt") else "GIF89a") + place)


def test_a_source_one_level_too_low_names_the_folder_around_it(tmp_path: Path) -> None:
    """--source leads into a class folder: the folder of the classes is named."""
    write(tmp_path, ["set/NORMAL/1.jpg", "set/b/1.jpg"])
    with pytest.raises(ScanError, match=r"set looks right, it has class folders NORMAL, b: give --source"):
        look(tmp_path / "set" / "NORMAL")


def test_class_folders_that_are_links_out_of_the_source_are_named(tmp_path: Path) -> None:
    """The classes lie elsewhere and are only linked: the first link is named with its reason."""
    write(tmp_path, ["elsewhere/A/1.jpg", "elsewhere/B/1.jpg"])
    (tmp_path / "source").mkdir()
    for label in "AB":
        (tmp_path / "source" / label).symlink_to(tmp_path / "elsewhere" / label)
    with pytest.raises(ScanError, match="First of 2 rejected: A: a link that leads out of the source folder"):
        look(tmp_path / "source")


SPLIT_FOLDERS = [
    ("train", "valid", "test"),
    ("Train", "Val", "Test"),
    ("TRAIN", "VALIDATION", "TEST"),
    ("training", "validation", "testing"),
    ("training_set", "dev", "test_set"),
    ("Training Data", "val-data", "test images"),
]


@pytest.mark.parametrize("names", SPLIT_FOLDERS)
def test_the_usual_spellings_of_splits_are_read(tmp_path: Path, names: tuple[str, str, str]) -> None:
    """Whatever the folders of train, val and test are called, each image is in its split, under its own path."""
    write(tmp_path, [f"{name}/{label}/{name}.gif" for name in names for label in ("0", "1")])
    scanned = look(tmp_path)
    assert scanned.rejected == []
    of_folder = dict(zip(names, ("train", "val", "test"), strict=True))
    assert len(scanned.sources) == 6
    for row in scanned.sources.itertuples():
        assert row.split == of_folder[row.source.split("/")[0]]


def test_two_folders_of_one_split_are_one_split(tmp_path: Path) -> None:
    """Val beside valid: the images of both are validation images."""
    write(tmp_path, ["train/A/1", "train/B/2", "val/A/3", "valid/B/4"])
    assert look(tmp_path).sources["split"].tolist() == ["train", "train", "val", "val"]


def test_a_folder_that_is_no_split_is_listed_file_by_file(kermany: Path) -> None:
    """Holdout beside train: every file in it is rejected by name, with the folder's reason."""
    write(kermany, ["holdout/NORMAL/1.gif", "holdout/NORMAL/2.gif", "holdout/deep/er/3.gif", "holdout/.hidden"])
    found = reasons(look(kermany))
    assert set(found.values()) == {"beside the folders train, val and test"}
    assert sorted(found) == [
        "holdout/.hidden", "holdout/NORMAL/1.gif", "holdout/NORMAL/2.gif", "holdout/deep/er/3.gif",
    ]  # fmt: skip


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    """Vehicles: a folder `train` of images beside other class folders is a class, not a split."""
    write(tmp_path, ["train/1.gif", "train/2.gif", "car/3.gif", "bus/4.gif"])
    scanned = look(tmp_path)
    assert scanned.sources["label"].tolist() == ["bus", "car", "train", "train"]
    assert set(scanned.sources["split"]) == {""}
    assert scanned.rejected == []


def test_the_folder_between_class_and_image_is_the_patient(tmp_path: Path) -> None:
    """CLASS/PATIENT/*, at any depth: the first inner folder is the group; patient 002 of two classes is one patient."""
    places = ["A/002/1.png", "A/002/IM-0001-0001.png", "A/10/study 1/1.png", "A/010/2.png", "B/002/3.png", "B/4.png"]
    write(tmp_path, places)
    scanned = look(tmp_path)
    groups = dict(zip(scanned.sources["source"], scanned.sources["group"], strict=True))
    assert groups == {
        "A/002/1.png": "002",
        "A/002/IM-0001-0001.png": "002",
        "A/10/study 1/1.png": "10",
        "A/010/2.png": "010",
        "B/002/3.png": "002",
        "B/4.png": "B/4.png",
    }
    groups = describe_groups(scanned.sources, KERMANY)
    assert (groups.matched, groups.of) == (5, 6)


def test_a_pattern_of_the_recipes_own_goes_before_the_inner_folder(tmp_path: Path) -> None:
    """Folders of scanners, and names that show the patient: the recipe's pattern says so."""
    write(tmp_path, ["A/scanner 1/p7_1.png", "A/scanner 2/p7_2.png", "B/scanner 1/p8_1.png", "B/scanner 1/other.png"])
    assert scan(tmp_path, r"(p\d+)_", THREADS).sources["group"].tolist() == ["p7", "p7", "scanner 1", "p8"]


def test_images_beside_masks_are_read_and_masks_are_not(tmp_path: Path) -> None:
    """CLASS/images beside CLASS/masks, as in the COVID-19 Radiography Database: `images` is nobody's name."""
    write(
        tmp_path,
        ["COVID/images/COVID-1.png", "COVID/masks/COVID-1.png", "Normal/images/N-1.png", "Normal/masks/N-1.png"],
    )
    scanned = look(tmp_path)
    assert scanned.sources["source"].tolist() == ["COVID/images/COVID-1.png", "Normal/images/N-1.png"]
    assert scanned.sources["group"].tolist() == scanned.sources["source"].tolist()
    assert set(reasons(scanned).values()) == {"a folder of masks or labels beside one of images"}


def test_two_spellings_of_one_name_are_one_class(tmp_path: Path) -> None:
    """NFC in train, NFD in test, as macOS writes it: one class, under the composed name; patients likewise."""
    write(tmp_path, ["train/gr\u00f6\u00dfe/1.png", "train/b/2.png", "test/gro\u0308\u00dfe/3.png", "test/b/4.png"])
    write(tmp_path, ["train/b/Jose\u0301/5.png", "train/gr\u00f6\u00dfe/Jos\u00e9/6.png"])
    scanned = look(tmp_path)
    assert set(scanned.sources["label"]) == {"gr\u00f6\u00dfe", "b"}
    assert (scanned.sources["group"] == "Jos\u00e9").sum() == 2


@pytest.mark.parametrize(
    ("names", "suggestion"),
    [
        ([f"{patient:08d}_{image:03d}.png" for patient in range(9) for image in range(4)], r"([^_]+)_"),
        ([f"patient{patient}-{image}.png" for patient in range(9) for image in range(4)], r"([^-]+)-"),
        ([f"case{patient}.{image}.png" for patient in range(9) for image in range(4)], r"([^.]+)\."),
        ([f"COVID-{number}.png" for number in range(40)], ""),
        ([f"{number}.png" for number in range(40)], ""),
    ],
)
def test_names_without_a_patient_are_warned_of(tmp_path: Path, names: list[str], suggestion: str) -> None:
    """Names that the pattern doesn't match: how many, what they look like, and a pattern where beginnings repeat."""
    write(tmp_path, [f"{'AB'[index % 2]}/{name}" for index, name in enumerate(names)])
    groups = describe_groups(look(tmp_path).sources, KERMANY)
    assert (groups.matched, groups.are_known, groups.suggestion) == (0, False, suggestion)
    assert f"matches 0 of {len(names)} file names (not {names[0]})" in groups.warning
    assert (f"try `group: '{suggestion}'`" if suggestion else "give the recipe a `group` pattern") in groups.warning
    assert look(tmp_path).sources["group"].tolist() == look(tmp_path).sources["source"].tolist()


def test_junk_is_known_by_its_first_bytes(kermany: Path) -> None:
    """What the system leaves goes by its name, other files by their first bytes; a large one is not read whole."""
    junk = {"Thumbs.db": b"\xd0\xcf\x11\xe0", "desktop.ini": b"[.ShellClassInfo]", "README.txt": b"read me"}
    for split in ("train", "test"):
        for name, data in junk.items():
            (kermany / split / "NORMAL" / name).write_bytes(data)
    with (kermany / "train" / "NORMAL" / "backup.zip").open("wb") as file:
        file.write(b"PK\3\4")
        file.truncate(10**12)  # sparse: hashed whole, it would take an hour
    found = reasons(look(kermany))
    assert {name.rpartition("/")[2] for name in found} == {*junk, "backup.zip"}
    assert found["test/NORMAL/Thumbs.db"] == "the operating system's, no image"
    assert found["train/NORMAL/README.txt"] == found["train/NORMAL/backup.zip"] == NO_IMAGE


def test_a_class_may_be_empty_in_one_split(kermany: Path) -> None:
    """An empty val/NORMAL is fine, as long as the class has images elsewhere."""
    next((kermany / "val" / "NORMAL").iterdir()).unlink()
    assert len(look(kermany).sources) == 13


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("missing", "no such folder; --source takes"),
        ("empty", "is empty; expected a line with the columns' names"),
        ("set.zip", "is neither a folder nor a list .* unpack an archive, save a spreadsheet as CSV"),
        ("broken.csv.gz", "broken.csv.gz: can't be read: Not a gzipped file"),
    ],
)
def test_a_source_that_is_neither_folder_nor_list_is_refused(tmp_path: Path, place: str, message: str) -> None:
    """A path that isn't there, an archive, a spreadsheet: the message names it and says what to give."""
    (tmp_path / "empty").touch()
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr("A/1.png", b"")
    (tmp_path / "broken.csv.gz").write_bytes(b"path,label\n")
    with pytest.raises(UserError, match=message):
        look(tmp_path / place)


@given(st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=80))
@settings(max_examples=200)
def test_every_name_has_a_group(name: str) -> None:
    """Whatever a file is called, its group is a part of its path, and never empty."""
    group = group_of(f"train/A/{name}", KERMANY)
    assert group
    assert group in f"train/A/{name}"


def test_a_name_as_macos_gives_it_is_taken(kermany: Path) -> None:
    """Screenshots have a narrow no-break space in their names; odd spaces are no control characters."""
    name = "train/NORMAL/Screenshot 9.41\u202fAM\xa0b.png"
    Image.new("L", (8, 8)).save(kermany / name)
    assert name in set(scan(kermany, KERMANY, THREADS).sources["source"])


@pytest.mark.parametrize("names", [("01_train", "02_val", "03_test"), ("fold0", "fold1"), ("eval", "holdout")])
def test_splits_in_an_unknown_spelling_are_no_classes(tmp_path: Path, make_source, names: tuple[str, ...]) -> None:
    """SPLIT/CLASS/* under names that aren't understood: refused, with how to call them."""
    source = make_source(tmp_path / "source", {f"{name}/{label}": 2 for name in names for label in ("A", "B")})
    with pytest.raises(
        ScanError, match=r"hold the same folders \(A, B\), as SPLIT/CLASS/\* does; call them train, val"
    ):
        look(source)


def test_the_same_patients_in_each_class_are_patients(tmp_path: Path, make_source) -> None:
    """CLASS/PATIENT/* with every patient in both classes, as of healthy and sick tissue, is no SPLIT/CLASS."""
    source = make_source(tmp_path / "source", {f"{c}/{p}": 2 for c in ("healthy", "tumour") for p in ("p1", "p2")})
    assert set(look(source).sources["label"]) == {"healthy", "tumour"}


def test_class_folders_that_are_links_out_are_named(tmp_path: Path, make_source) -> None:
    """And not a folder around the source that happens to hold other data sets."""
    make_source(tmp_path / "else", {"A": 2, "B": 2})
    source = tmp_path / "source"
    source.mkdir()
    for label in ("A", "B"):
        (source / label).symlink_to(tmp_path / "else" / label)
    with pytest.raises(ScanError, match="First of 2 rejected: A: a link that leads out of the source folder"):
        look(source)
