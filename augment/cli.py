"""The command line of `augment`: wires the stages together, prints, and turns errors into one line."""

import sys
from pathlib import Path
from typing import Literal

import click

import augment
from augment import console
from augment.api import CORES, Options
from common.console import as_json, at_root, of_root, on_cluster, one_line_errors, print_json, progress, quiet, say

# The stages are imported inside the commands: `--help` should answer in a blink.

_STDOUT = Path("-")
_group_key = click.option(
    "--group-key",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A secret file of 16 bytes or more, with which the patients of the recipe's `group_tag` (DICOM) are hashed.",
)


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
    "--source",
    required=True,
    help="The folder of class folders, or a list of images (CSV, TSV, Parquet), here or at an address (s3://, https://); "
    "never written to.",
)
@click.option(
    "--images", type=click.Path(path_type=Path), help="Where the images go.  [default: data/augmented/RECIPE]"
)
@click.option(
    "--manifest", type=click.Path(path_type=Path), help="Where the manifest goes.  [default: manifests/RECIPE.csv]"
)
@at_root
@click.option(
    "--workers", default=CORES, type=click.IntRange(1, 1024), help="Processes that render.", show_default="one a core"
)
@on_cluster
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="Takes the place of the recipe's seed.")
@click.option(
    "--on-leak",
    type=click.Choice(["error", "drop"]),
    default="error",
    show_default=True,
    help="What to do with a group (a patient, say) or an image in two of the source's splits: stop, or leave it out of train.",
)
@click.option(
    "--on-conflict",
    type=click.Choice(["error", "drop"]),
    default="error",
    show_default=True,
    help="What to do with an image whose bytes stand in two classes: stop, or leave all its copies out.",
)
@_group_key
@click.option("--dry-run", is_flag=True, help="Decode the sources, say what would be built, and write nothing.")
@quiet
@as_json
def build(
    recipe_name: str,
    source: str,
    images: Path | None,
    manifest: Path | None,
    root: Path,
    workers: int,
    cluster: str | None,
    seed: int | None,
    on_leak: Literal["error", "drop"],
    on_conflict: Literal["error", "drop"],
    group_key: Path | None,
    dry_run: bool,
    **_: bool,
) -> None:
    """Build a set: split by patient, balance, augment, write images and manifest.

    SOURCE holds CLASS/* or {train,val,test}/CLASS/*, or is a list with the columns path and label, or those that the
    recipe's section `list` names. Run it again and only what differs is rendered.

    \b
    Example:
      python -m augment build --recipe augment1 --source data/chest_xray --dry-run
      python -m augment build --recipe augment1 --source data/chest_xray
    """
    with one_line_errors("Run the same command again to go on from here."):
        options: Options = {"workers": workers, "seed": seed, "on_leak": on_leak, "on_conflict": on_conflict}
        options |= {"group_key": group_key, "cluster": cluster}
        if dry_run:
            build_plan = augment.dry_run(recipe_name, source, **options)
            console.print_build_plan(build_plan)
            say("Dry run: nothing was written.")
            print_json(console.counted(build_plan))
            return
        built = augment.build(recipe_name, source, root=root, images=images, manifest=manifest, **options)
    images, manifest = built.place.images, built.place.manifest
    console.print_build_plan(built.build_plan)
    console.print_notes(built.noted)
    if built.rendered:
        say(f"Rendered {built.rendered:,} images, reused {built.reused:,}: {images}")
        console.print_workers(built.by_worker)
    else:
        say(f"Up to date, nothing to render: {images}")
    console.print_set_aside(built.set_aside, images)
    say(f"Manifest: {manifest}")
    places = {"images": images.as_posix(), "manifest": manifest.as_posix()}
    moved = {"rendered": built.rendered, "reused": built.reused, "set_aside": built.set_aside}
    notes = [each._asdict() for each in built.noted]
    print_json({**places, **moved, **console.counted(built.build_plan), "notes": notes})


@main.command()
@click.argument("manifest", type=click.Path(path_type=Path))
@click.option("--repair", is_flag=True, help="Render what is missing or altered again; move strays aside.")
@click.option("--source", help="The source folder, here or at an address.  [default: the card's]")
@of_root
@click.option(
    "--workers",
    default=CORES,
    type=click.IntRange(1, 1024),
    help="Threads that hash, processes that render.",
    show_default="one a core",
)
@on_cluster
@quiet
@as_json
def verify(
    manifest: Path,
    repair: bool,
    source: str | None,
    root: Path | None,
    workers: int,
    cluster: str | None,
    **_: bool,
) -> None:
    """Check every image of MANIFEST against its checksum; exit code 1 if anything is missing, altered or stray.

    With --repair, images take their place only if they come out byte for byte as the manifest has them.

    \b
    Example:
      python -m augment verify manifests/augment1.csv
      python -m augment verify manifests/augment1.csv --repair
    """
    with one_line_errors("Run the same command again."):
        from augment import verify as stage
        from augment.rendering.work import ALL_PACKAGES, MODULES
        from common.remote import at
        from common.workers import connect
        from manifests.contract import root_of

        root = root_of(manifest, root)
        if cluster:  # whose workers are in folders of their own
            root, source = root.absolute(), source and str(at(source, absolute=True))
        with connect(workers, MODULES, cluster, ALL_PACKAGES) as hands:
            with progress("hashing", "images") as show:
                faults = stage.verify(manifest, root, hands.read, show)
            console.print_faults(faults)
            if repair and faults:
                with progress("repairing", "images") as show:
                    left = stage.repair(manifest, root, source, faults, hands, show)
                say(f"Repaired {len(faults) - len(left):,} of {len(faults):,}.")
                strays = [fault.path for fault in faults if fault.kind == "stray"]
                console.print_set_aside(strays, stage.image_folder_of(manifest, root))
                faults = left
                console.print_faults(faults)
    print_json([fault._asdict() for fault in faults])
    if faults:
        if not repair:
            say("Repair it: the same command with --repair")
        sys.exit(1)
    say(f"{manifest}: every image is as recorded.")


@main.command()
@click.argument("source")
@click.option(
    "--recipe",
    "recipe_name",
    default="original",
    show_default=True,
    metavar="NAME_OR_FILE",
    help="A recipe whose `group`, `max_pixels` and `list` say how SOURCE is read.",
)
@click.option("--group", help="Who an image shows: a regular expression on file names.  [default: the recipe's]")
@click.option(
    "--distance",
    default=20,
    type=click.IntRange(0, 128),
    show_default=True,
    help="Bits of 256 by which the perceptual hashes of near-identical images differ.",
)
@click.option(
    "--max-pixels", type=click.IntRange(1), help="An image that declares more is not decoded.  [default: the recipe's]"
)
@click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path, allow_dash=True),
    is_flag=False,
    flag_value=_STDOUT,
    metavar="[FILE]",
    help="Print all findings, with every name, as one JSON value in place of text; with FILE, write them there as well.",
)
@click.option(
    "--strict",
    is_flag=True,
    help="Exit code 1 if a file is unreadable, or a group (a patient, say) or an image is in two splits.",
)
@click.option(
    "--workers", default=CORES, type=click.IntRange(1, 1024), help="Processes that decode.", show_default="one a core"
)
@on_cluster
@_group_key
@quiet
def audit(
    source: str,
    recipe_name: str,
    group: str | None,
    group_key: Path | None,
    distance: int,
    max_pixels: int | None,
    json_file: Path | None,
    strict: bool,
    workers: int,
    cluster: str | None,
    **_: bool,
) -> None:
    """Look at SOURCE, a folder or a list, before building: counts, formats, unreadable files, leaks, look-alikes.

    \b
    Example:
      python -m augment audit data/chest_xray
      python -m augment audit Data_Entry_2017.csv --recipe nih.yaml
      python -m augment audit data/chest_xray --group 'person(\\d+)'  # by number alone
    """
    with one_line_errors():
        import json

        from augment import audit as stage
        from augment.recipe import load, resolve
        from augment.rendering.work import ALL_PACKAGES
        from augment.sources.dicom_tags import group_tag
        from common.files import write_atomically
        from common.remote import at
        from common.workers import connect

        recipe = load(recipe_name)
        pattern = resolve("audit", {"group": group or recipe.group}, "--group").group
        limit, tag = max_pixels or recipe.max_pixels, group_tag(recipe, group_key)
        if json_file == _STDOUT:
            click.get_current_context().params["as_json"] = True
        modules = ["augment.audit"]
        with connect(workers, modules, cluster, ALL_PACKAGES) as hands, progress("looking", "images") as show:
            place = at(source, absolute=cluster is not None)
            found = stage.audit(place, pattern, distance, limit, hands, show, recipe.list, tag)
        if json_file == _STDOUT:
            print_json(found.report)
        elif json_file:
            write_atomically(json_file, json.dumps(found.report, indent=2, ensure_ascii=False) + "\n")
    console.print_audit(found.report)
    if strict and (found.leaks or found.report["unreadable"]):
        sys.exit(1)


@main.command()
@click.argument("manifest", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Where the page goes.  [default: beside MANIFEST]")
@click.option(
    "--embed",
    type=click.IntRange(1),
    metavar="N",
    help="Put a sample of about N images into the page itself, names included, to send it to somebody.",
)
@of_root
@click.option(
    "--workers", default=CORES, type=click.IntRange(1, 1024), help="Processes that compare.", show_default="one a core"
)
def gallery(manifest: Path, out: Path | None, embed: int | None, root: Path | None, workers: int) -> None:
    """Show the set of MANIFEST as one HTML page: sources beside variants, balance, extremes, rejected files.

    The page refers to the images where they are, and opens in any browser without a server.

    \b
    Example:
      python -m augment gallery manifests/augment1.csv
      python -m augment gallery manifests/augment1.csv --embed 200  # one file to mail
    """
    with one_line_errors("Run the same command again."):
        from common.workers.process_pool import ProcessPool

        with ProcessPool(workers, ["augment.gallery.ssim"]) as executor:
            from augment.gallery.page import gallery as write_page
            from manifests.contract import root_of

            root = root_of(manifest, root)
            out = out or manifest.with_suffix(".sample.html" if embed else ".gallery.html")
            with progress("comparing", "variants") as show:
                shown = write_page(manifest, root, out, embed, executor, show)
    if shown.missing:
        say(f"{shown.missing:,} images are not on disk; what else is wrong: python -m augment verify {manifest}")
    sampled = f" of {shown.of:,}" if shown.images < shown.of else ""
    say(f"Gallery of {shown.images:,}{sampled} images: {out}")


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
    with one_line_errors():
        from augment.sample import draw

        say(f"Drew {draw(folder, seed)} synthetic chest phantoms (no X-rays, no patients): {folder}")
