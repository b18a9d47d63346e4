"""What lies in a set's folder beside its images: links, other people's files, and what a kill leaves at any moment."""

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from augment.building import build
from augment.recipe import load
from augment.sources.scan import scan
from augment.storage import image_folder
from augment.storage.image_folder import partial, replaced, stray
from augment.storage.place import Place, publish
from common.workers import Workers
from manifests import contract

THREADS = ThreadPoolExecutor(2)

RECIPE = "per_class: {}\naugment: [train, val]\nsize: {}\ntransforms: [{{KerasAffine: {{rotation_range: 9}}}}]\n"
BUILD = ("build", "--recipe", "set.yaml", "--source", "source", "--workers", "1")
IMAGES, MANIFEST = Path("data/augmented/set"), Path("manifests/set.csv")


@pytest.fixture(scope="module")
def built(tmp_path_factory, make_source, call) -> Path:
    """A root with a source folder and a finished set. Read only."""
    root = tmp_path_factory.mktemp("built")
    make_source(root / "source", {"train/0": 6, "train/01": 9, "test/0": 2, "test/01": 3})
    write_recipe(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        assert call(*BUILD).exit_code == 0
    return root


def write_recipe(root: Path, per_class: int = 20, size: int = 32) -> None:
    """The set's recipe."""
    (root / "set.yaml").write_text(RECIPE.format(per_class, size))


def images(root: Path) -> list[Path]:
    """The images of the set by the manifest."""
    return [root / path for path in contract.read(root / MANIFEST)["path"]]


def leave_notes(root: Path) -> dict[str, str]:
    """A user's files in the image folder, by path: on top, beside the classes, in a class, in a folder there."""
    notes = {
        "train/0/notes.txt": "in a class",
        "train/01/.ipynb_checkpoints/x.py": "in a folder in a class",
        "train/mask/1.png": "a class too many",
    }
    for path, text in notes.items():
        (root / IMAGES / path).parent.mkdir(parents=True, exist_ok=True)
        (root / IMAGES / path).write_text(text)
    return notes


def aside(root: Path) -> dict[str, str]:
    """What lies among the strays: path -> text."""
    folder = root / stray(IMAGES)
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_an_unchanged_build_sets_a_users_files_aside(root: Path, built: Path, everything, call) -> None:
    """Files in class folders of a finished set: moved out, named with their place, and the set is up to date."""
    notes = leave_notes(root)
    result = call(*BUILD)
    assert result.exit_code == 0
    assert "Up to date, nothing to render" in result.stdout
    assert f"Moved what is not the set's to {stray(IMAGES)}: train/0/notes.txt and 2 more\n" in result.stdout
    assert aside(root) == notes
    shutil.rmtree(root / stray(IMAGES))
    assert everything(root) == everything(built)


@pytest.mark.parametrize("change", [{"per_class": 30}, {"per_class": 10}, {"size": 40}])
def test_an_update_sets_a_users_files_aside(root: Path, call, everything, change: dict[str, int]) -> None:
    """Another recipe, the whole folder made anew included: nothing of a user's is deleted, and the set has nothing else."""
    notes = leave_notes(root) | {"README.md": "mine", "masks/1.png": "mine, too"}
    (root / IMAGES / "masks").mkdir()
    for path in ("README.md", "masks/1.png"):
        (root / IMAGES / path).write_text(notes[path])
    write_recipe(root, **change)
    result = call(*BUILD, "--json")
    assert result.exit_code == 0
    assert sorted(json.loads(result.stdout)["set_aside"]) == sorted(notes)
    assert aside(root) == notes
    shutil.rmtree(root / stray(IMAGES))
    fresh = root.parent / "fresh"
    shutil.copytree(root / "source", fresh / "source")
    write_recipe(fresh, **change)
    os.chdir(fresh)
    assert call(*BUILD).exit_code == 0
    assert everything(root) == everything(fresh)


class Stopped(Exception):  # noqa: N818  # no error
    """Raised out of a build's progress."""


@pytest.mark.parametrize("change", [{"per_class": 40}, {"size": 40}])
def test_a_set_keeps_its_names_until_the_new_one_is_whole(root: Path, everything, call, change: dict[str, int]) -> None:
    """An update that is stopped in its midst leaves the old set, its manifest and its card; the next one replaces them."""

    def stop(done: int, total: int) -> None:
        if done > 0.6 * total:
            raise Stopped

    def finished() -> dict[str, bytes]:
        return {
            path: data for path, data in everything(root).items() if not path.startswith(partial(IMAGES).as_posix())
        }

    before = finished()
    write_recipe(root, **change)
    recipe = load("set.yaml")
    scanned = scan(Path("source"), recipe.group, THREADS)
    with pytest.raises(Stopped), ThreadPoolExecutor(1) as executor:
        build(scanned, recipe, Place(Path(), Path("source"), IMAGES, MANIFEST), Workers(executor, executor), stop)
    assert finished() == before
    assert call("verify", MANIFEST).exit_code == 0
    assert call(*BUILD).exit_code == 0
    rows = contract.read(MANIFEST)
    assert (len(rows), rows["width"].max()) == (2 * change.get("per_class", 20) + 5, change.get("size", 32))
    assert not (root / replaced(IMAGES)).exists()


@pytest.mark.parametrize("target", ["inside", "outside"])
def test_a_link_in_an_images_place_is_not_written_through(
    root: Path, built: Path, everything, call, target: str
) -> None:
    """An image replaced by a link: the link's target keeps its bytes, and the image is a file of its own again."""
    victim = images(root)[0]
    kept = (root if target == "inside" else root.parent) / "kept.bin"
    kept.write_bytes(b"the only copy")
    victim.unlink()
    victim.symlink_to(kept)
    assert call(*BUILD).exit_code == 0
    assert kept.read_bytes() == b"the only copy"
    assert not victim.is_symlink()
    shutil.rmtree(root / stray(IMAGES), ignore_errors=True)
    assert everything(root) == everything(built)


def test_another_name_of_an_image_keeps_its_bytes(root: Path, built: Path, everything, call) -> None:
    """Two equal names of one file, one altered through the other: the build makes a new file, and the other stays."""
    victim = images(root)[0]
    other = root / "hard link.jpg"
    os.link(victim, other)
    other.write_bytes(b"altered")
    assert call(*BUILD).exit_code == 0
    assert other.read_bytes() == b"altered"
    assert everything(root) == everything(built)


@pytest.mark.parametrize("per_class", [20, 10])
def test_nothing_is_deleted_behind_a_linked_class_folder(root: Path, call, per_class: int) -> None:
    """A class folder that is a link to somebody's pictures, named like the set's own: an update leaves them alone."""
    folder = root / IMAGES / "train" / "01"
    outside = root.parent / "pictures"
    shutil.copytree(folder, outside)
    (outside / "holiday.jpg").write_bytes(b"the only copy")
    before = {path.name: path.read_bytes() for path in outside.iterdir()}
    shutil.rmtree(folder)
    folder.symlink_to(outside)
    write_recipe(root, per_class=per_class)
    assert call(*BUILD).exit_code == 0
    assert {path.name: path.read_bytes() for path in outside.iterdir()} == before
    assert not folder.is_symlink()
    assert (root / stray(IMAGES) / "train" / "01").is_symlink()


def test_an_image_folder_that_is_a_link_is_refused(root: Path, call, everything) -> None:
    """The folder moved elsewhere in the root and linked: refused in one line, nothing touched; the folder itself works."""
    (root / IMAGES).rename(root / "data" / "moved")
    (root / IMAGES).symlink_to(root / "data" / "moved")
    before = everything(root)
    result = call(*BUILD)
    assert result.exit_code == 2
    assert (
        f"--images {IMAGES} is a link; give the folder that it leads to: {root.resolve()}/data/moved" in result.stderr
    )
    assert everything(root) == before


def test_an_altered_image_with_its_old_time_is_found(root: Path, built: Path, everything, call) -> None:
    """Up to date goes by checksums: one bit altered and the time put back, and the image is rendered again."""
    victim = images(root)[3]
    status = victim.stat()
    data = bytearray(victim.read_bytes())
    data[-20] ^= 1
    victim.write_bytes(data)
    os.utime(victim, ns=(status.st_atime_ns, status.st_mtime_ns))
    result = call(*BUILD)
    assert "Rendered 1 images, reused 44" in result.stdout
    assert everything(root) == everything(built)


@pytest.mark.parametrize("left", ["nothing", "temporary", "marker", "images", "old style", "replaced", "journal"])
def test_what_a_kill_leaves_at_any_moment_is_finished(root: Path, built: Path, everything, call, left: str) -> None:
    """Each state between two file operations of a build is known for Evenset's, and the same command finishes it."""
    folder = root / partial(IMAGES)
    if left == "replaced":  # killed between the two names
        (root / IMAGES).rename(root / replaced(IMAGES))
        (root / MANIFEST).unlink()
    elif left == "journal":
        (root / IMAGES / ".journal.csv").write_bytes(b"torn \xe2\x82")
    else:
        write_recipe(root, per_class=20)
        shutil.rmtree(root / IMAGES)
        (root / MANIFEST).unlink()
        folder.mkdir()
    if left == "temporary":
        (folder / "..evenset.json.tmp").write_text("{")
    if left in ("marker", "images"):
        shutil.copy(built / IMAGES / ".evenset.json", folder)
    if left == "old style":
        (folder / ".evenset.json").write_text("{}")
    if left in ("images", "old style"):
        (folder / "train" / "0").mkdir(parents=True)
        (folder / "train" / "0" / "other-v7.jpg").write_bytes(b"x")
        (folder / "train" / "0" / ".other-v8.jpg.123.tmp").write_bytes(b"x")
    result = call(*BUILD)
    assert result.exit_code == 0, result.stderr
    assert everything(root) == everything(built)


@pytest.mark.parametrize("torn", [b"", b"\xe2\x82", b'"train/0/x', b"train/0/caf\xc3", b"\0\0\0\n\n,,,,,\n"])
def test_a_journal_that_is_torn_anywhere_is_read(root: Path, built: Path, everything, call, torn: bytes) -> None:
    """Cut inside a character, a quote or a field: whole lines count, the rest is rendered again."""
    rows = contract.read(root / MANIFEST)
    rows["path"] = rows["path"].str.removeprefix(f"{IMAGES.as_posix()}/")
    lines = rows[["path", "seed", "transform", "width", "height", "sha256"]].to_csv(index=False, header=False)
    (root / IMAGES).rename(root / partial(IMAGES))
    (root / partial(IMAGES) / ".journal.csv").write_bytes(lines.encode() + torn)
    (root / MANIFEST).unlink()
    result = call(*BUILD)
    assert "Rendered" not in result.stdout
    assert everything(root) == everything(built)


def test_every_split_has_a_folder_for_every_class(tmp_path: Path, make_source, call, monkeypatch) -> None:
    """A class that the source's test lacks: warned of by class and split, counted as 0, and its folder is there, empty."""
    monkeypatch.chdir(tmp_path)
    make_source(tmp_path / "source", {"train/a": 6, "train/b": 6, "train/c": 6, "test/a": 2, "test/c": 2})
    write_recipe(tmp_path)
    result = call(*BUILD)
    assert "Warning: class b has no image in test" in result.stdout
    assert [path.name for path in sorted((IMAGES / "test").iterdir())] == ["a", "b", "c"]
    assert contract.read_card(MANIFEST)["counts"]["test"]["b"] == {"sources": 0, "images": 0, "augmented": 0}
    (IMAGES / "test" / "b").rmdir()
    assert "Up to date" in call(*BUILD).stdout
    assert (IMAGES / "test" / "b").is_dir()
    assert call("verify", MANIFEST).exit_code == 0


def test_a_folder_without_hard_links_gets_copies(tmp_path: Path) -> None:
    """Taking a file over gives the same bytes under a second name, in place of what was there."""
    (tmp_path / "a").write_bytes(b"new")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x").write_bytes(b"old")
    image_folder.take_over(tmp_path / "a", tmp_path / "b" / "x")
    assert (tmp_path / "b" / "x").read_bytes() == b"new"
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["x"]


def test_threads_that_render_at_once_change_nothing(tmp_path: Path, make_source) -> None:
    """One thread and four, with transforms of albumentations: the same bytes, and the same recorded parameters."""
    make_source(tmp_path / "source", {"NORMAL": 12, "TRUE": 12}, size=(64, 64))
    (tmp_path / "set.yaml").write_text(
        "per_class: 150\naugment: [train, val]\nsize: 48\ntransforms:\n- Rotate: {limit: 20}\n- GaussNoise\n- RandomBrightnessContrast: {p: 0.7}\n"
    )
    recipe = load(str(tmp_path / "set.yaml"))
    manifests = []
    for workers in (1, 4):
        root = tmp_path / str(workers)
        place = Place(root, tmp_path / "source", root / "images", root / "set.csv")
        with ThreadPoolExecutor(workers) as executor:
            build(
                scan(place.source, recipe.group, THREADS), recipe, place, Workers(executor, executor), lambda *_: None
            )
        manifests.append(place.manifest.read_bytes())
    assert manifests[0] == manifests[1]


def test_rows_that_break_the_contract_leave_the_set_that_is_there(root: Path, everything) -> None:
    """They are checked before anything of it gives way, not when the manifest is written."""
    place = Place(Path(), Path("source"), IMAGES, MANIFEST)
    recipe = load("set.yaml")
    done = build(scan(place.source, recipe.group, THREADS), recipe, place, Workers(THREADS, THREADS), lambda *_: None)
    rows, before = contract.read(MANIFEST), everything(root)
    shutil.copytree(IMAGES, partial(IMAGES))
    rows.loc[0, "source"] = "a//x.png"
    with pytest.raises(contract.ContractError, match=r"a//x\.png"):
        publish(place, done.build_plan, rows, set())
    shutil.rmtree(partial(IMAGES))
    assert everything(root) == before
