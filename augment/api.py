"""What notebooks and the command line call: `augment.build`, `augment.dry_run`."""

import os
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict, Unpack

from common.console import progress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from augment.building import Built
    from augment.planning.build_plan import BuildPlan
    from augment.recipe import Recipe
    from augment.sources.scan import Scan
    from common.workers import Workers

# The stages are imported inside the functions: `import augment` should take a blink.

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

Place = str | PathLike[str]


class Options(TypedDict, total=False):
    """What `build` and `dry_run` take beside recipe and source."""

    workers: int  # processes that render; one a core
    cluster: str | None  # a Dask scheduler's address or file; its workers take the place of processes
    seed: int | None  # takes the place of the recipe's
    on_leak: Literal["error", "drop"]  # a patient or an image in two of the source's splits
    on_conflict: Literal["error", "drop"]  # an image whose bytes stand in two classes
    group_key: Place | None  # a file of 16 bytes or more, which the patients of `group_tag` are hashed with


def build(
    recipe: str,
    source: Place,
    *,
    root: Place = ".",
    images: Place | None = None,
    manifest: Place | None = None,
    **options: Unpack[Options],
) -> "Built":
    """Build a set: split by patient, balance, augment, write images and manifest.

    Call it again and only what differs is rendered.

    Args:
        recipe: a recipe of augment/recipes by name, or the path of a YAML file.
        source: the folder of class folders, or a list of images (CSV, TSV, Parquet), here or at an address
            (s3://bucket/folder, https://host/list.csv); never written to.
        root: the folder that the manifest's paths are relative to; for images outside of it, the one that holds both.
        images: the folder for the images, on any disk; None: data/augmented/RECIPE in `root`.
        manifest: the CSV file; None: manifests/RECIPE.csv in `root`, or beside images outside of it.
        options: see Options.

    Returns:
        What was built: `place` (with `manifest` and `images`), `build_plan` (with `counts` and `rejected`), and how many
        images were rendered and reused.

    Raises:
        UserError: the source, the recipe or the place can't be used; the message says why, and the fix.
    """
    with _scanned(recipe, source, options) as (loaded, scanned, workers):
        from augment import building
        from augment.storage.place import place_of

        def path(place: Place) -> Path:
            return Path(place).absolute() if options.get("cluster") else Path(place)

        places = (path(images) if images else None, path(manifest) if manifest else None)
        place = place_of(loaded.name, scanned.folder, path(root), *places)
        with progress("checking", "images") as checking, progress("rendering", "images") as show:
            return building.build(scanned, loaded, place, workers, show, checking=checking, **_drops(options))


def dry_run(recipe: str, source: Place, **options: Unpack[Options]) -> "BuildPlan":
    """Decode the sources and plan a set as `build` does, and write nothing.

    Args:
        recipe: as `build` takes it.
        source: as `build` takes it.
        options: see Options.

    Returns:
        The plan, with `counts` (images by split and class), `rejected` and `warnings`.

    Raises:
        UserError: as `build`.
    """
    with _scanned(recipe, source, options) as (loaded, scanned, workers):
        from augment import building

        with progress("decoding", "files") as show:
            return building.dry_run(scanned, loaded, scanned.folder, workers.compute, show, **_drops(options))


def _drops(options: Options) -> dict[str, bool]:
    return {
        "drop_leaks": options.get("on_leak") == "drop",
        "drop_conflicts": options.get("on_conflict") == "drop",
    }


@contextmanager
def _scanned(name: str, source: Place, options: Options) -> "Iterator[tuple[Recipe, Scan, Workers]]":
    """The recipe, the source's images, and the workers that render."""
    from augment import recipe as recipes
    from augment.rendering.work import ALL_PACKAGES, MODULES
    from common.workers import connect

    recipe = recipes.load(str(name), options.get("seed"))
    preload = (*MODULES, "albumentations") if recipe.uses_albumentations else MODULES
    cluster = options.get("cluster")
    # Before what follows: the workers' imports run beside these.
    with connect(options.get("workers", CORES), preload, cluster, ALL_PACKAGES) as workers:
        from augment import building  # noqa: F401  # most of what takes time to import
        from augment.sources.dicom_tags import group_tag
        from augment.sources.scan import scan
        from common.remote import at

        with progress("reading", "files") as show:
            tag = group_tag(recipe, options.get("group_key"))
            place = at(source, absolute=cluster is not None)  # a cluster's workers are in folders of their own
            scanned = scan(place, recipe.group, workers.read, show, recipe.list, tag)
        yield recipe, scanned, workers
