"""The command line of `augment`: wires the stages together, prints, and turns errors into one line."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from augment.draft import Draft
    from augment.verify import Fault

# The stages are imported inside the commands: `--help` should answer in a blink.

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Build class-balanced, physically augmented image sets, with a manifest that says where each image came from.

    \b
    Example:
      python -m augment build --recipe augment1 --source data/chest_xray
    """


@main.command()
@click.option(
    "--recipe",
    "recipe_name",
    required=True,
    metavar="NAME_OR_FILE",
    help="A recipe of augment/recipes, or a YAML file.",
)
@click.option(
    "--source", required=True, type=click.Path(path_type=Path), help="The folder of class folders; never written to."
)
@click.option(
    "--images", type=click.Path(path_type=Path), help="Where the images go.  [default: data/augmented/RECIPE]"
)
@click.option(
    "--manifest", type=click.Path(path_type=Path), help="Where the manifest goes.  [default: manifests/RECIPE.csv]"
)
@click.option(
    "--root",
    default=".",
    type=click.Path(path_type=Path),
    help="What the manifest's paths are relative to.",
    show_default=True,
)
@click.option(
    "--workers", default=CORES, type=click.IntRange(1, 1024), help="Processes that render.", show_default="one a core"
)
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="Takes the place of the recipe's seed.")
@click.option(
    "--on-leak",
    type=click.Choice(["error", "drop"]),
    default="error",
    show_default=True,
    help="What to do with a patient or an image in two of the source's splits: stop, or leave it out of train.",
)
@click.option("--dry-run", "only_say", is_flag=True, help="Say what would be built, and write nothing.")
def build(
    recipe_name: str,
    source: Path,
    images: Path | None,
    manifest: Path | None,
    root: Path,
    workers: int,
    seed: int | None,
    on_leak: str,
    only_say: bool,
) -> None:
    """Build a set: split by patient, balance, augment, write images and manifest.

    SOURCE holds CLASS/* or {train,val,test}/CLASS/*. Run it again and only what differs is rendered.

    \b
    Example:
      python -m augment build --recipe augment1 --source data/chest_xray --dry-run
      python -m augment build --recipe augment1 --source data/chest_xray
    """
    with _one_line_errors("Run the same command again to go on from here."):
        from augment import recipe as recipes
        from augment.pool import pool
        from augment.scan import scan

        recipe = recipes.load(recipe_name, seed)
        drop_leaks = on_leak == "drop"
        images = images or root / "data" / "augmented" / recipe.name
        manifest = manifest or root / "manifests" / f"{recipe.name}.csv"
        with pool(workers) as executor:
            from augment.build import Place, dry_run
            from augment.build import build as build_set

            with _progress("reading", "files") as progress:
                scanned = scan(source, recipe.group, workers, progress)
            if only_say:
                _print_draft(dry_run(scanned, recipe, executor, drop_leaks=drop_leaks))
                click.echo("Dry run: nothing was written.")
                return
            place = Place(root, source, images, manifest)
            with _progress("rendering", "images") as progress:
                built = build_set(scanned, recipe, place, executor, progress, drop_leaks=drop_leaks)
    _print_draft(built.draft)
    if built.rendered:
        click.echo(f"Rendered {built.rendered:,} images, reused {built.reused:,}: {images}")
    else:
        click.echo(f"Up to date, nothing to render: {images}")
    click.echo(f"Manifest: {manifest}")


@main.command()
@click.argument("manifest", type=click.Path(path_type=Path))
@click.option("--repair", is_flag=True, help="Render what is missing or altered again; move strays aside.")
@click.option("--source", type=click.Path(path_type=Path), help="The source folder.  [default: the card's]")
@click.option(
    "--root",
    default=".",
    type=click.Path(path_type=Path),
    help="What the manifest's paths are relative to.",
    show_default=True,
)
@click.option(
    "--workers",
    default=CORES,
    type=click.IntRange(1, 1024),
    help="Threads that hash, processes that render.",
    show_default="one a core",
)
def verify(manifest: Path, repair: bool, source: Path | None, root: Path, workers: int) -> None:
    """Check every image of MANIFEST against its checksum; exit code 1 if anything is missing, altered or stray.

    With --repair, images take their place only if they come out byte for byte as the manifest has them.

    \b
    Example:
      python -m augment verify manifests/augment1.csv
      python -m augment verify manifests/augment1.csv --repair
    """
    with _one_line_errors("Run the same command again."):
        from augment import verify as stage
        from augment.pool import pool

        with _progress("hashing", "images") as progress:
            faults = stage.verify(manifest, root, workers, progress)
        _print_faults(faults)
        if repair and faults:
            with pool(workers) as executor, _progress("repairing", "images") as progress:
                left = stage.repair(manifest, root, source, faults, executor, progress)
            click.echo(f"Repaired {len(faults) - len(left):,} of {len(faults):,}.")
            faults = left
            _print_faults(faults)
    if faults:
        if not repair:
            click.echo("Repair it: the same command with --repair")
        sys.exit(1)
    click.echo(f"{manifest}: every image is as recorded.")


@main.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--group", help="Who an image shows: a regular expression on file names.  [default: Kermany's naming]")
@click.option(
    "--distance",
    default=20,
    type=click.IntRange(0, 128),
    show_default=True,
    help="Bits of 256 by which the perceptual hashes of near-identical images differ.",
)
@click.option(
    "--max-pixels", type=click.IntRange(1), help="An image that declares more is not decoded.  [default: 178,956,970]"
)
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), help="Write all findings, with every name, to this file."
)
@click.option(
    "--strict", is_flag=True, help="Exit code 1 if a file is unreadable, or a patient or an image is in two splits."
)
@click.option(
    "--workers", default=CORES, type=click.IntRange(1, 1024), help="Threads that decode.", show_default="one a core"
)
def audit(
    source: Path,
    group: str | None,
    distance: int,
    max_pixels: int | None,
    json_file: Path | None,
    strict: bool,
    workers: int,
) -> None:
    """Look at SOURCE before building: counts, formats, unreadable files, leaks between splits, look-alikes.

    \b
    Example:
      python -m augment audit data/chest_xray
      python -m augment audit data/chest_xray --group 'person(\\d+)'  # by number alone
    """
    with _one_line_errors():
        import json

        from augment import audit as stage
        from augment.recipe import KERMANY, resolve
        from manifests.contract import write_atomically
        from manifests.pixels import MAX_PIXELS

        pattern = resolve("audit", {"group": group or KERMANY}, "--group").group
        with _progress("looking", "images") as progress:
            found = stage.audit(source, pattern, distance, max_pixels or MAX_PIXELS, workers, progress)
        if json_file:
            write_atomically(json_file, json.dumps(found.report, indent=2, ensure_ascii=False) + "\n")
    _print_audit(found.report)
    if strict and (found.leaks or found.report["unreadable"]):
        sys.exit(1)


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--seed", default=0, type=click.IntRange(0, 2**63 - 1), help="What the phantoms are drawn from.", show_default=True
)
def sample(folder: Path, seed: int) -> None:
    """Draw a small synthetic set of chest phantoms into FOLDER, to try Evenset without any download.

    \b
    Example:
      python -m augment sample data/sample
    """
    with _one_line_errors():
        from augment.sample import draw

        click.echo(f"Drew {draw(folder, seed)} synthetic chest phantoms (no X-rays, no patients): {folder}")


class _Refused(click.ClickException):
    """What the user can mend. One line: click's own UsageError would print the usage above it."""

    exit_code = 2


@contextmanager
def _one_line_errors(resume: str = "") -> Iterator[None]:
    """What the user can mend is told in one line, with exit code 2; SIGTERM ends a command as Ctrl-C does."""
    interrupted = False

    def interrupt(*_: object) -> None:
        nonlocal interrupted
        interrupted = True
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        if interrupted:  # whatever became of it on its way: pydantic, being imported, makes a SchemaError of it
            click.echo(f"Interrupted. {resume}", err=True)
            sys.exit(130)
        if isinstance(error, OSError) and error.filename is not None:
            raise _Refused(
                f"{error.filename2 or error.filename}: {error.strerror}; mend that, then run the same command again"
            ) from None
        if (  # every stage's own errors are ValueErrors
            not isinstance(error, (ValueError, FileExistsError))
            or type(error).__module__.partition(".")[0] not in ("augment", "manifests", "builtins")
            or type(error) is ValueError
        ):
            raise  # nobody's message to a user: a bug
        raise _Refused(str(error)) from None


@contextmanager
def _progress(what: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, nothing elsewhere."""
    from tqdm import tqdm

    with tqdm(desc=what, unit=f" {unit}", disable=None, leave=False, dynamic_ncols=True) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show


def _print_draft(drafted: "Draft") -> None:
    """The closing table of counts, and what was rejected."""
    table = drafted.counts.rename(columns=str.capitalize)
    click.echo(table.to_string(index=False, formatters=dict.fromkeys(("Sources", "Images"), "{:,}".format)))
    if rejected := drafted.rejected:
        first = rejected[0]
        click.echo(
            f"Rejected {len(rejected):,}, each with its reason in the card; first: {first.source}: {first.reason}"
        )


def _print_faults(faults: "list[Fault]") -> None:
    """A row a file, by name; a stray may have a name that can't be printed."""
    for fault in faults:
        path = fault.path if fault.path.isprintable() else fault.path.encode("unicode_escape").decode()
        click.echo(f"{fault.kind:>8}  {path}  {fault.detail}".rstrip())


def _print_audit(report: dict[str, Any]) -> None:
    """The findings, of long lists the first few."""
    click.echo(f"{report['images']:,} images of {report['groups']:,} patients (groups) in {report['source']}")
    for split, counts in report["counts"].items():
        click.echo(f"  {split:<6} " + ", ".join(f"{label} {count:,}" for label, count in counts.items()))
    click.echo("  formats: " + ", ".join(f"{name}: {count:,}" for name, count in report["formats"].items()))
    for side in ("width", "height"):
        if report[side]:
            click.echo("  {}: {least:,} to {most:,}, median {median:,}".format(side, **report[side]))
    _print_first("unreadable or no image", [f"{e['source']}: {e['reason']}" for e in report["unreadable"]])
    groups = [f"{e['group']}: {', '.join(e['images'])}" for e in report["groups_in_several_splits"]]
    _print_first("patients in several splits", groups)
    for kind in ("byte_identical", "pixel_identical", "near_identical"):
        across_first = sorted(report[kind], key=lambda found: ("splits" not in found["where"], found["where"]))
        told = [f"{' = '.join(found['files'])} ({found['where']})" for found in across_first]
        _print_first(f"groups of {kind.replace('_', '-')} images", told)


def _print_first(title: str, lines: list[str], most: int = 8) -> None:
    click.echo(f"{len(lines):,} {title}" + (":" if lines else ""))
    for line in lines[:most]:
        click.echo(f"  {line}")
    if len(lines) > most:
        click.echo(f"  ... and {len(lines) - most:,} more; --json has them all")
