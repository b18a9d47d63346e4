"""A build plan + what is on disk -> the finished set: renders what is missing, and nothing else."""

from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import BrokenExecutor, Executor
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from augment.planning.build_plan import BuildPlan, known_unreadable, make_build_plan, suspects
from augment.recipe import Recipe, RecipeError
from augment.rendering.notes import Noted, notes_of, read_notes
from augment.rendering.scheduler import rejection, render_all, unreadable_among
from augment.rendering.tasks import Style, Written
from augment.rendering.work import check
from augment.sources.layout import Rejected
from augment.sources.scan import Scan
from augment.storage import image_folder
from augment.storage.image_folder import partial
from augment.storage.journal import Journal, images_in, notes_in
from augment.storage.lock import held
from augment.storage.place import (
    BuildError,
    Place,
    Progress,
    clear,
    intact,
    is_up_to_date,
    open_partial,
    publish,
    recorded,
)
from common.remote import Location, name_in
from common.workers import Workers
from manifests import contract

_TRIAL_SECONDS = 30  # with the import of albumentations on a busy machine


def _unseen(done: int, total: int) -> None:
    """Progress that is not shown."""


class Built(NamedTuple):
    """What a build did: where, its plan, how many images it rendered and reused, what it set aside and noticed."""

    place: Place
    build_plan: BuildPlan
    rendered: int
    reused: int
    set_aside: list[str]  # relative to the image folder, where they were
    noted: list[Noted]  # on sources rendered by this build
    by_worker: dict[str, int]  # images rendered by each of a cluster's workers; by this machine's under ""


def plan_build(
    scanned: Scan,
    recipe: Recipe,
    source: Location,
    executor: Executor,
    known: Iterable[Rejected] = (),
    *,
    drop_leaks: bool = False,
    drop_conflicts: bool = False,
) -> BuildPlan:
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
        PlanError: as `make_build_plan` has it.
    """
    unreadable = {entry.source: entry for entry in known}
    doubtful = suspects(scanned.sources)
    unchecked = scanned.sources[scanned.sources["source"].isin(set(doubtful) - unreadable.keys())]
    found = unreadable_among(unchecked, Style.of(recipe), source, executor)
    faulty = [*found, *(unreadable[name] for name in doubtful if name in unreadable)]
    return _without_known(
        make_build_plan(scanned, recipe, faulty, drop_leaks=drop_leaks, drop_conflicts=drop_conflicts), unreadable
    )


def _without_known(build_plan: BuildPlan, unreadable: dict[str, Rejected]) -> BuildPlan:
    """A build plan without the sources that are known to be unreadable."""
    while faulty := [unreadable[name] for name in build_plan.planned.rows["source"].unique() if name in unreadable]:
        build_plan = build_plan.without(faulty)
    return build_plan


def dry_run(
    scanned: Scan,
    recipe: Recipe,
    source: Location,
    executor: Executor,
    progress: Progress = _unseen,
    *,
    drop_leaks: bool = False,
    drop_conflicts: bool = False,
) -> BuildPlan:
    """What `build` would make, found by decoding every source that it would use. It raises the same.

    `progress` is called with (sources decoded, sources to decode).
    """
    _check_transforms(recipe, executor)
    build_plan = plan_build(scanned, recipe, source, executor, drop_leaks=drop_leaks, drop_conflicts=drop_conflicts)
    decoded: set[str] = set()
    while True:
        sources = build_plan.scanned.sources
        wanted = sources[sources["source"].isin(set(build_plan.planned.rows["source"]) - decoded)]
        faulty = unreadable_among(wanted, Style.of(recipe), source, executor, progress)
        if not faulty:
            return build_plan
        decoded.update(wanted["source"])
        build_plan = build_plan.without(faulty)


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
    workers: Workers,
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
        workers: which hash and render.
        progress: called with (images done, images in all).
        drop_leaks: as `plan` has it.
        drop_conflicts: as `plan` has it.
        checking: called with (images hashed, images that are there to be hashed).

    Raises:
        BuildError: the place is taken, an image can't be written, or a worker died.
        LockError: another process is building this set.
        PlanError, RecipeError: as `make_build_plan` and `check` have it.
    """
    place.check()
    with held(place.images, place.manifest), one_line_faults(place.images):
        try:
            card = contract.read_card(place.manifest)
            known, earlier = known_unreadable(scanned, recipe, card), read_notes(card)
        except (contract.ContractError, TypeError):  # no set yet, or a card that was tampered with
            card, known, earlier = {}, [], set()
        scanned = _warned_of_key(scanned, card)
        build_plan = plan_build(
            scanned, recipe, place.source, workers.compute, known, drop_leaks=drop_leaks, drop_conflicts=drop_conflicts
        )
        if is_up_to_date(place, build_plan, workers.read, checking):
            return Built(place, build_plan, 0, len(build_plan.planned.rows), clear(place, build_plan), [], {})
        _check_transforms(recipe, workers.compute)  # before anything is touched
        unreadable = {entry.source: entry for entry in known}
        return _make(build_plan, unreadable, earlier, place, workers, progress, checking)


def _warned_of_key(scanned: Scan, card: dict[str, Any]) -> Scan:
    """What was scanned, with a warning where its groups were hashed with another key than those of the set behind `card`."""
    groups = card.get("groups")
    before = groups.get("key_check") if isinstance(groups, dict) else None
    if not (before and scanned.key_check) or before == scanned.key_check:
        return scanned
    said = (
        "the groups are hashed with another key than those of the set that was here, so that patients may have changed splits; "
        "a run that was trained on that set may have learnt from patients who are now in test. Give the same --group-key each time"
    )
    return scanned._replace(warnings=(*scanned.warnings, said))


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


def _make(
    build_plan: BuildPlan,
    unreadable: dict[str, Rejected],
    earlier: set[Noted],
    place: Place,
    workers: Workers,
    progress: Progress,
    checking: Progress,
) -> Built:
    """Render what is missing until a build plan is whole, then give the set its names."""
    folder = partial(place.images)
    moved = open_partial(place, build_plan)
    begun, surplus = _begun(place, build_plan.planned.rows, workers.read, checking)
    with Journal(folder, begun, notes_in(folder)) as journal:
        if image_folder.marker(place.images) == image_folder.marker(folder):
            _take_over(place, build_plan.planned.rows, journal, workers.read, checking)
            journal.add((), notes_in(place.images) | earlier)
        reused, before = set(journal.finished), set(journal.notes)
        by_worker: Counter[str] = Counter()
        while failed := _render(build_plan, place, workers.compute, journal, by_worker, progress):
            # So that its class meets its target with the others.
            build_plan = _without_known(build_plan.without(failed), unreadable)
        kept = len(reused.intersection(build_plan.planned.rows["path"]))
    rows = _manifest_rows(build_plan.planned.rows, images_in(folder), place.relative(place.images))
    moved += [*surplus, *publish(place, build_plan, rows, journal.notes)]
    noted = notes_of(rows, journal.notes - before)
    return Built(place, build_plan, len(rows) - kept, kept, moved, noted, dict(sorted(by_worker.items())))


def _planned(images: Iterable[Written], rows: pd.DataFrame) -> Iterator[Written]:
    """Those of some images that are in a plan, with the same seed."""
    seeds = dict(zip(rows["path"], rows["seed"], strict=True))
    return (image for image in images if seeds.get(image.path) == image.seed)


def _begun(place: Place, rows: pd.DataFrame, executor: Executor, checking: Progress) -> tuple[set[str], list[str]]:
    """The images of a plan that are in the partial folder as recorded; and what was set aside of its other files."""
    folder = partial(place.images)
    images = {image.path: image.sha256 for image in _planned(images_in(folder), rows)}
    surplus = image_folder.tidy_partial(place.images, images)
    return intact(folder, images, executor, checking), surplus


def _take_over(place: Place, rows: pd.DataFrame, journal: Journal, executor: Executor, checking: Progress) -> None:
    """Reuse what the set that is there has of a plan and the journal hasn't."""

    def finished() -> Iterator[Written]:  # read twice, rather than kept in memory
        images = _planned(chain(images_in(place.images), recorded(place)), rows)
        return (image for image in images if image.path not in journal.finished)

    checksums = {image.path: image.sha256 for image in finished()}
    reusable = intact(place.images, checksums, executor, checking)

    def taken() -> Iterator[Written]:
        for image in finished():
            if image.path in reusable and image.sha256 == checksums[image.path]:
                image_folder.take_over(place.images / image.path, partial(place.images) / image.path)
                yield image

    journal.add(taken())  # at once: it writes to the disk at the end of each call


def _render(
    build_plan: BuildPlan,
    place: Place,
    executor: Executor,
    journal: Journal,
    by_worker: Counter[str],
    progress: Progress,
) -> list[Rejected]:
    """Render what the journal doesn't have of a build plan; give back the sources that can't be used.

    `by_worker` counts the images.
    """
    failed = []
    rows = build_plan.planned.rows
    missing = rows[~rows["path"].isin(journal.finished)]
    done = len(rows) - len(missing)
    progress(done, len(rows))
    for task, result in render_all(missing, Style.of(build_plan.recipe), place.source, partial(place.images), executor):
        name = name_in(place.source, task.source)
        if result.reason:
            failed.append(rejection(task, result, place.source))
        notes = (Noted(name, note, result.largest, task.source_sha256) for note in result.notes)
        journal.add(result.written, notes)
        by_worker[result.worker] += len(result.written)
        done += len(task.variants)
        progress(done, len(rows))
    return sorted(failed)


def _manifest_rows(rows: pd.DataFrame, images: Iterable[Written], prefix: str) -> pd.DataFrame:
    """The plan and what rendering added to it, as the contract has it; of an image's records the last one counts."""
    numbers = {path: number for number, path in enumerate(rows["path"])}
    names = ("transform", "width", "height", "sha256")
    added: dict[str, list[Any]] = {name: [None] * len(rows) for name in names}
    for image in _planned(images, rows):
        for name in names:
            added[name][numbers[image.path]] = getattr(image, name)
    rows = rows.assign(**added)
    rows["path"] = f"{prefix}/" + rows["path"]
    return rows[list(contract.COLUMNS)]
