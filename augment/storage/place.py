"""Where a set goes: what is there already, making room for a new one, and giving that its names."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from augment.planning.build_plan import BuildPlan
from augment.rendering.image_file import MARKER
from augment.rendering.notes import Noted, notes_of
from augment.rendering.tasks import Written
from augment.sources.scan import Scan, differing, digest
from augment.storage import image_folder
from augment.storage.image_folder import JOURNAL, partial, replaced
from augment.storage.journal import Journal, images_in
from common.errors import UserError
from common.remote import Location, Remote
from manifests import contract

Progress = Callable[[int, int], None]


class BuildError(UserError):
    """The set can't be built; the message names the place and the fix."""


class Place(NamedTuple):
    """Where a set goes. `images` and `manifest` lie inside `root`, which the manifest's paths are relative to."""

    root: Path
    source: Location
    images: Path
    manifest: Path

    def relative(self, path: Location) -> str:
        """`path` as POSIX relative to the root; absolute where it lies outside of it, and a remote one's address."""
        if isinstance(path, Remote):
            return str(path)
        path, root = path.resolve(), self.root.resolve()
        return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()

    def described(self, scanned: Scan) -> dict[str, str | None]:
        """Where root, source, list and images are, as the card has it."""
        return {
            "root": contract.root_seen_from(self.manifest, self.root),
            "source": self.relative(scanned.folder),
            "list": self.relative(scanned.list_file) if scanned.list_file else None,
            "images": self.relative(self.images),
        }

    def check(self) -> None:
        """Refuse places that would put a source folder or somebody's files at risk.

        Raises:
            BuildError: --images outside --root, in the source or around it, or a folder that is not Evenset's.
        """
        images, root = self.images.resolve(), self.root.resolve()
        if not images.is_relative_to(root) or images == root:
            raise BuildError(f"--images {self.images} is not inside {root}; give a folder inside it, or another --root")
        if self.manifest.suffix != ".csv":
            raise BuildError(f"--manifest {self.manifest} should end in .csv; its card goes beside it as .json")
        source = None if isinstance(self.source, Remote) else self.source.resolve()
        for written, option in ((images, "--images"), (self.manifest.resolve(), "--manifest")):
            if source is not None and (written.is_relative_to(source) or source.is_relative_to(written)):
                raise BuildError(
                    f"{option} {written} and the source {source} overlap; the source is never written to: give --root or {option} elsewhere"
                )
        if self.manifest.exists() and not contract.is_manifest(self.manifest):
            raise BuildError(f"{self.manifest} exists and is no manifest of Evenset's; give another --manifest")
        if self.images.is_symlink():
            raise BuildError(f"--images {self.images} is a link; give the folder that it leads to: {images}")
        for folder in (self.images, partial(self.images), replaced(self.images)):
            if image_folder.is_foreign(folder):
                raise BuildError(
                    f"{folder} exists and is no image set of Evenset's; move it away or give another --images"
                )


def place_of(name: str, source: Location, root: Path, images: Path | None, manifest: Path | None) -> Place:
    """Where a set goes that is called `name`: as given, else in the root.

    Images outside the root have a root of their own, the folder that holds them and their manifest.
    """
    inside = images is None or images.resolve().is_relative_to(root.resolve())
    images = images or root / "data" / "augmented" / name
    if inside:
        return Place(root, source, images, manifest or root / "manifests" / f"{name}.csv")
    manifest = manifest or images.parent / f"{name}.csv"
    try:
        common = os.path.commonpath([images.resolve().parent, manifest.resolve().parent])
    except ValueError:
        raise BuildError(
            f"--images {images} and --manifest {manifest} are on different drives; put them on one"
        ) from None
    return Place(Path(common), source, images, manifest)


def is_up_to_date(place: Place, build_plan: BuildPlan, executor: Executor, checking: Progress) -> bool:
    """Whether this very set is there, its manifest and every image as it was written."""
    try:
        card = contract.read_card(place.manifest)
        if (card["fingerprint"], card["manifest_sha256"]) != (build_plan.fingerprint, digest(place.manifest)[0]):
            return False
    except (contract.ContractError, KeyError):
        return False
    expected = {image.path: image.sha256 for image in recorded(place)}
    if expected.keys() != set(build_plan.planned.rows["path"]):
        return False
    return len(intact(place.images, expected, executor, checking)) == len(expected)


def clear(place: Place, build_plan: BuildPlan) -> list[str]:
    """Bring all but the images of a finished set up to date; give back what was set aside of its folder.

    A file that was found since and is rejected changes no image, but it is in the card from now on.
    """
    card = contract.read_card(place.manifest)
    if (new := {**card, **build_plan.card(place.described(build_plan.scanned))}) != card:  # which keeps the notes
        contract.write(place.manifest, contract.read(place.manifest), new)
    paths = set(build_plan.planned.rows["path"])
    moved = image_folder.set_aside(place.images, place.images, image_folder.find_strays(place.images, paths))
    image_folder.make_class_folders(place.images, paths)
    (place.images / JOURNAL).unlink(missing_ok=True)  # killed at the very end, a build leaves it, and this:
    for left in (replaced(place.images), image_folder.scratch(place.images)):
        image_folder.remove(left)
    return moved


def recorded(place: Place) -> Iterator[Written]:
    """The images that the manifest of a finished set records, if it is as the build wrote it; else none."""
    try:
        if digest(place.manifest)[0] != contract.read_card(place.manifest).get("manifest_sha256"):
            return
        rows = contract.read(place.manifest)
    except contract.ContractError:
        return
    prefix = f"{place.relative(place.images)}/"
    for path, *fields in rows[list(Written._fields)].itertuples(index=False):
        if path.startswith(prefix):
            yield Written(path.removeprefix(prefix), *fields)


def intact(folder: Path, expected: Mapping[str, str], executor: Executor, checking: Progress) -> set[str]:
    """Those of some images, with their SHA-256 by path, that lie in a folder as recorded, reached without any link."""
    links = image_folder.linked(folder, expected)
    expected = {path: sha256 for path, sha256 in expected.items() if path.rpartition("/")[0] not in links}
    return expected.keys() - differing(folder, expected, executor, checking).keys()


def open_partial(place: Place, build_plan: BuildPlan) -> list[str]:
    """Make the partial folder ready for images of the build plan's making, without any of another; give what was set aside."""
    folder, text = partial(place.images), json.dumps(build_plan.making, sort_keys=True)
    moved = []
    for left in (replaced(place.images), image_folder.scratch(place.images)):
        image_folder.remove(left)
    if folder.exists() and image_folder.marker(folder) != text:
        moved = image_folder.tidy_partial(place.images, ())
        image_folder.remove(folder)
    image_folder.create(folder, text)
    return moved


def publish(place: Place, build_plan: BuildPlan, rows: pd.DataFrame, noted: set[Noted]) -> list[str]:
    """Give a whole set its names in place of the one that was there, and write card and manifest; give what was set aside.

    Killed at any moment, it leaves the old set, or all that the same build needs to come to this point again.

    Raises:
        ContractError: the rows break the contract; the old set is as it was.
    """
    contract.validate(rows, place.manifest)  # its copy is not kept: the next, in `write`, comes when this one is gone
    images, paths = place.images, build_plan.planned.rows["path"]
    moved = image_folder.tidy_partial(images, set(paths))
    image_folder.make_class_folders(partial(images), paths)
    if hasattr(os, "sync"):
        os.sync()  # so that after a power cut, too, a manifest means a complete set
    is_update = images.exists()
    if is_update:
        moved += _release(place, set(paths))
    place.manifest.unlink(missing_ok=True)
    if is_update:
        os.replace(images, replaced(images))
    os.replace(partial(images), images)
    notes = [each._asdict() for each in notes_of(rows, noted)]
    contract.write(place.manifest, rows, build_plan.card(place.described(build_plan.scanned)) | {"notes": notes})
    (images / JOURNAL).unlink(missing_ok=True)
    image_folder.remove(replaced(images))
    return moved


def _release(place: Place, paths: set[str]) -> list[str]:
    """Set aside whatever isn't the old set's in its folder, which is then Evenset's alone, to be deleted.

    The journal written there says so of the rest, should the build be killed before that.
    """
    images = place.images
    ours = {image.path for image in chain(images_in(images), recorded(place))} | paths | {MARKER, JOURNAL}
    foreign = [path for path in image_folder.list_files(images) if path not in ours or (images / path).is_symlink()]
    moved = image_folder.set_aside(images, images, foreign)
    with Journal(images) as journal:
        journal.add(recorded(place))
    return moved
