"""A draft + what is on disk -> the finished set: renders what is missing, and nothing else."""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Executor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from augment import image_folder
from augment.dispatch import outcomes, unreadable_among
from augment.draft import Draft, draft, known_unreadable, suspects
from augment.image_folder import JOURNAL, partial, replaced
from augment.job import Style, Written, check
from augment.journal import Journal, read_journal
from augment.layout import Rejected
from augment.lock import held
from augment.recipe import Recipe, RecipeError
from augment.scan import Scan, digest, digest_all
from manifests import contract

Progress = Callable[[int, int], None]

_TRIAL_SECONDS = 30  # with the import of albumentations on a busy machine


def _unseen(done: int, total: int) -> None:
    """Progress that is not shown."""


class BuildError(ValueError):
    """The set can't be built; the message names the place and the fix."""


class Built(NamedTuple):
    """What a build did: the set's draft, how many images it rendered and reused, and the files it set aside."""

    draft: Draft
    rendered: int
    reused: int
    set_aside: list[str]  # relative to the image folder, where they were


class Place(NamedTuple):
    """Where a set goes. `images` and `manifest` lie inside `root`, which the manifest's paths are relative to."""

    root: Path
    source: Path
    images: Path
    manifest: Path

    def relative(self, path: Path) -> str:
        """`path` as POSIX relative to the root; absolute where it lies outside of it."""
        path, root = path.resolve(), self.root.resolve()
        return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()

    def check(self) -> None:
        """Refuse places that would put a source folder or somebody's files at risk.

        Raises:
            BuildError: --images outside --root, in the source or around it, or a folder that is not Evenset's.
        """
        images, source, root = self.images.resolve(), self.source.resolve(), self.root.resolve()
        if not images.is_relative_to(root) or images == root:
            raise BuildError(f"--images {self.images} is not inside {root}; give a folder inside it, or another --root")
        if self.manifest.suffix != ".csv":
            raise BuildError(f"--manifest {self.manifest} should end in .csv; its card goes beside it as .json")
        for written, option in ((images, "--images"), (self.manifest.resolve(), "--manifest")):
            if written.is_relative_to(source) or source.is_relative_to(written):
                raise BuildError(f"{option} {written} and the source {source} overlap; the source is never written to")
        if self.manifest.exists() and not contract.is_manifest(self.manifest):
            raise BuildError(f"{self.manifest} exists and is no manifest of Evenset's; give another --manifest")
        if self.images.is_symlink():
            raise BuildError(f"--images {self.images} is a link; give the folder that it leads to: {images}")
        for folder in (self.images, partial(self.images), replaced(self.images)):
            if image_folder.is_foreign(folder):
                raise BuildError(
                    f"{folder} exists and is no image set of Evenset's; move it away or give another --images"
                )


def draft_set(
    scanned: Scan,
    recipe: Recipe,
    source: Path,
    executor: Executor,
    known: Iterable[Rejected] = (),
    *,
    drop_leaks: bool = False,
    drop_conflicts: bool = False,
) -> Draft:
    """Plan a set, after decoding the sources that would join patients or contradict each other if they are images.

    Args:
        scanned: the source folder's images.
        recipe: what the set is to be.
        source: the source folder.
        executor: runs the decoding.
        known: sources that an earlier build could not decode. They are left out where they would be rendered, just as if
            it had been found out now, so that a set doesn't depend on what was built before.
        drop_leaks: as `plan` has it.
        drop_conflicts: as `plan` has it.

    Raises:
        PlanError: as `draft` has it.
    """
    unreadable = {entry.source: entry for entry in known}
    doubtful = suspects(scanned.sources)
    unchecked = scanned.sources[scanned.sources["source"].isin(set(doubtful) - unreadable.keys())]
    found = unreadable_among(unchecked, Style.of(recipe), source, executor)
    faulty = [*found, *(unreadable[name] for name in doubtful if name in unreadable)]
    return _without_known(
        draft(scanned, recipe, faulty, drop_leaks=drop_leaks, drop_conflicts=drop_conflicts), unreadable
    )


def _without_known(drafted: Draft, unreadable: dict[str, Rejected]) -> Draft:
    """A draft without the sources that are known to be unreadable."""
    while faulty := [unreadable[name] for name in drafted.planned.rows["source"].unique() if name in unreadable]:
        drafted = drafted.without(faulty)
    return drafted


def dry_run(
    scanned: Scan,
    recipe: Recipe,
    source: Path,
    executor: Executor,
    progress: Progress = _unseen,
    *,
    drop_leaks: bool = False,
    drop_conflicts: bool = False,
) -> Draft:
    """What `build` would make, found by decoding every source that it would use. It raises the same.

    `progress` is called with (sources decoded, sources to decode).
    """
    _check_transforms(recipe, executor)
    drafted = draft_set(scanned, recipe, source, executor, drop_leaks=drop_leaks, drop_conflicts=drop_conflicts)
    decoded: set[str] = set()
    while True:
        sources = drafted.scanned.sources
        wanted = sources[sources["source"].isin(set(drafted.planned.rows["source"]) - decoded)]
        faulty = unreadable_among(wanted, Style.of(recipe), source, executor, progress)
        if not faulty:
            return drafted
        decoded.update(wanted["source"])
        drafted = drafted.without(faulty)


def _check_transforms(recipe: Recipe, executor: Executor) -> None:
    """Try a recipe's transforms in a worker.

    Raises:
        RecipeError: one doesn't work, or takes so long that no set would ever be finished.
    """
    try:
        executor.submit(check, Style.of(recipe)).result(timeout=_TRIAL_SECONDS)
    except TimeoutError:
        raise RecipeError(
            f"the transforms of {recipe.name} take longer than {_TRIAL_SECONDS} s for an image of {recipe.size[0]} x "
            f"{recipe.size[1]}; lower their parameters (a blur_limit in the thousands, say)"
        ) from None


def build(
    scanned: Scan,
    recipe: Recipe,
    place: Place,
    executor: Executor,
    progress: Progress,
    *,
    drop_leaks: bool = False,
    drop_conflicts: bool = False,
    checking: Progress = _unseen,
) -> Built:
    """Bring the set at `place` to what `recipe` makes of `scanned`.

    Args:
        scanned: the source folder's images.
        recipe: what the set is to be.
        place: where it goes.
        executor: runs the rendering; any `concurrent.futures.Executor` whose workers see the same files.
        progress: called with (images done, images in all).
        drop_leaks: as `plan` has it.
        drop_conflicts: as `plan` has it.
        checking: called with (images hashed, images that are there to be hashed).

    Raises:
        BuildError: the place is taken, an image can't be written, or a worker died.
        LockError: another process is building this set.
        PlanError, RecipeError: as `draft` and `check` have it.
    """
    place.check()
    with held(place.images, place.manifest), one_line_faults(place.images):
        try:
            known = known_unreadable(scanned, recipe, contract.read_card(place.manifest))
        except (contract.ContractError, TypeError):  # no set yet, or a card that was tampered with
            known = []
        drafted = draft_set(
            scanned, recipe, place.source, executor, known, drop_leaks=drop_leaks, drop_conflicts=drop_conflicts
        )
        if _is_up_to_date(place, drafted, checking):
            return Built(drafted, 0, len(drafted.planned.rows), _clear(place, drafted))
        _check_transforms(recipe, executor)  # before anything is touched
        unreadable = {entry.source: entry for entry in known}
        return _make(drafted, unreadable, place, executor, progress, checking)


@contextmanager
def one_line_faults(images: Path) -> Iterator[None]:
    """Around the rendering of the set at `images`: what stops it from outside becomes one line with the fix.

    Raises:
        BuildError: an image can't be written, or a worker died.
    """
    try:
        yield
    except BrokenExecutor as error:
        raise BuildError(f"{error}; mend that, then run the same command again to go on") from None
    except OSError as error:
        fault = f"{error.filename2 or error.filename or images}: {error.strerror or error}"
        raise BuildError(f"{fault}; mend that, then run the same command again to go on") from None


def _is_up_to_date(place: Place, drafted: Draft, checking: Progress) -> bool:
    """Whether this very set is there, its manifest and every image as it was written."""
    try:
        card = contract.read_card(place.manifest)
        if (card["fingerprint"], card["manifest_sha256"]) != (drafted.fingerprint, digest(place.manifest)[0]):
            return False
        recorded = _recorded(place)
    except (contract.ContractError, KeyError):
        return False
    expected = [image for image in recorded if image.path]
    if {image.path for image in expected} != set(drafted.planned.rows["path"]):
        return False
    return len(_intact(place.images, expected, checking)) == len(expected)


def _clear(place: Place, drafted: Draft) -> list[str]:
    """Bring all but the images of a finished set up to date; give back what was set aside of its folder.

    A file that was found since and is rejected changes no image, but it is in the card from now on.
    """
    card, prefix = contract.read_card(place.manifest), place.relative(place.images)
    if (new := {**card, **drafted.card(place.relative(place.source), prefix)}) != card:
        contract.write(place.manifest, contract.read(place.manifest), new)
    paths = set(drafted.planned.rows["path"])
    moved = image_folder.set_aside(place.images, place.images, image_folder.find_strays(place.images, paths))
    image_folder.make_class_folders(place.images, paths)
    (place.images / JOURNAL).unlink(missing_ok=True)  # killed at the very end, a build leaves it, and this:
    image_folder.remove(replaced(place.images))
    return moved


def _recorded(place: Place) -> list[Written]:
    """The images that the manifest of a finished set records, if it is as the build wrote it; else none."""
    try:
        if digest(place.manifest)[0] != contract.read_card(place.manifest).get("manifest_sha256"):
            return []
        rows = contract.read(place.manifest)
    except contract.ContractError:
        return []
    prefix = f"{place.relative(place.images)}/"
    rows = rows[rows["path"].str.startswith(prefix)]
    rows["path"] = rows["path"].str.removeprefix(prefix)
    return [Written(*row) for row in rows[list(Written._fields)].itertuples(index=False)]


def _intact(folder: Path, images: list[Written], checking: Progress) -> list[Written]:
    """Those of some images that lie in a folder as they were recorded, reached without any link."""
    there = set(image_folder.list_files(folder))
    images = [image for image in images if image.path in there]
    digests = digest_all([f"{folder}/{image.path}" for image in images], None, checking, follow=False)
    return [image for image, (sha256, _) in zip(images, digests, strict=True) if sha256 == image.sha256]


def _make(
    drafted: Draft,
    unreadable: dict[str, Rejected],
    place: Place,
    executor: Executor,
    progress: Progress,
    checking: Progress,
) -> Built:
    """Render what is missing until a draft is whole, then give the set its names."""
    folder = partial(place.images)
    moved = _open_partial(place, drafted)
    seeds = dict(zip(drafted.planned.rows["path"], drafted.planned.rows["seed"], strict=True))

    def wanted(images: Iterable[Written]) -> list[Written]:
        return list({image.path: image for image in images if seeds.get(image.path) == image.seed}.values())

    begun = wanted(read_journal(folder))
    moved += image_folder.tidy_partial(place.images, {image.path for image in begun})
    begun = _intact(folder, begun, checking)
    with Journal(folder, begun) as journal:
        if image_folder.marker(place.images) == image_folder.marker(folder):
            finished = wanted([*read_journal(place.images), *_recorded(place)])
            finished = [image for image in finished if image.path not in journal.finished]
            for image in (reusable := _intact(place.images, finished, checking)):
                image_folder.take_over(place.images / image.path, folder / image.path)
            journal.add(reusable)
        reused = set(journal.finished)
        while failed := _render(drafted, place, executor, journal, progress):
            drafted = _without_known(
                drafted.without(failed), unreadable
            )  # so its class meets its target with the others
    rows = _manifest_rows(drafted.planned.rows, journal, place.relative(place.images))
    moved += _publish(place, drafted, rows)
    kept = len(reused.intersection(drafted.planned.rows["path"]))
    return Built(drafted, len(rows) - kept, kept, moved)


def _open_partial(place: Place, drafted: Draft) -> list[str]:
    """Make the partial folder ready for images of the draft's making, without any of another; give what was set aside."""
    folder, text = partial(place.images), json.dumps(drafted.making, sort_keys=True)
    moved = []
    image_folder.remove(replaced(place.images))
    if folder.exists() and image_folder.marker(folder) != text:
        moved = image_folder.tidy_partial(place.images, ())
        image_folder.remove(folder)
    image_folder.create(folder, text)
    return moved


def _render(drafted: Draft, place: Place, executor: Executor, journal: Journal, progress: Progress) -> list[Rejected]:
    """Render what the journal doesn't have of a draft; give back the sources that can't be used."""
    failed = []
    rows = drafted.planned.rows
    missing = rows[~rows["path"].isin(journal.finished.keys())]
    done = len(rows) - len(missing)
    progress(done, len(rows))
    for job, outcome in outcomes(missing, Style.of(drafted.recipe), place.source, partial(place.images), executor):
        if outcome.reason:
            name = job.source.relative_to(place.source).as_posix()
            failed.append(Rejected(name, outcome.reason, job.source_sha256 if outcome.unreadable else ""))
        journal.add(outcome.written)
        done += len(job.variants)
        progress(done, len(rows))
    return sorted(failed)


def _manifest_rows(rows: pd.DataFrame, journal: Journal, prefix: str) -> pd.DataFrame:
    """The plan and what rendering added to it, as the contract has it."""
    written = [journal.finished[path] for path in rows["path"]]
    added = ("transform", "width", "height", "sha256")
    rows = rows.assign(**{name: [getattr(image, name) for image in written] for name in added})
    rows["path"] = f"{prefix}/" + rows["path"]
    return rows[list(contract.COLUMNS)]


def _publish(place: Place, drafted: Draft, rows: pd.DataFrame) -> list[str]:
    """Give a whole set its names in place of the one that was there, and write card and manifest; give what was set aside.

    Killed at any moment, it leaves the old set, or all that the same build needs to come to this point again.
    """
    images, paths = place.images, set(drafted.planned.rows["path"])
    moved = image_folder.tidy_partial(images, paths)
    image_folder.make_class_folders(partial(images), paths)
    if hasattr(os, "sync"):
        os.sync()  # so that after a power cut, too, a manifest means a complete set
    if images.exists():
        moved += _release(place, paths)
        place.manifest.unlink(missing_ok=True)
        os.replace(images, replaced(images))
    place.manifest.unlink(missing_ok=True)
    os.replace(partial(images), images)
    prefix = place.relative(images)
    contract.write(place.manifest, rows, drafted.card(place.relative(place.source), prefix))
    (images / JOURNAL).unlink(missing_ok=True)
    image_folder.remove(replaced(images))
    return moved


def _release(place: Place, paths: set[str]) -> list[str]:
    """Set aside whatever isn't the old set's in its folder, which is then Evenset's alone, to be deleted.

    The journal written there says so of the rest, should the build be killed before that.
    """
    images, recorded = place.images, [*read_journal(place.images), *_recorded(place)]
    ours = {image.path for image in recorded} | paths | {image_folder.MARKER, JOURNAL}
    foreign = [path for path in image_folder.list_files(images) if path not in ours or (images / path).is_symlink()]
    moved = image_folder.set_aside(images, images, foreign)
    with Journal(images, ()) as journal:
        journal.add(recorded)
    return moved
