"""Scan + recipe + what is on disk -> the finished set: renders what is missing, and nothing else."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, as_completed
from concurrent.futures.process import BrokenProcessPool
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from augment import __version__
from augment.journal import Journal, close, images_in, is_foreign, partial, reopen
from augment.plan import Plan, plan
from augment.recipe import Recipe
from augment.render import Job, Outcome, Style, Variant, pipeline, run
from augment.scan import Rejected, Scan
from manifests import contract

# The packages whose version can change a set's bytes.
PACKAGES = ("albumentations", "albucore", "numpy", "opencv-python-headless", "pillow", "scipy")
_BATCH = 32  # images a task: small enough that a kill loses little, large enough to hide the hand-over

Progress = Callable[[int, int], None]


class BuildError(ValueError):
    """The set can't be built; the message names the place and the fix."""


class Built(NamedTuple):
    """What a build did. `counts` has the columns split, label, sources and images."""

    counts: pd.DataFrame
    rejected: list[Rejected]
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
        for folder in (self.images, partial(self.images)):
            if is_foreign(folder):
                raise BuildError(
                    f"{folder} exists and is no image set of Evenset's; move it away or give another --images"
                )


def dry_run(scanned: Scan, recipe: Recipe) -> Built:
    """What a build would make, as far as can be told without decoding."""
    pipeline(Style.of(recipe))
    planned = plan(scanned.sources, recipe)
    return Built(_count(planned.rows), sorted([*scanned.rejected, *planned.left_out]), 0, 0)


def build(scanned: Scan, recipe: Recipe, place: Place, executor: Executor, progress: Progress) -> Built:
    """Bring the set at `place` to what `recipe` makes of `scanned`.

    Args:
        scanned: the source folder's images.
        recipe: what the set is to be.
        place: where it goes.
        executor: runs the rendering; any `concurrent.futures.Executor` whose workers see the same files.
        progress: called with (images done, images in all).

    Raises:
        BuildError: the place is taken, an image can't be written, or a worker died.
        PlanError, RecipeError: as `plan` and `pipeline` have it.
    """
    place.check()
    style = {"style": json.loads(json.dumps(Style.of(recipe))), "versions": versions()}
    unreadable = _known_unreadable(scanned, place, style)
    planned = _plan(scanned, recipe, unreadable)
    if _is_up_to_date(place, _fingerprint(planned, style)):
        return Built(_count(planned.rows), _rejected(scanned, planned, unreadable), 0, len(planned.rows))
    pipeline(Style.of(recipe))
    try:
        folder = reopen(place.images, place.manifest, place.relative(place.images), style)
        seeds = dict(zip(planned.rows["path"], planned.rows["seed"], strict=True))
        with Journal(folder, seeds) as journal:
            reused = set(journal.finished)
            while failed := _render(planned.rows, recipe, place, executor, journal, progress):
                unreadable = [*unreadable, *failed]
                planned = _plan(scanned, recipe, unreadable)
        rejected = _rejected(scanned, planned, unreadable)
        rows = _manifest_rows(planned.rows, journal, place)
        close(folder, place.images, place.manifest, rows, _card(scanned, recipe, place, planned, rejected, style))
    except BrokenProcessPool:
        raise BuildError(
            "a worker died (out of memory?); run the same command again to go on, with fewer --workers"
        ) from None
    except OSError as error:
        fault = f"{error.filename or place.images}: {error.strerror or error}"
        raise BuildError(f"{fault}; mend that, then run the same command again to go on") from None
    kept = len(reused.intersection(planned.rows["path"]))
    return Built(_count(planned.rows), rejected, len(planned.rows) - kept, kept)


def versions() -> dict[str, str]:
    """Evenset's version and those of the packages that a set's bytes depend on."""
    found = {"evenset": __version__}
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _plan(scanned: Scan, recipe: Recipe, unreadable: list[Rejected]) -> Plan:
    """Plan without the sources that turned out unreadable."""
    sources = scanned.sources[~scanned.sources["source"].isin([entry.source for entry in unreadable])]
    for label in sorted(set(scanned.sources["label"]) - set(sources["label"])):
        of_label = set(scanned.sources.loc[scanned.sources["label"] == label, "source"])
        first = next(entry for entry in unreadable if entry.source in of_label)
        raise BuildError(
            f"class {label}: no readable image ({first.source}: {first.reason}); mend them or move the folder away"
        )
    return plan(sources, recipe)


def _fingerprint(planned: Plan, style: dict[str, Any]) -> str:
    """SHA-256 of all that decides the set's bytes: equal fingerprints, equal sets."""
    text = json.dumps(style, sort_keys=True) + planned.rows.to_csv(index=False, lineterminator="\n")
    return hashlib.sha256(text.encode()).hexdigest()


def _known_unreadable(scanned: Scan, place: Place, style: dict[str, Any]) -> list[Rejected]:
    """The sources that the last build could not decode and that are still the same."""
    try:
        card = contract.read_card(place.manifest)
        told = [Rejected(**entry) for entry in card["rejected"] if card["versions"] == style["versions"]]
    except (contract.ContractError, KeyError, TypeError):
        return []
    now = dict(zip(scanned.sources["source"], scanned.sources["source_sha256"], strict=True))
    return [entry for entry in told if entry.source_sha256 and now.get(entry.source) == entry.source_sha256]


def _is_up_to_date(place: Place, fingerprint: str) -> bool:
    """Whether this very set is there, and no image was touched after its manifest was written."""
    try:
        if contract.read_card(place.manifest)["fingerprint"] != fingerprint:
            return False
        written = place.manifest.stat().st_mtime_ns
        listed = contract.read(place.manifest)["path"]
        there = images_in(place.images)
    except (contract.ContractError, KeyError, OSError):
        return False
    wanted = set(listed.str.removeprefix(f"{place.relative(place.images)}/"))
    return there.keys() == wanted and max(there.values()) <= written


def _render(
    rows: pd.DataFrame, recipe: Recipe, place: Place, executor: Executor, journal: Journal, progress: Progress
) -> list[Rejected]:
    """Render what the journal doesn't have of `rows`; give back the sources that can't be used."""
    failed = []
    missing = rows[~rows["path"].isin(journal.finished.keys())]
    done = len(rows) - len(missing)
    progress(done, len(rows))
    with _cancelling(executor):
        futures = [executor.submit(_run_all, batch) for batch in _batches(missing, recipe, place)]
        for future in as_completed(futures):
            for job, outcome in future.result():
                if outcome.reason:
                    failed.append(
                        Rejected(job.source.relative_to(place.source).as_posix(), outcome.reason, job.source_sha256)
                    )
                journal.add(outcome.written)
                done += len(job.variants)
            progress(done, len(rows))
    return sorted(failed)


@contextlib.contextmanager
def _cancelling(executor: Executor) -> Iterator[None]:
    """Leave no work behind when the build is interrupted or fails."""
    try:
        yield
    except BaseException:
        executor.shutdown(wait=True, cancel_futures=True)
        raise


def _run_all(jobs: list[Job]) -> list[tuple[Job, Outcome]]:
    return [(job, run(job)) for job in jobs]


def _batches(missing: pd.DataFrame, recipe: Recipe, place: Place) -> Iterator[list[Job]]:
    """Jobs, one a source, in batches of about `_BATCH` images."""
    style, folder = Style.of(recipe), partial(place.images)
    batch: list[Job] = []
    images = 0
    for (source, sha256), of_source in missing.groupby(["source", "source_sha256"], sort=False):
        variants = tuple(map(Variant, of_source["path"], of_source["variant"].tolist(), of_source["seed"].tolist()))
        batch.append(Job(place.source / source, sha256, folder, variants, style))
        images += len(variants)
        if images >= _BATCH:
            yield batch
            batch, images = [], 0
    if batch:
        yield batch


def _manifest_rows(rows: pd.DataFrame, journal: Journal, place: Place) -> pd.DataFrame:
    """The plan and what rendering added to it, as the contract has it."""
    written = [journal.finished[path] for path in rows["path"]]
    rows = rows.assign(
        **{name: [getattr(image, name) for image in written] for name in ("transform", "width", "height", "sha256")}
    )
    rows["path"] = f"{place.relative(place.images)}/" + rows["path"]
    return rows[list(contract.COLUMNS)]


def _rejected(scanned: Scan, planned: Plan, unreadable: list[Rejected]) -> list[Rejected]:
    return sorted([*scanned.rejected, *planned.left_out, *unreadable])


def _card(
    scanned: Scan, recipe: Recipe, place: Place, planned: Plan, rejected: list[Rejected], style: dict[str, Any]
) -> dict[str, Any]:
    counts: dict[str, dict[str, dict[str, int]]] = {}
    for row in _count(planned.rows).itertuples():
        counts.setdefault(row.split, {})[row.label] = {"sources": row.sources, "images": row.images}
    return {
        "name": recipe.name,
        "notice": scanned.notice,
        "source": place.relative(place.source),
        "images": place.relative(place.images),
        "recipe": recipe.as_dict(),
        "counts": counts,
        "versions": style["versions"],
        "fingerprint": _fingerprint(planned, style),
        "rejected": [entry._asdict() for entry in rejected],
    }


def _count(rows: pd.DataFrame) -> pd.DataFrame:
    """Sources and images by split and label, in the order of the rows."""
    by_side = rows.groupby(["split", "label"], sort=False)
    return by_side.agg(sources=("source", "nunique"), images=("path", "size")).reset_index()
