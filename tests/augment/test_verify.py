"""Verify and repair: what is reported of a set that was damaged by hand, and that repair gives back the very bytes."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from manifests import contract

RECIPE = "per_class: 20\naugment: [train, val]\nsize: [32, 24]\ntransforms: [{KerasAffine: {rotation_range: 9}}]\n"
COUNTS = {"train/NORMAL": 5, "train/PNEUMONIA": 12, "test/NORMAL": 2, "test/PNEUMONIA": 3}
IMAGES, MANIFEST, CARD = "data/augmented/set", "manifests/set.csv", "manifests/set.json"
CLEAN = f"{MANIFEST}: every image is as recorded.\n"


@pytest.fixture(scope="module")
def built(tmp_path_factory, make_source, call) -> Path:
    """A root with a source folder and a finished set. Read only."""
    root = tmp_path_factory.mktemp("built")
    make_source(root / "source", COUNTS)
    (root / "set.yaml").write_text(RECIPE)
    assert build(call, root).exit_code == 0
    return root


def build(call, root: Path):
    """The command that built the set."""
    return call("build", "--recipe", root / "set.yaml", "--source", root / "source", "--root", root)


def table(output: str) -> list[tuple[str, str]]:
    """The rows of verify's table: kind and path."""
    rows = [line.split(maxsplit=2) for line in output.splitlines()]
    return [(row[0], row[1]) for row in rows if row[0] in ("missing", "altered", "stray")]


def listing(folder: Path) -> list[tuple[str, int, int]]:
    """Everything below a folder with time of change and size."""
    paths = sorted(folder.rglob("*"))
    return [(str(path), path.lstat().st_mtime_ns, path.lstat().st_size) for path in paths]


def images(root: Path) -> list[str]:
    """The images of the set, sorted."""
    return sorted(path.relative_to(root).as_posix() for path in (root / IMAGES).rglob("*.jpg"))


def flip_a_bit(path: Path) -> None:
    """Change one bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_an_untouched_set_has_no_faults(root: Path, call) -> None:
    """As built: one line that says so, exit code 0, with --repair too, and nothing is touched."""
    before = listing(root)
    for options in ([], ["--repair"], ["--workers", "1"]):
        result = call("verify", MANIFEST, *options)
        assert (result.exit_code, result.stdout, result.stderr) == (0, CLEAN, "")
    assert listing(root) == before


def test_a_set_is_verified_from_anywhere(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call) -> None:
    """The command runs in any folder, by the root in the card or by --root; in another root every image is missing."""
    monkeypatch.chdir(tmp_path)
    assert call("verify", root / MANIFEST).exit_code == 0
    assert call("verify", root / MANIFEST, "--root", root).exit_code == 0
    astray = call("verify", root / MANIFEST, "--root", ".")
    assert astray.exit_code == 1
    assert table(astray.stdout) == [("missing", path) for path in images(root)]


STRAYS = (f"{IMAGES}/test/NORMAL/stray.jpg", f"{IMAGES}/train/.DS_Store", f"{IMAGES}/train/OTHER/copy of 1.jpg")


def damage(root: Path) -> list[tuple[str, str]]:
    """Delete two images, alter one bit of one, cut one, empty one, add three files; give back what verify should tell."""
    listed = images(root)
    for path in (listed[0], listed[7]):
        (root / path).unlink()
    flip_a_bit(root / listed[3])
    (root / listed[11]).write_bytes((root / listed[11]).read_bytes()[:-1])
    (root / listed[20]).write_bytes(b"")
    for path in STRAYS:
        (root / path).parent.mkdir(exist_ok=True)
        (root / path).write_text(f"somebody's {path}")
    altered = sorted([listed[3], listed[11], listed[20]])
    missing = [listed[0], listed[7]]
    strays = [(kind, path.split()[0]) for kind, path in zip(["stray"] * 3, sorted(STRAYS), strict=True)]
    return [*(("altered", path) for path in altered), *(("missing", path) for path in missing), *strays]


def test_every_fault_is_named(root: Path, call) -> None:
    """Missing, altered and stray files, each in a row of its own; exit code 1, how to mend it, and nothing touched."""
    expected = damage(root)
    before = listing(root)
    result = call("verify", MANIFEST)
    assert result.exit_code == 1
    assert table(result.stdout) == expected
    assert f"   stray  {STRAYS[2]}  not in the manifest\n" in result.stdout
    assert result.stdout.endswith("Repair it: the same command with --repair\n")
    assert result.stderr == ""
    assert listing(root) == before


def test_repair_gives_back_the_very_bytes(root: Path, built: Path, everything, call) -> None:
    """Every file is as it was before the damage, manifest and card included; strays lie aside; a build has nothing to do."""
    faults = damage(root)
    result = call("verify", MANIFEST, "--repair")
    assert result.exit_code == 0
    assert table(result.stdout) == faults
    aside = "Moved what is not the set's to data/augmented/.set.stray: data/augmented/set/test/NORMAL/stray.jpg and 2 more\n"
    assert result.stdout.endswith(f"Repaired 8 of 8.\n{aside}{CLEAN}")
    aside = {path.replace("/set/", "/.set.stray/"): f"somebody's {path}".encode() for path in STRAYS}
    assert everything(root) == {**everything(built), **aside}
    assert not (root / IMAGES / "train" / "OTHER").exists()
    assert call("verify", MANIFEST).stdout == CLEAN
    before = listing(root / "manifests")
    assert "Up to date, nothing to render" in build(call, root).stdout
    assert listing(root / "manifests") == before


def test_only_what_is_damaged_is_rendered_again(root: Path, call) -> None:
    """A repair leaves whole images alone: not one is written again."""
    before = {path: (root / path).stat().st_mtime_ns for path in images(root)}
    damaged = {path for kind, path in damage(root) if kind != "stray"}
    assert call("verify", MANIFEST, "--repair").exit_code == 0
    assert {path for path in before if (root / path).stat().st_mtime_ns != before[path]} == damaged


def test_strays_of_one_name_are_all_kept(root: Path, call) -> None:
    """A stray that has the name of one that was set aside before does not take its place."""
    stray = root / STRAYS[0]
    for text in ("first", "second", "third"):
        stray.write_text(text)
        assert call("verify", MANIFEST, "--repair").exit_code == 0
    kept = (root / "data/augmented/.set.stray").rglob("*.jpg*")
    assert sorted(path.read_text() for path in kept) == ["first", "second", "third"]


@pytest.mark.parametrize("name", ["line\nbreak.jpg", "latin \udce9.jpg", "bell\a.jpg"])
def test_a_stray_with_an_unprintable_name_is_one_line(root: Path, call, name: str) -> None:
    """Whatever a stray is called, it has its row, in characters that any terminal can take, and is set aside."""
    (root / IMAGES / "test" / "NORMAL" / name).write_text("stray")
    result = call("verify", MANIFEST, "--repair")
    assert result.exit_code == 0
    escaped = name.encode("unicode_escape").decode()
    assert result.stdout.splitlines()[0] == f"   stray  {IMAGES}/test/NORMAL/{escaped}  not in the manifest"
    assert [path.name for path in (root / "data/augmented/.set.stray/test/NORMAL").iterdir()] == [name]


@pytest.mark.parametrize("gone", [IMAGES, f"{IMAGES}/train", f"{IMAGES}/train/NORMAL"])
def test_a_folder_that_is_gone_is_made_again(root: Path, built: Path, everything, call, gone: str) -> None:
    """A class, a split or all images deleted: each is reported missing, and one command brings them back."""
    lost = [path for path in images(root) if path.startswith(gone)]
    shutil.rmtree(root / gone)
    result = call("verify", MANIFEST, "--repair")
    assert result.exit_code == 0
    assert table(result.stdout) == [("missing", path) for path in lost]
    assert everything(root) == everything(built)
    assert "Up to date, nothing to render" in build(call, root).stdout


def cut_in_a_line(manifest: Path) -> None:
    manifest.write_bytes(manifest.read_bytes()[:-300])


def cut_between_lines(manifest: Path) -> None:
    manifest.write_text("".join(manifest.read_text().splitlines(keepends=True)[:-9]))


def emptied(manifest: Path) -> None:
    manifest.write_bytes(b"")


def deleted(manifest: Path) -> None:
    manifest.unlink()


def edited_transform(manifest: Path) -> None:
    text = manifest.read_text()
    at = text.index('""rotation"":') if '""rotation"":' in text else text.index('""KerasAffine"":')
    manifest.write_text(text[:at] + text[at:].replace("0", "1", 1))


def edited_label(manifest: Path) -> None:
    manifest.write_text(manifest.read_text().replace("NORMAL,train", "PNEUMONIA,train", 1))


def saved_by_a_spreadsheet(manifest: Path) -> None:
    manifest.write_bytes(b"\xef\xbb\xbf" + manifest.read_bytes().replace(b"\n", b"\r\n"))


@pytest.mark.parametrize(
    "harm",
    [cut_in_a_line, cut_between_lines, emptied, deleted, edited_transform, edited_label, saved_by_a_spreadsheet],
    ids=lambda harm: harm.__name__,
)
def test_a_damaged_manifest_is_reported_and_made_again(root: Path, built: Path, everything, call, harm) -> None:
    """Whatever became of the CSV: it is named, exit code 1, and one command gives back the same bytes."""
    harm(root / MANIFEST)
    checked = call("verify", MANIFEST)
    assert checked.exit_code == 1
    kind = "missing" if harm is deleted else "altered"
    assert (kind, MANIFEST) in table(checked.stdout)
    mended = call("verify", MANIFEST, "--repair")
    assert mended.exit_code == 0
    assert mended.stdout.endswith(CLEAN)
    assert everything(root) == everything(built)
    assert call("verify", MANIFEST).stdout == CLEAN
    assert "Up to date, nothing to render" in build(call, root).stdout


def test_a_lost_card_is_reported(root: Path, call) -> None:
    """Without the card nobody knows what should be there: one line that names it and the fix; a build makes it again."""
    (root / CARD).unlink()
    result = call("verify", MANIFEST, "--repair")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"Error: {CARD}: the card of {MANIFEST} is missing; build the set again\n"
    assert build(call, root).exit_code == 0
    assert call("verify", MANIFEST).stdout == CLEAN


def test_a_stranger_breaks_a_set_and_mends_it(root: Path, built: Path, everything, start) -> None:
    """Ten images deleted, one edited, a file added and the CSV cut, as a user does it: reported; then one command mends all."""
    listed = images(root)
    for path in listed[4:44:4]:
        (root / path).unlink()
    Image.open(root / listed[1]).rotate(180).save(root / listed[1])
    (root / STRAYS[0]).write_text("added")
    before = contract.read(root / MANIFEST)["path"].tolist()[:43]
    cut_in_a_line(root / MANIFEST)
    telling = start(root, "verify", MANIFEST)
    checked, complaint = telling.communicate(timeout=60)
    assert (telling.returncode, complaint) == (1, "")
    assert f" altered  {MANIFEST}  {MANIFEST}, line 45, column sha256: got " in checked
    assert "those of the 43 lines before it were checked" in checked
    gone = {path for path in before if path in listed[4:44:4]}
    assert gone
    assert {line.split()[1] for line in checked.splitlines() if line.startswith(" missing")} == gone
    mending = start(root, "verify", MANIFEST, "--repair")
    checked, complaint = mending.communicate(timeout=60)
    assert (mending.returncode, complaint) == (0, "")
    assert everything(root) == {**everything(built), STRAYS[0].replace("/set/", "/.set.stray/"): b"added"}
    again = start(root, "verify", MANIFEST)
    assert again.communicate(timeout=60) == (CLEAN, "")
    assert again.returncode == 0


def test_repair_finds_sources_that_have_moved(root: Path, built: Path, everything, call, tmp_path: Path) -> None:
    """The source folder is gone: one line that names --source, nothing touched; with it, the images come back."""
    shutil.move(root / "source", tmp_path / "elsewhere")
    damage(root)
    before = listing(root)
    result = call("verify", MANIFEST, "--repair")
    assert result.exit_code == 2
    assert result.stderr == "Error: source: the set's source folder is not there; give --source\n"
    assert listing(root) == before
    assert call("verify", MANIFEST, "--repair", "--source", tmp_path / "elsewhere").exit_code == 0
    assert everything(built).items() <= everything(root).items()


def test_an_image_whose_source_was_edited_stays_a_fault(root: Path, built: Path, everything, call) -> None:
    """It keeps its bytes and its row, with the reason, exit code 1; all other damage is mended."""
    rows = contract.read(root / MANIFEST).set_index("path")
    edited, lost, other = [path for path in images(root) if "/train/NORMAL/" in path and path.endswith("-v0.jpg")][:3]
    Image.fromarray(np.full((30, 30), 99, np.uint8)).save(root / "source" / rows["source"][edited])
    (root / "source" / rows["source"][lost]).unlink()
    for path in (edited, other):
        flip_a_bit(root / path)
    (root / lost).unlink()
    kept = (root / edited).read_bytes()
    result = call("verify", MANIFEST, "--repair")
    assert result.exit_code == 1
    assert "Repaired 1 of 3.\n" in result.stdout
    left = result.stdout.partition("Repaired 1 of 3.\n")[2]
    assert (
        f" altered  {edited}  source/{rows['source'][edited]}: its bytes are no longer those that were planned" in left
    )
    assert f" missing  {lost}  source/{rows['source'][lost]}: can't be read: No such file or directory" in left
    assert len(left.splitlines()) == 2
    assert everything(root).keys() == everything(built).keys() - {lost}
    assert (root / edited).read_bytes() == kept
    assert (root / other).read_bytes() == (built / other).read_bytes()


def edit_card(root: Path, **changes: object) -> None:
    """Put other values into the card."""
    card = json.loads((root / CARD).read_text())
    (root / CARD).write_text(json.dumps({**card, **changes}))


def forge(root: Path, text: str) -> None:
    """Put another manifest in place, and its checksum into the card, so that it passes for what a build wrote."""
    (root / MANIFEST).write_text(text)
    edit_card(root, manifest_sha256=hashlib.sha256(text.encode()).hexdigest())


OLD = {"evenset": "0.1.0", "pillow": "1.7.8"}


@pytest.mark.parametrize("versions", [OLD, None], ids=["other versions", "same versions"])
def test_an_image_that_comes_out_otherwise_is_not_put_in_place(root: Path, call, versions) -> None:
    """Not the manifest's bytes: the file is left, exit code 1, and the package whose version differs is named."""
    victim = images(root)[0]
    recorded = hashlib.sha256((root / victim).read_bytes()).hexdigest()
    forge(root, (root / MANIFEST).read_text().replace(recorded, "0" * 64))
    if versions:
        edit_card(root, versions=versions)
    flip_a_bit(root / victim)
    kept = (root / victim).read_bytes()
    os.utime(root / victim)
    result = call("verify", MANIFEST, "--repair")
    assert result.exit_code == 1
    left = result.stdout.partition("Repaired 0 of 1.\n")[2]
    assert f" altered  {victim}  comes out otherwise: " in left
    assert ("pillow was 1.7.8, is " if versions else "the package versions are the same") in left
    assert "evenset" not in left
    assert (root / victim).read_bytes() == kept
    assert [path.name for path in (root / "data" / "augmented").iterdir() if path.is_dir()] == ["set"]
    assert "Rendered 1 images, reused 44" in build(call, root).stdout  # not taken for a set that is up to date
    assert call("verify", MANIFEST).stdout == CLEAN


def test_a_manifest_of_other_versions_is_not_made_again(root: Path, call) -> None:
    """The CSV is damaged, and the set can't come out as it was: one line that names the package and the fix."""
    cut_in_a_line(root / MANIFEST)
    edit_card(root, versions=OLD, fingerprint="0" * 64)
    before = listing(root)
    result = call("verify", MANIFEST, "--repair")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"Error: {MANIFEST}: can't be made again as it was: ")
    assert "pillow was 1.7.8, is " in result.stderr
    assert result.stderr.endswith("; build the set anew instead\n")
    assert listing(root) == before


def test_a_manifest_of_other_sources_is_not_made_again(root: Path, call) -> None:
    """The CSV is damaged and a source was added: nothing of the set is touched, and the line says why."""
    cut_in_a_line(root / MANIFEST)
    Image.fromarray(np.full((30, 30), 99, np.uint8)).save(root / "source/train/NORMAL/IM-0099-0001.png")
    before = listing(root)
    result = call("verify", MANIFEST, "--repair")
    assert result.exit_code == 2
    assert "can't be made again as it was: the sources have changed; build the set anew instead" in result.stderr
    assert listing(root) == before


@pytest.mark.parametrize(
    "images", ["../outside", "/etc", "", ".", "C:/x", "..\\x", "data/../../outside", 5, None, ["x"]]
)
@pytest.mark.parametrize("options", [[], ["--repair"]], ids=["verify", "repair"])
def test_a_card_does_not_lead_out_of_the_root(root: Path, tmp_path: Path, call, images, options: list[str]) -> None:
    """The card names an image folder outside the root, or none: one line that names it, and nothing is touched."""
    make_outside(tmp_path)
    edit_card(root, images=images)
    damage(root)
    before = listing(tmp_path)
    result = call("verify", MANIFEST, *options)
    assert result.exit_code == 2
    assert result.stderr == f"Error: {CARD}: images is {images!r}, expected a folder inside the root\n"
    assert listing(tmp_path) == before


def make_outside(tmp_path: Path) -> Path:
    """Somebody's pictures beside the root, in folders that look like a set's."""
    folder = tmp_path / "outside" / "train" / "NORMAL"
    folder.mkdir(parents=True)
    (folder / "holiday.jpg").write_bytes(b"the only copy")
    return folder


def own_folder(root: Path) -> str:
    make_outside(root)
    edit_card(root, images="outside")
    return "no image set of Evenset's"


def source_folder(root: Path) -> str:
    edit_card(root, images="source")
    return "overlap; the source is never written to: give"


def own_file(root: Path) -> str:
    """A row of the manifest stands for a file of the user's."""
    victim = images(root)[0]
    forge(root, (root / MANIFEST).read_text().replace(f"{victim},", "set.yaml,", 1))
    return "set.yaml is not inside data/augmented/set, the set's folder"


def own_source(root: Path) -> str:
    """A row of the manifest stands for a source image."""
    victim = images(root)[0]
    source = contract.read(root / MANIFEST)["source"].iloc[0]
    forge(root, (root / MANIFEST).read_text().replace(f"{victim},", f"source/{source},", 1))
    return f"source/{source} is not inside data/augmented/set, the set's folder"


@pytest.mark.parametrize("trick", [own_folder, source_folder, own_file, own_source], ids=lambda trick: trick.__name__)
def test_repair_touches_nothing_but_the_set(root: Path, tmp_path: Path, call, trick: Callable[[Path], str]) -> None:
    """A card or manifest made by somebody else, that would have other files moved or overwritten: refused in one line."""
    expected = trick(root)
    before = listing(tmp_path)
    assert call("verify", MANIFEST).exit_code == 1
    result = call("verify", MANIFEST, "--repair")
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert expected in result.stderr
    assert listing(tmp_path) == before


@pytest.mark.parametrize("path", ["../outside/train/NORMAL/holiday.jpg", "/etc/passwd", "data\\..\\..\\x", "C:/x"])
def test_a_manifest_does_not_lead_out_of_the_root(root: Path, built: Path, everything, call, path: str) -> None:
    """A path out of the root makes the manifest a damaged one: it is made again, and what it names is not touched."""
    outside = make_outside(root.parent)
    victim = images(root)[0]
    forge(root, (root / MANIFEST).read_text().replace(f"{victim},", f"{path},", 1))
    checked = call("verify", MANIFEST)
    assert checked.exit_code == 1
    assert table(checked.stdout) == [("altered", MANIFEST)]
    assert "expected a relative POSIX path that stays inside its root" in checked.stdout
    before = listing(outside)
    assert call("verify", MANIFEST, "--repair").exit_code == 0
    assert listing(outside) == before
    assert everything(root) == everything(built)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"recipe": 5}, "the card's recipe can't be used"),
        ({"recipe": {}}, "the card's recipe can't be used: 'name'"),
        ({"recipe": {"name": "x", "size": "big"}}, "the card's recipe can't be used"),
        ({"recipe": {"name": "x", "transforms": [{"eval": {}}], "per_class": 20}}, "can't be made again as it was"),
        ({"rejected": 5}, "the card's rejected can't be used"),
        ({"rejected": [5]}, "the card's rejected can't be used"),
        ({"rejected": [{"path": "x"}]}, "the card's rejected can't be used"),
        ({"rejected": [{"source": ["x"], "reason": "", "source_sha256": "x"}]}, "the card's rejected can't be used"),
        ({"versions": ["x"], "fingerprint": 5}, "can't be made again as it was: evenset was absent"),
        ({"source": 5}, "5: the set's source folder is not there; give --source"),
        ({"source": "/nowhere"}, "/nowhere: the set's source folder is not there; give --source"),
        ({"source": ""}, "overlap; the source is never written to: give"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_a_card_that_makes_no_sense_is_refused(root: Path, call, changes: dict[str, object], named: str) -> None:
    """Values of the wrong kind, unknown transforms, a source that isn't there: one line, no traceback, nothing touched."""
    cut_in_a_line(root / MANIFEST)
    edit_card(root, **changes)
    before = listing(root)
    result = call("verify", MANIFEST, "--repair")
    assert result.exit_code == 2, result.output
    assert result.stderr.count("\n") == 1
    assert named in result.stderr
    assert listing(root) == before


@pytest.mark.parametrize("label", ["OTHER", "NORMAL"])
def test_a_class_folder_that_is_a_link_is_set_aside_as_it_is(root: Path, call, built: Path, everything, label) -> None:
    """A link to somebody's pictures beside the classes, or in the place of one: only the link moves, nothing behind it."""
    outside = make_outside(root.parent)
    folder = root / IMAGES / "train" / label
    shutil.rmtree(folder, ignore_errors=True)
    folder.symlink_to(outside)
    before = listing(outside)
    assert f"   stray  data/augmented/set/train/{label}  not in the manifest\n" in call("verify", MANIFEST).stdout
    result = call("verify", MANIFEST, "--repair")
    assert result.exit_code == 0
    assert f"Moved what is not the set's to data/augmented/.set.stray: {IMAGES}/train/{label}\n" in result.stdout
    assert listing(outside) == before
    aside = root / "data" / "augmented" / ".set.stray" / "train" / label
    assert aside.readlink() == outside
    aside.unlink()
    assert everything(root) == everything(built)


def test_an_image_that_is_a_link_is_altered(root: Path, call, built: Path, everything) -> None:
    """A tool that joins equal files by links: what the link leads to may change, so the image is made again."""
    first, second = images(root)[:2]
    elsewhere = root.parent / "kept.jpg"
    (root / first).rename(elsewhere)
    (root / first).symlink_to(elsewhere)
    before = elsewhere.read_bytes()
    assert f" altered  {first}  a symbolic link\n" in call("verify", MANIFEST).stdout
    assert call("verify", MANIFEST, "--repair").exit_code == 0
    assert not (root / first).is_symlink()
    assert elsewhere.read_bytes() == before
    assert second in images(root)
    assert everything(root) == everything(built)


def test_a_folder_in_an_images_place_is_set_aside(root: Path, call, built: Path, everything) -> None:
    """A folder of an image's name: the image is rendered again, and what was in the folder is kept."""
    victim, empty = images(root)[:2]
    for path in (victim, empty):
        (root / path).unlink()
        (root / path).mkdir()
    (root / victim / "note.txt").write_text("the only copy")
    found = call("verify", MANIFEST).stdout
    assert f" altered  {victim}  can't be read: Is a directory\n" in found
    assert f"   stray  {victim}/note.txt  not in the manifest\n" in found
    assert call("verify", MANIFEST, "--repair").exit_code == 0
    aside = root / "data/augmented/.set.stray" / Path(victim).relative_to(IMAGES) / "note.txt"
    assert aside.read_text() == "the only copy"
    shutil.rmtree(root / "data/augmented/.set.stray")
    assert everything(root) == everything(built)


def test_a_pipe_is_not_waited_for(root: Path, call) -> None:
    """A named pipe in an image's place, whose writer never comes: altered, at once; and mended."""
    victim = images(root)[0]
    (root / victim).unlink()
    os.mkfifo(root / victim)
    assert f" altered  {victim}  not a regular file\n" in call("verify", MANIFEST).stdout
    assert call("verify", MANIFEST, "--repair").exit_code == 0
    assert (root / victim).is_file()


def test_what_a_killed_repair_leaves_is_mended(root: Path, built: Path, everything, call) -> None:
    """A journal in the finished set, a replaced folder and half a repair beside it: one more repair takes them away."""
    (root / IMAGES / ".journal.csv").write_text("\n")
    half = root / "data" / "augmented" / ".set.repair" / "train" / "x-v1.jpg"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"half")
    (root / "data" / "augmented" / ".set.repair" / ".evenset.json").write_text("{}")
    (root / images(root)[0]).unlink()
    assert "   stray  data/augmented/set/.journal.csv  left by a build" in call("verify", MANIFEST).stdout
    assert call("verify", MANIFEST, "--repair").exit_code == 0
    assert everything(root) == everything(built)


def test_a_manifest_that_is_not_there_is_one_line(tmp_path: Path, call) -> None:
    """No such set: the message names what is missing."""
    result = call("verify", tmp_path / "none.csv")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"Error: {tmp_path / 'none.json'}: the card of {tmp_path / 'none.csv'} is missing")


@pytest.mark.parametrize("linked", ["train/NORMAL", "train", "val"])
def test_images_behind_a_link_are_no_images_of_the_set(
    root: Path, built: Path, tmp_path: Path, call, linked: str
) -> None:
    """A folder replaced by a link: all in it counts as altered, and repair leaves none of it behind the link."""
    folder = root / IMAGES / linked
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    result = call("verify", MANIFEST)
    assert result.exit_code == 1
    altered = {path for kind, path in table(result.stdout) if kind == "altered"}
    assert altered == {path for path in images(built) if path.startswith(f"{IMAGES}/{linked}/")}
    assert call("verify", MANIFEST, "--repair").exit_code == 0
    assert call("verify", MANIFEST).stdout == CLEAN
    assert not folder.is_symlink()
    assert images(root) == images(built)
