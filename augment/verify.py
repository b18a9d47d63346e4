"""A set against its manifest: what is missing, altered or stray, and its repair from the sources."""

import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from augment.build import Place, build, told_in_one_line
from augment.dispatch import outcomes
from augment.draft import draft, known_unreadable, versions
from augment.job import Style
from augment.journal import files_in
from augment.lock import held
from augment.recipe import Recipe, RecipeError, resolve
from augment.scan import digest, digest_all, scan
from manifests import contract

Progress = Callable[[int, int], None]


class VerifyError(ValueError):
    """A set can't be verified or repaired; the message names what stands in the way and the fix."""


class Fault(NamedTuple):
    """A file that is not as the manifest has it. `kind` is missing, altered or stray."""

    kind: str
    path: str  # relative to the root
    detail: str


def verify(manifest: Path, root: Path, workers: int, progress: Progress) -> list[Fault]:
    """Hash every image of a set and list what is not as the manifest has it, sorted.

    A manifest that is no longer what the build wrote is a fault itself; where it breaks off or can't be read, the
    images of the lines before that are checked, and nothing is called a stray.

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
        return [Fault("altered", manifest.as_posix(), detail), *_faulty(before, root, workers, progress)]
    faults = _faulty(rows, root, workers, progress)
    if digest(manifest)[0] != card.get("manifest_sha256"):
        faults.append(Fault("altered", manifest.as_posix(), "the manifest is not as the build wrote it"))
    images = _images(card, manifest)
    strays = {f"{images}/{path}" for path in files_in(root / images)} - set(rows["path"])
    return sorted([*faults, *(Fault("stray", path, "not in the manifest") for path in strays)])


def _faulty(rows: pd.DataFrame, root: Path, workers: int, progress: Progress) -> list[Fault]:
    """The images of some rows that are missing or altered, sorted."""
    faults = []
    found = digest_all([f"{root}/{path}" for path in rows["path"]], workers, progress)
    for path, expected, (sha256, fault) in zip(rows["path"], rows["sha256"], found, strict=True):
        if sha256 != expected:
            missing = not os.path.lexists(f"{root}/{path}")
            detail = "" if missing else fault or f"SHA-256 is {sha256[:12]}..., not {expected[:12]}..."
            faults.append(Fault("missing" if missing else "altered", path, detail))
    return sorted(faults)


def repair(
    manifest: Path, root: Path, source: Path | None, faults: list[Fault], executor: Executor, progress: Progress
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
    source = source or root / str(card.get("source", ""))
    if not source.is_dir():
        raise VerifyError(f"{source}: the set's source folder is not there; give --source")
    place = Place(root, source, root / _images(card, manifest), manifest)
    place.check()
    if not place.images.exists() or any(fault.path == manifest.as_posix() for fault in faults):
        _rebuild(place, card, executor, progress)
        return []
    for fault in faults:  # a manifest may come from anyone
        if not (root / fault.path).parent.resolve().is_relative_to(place.images.resolve()):
            raise VerifyError(f"{fault.path} is not inside {place.images}, the set's folder, so it is left as it is")
    kinds = {fault.path: fault.kind for fault in faults}
    with held(place.images, manifest), told_in_one_line(place.images):
        for path, kind in kinds.items():
            if kind == "stray":
                _set_aside(root / path, place.images)
        rows = contract.read(manifest)
        again = _rendered_again(rows[rows["path"].isin(kinds)], place, card, executor, progress)
        left = sorted(Fault(kinds[path], path, reason) for path, reason in again)
        if not left:
            manifest.touch()  # `build` takes images that are younger than the manifest for touched
        return left


def _rendered_again(
    rows: pd.DataFrame, place: Place, card: dict[str, Any], executor: Executor, progress: Progress
) -> Iterator[tuple[str, str]]:
    """Render rows of a manifest, put those in place that come out as recorded, and yield the others with the reason."""
    scratch = place.images.with_name(f".{place.images.name}.repair")
    expected = dict(zip(rows["path"], rows["sha256"], strict=True))
    done = 0
    try:
        for job, outcome in outcomes(rows, Style.of(_recipe(card)), place.source, scratch, executor):
            for variant in job.variants if outcome.reason else ():
                yield variant.path, f"{job.source}: {outcome.reason}"
            for image in outcome.written:
                if image.sha256 == expected[image.path]:
                    (place.root / image.path).parent.mkdir(parents=True, exist_ok=True)
                    os.replace(scratch / image.path, place.root / image.path)
                else:
                    yield image.path, f"comes out otherwise: {_version_change(card)}"
            done += len(job.variants)
            progress(done, len(rows))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _rebuild(place: Place, card: dict[str, Any], executor: Executor, progress: Progress) -> None:
    """Build a set again from its card, if that gives just the same set; what is not of it is set aside."""
    recipe = _recipe(card)
    drop_leaks = card.get("on_leak") == "drop"
    scanned = scan(place.source, recipe.group, os.cpu_count() or 1)
    try:
        unreadable = known_unreadable(scanned, recipe, card)
    except TypeError as error:  # the card was tampered with
        raise VerifyError(f"the card's rejected can't be used: {error}") from None
    drafted = draft(scanned, recipe, unreadable, drop_leaks=drop_leaks)
    if drafted.fingerprint != card.get("fingerprint"):
        changed = "the sources have changed" if card.get("versions") == versions() else _version_change(card)
        raise VerifyError(f"{place.manifest}: can't be made again as it was: {changed}; build the set anew instead")
    with held(place.images, place.manifest), told_in_one_line(place.images):
        for path in files_in(place.images).keys() - set(drafted.planned.rows["path"]):
            _set_aside(place.images / path, place.images)
        place.manifest.unlink(missing_ok=True)  # or, with its checksum in the card, it would pass for this very set's
    build(scanned, recipe, place, executor, progress, drop_leaks=drop_leaks)


def _version_change(card: dict[str, Any]) -> str:
    """Which package versions differ from the card's, in words."""
    then, now = card.get("versions"), versions()
    then = then if isinstance(then, dict) else {}
    changed = [
        f"{name} was {then.get(name, 'absent')}, is {now.get(name, 'absent')}"
        for name in sorted({*then, *now})
        if then.get(name) != now.get(name)
    ]
    return "; ".join(changed) or "the package versions are the same, so another processor or build of one of them"


def _recipe(card: dict[str, Any]) -> Recipe:
    try:
        settings = dict(card["recipe"])
        return resolve(str(settings.pop("name")), settings, "the card's recipe")
    except (KeyError, TypeError, RecipeError) as error:
        raise VerifyError(f"the card's recipe can't be used: {error}") from None


def _images(card: dict[str, Any], manifest: Path) -> str:
    images = card.get("images")
    if not isinstance(images, str) or not contract.is_inside(images):
        raise VerifyError(f"{contract.card_path(manifest)}: images is {images!r}, expected a folder inside the root")
    return images


def _set_aside(stray: Path, images: Path) -> None:
    """Move a file that is not of the set out of its folders; nothing is deleted."""
    aside = images.with_name(f".{images.name}.stray") / stray.relative_to(images)
    aside.parent.mkdir(parents=True, exist_ok=True)
    while aside.exists():
        aside = aside.with_name(f"{aside.name}.again")
    os.replace(stray, aside)
    with suppress(OSError):
        stray.parent.rmdir()  # only where it is empty: a class folder too many is a class too many for Keras
