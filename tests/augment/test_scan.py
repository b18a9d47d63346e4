"""Source folder -> table of sources: both layouts, odd files and names, links; and that nothing is lost."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from augment.recipe import KERMANY
from augment.scan import Rejected, Scan, ScanError, digest, group_of, scan


def look(source: Path) -> Scan:
    """Scan with the default naming."""
    return scan(source, KERMANY, workers=2)


def reasons(scanned: Scan) -> dict[str, str]:
    """Rejected path -> reason."""
    return {entry.source: entry.reason for entry in scanned.rejected}


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
    os.mkfifo(kermany / "test" / "NORMAL" / "pipe")
    text = kermany / "train" / "PNEUMONIA" / "readme.txt"
    text.write_text("no image, but that is told when it is decoded")
    scanned = look(kermany)
    assert reasons(scanned) == {
        "notes.txt": "beside the folders train, val and test",
        "test/NORMAL/pipe": "not a regular file",
        "train/.cache": "hidden",
        "train/NORMAL/.DS_Store": "hidden",
        "train/list.csv": "not in a class folder",
        "val/NORMAL/older": "a folder inside a class folder; its files are not read",
    }
    found = {*files_below(kermany), "train/.cache", "val/NORMAL/older"}
    assert sorted(found) == sorted([*scanned.sources["source"], *reasons(scanned)])
    assert scanned.rejected == sorted(scanned.rejected)
    assert "train/PNEUMONIA/readme.txt" in set(scanned.sources["source"])


def test_the_kaggle_zip_with_its_copies_is_read_once(kermany: Path) -> None:
    """The Kaggle zip holds __MACOSX and a second chest_xray beside the splits: both are rejected as a whole."""
    shutil.copytree(kermany, kermany.parent / "copy")
    (kermany.parent / "copy").rename(kermany / "chest_xray")
    (kermany / "__MACOSX" / "train" / "NORMAL").mkdir(parents=True)
    (kermany / "__MACOSX" / "train" / "NORMAL" / "._IM-0001-0001.jpeg").write_bytes(b"\0\5\x16\7")
    scanned = look(kermany)
    assert reasons(scanned) == dict.fromkeys(["__MACOSX", "chest_xray"], "beside the folders train, val and test")
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
        (kermany / "train" / "NORMAL" / name).write_bytes(b"%d" % number)
    scanned = look(kermany)
    assert scanned.rejected == []
    assert {f"train/NORMAL/{name}" for name in ODD} < set(scanned.sources["source"])


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (b"line\nbreak.jpg", r"line\nbreak.jpg"),
        (b"bell\x07.jpg", r"bell\x07.jpg"),
        (b"back\\slash.jpg", "back\\slash.jpg"),
        (b"latin-1 \xe9.jpg", r"latin-1 \udce9.jpg"),
        ("left\u202eto right.jpg".encode(), r"left\u202eto right.jpg"),
    ],
)
def test_names_that_no_csv_holds_are_rejected(kermany: Path, name: bytes, told: str) -> None:
    """Control characters, backslashes and bytes that are no UTF-8: rejected, under a name that can be printed."""
    (Path(os.fsencode(kermany / "train" / "NORMAL").decode()) / os.fsdecode(name)).write_bytes(b"x")
    expected = "a name with control characters, a backslash or bytes that are not UTF-8; rename it"
    assert reasons(look(kermany)) == {f"train/NORMAL/{told}": expected}
    shutil.move(kermany / "train" / "NORMAL" / os.fsdecode(name), kermany / "train" / os.fsdecode(name))
    assert list(reasons(look(kermany))) == [f"train/{told}"]
    shutil.move(kermany / "train" / os.fsdecode(name), kermany / os.fsdecode(name))
    assert list(reasons(look(kermany))) == [told]


def test_a_class_named_like_a_drive_is_rejected(tmp_path, make_source) -> None:
    """No path of a manifest may start as C: does, so neither may the name of a class."""
    scanned = look(make_source(tmp_path / "source", {"NORMAL": 1, "a": 1, "b: benign": 1}))
    assert reasons(scanned) == {"b: benign": "a class name that starts as a Windows drive does; rename it"}


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
        "train/NORMAL/up": "a folder inside a class folder; its files are not read",
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


@pytest.mark.parametrize("told", [".", "./", "../source", "source/../"])
def test_a_relative_source_is_the_same_source(kermany: Path, monkeypatch: pytest.MonkeyPatch, told: str) -> None:
    """However the path to the source folder is spelt, its files have the same names."""
    (kermany / "train" / "NORMAL" / ".hidden").touch()
    expected = look(kermany)
    monkeypatch.chdir(kermany.parent if told.startswith("source") else kermany)
    scanned = look(Path(f"{told}source" if told.startswith("source") else told))
    assert scanned.sources.equals(expected.sources)
    assert scanned.rejected == expected.rejected


def test_a_file_that_may_not_be_read_is_rejected(kermany: Path) -> None:
    """An image without read permission is rejected with the system's reason; the rest is read."""
    locked = kermany / "train" / "NORMAL" / "IM-0001-0001.jpeg"
    locked.chmod(0)
    code = f"from augment.scan import *; print(scan(Path({str(kermany)!r}), 'x', 2).rejected == {[REFUSED]})"
    told = subprocess.run([*_unprivileged(), sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert told.stdout == "True\n", told


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
    """What vanishes between listing and reading is told, not raised."""
    assert digest(tmp_path / "gone.jpeg") == ("", "can't be read: No such file or directory")


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
    assert scanned.rejected == []
    assert "a/NOTICE" in set(scanned.sources["source"])
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
    told: list[tuple[int, int]] = []
    scan(kermany, KERMANY, 2, lambda done, of: told.append((done, of)))
    assert told == sorted(told)
    assert told[-1] == (14, 14)


def test_the_number_of_workers_changes_nothing(kermany: Path) -> None:
    """One thread and eight give the same table."""
    assert scan(kermany, KERMANY, 1).sources.equals(scan(kermany, KERMANY, 8).sources)


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([], "found 0 files in 0 classes"),
        (["A/1.jpg"], "found 1 files in 1 classes"),
        (["train/A/1.jpg", "test/A/2.jpg"], "found 2 files in 1 classes"),
        (["chest_xray/train/A/1.jpg", "chest_xray/train/B/1.jpg"], "found 0 files in 0 classes"),
        (["A/1.jpg", "B/2.jpg", "C/.hidden"], r"class C: no readable image \(C/\.hidden: hidden\)"),
        (["A/1.jpg", "B/2.jpg", "C/D/1.jpg"], r"class C: no readable image \(C/D: a folder inside a class folder"),
        (["A/1.jpg", "B/2.jpg", "C/"], "class C: no readable image; add images or move the folder away"),
        (["train/A/1.jpg", "train/B/2.jpg", "test/C/"], "class C: no readable image; add images"),
    ],
)
def test_a_source_that_makes_no_set_is_refused(tmp_path: Path, places: list[str], expected: str) -> None:
    """No class, one class, a wrapper around the set, or a class without images: one line with value and fix."""
    source = tmp_path / "source"
    source.mkdir()
    for place in places:
        (source / place).parent.mkdir(parents=True, exist_ok=True)
        if place.endswith("/"):
            (source / place).mkdir()
        else:
            (source / place).write_text(place)
    with pytest.raises(ScanError, match=expected) as caught:
        look(source)
    assert str(caught.value).startswith(f"{source}: ")
    assert "\n" not in str(caught.value)


def test_a_class_may_be_empty_in_one_split(kermany: Path) -> None:
    """An empty val/NORMAL is fine, as long as the class has images elsewhere."""
    next((kermany / "val" / "NORMAL").iterdir()).unlink()
    assert len(look(kermany).sources) == 13


@pytest.mark.parametrize("place", ["missing", "file"])
def test_a_source_that_is_no_folder_is_refused(tmp_path: Path, place: str) -> None:
    """A path that isn't there, or a file: the message names it."""
    (tmp_path / "file").touch()
    with pytest.raises(ScanError, match="no such folder; --source takes"):
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
    assert name in set(scan(kermany, KERMANY, 1).sources["source"])
