"""Lists as people have them: mended in spreadsheets, with rows that are wrong, and paths that lead elsewhere."""

import gzip
import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from augment.list_format import ListFormat, ListFormatError, resolve
from augment.recipe import KERMANY, load
from augment.sources import findings
from augment.sources.findings import Finding
from augment.sources.scan import Scan, scan
from common.errors import UserError
from common.lists.lookup import Lookup
from common.lists.tables import ListError
from tests.augment.conftest import Call

THREADS = ThreadPoolExecutor(2)

NAMES = [f"{number:02}.png" for number in range(6)]
PLAIN = [("path", "label", "group"), *((name, f"0{int(name[1]) % 2}", f"00{name[1]}") for name in NAMES)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six images in a folder."""
    for number, name in enumerate(NAMES):
        (tmp_path / name).write_bytes(cv2.imencode(".png", np.full((20, 20), 10 * number + 50, np.uint8))[1].tobytes())
    return tmp_path


def write(
    path: Path, rows: list[tuple[str, ...]], separator: str = ",", end: str = "\n", encoding: str = "utf-8"
) -> Path:
    path.write_bytes("".join(separator.join(row) + end for row in rows).encode(encoding))
    return path


def look(source: Path, **settings: Any) -> Scan:
    return scan(source, KERMANY, THREADS, list_format=resolve(settings, "r.yaml") if settings else None)


def reasons(found: Scan) -> dict[str, str]:
    return {entry.source: entry.reason for entry in found.rejected}


@pytest.mark.parametrize(
    "save",
    [
        lambda home: write(home / "l.csv", PLAIN),
        lambda home: write(home / "l.csv", PLAIN, encoding="utf-8-sig"),
        lambda home: write(home / "l.csv", PLAIN, end="\r\n"),
        lambda home: write(home / "l.csv", PLAIN, separator=";"),
        lambda home: write(home / "l.tsv", PLAIN, separator="\t"),
        lambda home: write(home / "l.txt", PLAIN, separator="\t", end="\r\n", encoding="utf-16"),
        lambda home: write(home / "l.csv", [("sep=;",), *[(";".join(row),) for row in PLAIN]]),
        lambda home: write(home / "l.csv", [(*row, "") for row in PLAIN]),
        lambda home: write(home / "l.csv", [tuple(f' "{cell}"'.strip() for cell in row) for row in PLAIN]),
        lambda home: write(home / "l.csv", [tuple(f" {cell} " for cell in row) for row in PLAIN]),
        lambda home: write(home / "l.csv", [*PLAIN, ("",), ("", "", "")]),
        lambda home: write(home / "LIST", PLAIN),
    ],
    ids=[
        "plain",
        "bom",
        "crlf",
        "semicolons",
        "tabs",
        "utf-16",
        "sep=",
        "comma-at-end",
        "quoted",
        "spaces",
        "blank-rows",
        "no-ending",
    ],
)
def test_a_mended_spreadsheet_is_read_as_the_plain_one(folder: Path, save: Callable[[Path], Path]) -> None:
    """`01` stays `01`, `002` stays `002`, however the file was saved."""
    found = look(save(folder))
    assert found.sources["source"].tolist() == NAMES
    assert found.sources["label"].tolist() == ["00", "01"] * 3
    assert found.sources["group"].tolist() == [f"00{n}" for n in range(6)]
    assert found.rejected == []


def test_compressed_and_parquet_lists(folder: Path) -> None:
    """A .csv.gz is read as it is; whole numbers of a Parquet column with gaps have no fraction."""
    plain = write(folder / "l.csv", PLAIN)
    (folder / "l.csv.gz").write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    assert len(look(folder / "l.csv.gz").sources) == 6
    (folder / "l.csv.gz").unlink()
    polars = pytest.importorskip("polars", reason="python -m pip install -r requirements-parquet.txt")
    table = {"path": NAMES, "label": [0, 1] * 3, "group": ["002", "003", None, "1e5", "NA", "TRUE"]}
    polars.DataFrame(table).write_parquet(folder / "l.parquet")
    found = look(folder / "l.parquet")
    assert found.sources["label"].tolist() == ["0", "1"] * 3
    assert found.sources["group"].tolist() == ["002", "003", "02.png", "1e5", "NA", "TRUE"]


def test_every_row_and_every_file_is_an_image_or_rejected(folder: Path) -> None:
    """Missing files, files that no row names, rows cut off, no image, no class: each by name, with the reason."""
    (folder / "unlisted.png").write_bytes((folder / "00.png").read_bytes())
    (folder / "05.png").write_bytes(b"no image")
    rows = [*PLAIN, ("gone.png", "00", "9"), ("06.png",), ("04.png", "", "004")]
    found = look(write(folder / "l.csv", rows))
    assert found.sources["source"].tolist() == ["00.png", "01.png", "02.png", "03.png"]
    assert reasons(found) == {
        "gone.png": "no such file",
        "unlisted.png": "not in the list",
        "l.csv, row 9": "has 1 cells, the header 3",
        "04.png": "its rows disagree: 00, label is blank",
        "05.png": "not an image of a known format (JPEG, PNG, BMP, TIFF, WEBP, GIF, DICOM)",
    }


@pytest.mark.parametrize(
    "path", ["../secret.png", "/etc/passwd", "..\\secret.png", "link/secret.png", "https://x/secret.png", "\0"]
)
def test_no_path_leads_out_of_the_folder(folder: Path, path: str) -> None:
    """What a list says is looked up among the files below its folder, and nowhere else."""
    home = folder / "home"
    home.mkdir()
    for name in NAMES:
        (folder / name).rename(home / name)
    (folder / "secret.png").write_bytes((home / "00.png").read_bytes())
    (home / "link").symlink_to(folder)
    if "\0" in path:
        path = "\x07"
    found = look(write(home / "l.csv", [*PLAIN, (path, "00", "9")]))
    assert found.sources["source"].tolist() == NAMES
    assert len([entry for entry in found.rejected if entry.reason == "no such file"]) == 1
    assert all(entry.source.isprintable() for entry in found.rejected)


FILES = (
    "a/x.png",
    "b/x.png",
    "a/b/x.png",
    "c/only.jpeg",
    "x.png",
    "d/e\u0301.png",
    "1.2.3.dcm",
    "1.2.3.4.dcm",
    "f.jpg",
    "f.png",
)


@pytest.mark.parametrize(
    ("path", "file"),
    [
        ("x.png", "x.png"),
        ("./a/x.png", "a/x.png"),
        ("b/x.png", "b/x.png"),
        ("elsewhere\\a\\b\\x.png", "a/b/x.png"),
        ("/mnt/data/c/only.jpeg", "c/only.jpeg"),
        ("only", "c/only.jpeg"),
        ("c/only", "c/only.jpeg"),
        ("d/\u00e9.png", "d/e\u0301.png"),
        ("\u00e9", "d/e\u0301.png"),
        ("1.2.3", "1.2.3.dcm"),
        ("1.2", "no such file"),
        ("z/x.png", "may be "),
        ("f", "may be f.jpg or f.png"),
        ("zzz/only.jpeg", "no such file"),
        ("c/d/only.jpeg", "no such file"),
        ("../only.jpeg", "no such file"),
        ("", "no path"),
    ],
)
def test_files_are_found_by_the_end_of_their_path(path: str, file: str) -> None:
    """A whole path wins, then the file that ends as it does, then the file that it ends as; never one in another folder."""
    found, reason, _ = Lookup(FILES).find(path)
    assert found == file if file in FILES else reason.startswith(file)


def test_no_row_takes_the_file_of_another() -> None:
    """Neither where its own is missing, nor where the folders that tell them apart are missing."""
    files = [f"train/patient{n:05}/study{s}/view1_frontal.jpg" for n, s in ((1, 1), (2, 1), (7, 3))]
    missing = "C/train/patient00099/study3/view1_frontal.jpg"
    found, reasons = Lookup(files).find_all([f"C/{files[0]}", missing])
    assert (found, reasons) == ([files[0], ""], {missing: "no such file"})
    rows = [f"C:/patient00099/study3/view{n}_frontal.jpg" for n in (1, 2)]
    assert Lookup([*files, "train/patient00007/study3/view2_frontal.jpg"]).find_all(rows)[0] == ["", ""]
    assert Lookup(["ill/0.png", "ill/1.png"]).find_all(["healthy/0.png", "healthy/1.png"])[0] == ["", ""]
    found, reasons = Lookup(["00.png"]).find_all(["a/00.png", "b/00.png"])
    assert found == ["", ""]
    assert set(reasons.values()) == {"no such file: the one that it ends as is another row's"}


def test_the_folder_around_all_may_be_called_otherwise() -> None:
    """As in a list of another machine; but not where other rows say that it isn't, or only some rows' folder is."""
    files = [f"pictures/ward{n % 2}/{n}.png" for n in range(4)]
    rows = [f"C:\\export\\ward{n % 2}\\{n}.png" for n in range(4)]
    assert Lookup(files).find_all([*rows, "gone.png"]) == ([*files, ""], {"gone.png": "no such file"})
    assert Lookup(files).find_all([*rows[:2], files[2]])[0] == ["", "", files[2]]


@given(
    st.lists(st.lists(st.sampled_from("ab"), min_size=1, max_size=4).map("/".join), min_size=1, max_size=8, unique=True)
)
def test_every_file_is_found_by_its_path_and_from_a_folder_around(files: list[str]) -> None:
    """Whatever else is there; and by a path that begins further out unless another file ends alike."""
    assert Lookup(files).find_all(files) == (files, {})
    for file in files:
        alike = [other for other in files if f"/{other}".endswith(f"/{file}")]
        found = Lookup(files).find(f"z/{file}")
        assert (found.file == file) == (len(alike) == 1)


def test_a_group_split_or_class_that_rows_disagree_in(folder: Path) -> None:
    """An image of two patients, or of two splits, is rejected; the rows' order doesn't matter."""
    rows = [("path", "label", "group", "split"), *((*row, "train") for row in PLAIN[1:])]
    rows += [("00.png", "00", "x", "train"), ("./01.png", "01", "001", "test"), ("02.png", "01", "002", "train")]
    expected = {
        "00.png": "its rows name several groups: 000, x",
        "01.png": "its rows name several splits: test, train",
        "02.png": "its rows disagree: 00, 01",
    }
    for ordered in (rows, [rows[0], *rows[:0:-1]]):
        found = look(write(folder / "l.csv", ordered))
        assert reasons(found) == expected
        assert found.sources["source"].tolist() == NAMES[3:]


def test_splits_by_any_usual_name_and_no_other(folder: Path) -> None:
    """A column of splits is read as folders are: Training, VALID, test; another word is a reason."""
    splits = ("Training", "VALID", "test", "validate", "holdout", "")
    rows = [("path", "label", "split"), *((*row[:2], split) for row, split in zip(PLAIN[1:], splits, strict=True))]
    found = look(write(folder / "l.csv", rows))
    assert found.sources["split"].tolist() == ["train", "val", "test", "val", ""]
    assert reasons(found) == {"04.png": "split is 'holdout', expected one of train, val, test"}


CELLS = {"positive": "P", "uncertain": "leave out", "blank": "negative"}


@pytest.mark.parametrize(
    ("cells", "settings", "expected"),
    [
        (("1.0", None), CELLS, Finding("P")),
        (("0", None), CELLS, Finding("no P")),
        (("True", None), CELLS, Finding("P")),
        (("-1.0", None), CELLS, Finding("", "left out: P is uncertain")),
        (("-1", None), {**CELLS, "uncertain": "positive"}, Finding("P")),
        (("", None), CELLS, Finding("no P")),
        (("", None), {"positive": "P"}, Finding("", "left out: P is blank")),
        (("2", None), CELLS, Finding("", "P is '2', expected 1, 0, -1 or blank")),
        (("nan", None), CELLS, Finding("", "P is 'nan', expected 1, 0, -1 or blank")),
        (("1", "1"), {**CELLS, "negative": "N"}, Finding("", "contradictory: P and N")),
        (("1", ""), {**CELLS, "negative": "N"}, Finding("P")),
        (("", "1"), {"positive": "P", "negative": "N"}, Finding("N")),
        (("0", ""), {**CELLS, "negative": "N"}, Finding("", "left out: neither P nor N")),
        (("0", "x"), {**CELLS, "negative": "N"}, Finding("", "N is 'x', expected 1, 0, -1 or blank")),
    ],
)
def test_columns_of_findings(cells: tuple[str, str | None], settings: dict[str, str], expected: Finding) -> None:
    """1, 0, -1 and blank, by the recipe's rules; all else is a reason."""
    assert findings.of_columns(*cells, resolve(settings, "r.yaml"))[:2] == expected[:2]


@pytest.mark.parametrize(
    ("cell", "settings", "expected"),
    [
        ("Mass|P", {"positive": "P"}, Finding("P")),
        ("Mass", {"positive": "P"}, Finding("no P")),
        ("N", {"positive": "P", "negative": "N"}, Finding("N")),
        ("Mass", {"positive": "P", "negative": "N"}, Finding("", "left out: neither P nor N")),
        ("P|N", {"positive": "P", "negative": "N"}, Finding("", "contradictory: P and N")),
        ("['P'| ' N']", {"positive": "N"}, Finding("N")),
        ("", {"positive": "P"}, Finding("", "left out: l is blank")),
        ("", {"positive": "P", "blank": "negative"}, Finding("no P")),
        ("Mass|P", {}, Finding("", "several findings; list.positive would set one of them against the rest")),
        ("Mass", {}, Finding("Mass")),
        ("Pp", {"positive": "P"}, Finding("no P")),
    ],
)
def test_cells_of_several_findings(cell: str, settings: dict[str, str], expected: Finding) -> None:
    """One finding against the rest, or against another; whole words only."""
    assert findings.of_cell(cell, resolve({"label": "l", "separator": "|", **settings}, "r.yaml"))[:2] == expected[:2]


@pytest.mark.parametrize(
    ("rows", "settings", "expected"),
    [
        ([("a", "P"), ("b", "no P")], {"several": "any"}, "P"),
        ([("a", ""), ("b", "no P")], {"several": "any"}, "no P"),
        ([("a", "P"), ("b", "no P")], {}, "disagree: P, no P"),
        ([("a", "P"), ("a", "P")], {}, "P"),
        ([("a", "P"), ("b", "no P"), ("c", "no P")], {"several": "majority"}, "no P"),
        ([("a", "P"), ("a", "no P"), ("b", "P"), ("c", "no P")], {"several": "majority", "reader": "r"}, "P"),
        ([("a", "P"), ("a", "P"), ("b", "no P"), ("c", "no P")], {"several": "majority", "reader": "r"}, "no P"),
        ([("a", "P"), ("b", "no P")], {"several": "majority", "reader": "r"}, "no majority among its readers: P, no P"),
    ],
)
def test_several_readers(rows: list[tuple[str, str]], settings: dict[str, str], expected: str) -> None:
    """Any, majority of readers (each has one vote, however many boxes they drew), or refuse."""
    found = [Finding(label, "" if label else "left out: l is blank") for _, label in rows]
    given_format = resolve({"label": "l", "positive": "P", **settings}, "r.yaml")
    label, reason, _ = findings.combine(found, [reader for reader, _ in rows], given_format)
    assert (label or reason).endswith(expected)


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["P", "N", ""])), min_size=1, max_size=9), st.randoms()
)
def test_no_order_of_rows_changes_a_class(rows: list[tuple[str, str]], dice: Any) -> None:
    """Whatever rows say, their order doesn't matter."""
    shuffled = dice.sample(rows, len(rows))
    for several in ("refuse", "any", "majority"):
        for reader in (None, *(["r"] if several == "majority" else [])):
            form = ListFormat(label="l", positive="P", negative="N", several=several, reader=reader)
            results = [
                findings.combine(
                    [Finding(label, "" if label else "none") for _, label in each], [r for r, _ in each], form
                )
                for each in (rows, shuffled)
            ]
            assert results[0] == results[1]


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        (PLAIN, {"path": "Path"}, "l.csv: has no column 'Path'; did you mean path?; it has path, label, group."),
        (PLAIN, {"path": "{image}/{path}"}, "has no column 'image'"),
        ([("path", "label", "label"), ("00.png", "a", "b")], {}, "has the column 'label' 2 times; rename the others"),
        (
            PLAIN,
            {"label": "label", "positive": "0"},
            "list.positive is '0', and no row has that finding; did you mean 0",
        ),
        (
            [("path", "label", "view"), ("00.png", "a", "PA"), ("01.png", "b", "")],
            {"label": "label", "where": {"view": ["AP", "latral"]}},
            "list.where: no row has AP or latral as its view; the column has blank, PA",
        ),
        (PLAIN, {"label": "label", "images": "nowhere"}, "nowhere: no such folder; list.images says where"),
        (PLAIN, {"label": "label", "join": "gone.csv"}, "gone.csv: can't be read: No such file or directory"),
        ([("path", "label"), ("00.png", "a/b"), ("01.png", "c")], {}, "the class 'a/b' can't name a folder"),
        ([("path", "label"), ("00.png", ".."), ("01.png", "c")], {}, "the class '..' can't name a folder"),
        ([("path", "label"), ("00.png", "Ill"), ("01.png", "ill")], {}, "names that look the same"),
        (
            [("path", "label"), ("00.png", "a"), ("01.png", "a")],
            {},
            "found 2 files in 1 classes, but at least 2 are needed; its paths are looked up below",
        ),
        ([("path", "label"), ('"00.png', "a"), ("01.png", "b")], {}, "not a readable CSV: unexpected end of data"),
        ([("",)], {}, "is empty; expected a line with the columns' names"),
        (PLAIN, {"label": "label", "split": {"train": "t.txt"}}, "t.txt: can't be read: No such file or directory"),
    ],
)
def test_a_list_that_cannot_be_read_says_why(
    folder: Path, rows: list[tuple[str, ...]], settings: dict[str, Any], message: str
) -> None:
    """One line that names file, value and fix."""
    with pytest.raises(UserError) as caught:
        look(write(folder / "l.csv", rows), **settings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_joined_list_without_a_row_gives_no_class(folder: Path) -> None:
    """Else a rule for blank cells would give one: neither an image that has no row, nor one whose row is broken."""
    source = write(
        folder / "l.csv", [("", "path", "study"), *((str(n), name, f"0{n}") for n, name in enumerate(NAMES))]
    )
    write(
        folder / "j.csv",
        [
            ("", "study", "P", "", ""),
            *((str(9 - n), f"0{n}", str(n % 2), "", "") for n in range(4)),
            ("4", "04", "1", "", "", "x"),
        ],
    )
    found = look(source, join="j.csv", positive="P", blank="negative")
    assert found.sources["label"].tolist() == ["no P", "P"] * 2
    assert reasons(found) == {
        "04.png": "no row in j.csv of its study",
        "05.png": "no row in j.csv of its study",
        "j.csv, row 6": "has 6 cells, the header 5",
    }
    write(folder / "j.csv", [("study", "P"), ("4", "1"), ("5", "0")])
    with pytest.raises(UserError, match=r"j.csv: has no row for any row of the list, by the columns .*, study; rename"):
        look(source, join="j.csv", positive="P", blank="negative")


def test_usual_columns_are_read_beside_a_section(folder: Path) -> None:
    """A section that says nothing of patients and splits doesn't lose them; a pattern for patients goes before a column."""
    rows = [
        ("path", "finding", "Group", "SPLIT"),
        *((*row, ("train", "test")[int(row[0][1]) > 3]) for row in PLAIN[1:]),
    ]
    source = write(folder / "l.csv", rows)
    found = look(source, label="finding")
    assert found.sources["group"].tolist() == [f"00{n}" for n in range(6)]
    assert found.sources["split"].tolist() == ["train"] * 4 + ["test"] * 2
    by_pattern = scan(source, r"(\d)\d.png", THREADS, list_format=resolve({"label": "finding"}, "r.yaml"))
    assert by_pattern.sources["group"].tolist() == ["0"] * 6


def test_lines_of_split_files_and_rows_without_a_path_are_named(folder: Path) -> None:
    """A typing error in either loses an image that is meant, so that it is said."""
    source = write(folder / "l.csv", [*PLAIN, ("", "00", "7"), ("",), ("", "01", "8")])
    (folder / "train.txt").write_text("00.png\n01.png\n\n02.pgn\n03.png\n", encoding="utf-8")
    (folder / "test.txt").write_text("04.png\n05.png\n", encoding="utf-8")
    found = look(source, label="label", split={"train": "train.txt", "test": "test.txt"})
    assert reasons(found) == {
        "02.png": "in none of the files of list.split",
        "train.txt: 02.pgn": "no such file",
        "l.csv, row 8": "no path",
        "l.csv, row 10": "no path",
    }


def test_a_row_that_cannot_be_is_not_outvoted(folder: Path) -> None:
    """An image with a row of an unknown split is no image of the other row's split; blank cells contradict nobody."""
    rows = [("path", "label", "group", "split"), *((*row, "train") for row in PLAIN[1:])]
    rows += [("00.png", "00", "000", "holdout"), ("01.png", "01", "", "")]
    found = look(write(folder / "l.csv", rows))
    assert reasons(found) == {"00.png": "split is 'holdout', expected one of train, val, test"}
    assert found.sources.iloc[0].tolist()[:4] == ["01.png", "train", "01", "001"]


def test_rules_are_counted(folder: Path) -> None:
    """How many images have their class by a rule, in the warnings that build, audit and card hold."""
    cells = ("1", "0", "-1", "-1", "", "0")
    source = write(folder / "l.csv", [("path", "P"), *zip(NAMES, cells, strict=True)])
    found = look(source, positive="P", uncertain="positive", blank="negative")
    assert found.sources["label"].tolist() == ["P", "no P", "P", "P", "no P", "no P"]
    assert found.warnings == (
        "2 images count as P because P is uncertain, by the recipe's rule for that",
        "1 image counts as no P because P is blank, by the recipe's rule for that",
    )
    same = look(source, label="P", positive="1", uncertain="positive", blank="negative")
    assert same.sources["label"].tolist() == ["1", "no 1", "1", "1", "no 1", "no 1"]


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        (
            ["P", "Q|P", "N"],
            {},
            "is 'P', and a row has 'Q|P', which may be several findings; say so by list.separator: '|'",
        ),
        (["P", "p", "N"], {}, "is 'P', and a row has 'p', which looks the same; mend the list"),
        (["P", "N", "n"], {"negative": "N"}, "list.negative is 'N', and a row has 'n', which looks the same"),
        (["x\ny", "z\x1b[31m", "N"], {}, r"the column label has N, x\ny, z\x1b[31m"),
    ],
)
def test_findings_that_would_silently_count_as_others(
    folder: Path, rows: list[str], settings: dict[str, Any], message: str
) -> None:
    """A cell of several findings, or a finding spelt otherwise, is no image without it; nor does a terminal see escapes."""
    cells = [("path", "label"), *((name, f'"{cell}"') for name, cell in zip(NAMES, rows, strict=False))]
    with pytest.raises(UserError) as caught:
        look(write(folder / "l.csv", cells), label="label", positive="P", **settings)
    assert message in str(caught.value)
    assert str(caught.value).isprintable()


def test_separators_and_lists_that_lack_the_reader(folder: Path) -> None:
    """A header with commas in a name; blank lines before it; a consensus beside lists of several readers."""
    rows = [("path", "label, by A, B, C"), *(row[:2] for row in PLAIN[1:])]
    assert len(look(write(folder / "l.tsv", [("",), *rows], separator="\t"), label="label, by A, B, C").sources) == 6
    (folder / "l.tsv").unlink()
    write(folder / "a.csv", [("path", "label", "r"), ("00.png", "x", "1"), ("00.png", "y", "1"), ("01.png", "y", "1")])
    write(folder / "b.csv", [("path", "label"), ("02.png", "x"), ("03.png", "y")])
    found = look(folder, label="label", several="majority", reader="r", files={"train": "a.csv", "test": "b.csv"})
    assert found.sources["source"].tolist() == ["01.png", "02.png", "03.png"]
    assert reasons(found)["00.png"] == "its rows disagree: x, y"


def test_damaged_and_typed_lists(folder: Path) -> None:
    """A .gz that is damaged inside is one line; a Parquet file may hold lists, bytes and names with spaces around."""
    data = bytearray(gzip.compress("".join(f"{n},x\n" for n in range(9999)).encode()))
    data[200:260] = b"x" * 60
    (folder / "l.csv.gz").write_bytes(data)
    with pytest.raises(ListError, match=r"l.csv.gz.*: not a readable CSV: "):
        look(folder / "l.csv.gz")
    polars = pytest.importorskip("polars", reason="python -m pip install -r requirements-parquet.txt")
    labels = [["P", "q"], ["q"], [], None, ["P"], ["r"]]
    table = {" path ": [name.encode() for name in NAMES], "Labels": labels}
    polars.DataFrame(table).write_parquet(folder / "l.parquet")
    found = look(folder / "l.parquet", label="Labels", separator=",", positive="P")
    assert found.sources["label"].tolist() == ["P", "no P", "P", "no P"]


def test_numbers_of_a_section_are_text(tmp_path: Path) -> None:
    """`010` is no 8, and `1.10` no 1.1; elsewhere in a recipe numbers stay numbers."""
    path = tmp_path / "r.yaml"
    path.write_text(
        "val: 0.1\nlist: {label: 007, positive: 1.10, where: {site: [010, 1e3, 2020-01-01]}}\n", encoding="utf-8"
    )
    recipe = load(str(path))
    assert recipe.list
    assert (recipe.val, recipe.list.label, recipe.list.positive) == (0.1, "007", "1.10")
    assert recipe.list.where == (("site", ("010", "1e3", "2020-01-01")),)


def test_a_list_in_another_encoding_is_refused(folder: Path) -> None:
    """Latin-1 is not guessed: a name would be another."""
    with pytest.raises(ListError, match=r"is not UTF-8 .*; save it as CSV in UTF-8"):
        look(write(folder / "l.csv", [*PLAIN, ("é.png", "00", "1")], encoding="latin-1"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ([], "list is [], expected settings such as `label: Finding Labels`"),
        ({"labels": "x"}, "list has the unknown setting 'labels'; known are path, images, label,"),
        ({"positive": True}, "list.positive is True, expected text; put it in quotes, as in 'True'"),
        ({"path": "{0!r}"}, "expected columns in braces, such as {image}"),
        ({"path": "{a.__class__:>9}"}, "expected columns in braces, such as {image}"),
        (
            {"uncertain": "maybe", "positive": "P"},
            "list.uncertain is 'maybe', expected one of leave out, positive, negative",
        ),
        ({"negative": "N"}, "list.negative means nothing without list.positive; give that too"),
        ({"several": "any"}, "list.several: any means nothing without list.positive"),
        ({"reader": "r"}, "list.reader means nothing without list.several: majority"),
        ({"positive": "P", "negative": "P"}, "list.positive and list.negative are both 'P'"),
        ({"join": ["../x.csv"]}, "list.join is '../x.csv', expected a file in the list's folder or below it"),
        ({"files": {"train": "/etc/passwd"}}, "list.files is '/etc/passwd', expected a file in the list's folder"),
        (
            {"split": {"dev": "x"}},
            "list.split is {'dev': 'x'}, expected a column, or a file for each of train, val, test",
        ),
        ({"where": "PA"}, "list.where is 'PA', expected columns and values such as {view: [PA, AP]}"),
        (
            {"split": ["train.txt"]},
            "list.split is ['train.txt'], expected a column, or a file for each of train, val, test",
        ),
        ({"split": []}, "list.split is [], expected a column, or a file for each of train, val, test"),
        ({"split": "s", "files": {"train": "x"}}, "list.files gives the splits, and so does list.split"),
    ],
)
def test_a_section_that_makes_no_sense_says_why(settings: Any, message: str) -> None:
    """One line that names the setting, the value and the fix."""
    with pytest.raises(ListFormatError) as caught:
        resolve(settings, "r.yaml")
    assert message in str(caught.value)


def test_a_section_is_in_the_card_and_read_from_it_again() -> None:
    """As plain values, so that a set can be made again from its card."""
    settings = {"path": "{a}/{b:.2}", "label": "l", "separator": "|", "positive": 1, "where": {"v": ["PA", 2]}}
    settings |= {"split": {"test": "t.txt"}, "join": "x.csv"}
    first = resolve(settings, "r.yaml")
    assert resolve(json.loads(json.dumps(first.as_dict())), "card") == first
    assert first.columns == ["a", "b", "l", "v"]


def test_build_verify_and_audit_take_a_list(folder: Path, tmp_path_factory: pytest.TempPathFactory, call: Call) -> None:
    """The set is built, is up to date the second time, is made again whole from its card, and audited by its recipe."""
    out = tmp_path_factory.mktemp("out")
    (out / "r.yaml").write_text("size: 16\nval: 0\ntest: 0\nlist: {path: p, label: l, group: g}\n", encoding="utf-8")
    source = write(folder / "l.csv", [("p", "l", "g"), *PLAIN[1:]])
    words = ("build", "--recipe", out / "r.yaml", "--source", source, "--root", out)
    assert "Rendered 6 images" in call(*words).output
    assert "Up to date" in call(*words).output
    manifest = out / "manifests" / "r.csv"
    before = manifest.read_bytes()
    for each in sorted((out / "data").rglob("*"), reverse=True):
        each.rmdir() if each.is_dir() else each.unlink()
    assert call("verify", manifest, "--root", out, "--repair").exit_code == 0
    assert manifest.read_bytes() == before
    card = json.loads(manifest.with_suffix(".json").read_text(encoding="utf-8"))
    assert (Path(card["list"]), Path(card["source"])) == (source, folder)
    report = json.loads(call("audit", source, "--recipe", out / "r.yaml", "--json").stdout)
    assert (report["images"], report["groups"]) == (6, 6)


def test_a_recipe_with_a_list_and_a_folder_say_what_to_give(folder: Path, call: Call) -> None:
    """The list itself is the source; and where a list has no columns of the usual names, the recipe is to name them."""
    (folder / "r.yaml").write_text("list: {path: p}\n", encoding="utf-8")
    done = call("build", "--recipe", folder / "r.yaml", "--source", folder, "--dry-run")
    assert "is a folder, and the recipe reads a list; give --source the list" in done.output
    done = call("build", "--recipe", "original", "--source", write(folder / "l.csv", [("a", "b")]), "--dry-run")
    assert "has no column 'path'; it has a, b. The recipe's section `list` says which columns" in done.output


def test_the_docs_have_every_setting() -> None:
    """docs/lists.md shows each setting of the section, and what it shows can be read."""
    page = (Path(__file__).parents[3] / "docs" / "lists.md").read_text(encoding="utf-8")
    block = re.search(r"```yaml\nlist:\n(.*?)```", page, re.DOTALL)
    assert block
    shown = yaml.safe_load("list:\n" + block[1])["list"]
    assert set(shown) == {field.name for field in fields(ListFormat)}
    assert resolve(shown, "docs") == resolve({key: shown[key] for key in shown if shown[key]}, "docs")


def test_images_may_lie_elsewhere(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """`images` is a folder anywhere; a list whose paths are found nowhere says where they are looked up."""
    home = tmp_path_factory.mktemp("lists")
    rows = [PLAIN[0], *((str(folder / row[0]), *row[1:]) for row in PLAIN[1:])]
    source = write(home / "l.csv", rows)
    assert look(source, images=str(folder), group="group").sources["source"].tolist() == NAMES
    with pytest.raises(
        UserError, match=r"its paths are looked up below .*, which list.images in the recipe says. First of 6"
    ):
        look(source)
