"""A draft + what is on disk -> the finished set: renders what is missing, and nothing else."""

from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from augment.dispatch import outcomes
from augment.draft import Draft, draft, known_unreadable
from augment.job import Style, check
from augment.journal import JOURNAL, Journal, close, files_in, is_foreign, partial, reopen
from augment.lock import held
from augment.recipe import Recipe
from augment.scan import Rejected, Scan, digest
from manifests import contract

Progress = Callable[[int, int], None]


class BuildError(ValueError):
    """The set can't be built; the message names the place and the fix."""


class Built(NamedTuple):
    """What a build did: the set's draft, and how many images it rendered and reused."""

    draft: Draft
    rendered: int
    reused: int


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
        for folder in (self.images, partial(self.images)):
            if is_foreign(folder):
                raise BuildError(
                    f"{folder} exists and is no image set of Evenset's; move it away or give another --images"
                )


def dry_run(scanned: Scan, recipe: Recipe, executor: Executor, *, drop_leaks: bool = False) -> Draft:
    """What `build` would make, as far as can be told without decoding. It raises the same."""
    executor.submit(check, Style.of(recipe)).result()
    return draft(scanned, recipe, drop_leaks=drop_leaks)


def build(
    scanned: Scan, recipe: Recipe, place: Place, executor: Executor, progress: Progress, *, drop_leaks: bool = False
) -> Built:
    """Bring the set at `place` to what `recipe` makes of `scanned`.

    Args:
        scanned: the source folder's images.
        recipe: what the set is to be.
        place: where it goes.
        executor: runs the rendering; any `concurrent.futures.Executor` whose workers see the same files.
        progress: called with (images done, images in all).
        drop_leaks: as `plan` has it.

    Raises:
        BuildError: the place is taken, an image can't be written, or a worker died.
        LockError: another process is building this set.
        PlanError, RecipeError: as `draft` and `check` have it.
    """
    place.check()
    with held(place.images, place.manifest):
        try:
            unreadable = known_unreadable(scanned, recipe, contract.read_card(place.manifest))
        except (contract.ContractError, TypeError):  # no set yet, or a card that was tampered with
            unreadable = []
        drafted = draft(scanned, recipe, unreadable, drop_leaks=drop_leaks)
        if _is_up_to_date(place, drafted):
            (place.images / JOURNAL).unlink(missing_ok=True)  # killed at the very end, a build leaves it
            return Built(drafted, 0, len(drafted.planned.rows))
        with told_in_one_line(place.images):
            executor.submit(
                check, Style.of(recipe)
            ).result()  # a recipe that can't work is told before anything is touched
            return _make(drafted, place, executor, progress)


@contextmanager
def told_in_one_line(images: Path) -> Iterator[None]:
    """Around the rendering of the set at `images`: what stops it from outside is told with the fix.

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


def _is_up_to_date(place: Place, drafted: Draft) -> bool:
    """Whether this very set is there, its manifest as it was written, and no image touched since."""
    try:
        card = contract.read_card(place.manifest)
        written = place.manifest.stat().st_mtime_ns
        if (card["fingerprint"], card["manifest_sha256"]) != (drafted.fingerprint, digest(place.manifest)[0]):
            return False
        there = files_in(place.images)
    except (contract.ContractError, KeyError, OSError):
        return False
    return there.keys() == set(drafted.planned.rows["path"]) and max(there.values()) <= written


def _make(drafted: Draft, place: Place, executor: Executor, progress: Progress) -> Built:
    """Render what is missing until a draft is whole, then give the set its names."""
    prefix = place.relative(place.images)
    folder = reopen(place.images, place.manifest, prefix, drafted.making)
    seeds = dict(zip(drafted.planned.rows["path"], drafted.planned.rows["seed"], strict=True))
    with Journal(folder, seeds) as journal:
        reused = set(journal.finished)
        while failed := _render(drafted, place, executor, journal, progress):
            drafted = drafted.without(failed)  # and so its class meets its target with the others
    rows = _manifest_rows(drafted.planned.rows, journal, prefix)
    close(folder, place.images, place.manifest, rows, drafted.card(place.relative(place.source), prefix))
    kept = len(reused.intersection(drafted.planned.rows["path"]))
    return Built(drafted, len(rows) - kept, kept)


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
