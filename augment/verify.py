"""A set against its manifest: what is missing, altered or stray, and its repair from the sources."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from augment.building import build, one_line_faults, plan_build
from augment.planning.build_plan import known_unreadable, versions
from augment.recipe import Recipe, RecipeError, resolve
from augment.rendering.scheduler import render_all
from augment.rendering.tasks import Style
from augment.sources.scan import differing, digest, scan
from augment.storage import image_folder
from augment.storage.image_folder import JOURNAL
from augment.storage.lock import held
from augment.storage.place import Place
from common.errors import UserError
from common.remote import at
from common.workers import Workers
from manifests import contract

Progress = Callable[[int, int], None]


class VerifyError(UserError):
    """A set can't be verified or repaired; the message names what stands in the way and the fix."""


class Fault(NamedTuple):
    """A file that is not as the manifest has it. `kind` is missing, altered or stray."""

    kind: str
    path: str  # relative to the root
    detail: str


def verify(manifest: Path, root: Path, executor: Executor, progress: Progress) -> list[Fault]:
    """Hash every image of a set and list what is not as the manifest has it, sorted.

    A manifest that is no longer what the build wrote is a fault itself, and nothing is called a stray; where it breaks
    off or can't be read, the images of the lines before that are checked.

    Raises:
        ContractError: there is no card that says what should be there.
    """
    card = contract.read_card(manifest)
    if not manifest.exists():
        return [Fault("missing", manifest.as_posix(), "the manifest")]
    try:
        rows = contract.read(manifest)
    except contract.ContractError as error:
        before = contract.read_before(error, manifest)
        detail = f"{error}; of the images, those of the {len(before):,} lines before it were checked"
        return [Fault("altered", manifest.as_posix(), detail), *_faulty(before, root, executor, progress)]
    faults = _faulty(rows, root, executor, progress)
    images = _images(card, manifest)
    if digest(manifest)[0] != card.get("manifest_sha256"):  # what it doesn't list may be the set's all the same
        faults.append(Fault("altered", manifest.as_posix(), "the manifest is not as the build wrote it"))
        return sorted(faults)
    paths = set(rows["path"].str.removeprefix(f"{images}/"))
    strays = image_folder.find_strays(root / images, paths)
    faults += [Fault("stray", f"{images}/{path}", "not in the manifest") for path in strays]
    if os.path.lexists(root / images / JOURNAL):
        faults.append(Fault("stray", f"{images}/{JOURNAL}", "left by a build that was killed"))
    return sorted(faults)


def _faulty(rows: pd.DataFrame, root: Path, executor: Executor, progress: Progress) -> list[Fault]:
    """The images of some rows that are missing or altered, sorted."""
    links = image_folder.linked(root, rows["path"])
    expected = dict(zip(rows["path"], rows["sha256"], strict=True))
    faults = [
        Fault("altered", path, f"{links[folder]} is a symbolic link")
        for path in (expected if links else ())
        if (folder := path.rpartition("/")[0]) in links  # a build never writes through one
    ]
    for fault in faults:
        del expected[fault.path]
    for path, (sha256, error, _) in differing(root, expected, executor, progress).items():
        missing = not os.path.lexists(f"{root}/{path}")
        detail = "" if missing else error or f"SHA-256 is {sha256[:12]}..., not {expected[path][:12]}..."
        faults.append(Fault("missing" if missing else "altered", path, detail))
    return sorted(faults)


def repair(
    manifest: Path, root: Path, source: str | None, faults: list[Fault], workers: Workers, progress: Progress
) -> list[Fault]:
    """Mend what `verify` found, and give back what could not be mended, each with the reason.

    Missing and altered images are rendered again from the sources and take their place only if their bytes are
    the manifest's; strays are moved to `.NAME.stray` beside the image folder. A damaged manifest, or an image folder
    that is gone, is made again by building the set from its card.

    Raises:
        VerifyError: the source folder is gone, or the set can't be built again as it was.
        BuildError: the image folder is none, an image can't be written, or a worker died.
        LockError: another process is at work on the set.
    """
    card = contract.read_card(manifest)
    recorded = str(card.get("source", ""))
    found = at(source or (recorded if "://" in recorded else root / recorded))
    if isinstance(found, Path) and not found.is_dir():
        raise VerifyError(f"{found}: the set's source folder is not there; give --source")
    place = Place(root, found, root / _images(card, manifest), manifest)
    place.check()
    if not place.images.exists() or any(fault.path == manifest.as_posix() for fault in faults):
        _rebuild(place, card, workers, progress)
        return []
    kinds = {fault.path: fault.kind for fault in faults}
    for path in kinds:  # a manifest may come from anyone
        if not path.startswith(f"{_images(card, manifest)}/"):
            raise VerifyError(f"{path} is not inside {place.images}, the set's folder, so it is left as it is")
    with held(place.images, manifest), one_line_faults(place.images):
        for path in [path for path, kind in kinds.items() if kind == "stray"]:
            _take_out(root / path, place.images)
        for path in kinds:
            if not (root / path).parent.resolve().is_relative_to(place.images.resolve()):
                raise VerifyError(f"{path} is not inside {place.images}, the set's folder, so it is left as it is")
        image_folder.remove_empty_folders(place.images)  # one may have the name of an image
        rows = contract.read(manifest)
        again = _rendered_again(rows[rows["path"].isin(kinds)], place, card, workers.compute, progress)
        left = sorted(Fault(kinds[path], path, reason) for path, reason in again)
        prefix = _images(card, manifest)
        image_folder.make_class_folders(place.images, rows["path"].str.removeprefix(f"{prefix}/"))
        return left


def _take_out(path: Path, images: Path) -> None:
    """Set a stray aside, or delete the journal that a killed build left."""
    if path == images / JOURNAL:
        path.unlink(missing_ok=True)
    else:
        image_folder.set_aside(images, images, [path.relative_to(images).as_posix()])


def _rendered_again(
    rows: pd.DataFrame, place: Place, card: dict[str, Any], executor: Executor, progress: Progress
) -> Iterator[tuple[str, str]]:
    """Render rows of a manifest, put those in place that come out as recorded, and yield the others with the reason."""
    scratch = image_folder.scratch(place.images)
    if image_folder.is_foreign(scratch):
        raise VerifyError(f"{scratch} exists and is not Evenset's; move it away")
    image_folder.remove(scratch)  # what a killed repair left
    image_folder.create(scratch, "{}")
    expected = dict(zip(rows["path"], rows["sha256"], strict=True))
    done = 0
    try:
        for task, result in render_all(rows, Style.of(_recipe(card)), place.source, scratch, executor):
            for variant in task.variants if result.reason else ():
                yield variant.path, f"{task.source}: {result.reason}"
            for image in result.written:
                if image.sha256 == expected[image.path]:
                    (place.root / image.path).parent.mkdir(parents=True, exist_ok=True)
                    os.replace(scratch / image.path, place.root / image.path)
                else:
                    yield image.path, f"comes out otherwise: {_version_change(card)}"
            done += len(task.variants)
            progress(done, len(rows))
    finally:
        image_folder.remove(scratch)


def _rebuild(place: Place, card: dict[str, Any], workers: Workers, progress: Progress) -> None:
    """Build a set again from its card, if that gives just the same set; what is not of it is set aside."""
    recipe = _recipe(card)
    leaks, conflicts = card.get("on_leak") == "drop", card.get("on_conflict") == "drop"
    listed = card.get("list")
    source = place.source
    if isinstance(listed, str):
        source = at(listed if "://" in listed else place.root / listed)
    if recipe.group_tag:
        raise VerifyError(f"{place.manifest}: its patients are hashed with a key; build the set anew, with --group-key")
    scanned = scan(source, recipe.group, workers.read, list_format=recipe.list)
    try:
        unreadable = known_unreadable(scanned, recipe, card)
    except TypeError as error:  # the card was tampered with
        raise VerifyError(f"the card's rejected can't be used: {error}") from None
    build_plan = plan_build(
        scanned, recipe, place.source, workers.compute, unreadable, drop_leaks=leaks, drop_conflicts=conflicts
    )
    if build_plan.fingerprint != card.get("fingerprint"):
        changed = "the sources have changed" if card.get("versions") == build_plan.versions else _version_change(card)
        raise VerifyError(f"{place.manifest}: can't be made again as it was: {changed}; build the set anew instead")
    build(scanned, recipe, place, workers, progress, drop_leaks=leaks, drop_conflicts=conflicts)


def _version_change(card: dict[str, Any]) -> str:
    """Which package versions differ from the card's, in words."""
    then = card.get("versions")
    then = then if isinstance(then, dict) else {}
    now = versions(_recipe(card), has_dicom="pydicom" in then)
    changed = [
        f"{name} was {then.get(name, 'absent')}, is {now.get(name, 'absent')}"
        for name in sorted({*then, *now})
        if then.get(name) != now.get(name)
    ]
    return "; ".join(changed) or "the package versions are the same, so another processor or build of one of them"


def _recipe(card: dict[str, Any]) -> Recipe:
    try:
        settings = {"augment": ["train", "val"], **card["recipe"]}  # of a version whose cards didn't say
        return resolve(str(settings.pop("name")), settings, "the card's recipe")
    except (KeyError, TypeError, RecipeError) as error:
        raise VerifyError(f"the card's recipe can't be used: {error}") from None


def image_folder_of(manifest: Path, root: Path) -> Path:
    """The image folder of the set behind a manifest."""
    return root / _images(contract.read_card(manifest), manifest)


def _images(card: dict[str, Any], manifest: Path) -> str:
    images = card.get("images")
    if not isinstance(images, str) or not contract.is_inside(images):
        raise VerifyError(f"{contract.card_path(manifest)}: images is {images!r}, expected a folder inside the root")
    return images
