"""The manifest's contract: what is written is read back, and what breaks it is reported by line and column."""

import csv
import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from manifests import contract

NUMBERS = ("variant", "seed", "width", "height")
GOOD: dict[str, str] = {
    "path": "data/set/train/A/a-v0.jpg",
    "label": "A",
    "split": "train",
    "source": "train/A/a.jpeg",
    "group": "a",
    "variant": "0",
    "seed": "7",
    "transform": "",
    "width": "224",
    "height": "224",
    "source_sha256": "a" * 64,
    "sha256": "b" * 64,
}
OTHER = {**GOOD, "path": "data/set/val/A/c-v1.jpg", "split": "val", "source": "train/A/c.jpeg", "group": "c"}
OTHER |= {"variant": "1", "transform": '[{"HorizontalFlip":{}}]', "source_sha256": "c" * 64}


def save(path: Path, *rows: dict[str, str] | list[str], header: tuple[str, ...] = contract.COLUMNS) -> Path:
    """Write a CSV as another program would."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(list(row.values()) if isinstance(row, dict) else row for row in rows)
    return path


def complaint(manifest: Path) -> str:
    """The one line that reading `manifest` fails with."""
    with pytest.raises(contract.ContractError) as caught:
        contract.read(manifest)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Anything but control characters and what UTF-8 can't hold; the first ones are what CSV and pandas trip over.
TEXT = st.sampled_from(
    ["NaN", "NA", "null", '"', "a,b", "=1+1", "'", " x ", "#", "0x1", "1e5", "ärzte", "肺", "a b"]
) | (
    st.text(
        st.characters(exclude_categories=["Cs"], exclude_characters=[chr(c) for c in [*range(32), 127]]),
        min_size=1,
        max_size=20,
    )
)
SEGMENT = TEXT.map(lambda text: "_" + text.replace("/", "|").replace("\\", "|"))
PATH = st.lists(SEGMENT, min_size=1, max_size=4).map("/".join)
WHOLE = st.integers(0, 2**63 - 1)
DIGEST = st.binary(min_size=32, max_size=32).map(bytes.hex)
SOURCE = st.tuples(TEXT, st.sampled_from(contract.SPLITS), PATH, TEXT, DIGEST)
APPLIED = st.lists(
    st.dictionaries(
        TEXT, st.dictionaries(TEXT, st.floats(allow_nan=False, allow_infinity=False), max_size=3), max_size=3
    ),
    max_size=3,
)


@st.composite
def tables(draw: st.DrawFn) -> pd.DataFrame:
    """Valid tables: a group and a source's bytes stay in one split, each path is there once."""
    sources = draw(
        st.lists(SOURCE, min_size=1, max_size=3, unique_by=(lambda source: source[3], lambda source: source[4]))
    )
    rows = []
    for path in draw(st.lists(PATH, unique=True, max_size=6)):
        label, split, source, group, sha256 = draw(st.sampled_from(sources))
        variant = draw(WHOLE)
        transform = json.dumps(draw(APPLIED), ensure_ascii=draw(st.booleans())) if variant else ""
        sides = [draw(st.integers(1, 2**63 - 1)) for _ in range(2)]
        rows.append((path, label, split, source, group, variant, draw(WHOLE), transform, *sides, sha256, draw(DIGEST)))
    return pd.DataFrame(rows, columns=list(contract.COLUMNS))


@given(tables())
@settings(
    max_examples=35, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_what_is_written_is_read_back(tmp_path: Path, rows: pd.DataFrame) -> None:
    """Every valid table survives writing and reading: each text to the character, each number to the unit."""
    manifest = tmp_path / "set.csv"
    contract.write(manifest, rows, {"name": "set"})
    read = contract.read(manifest)
    assert read.to_numpy().tolist() == rows.to_numpy().tolist()
    assert all(read[column].dtype == "int64" for column in NUMBERS)


@given(
    st.recursive(st.none() | st.booleans() | WHOLE | TEXT, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner))
)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example({"reason": "line\nbreak", "name": "ä"})
def test_the_card_is_read_back(tmp_path: Path, value: Any) -> None:
    """Whatever JSON the card holds comes back as it was, with the manifest's checksum."""
    manifest = tmp_path / "set.csv"
    contract.write(manifest, pd.DataFrame([GOOD]), {"value": value})
    checksum = hashlib.sha256(manifest.read_bytes()).hexdigest()
    assert contract.read_card(manifest) == {"value": value, "manifest_sha256": checksum}


def test_a_manifest_of_no_rows_is_valid(tmp_path: Path) -> None:
    """A header alone is a manifest of an empty set."""
    assert len(contract.read(save(tmp_path / "set.csv"))) == 0


def test_lines_may_end_as_windows_ends_them(tmp_path: Path) -> None:
    """A manifest that a spreadsheet saved with CR LF reads the same."""
    manifest = save(tmp_path / "set.csv", GOOD, OTHER)
    before = contract.read(manifest)
    manifest.write_bytes(manifest.read_bytes().replace(b"\n", b"\r\n"))
    assert contract.read(manifest).equals(before)


@pytest.mark.parametrize(
    ("column", "got", "expected"),
    [
        ("split", "dev", "one of train, val, test"),
        ("split", " train", "one of train, val, test"),
        ("split", "", "one of train, val, test"),
        ("label", "", "a value"),
        ("group", "", "a value"),
        ("source", "", "a value"),
        ("path", "", "a relative POSIX path that stays inside its root"),
        ("path", "./", "a relative POSIX path that stays inside its root"),
        ("path", "data/./set/a.jpg", "a relative POSIX path that stays inside its root"),
        ("path", "data//set/a.jpg", "a relative POSIX path that stays inside its root"),
        ("path", "data/set/.", "a relative POSIX path that stays inside its root"),
        ("path", "data/set/", "a relative POSIX path that stays inside its root"),
        ("path", "./data/set/a.jpg", "a relative POSIX path that stays inside its root"),
        ("source", "train/./a.jpeg", "a relative POSIX path that stays inside its root"),
        ("path", "data/../../secret", "a relative POSIX path that stays inside its root"),
        ("path", "/etc/passwd", "a relative POSIX path that stays inside its root"),
        ("path", "C:/x.jpg", "a relative POSIX path that stays inside its root"),
        ("path", "data\\x.jpg", "a relative POSIX path that stays inside its root"),
        ("source", "../x.jpg", "a relative POSIX path that stays inside its root"),
        ("source", "/x.jpg", "a relative POSIX path that stays inside its root"),
        ("variant", "-1", "a whole number from 0 to 2^63 - 1"),
        ("variant", "", "a whole number from 0 to 2^63 - 1"),
        ("seed", "1.0", "a whole number from 0 to 2^63 - 1"),
        ("seed", "1e3", "a whole number from 0 to 2^63 - 1"),
        ("seed", "007", "a whole number from 0 to 2^63 - 1"),
        ("seed", "0x10", "a whole number from 0 to 2^63 - 1"),
        ("seed", "1٣", "a whole number from 0 to 2^63 - 1"),
        ("seed", "NaN", "a whole number from 0 to 2^63 - 1"),
        ("seed", str(2**63), "a whole number from 0 to 2^63 - 1"),
        ("seed", "9" * 40, "a whole number from 0 to 2^63 - 1"),
        ("width", "0", "a whole number from 1 to 2^63 - 1"),
        ("height", "many", "a whole number from 1 to 2^63 - 1"),
        ("sha256", "b" * 63, "64 lower-case hex digits"),
        ("sha256", "B" * 64, "64 lower-case hex digits"),
        ("source_sha256", "", "64 lower-case hex digits"),
        ("label", "A\nB", "no control characters"),
        ("group", "A\tB", "no control characters"),
        ("group", "\x1b[2J", "no control characters"),
        ("label", "A\x00", "no control characters"),
        ("label", "A\x7f", "no control characters"),
        ("transform", "", "a JSON list of what was applied"),
        ("transform", '{"Flip":', "a JSON list of what was applied"),
        ("transform", '{"Flip": {}}', "a JSON list of what was applied"),
        ("transform", "[" * 100_000, "a JSON list of what was applied"),
    ],
)
def test_a_bad_value_is_named_by_file_line_and_column(tmp_path: Path, column: str, got: str, expected: str) -> None:
    """One bad field in the third line: the message names file, line, column, what it got and what it expected."""
    manifest = save(tmp_path / "set.csv", GOOD, {**OTHER, column: got})
    message = complaint(manifest)
    where, _, rest = message.partition(": got ")
    assert where == f"{manifest}, line 3, column {column}"
    assert rest.endswith(f", expected {expected}")
    assert rest.startswith(repr(got)[:70])
    assert len(message) < len(str(tmp_path)) + 250


def test_the_source_itself_has_no_transform(tmp_path: Path) -> None:
    """Variant 0 is the source, only resized: a transform on it is refused."""
    manifest = save(tmp_path / "set.csv", {**GOOD, "transform": "[]"})
    assert complaint(manifest) == f"{manifest}, line 2, column transform: got '[]', expected nothing, as variant is 0"


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ("path", "each path once"),
        ("group", "rows of one split only (an earlier line has another)"),
        ("source_sha256", "rows of one split only (an earlier line has another)"),
    ],
)
def test_what_may_not_be_shared_is_named_where_it_repeats(tmp_path: Path, column: str, expected: str) -> None:
    """No path twice, no patient and no identical source image in two splits: the second one is named."""
    last = {**OTHER, "path": "x", "group": "x", "source_sha256": "d" * 64}
    manifest = save(tmp_path / "set.csv", GOOD, last, {**OTHER, column: GOOD[column]})
    assert complaint(manifest) == f"{manifest}, line 4, column {column}: got {GOOD[column]!r}, expected {expected}"


def test_a_group_may_have_many_rows_of_one_split(tmp_path: Path) -> None:
    """Sharing a patient and a source within a split is what variants do."""
    sibling = {**GOOD, "path": "data/set/train/A/a-v1.jpg", "variant": "1", "transform": "[]"}
    assert len(contract.read(save(tmp_path / "set.csv", GOOD, sibling))) == 2


@pytest.mark.parametrize(
    "header",
    [
        (),
        contract.COLUMNS[:-1],
        (*contract.COLUMNS, "note"),
        contract.COLUMNS[::-1],
        ("\ufeffpath", *contract.COLUMNS[1:]),
    ],
    ids=["none", "short", "long", "reversed", "byte order mark"],
)
def test_the_header_is_exact(tmp_path: Path, header: tuple[str, ...]) -> None:
    """Any other header is named, with the one that is expected."""
    manifest = save(tmp_path / "set.csv", header=header)
    message = complaint(manifest)
    assert message.startswith(f"{manifest}, line 1: got the header {','.join(header)!r}"[:100])
    assert message.endswith(f"expected {','.join(contract.COLUMNS)}")


def test_a_file_of_no_bytes_is_no_manifest(tmp_path: Path) -> None:
    """An empty file has no header."""
    manifest = tmp_path / "set.csv"
    manifest.touch()
    assert complaint(manifest).startswith(f"{manifest}, line 1: got the header ''")


@pytest.mark.parametrize("count", range(1, len(contract.COLUMNS)))
def test_a_short_row_is_named(tmp_path: Path, count: int) -> None:
    """A row that lacks its last fields is refused, wherever it ends."""
    manifest = save(tmp_path / "set.csv", GOOD, list(OTHER.values())[:count])
    message = complaint(manifest)
    assert message.startswith(f"{manifest}, line 3, column ")
    assert ": got '', expected " in message


def test_a_blank_line_is_named(tmp_path: Path) -> None:
    """A blank line is a row without fields, not nothing: else the lines after it would be counted wrong."""
    manifest = save(tmp_path / "set.csv", GOOD, [], OTHER)
    assert complaint(manifest).startswith(f"{manifest}, line 3, column ")


@pytest.mark.parametrize("line", [2, 3, 4])
def test_a_surplus_field_is_named(tmp_path: Path, line: int) -> None:
    """A row with a field too many is refused, in the first line as in a later one; nothing is dropped."""
    rows = [list(row.values()) for row in (GOOD, OTHER, {**OTHER, "path": "x"})]
    for row in rows[line - 2 :]:
        row.append("")
    manifest = save(tmp_path / "set.csv", *rows)
    assert complaint(manifest) == f"{manifest}, line {line}: got 13 fields, expected 12"


def test_a_file_cut_off_anywhere_in_a_line_is_refused(tmp_path: Path) -> None:
    """However many bytes of its last line a manifest has lost, it is refused and the line is named."""
    manifest = save(tmp_path / "set.csv", GOOD, OTHER)
    whole = manifest.read_bytes()
    lines = whole.splitlines(keepends=True)
    assert b'"[{""HorizontalFlip' in lines[-1]  # so that some cuts are inside quotes
    for kept in range(1, len(lines[-1]) - 1):
        manifest.write_bytes(b"".join(lines[:-1]) + lines[-1][:kept])
        assert complaint(manifest).startswith(f"{manifest}, line 3")


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    """A file that is not UTF-8, a picture say, is refused in one line."""
    manifest = tmp_path / "set.csv"
    manifest.write_bytes(save(manifest, GOOD).read_bytes().replace(b"train", b"tr\xe9in"))
    assert complaint(manifest).startswith(f"{manifest}: not a readable CSV: ")
    manifest.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 1000)
    assert complaint(manifest).startswith(f"{manifest}: not a readable CSV: ")


def test_a_missing_manifest_says_how_to_get_one(tmp_path: Path) -> None:
    """The message names the path and the command; a folder of that name is no manifest either."""
    assert (
        complaint(tmp_path / "set.csv")
        == f"{tmp_path / 'set.csv'}: no such manifest; build one with `python -m augment build`"
    )
    assert complaint(tmp_path).startswith(f"{tmp_path}: not a readable CSV: ")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "is missing"),
        ("", "not a readable card"),
        ("{", "not a readable card"),
        ("[" * 100_000, "not a readable card"),
        ("[]", "got a JSON list, expected an object"),
    ],
)
def test_a_bad_card_is_named(tmp_path: Path, text: str | None, expected: str) -> None:
    """A card that is missing, no JSON or no object is refused in one line that names its file."""
    if text is not None:
        (tmp_path / "set.json").write_text(text)
    with pytest.raises(contract.ContractError, match=expected) as caught:
        contract.read_card(tmp_path / "set.csv")
    assert str(caught.value).startswith(f"{tmp_path / 'set.json'}: ")


@pytest.mark.parametrize(
    "broken",
    [
        pd.DataFrame([{**GOOD, "split": "dev"}]),
        pd.DataFrame([{**GOOD, "label": None}]),
        pd.DataFrame([GOOD, GOOD]),
        pd.DataFrame([{**GOOD, "label": "\ud800"}]),
        pd.DataFrame([GOOD]).drop(columns="seed"),
    ],
    ids=["unknown split", "no label", "path twice", "no UTF-8", "column missing"],
)
def test_a_table_that_breaks_the_contract_is_not_written(tmp_path: Path, broken: pd.DataFrame) -> None:
    """Neither manifest nor card nor a temporary file is left behind."""
    with pytest.raises(ValueError):
        contract.write(tmp_path / "set.csv", broken, {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("taken", ["set.csv", "set.json"])
def test_a_write_that_fails_leaves_neither_file(tmp_path: Path, taken: str) -> None:
    """Where one of the two can't take its name, the other isn't there either: a card never stands alone."""
    (tmp_path / taken / "in the way").mkdir(parents=True)
    with pytest.raises(OSError, match=taken):
        contract.write(tmp_path / "set.csv", pd.DataFrame([GOOD]), {"name": "set"})
    assert [path.name for path in tmp_path.iterdir()] == [taken]


def test_a_card_that_is_no_json_leaves_neither_file(tmp_path: Path) -> None:
    """The card is made before anything is written."""
    with pytest.raises(TypeError):
        contract.write(tmp_path / "set.csv", pd.DataFrame([GOOD]), {"name": object()})
    assert list(tmp_path.iterdir()) == []


def test_written_files_have_the_permissions_that_the_umask_allows(tmp_path: Path) -> None:
    """Manifest and card are as readable as any other new file."""
    before = os.umask(0o027)
    try:
        contract.write(tmp_path / "deep" / "set.csv", pd.DataFrame([GOOD]), {})
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((tmp_path / "deep" / name).stat().st_mode) for name in ("set.csv", "set.json")]
    assert modes == [0o640, 0o640]


@pytest.mark.parametrize("linked", ["file", "class folder", "set"])
def test_a_link_out_of_the_root_is_no_image_of_it(tmp_path: Path, linked: str) -> None:
    """A path whose letters stay inside the root and whose links lead out, at any level; a link that stays is fine."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    place = root / GOOD["path"]
    place.parent.mkdir(parents=True)
    place.write_bytes(b"image")
    contract.expect_inside(root, [GOOD["path"]], root / "set.csv")
    at = {"file": place, "class folder": place.parent, "set": root / "data" / "set"}[linked]
    at.rename(root / "elsewhere")
    at.symlink_to(root / "elsewhere")
    contract.expect_inside(root, [GOOD["path"]], root / "set.csv")
    (root / "elsewhere").rename(outside)
    at.unlink()
    at.symlink_to(outside)
    with pytest.raises(contract.ContractError, match=r"a-v0\.jpg leads out of .*root through a symbolic link"):
        contract.expect_inside(root, [GOOD["path"]], root / "set.csv")


@pytest.mark.parametrize("name", ["set.csv", "set.json"])
def test_a_pipe_is_not_waited_for(tmp_path: Path, name: str) -> None:
    """A named pipe in the place of manifest or card: one line, at once."""
    manifest = save(tmp_path / "set.csv", GOOD)
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    with pytest.raises(contract.ContractError, match="not a regular file"):
        (contract.read if name == "set.csv" else contract.read_card)(manifest)
