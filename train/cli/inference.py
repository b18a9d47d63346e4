"""The commands that use what was trained: predict, evaluate, export, cache."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from common.console import as_json, at_root, of_root, one_line_errors, print_json, progress, quiet, say
from common.errors import UserError
from train.console import import_tensorflow, silence, table

if TYPE_CHECKING:
    import pandas as pd

_MOST = 40  # rows that are printed
_COLUMNS = click.option(
    "--columns",
    default="",
    metavar="NAME=COLUMN,...",
    help="How a list calls its columns path, label and group, as in path=Image,label=Finding,group=Patient.",
)
_RUN = click.argument("run", type=click.Path(path_type=Path))


@click.command()
@_RUN
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="IMAGE_FOLDER_OR_LIST...")
@_COLUMNS
@click.option("--out", type=click.Path(path_type=Path), help="Write the table to this CSV file.")
@click.option("--cam", type=click.Path(path_type=Path), help="Draw into this folder where each prediction comes from.")
@quiet
def predict(run: Path, images: tuple[Path, ...], columns: str, out: Path | None, cam: Path | None, **_: bool) -> None:
    """Predict images with the model of RUN: class, and the probability of each class.

    Takes every kind of image that `augment` takes, whatever its name; folders are searched at any depth, and a list (CSV,
    TSV, Parquet) names images below its own folder in its column path. With two
    classes, the second is predicted from the run's threshold on. --cam draws Grad-CAM's evidence for the predicted
    class. Images that RUN has learnt from are marked: what it says of them is too good. What can't be read has a row
    with the error; the exit code is 1 only if nothing could be read.

    \b
    Example:
      python -m train predict runs/augment1 some/xray.png
      python -m train predict runs/augment1 some/folder --out predictions.csv --cam cams
    """
    with one_line_errors():
        import_tensorflow()
        from train import tables
        from train.data_checks import leaks
        from train.inference import predict as stage
        from train.inference import predictor as runs
        from train.inference.files import listed

        if out:
            tables.check_out(out, "file,predicted,", "table of predictions")
        trained = runs.load(run)
        record = leaks.read(run)
        found = listed(images, _named(columns))
        draw = None
        if cam:
            from train.inference.cam import drawer

            draw = drawer(trained, cam)
        with progress("predicting", "images") as show:
            rows = stage.predict(trained, found, show, draw, record)
        if out:
            stage.write(out, rows)
    if not out:
        _print_rows(rows)
    counts = ", ".join(f"{(rows['predicted'] == name).sum():,} {name}" for name in trained.classes)
    rule = "the most probable class"
    if trained.threshold is not None:
        rule = f"{trained.classes[1]} from {trained.threshold:g} on, the positive class"
    say(f"{len(rows):,} files: {counts} ({rule})")
    failed = int((rows["error"] != "").sum())
    if failed:
        say(f"{failed:,} could not be read; the column error says why")
    if record is None:
        say(
            "Not checked: whether the run learnt from these images; the version that trained it kept no record of that."
        )
    elif seen := int((rows["trained_on"].fillna("") != "").sum()):
        say(f"{seen:,} of them the run has learnt from, so what it says of these is too good (column trained_on)")
    say("Not for use on patients: this is no medical device.")
    for what, place in (("Table", out), ("Grad-CAM", cam)):
        if place:
            say(f"{what}: {place}")
    if failed == len(rows):
        sys.exit(1)


def _named(columns: str) -> dict[str, str]:
    """How a list calls its columns, by our names for them."""
    pairs = [pair.partition("=") for pair in columns.split(",") if pair]
    for name, _, column in pairs:
        if name not in ("path", "label", "group") or not column:
            raise UserError(f"--columns {columns}: expected names such as path=Image,label=Finding,group=Patient")
    return {name: column.strip() for name, _, column in pairs}


def _print_rows(rows: "pd.DataFrame") -> None:
    """The first predictions, with empty columns left out."""
    first = rows.head(_MOST).astype(object)
    shown = first.map(lambda value: f"{value:.4f}" if isinstance(value, float) else value).where(first.notna(), "")
    say(table(shown.loc[:, (shown != "").any()].astype(str)))
    if len(rows) > _MOST:
        say(f"... and {len(rows) - _MOST:,} more; --out has them all")


@click.command()
@_RUN
@click.argument("manifest", type=click.Path(path_type=Path), metavar="MANIFEST_OR_LIST")
@_COLUMNS
@click.option(
    "--on-leak",
    type=click.Choice(["error", "drop"]),
    default="error",
    show_default=True,
    help="What to do if the run has learnt from some of the test images, or from others of the same groups (patients, say).",
)
@click.option(
    "--other-groups",
    "--other-patients",
    "other_groups",
    is_flag=True,
    help="Groups of the same name as the run's are others: patients of another hospital, say.",
)
@of_root
@as_json
def evaluate(
    run: Path, manifest: Path, columns: str, root: Path | None, on_leak: str, *, other_groups: bool, **_: bool
) -> None:
    """Measure RUN on the test images of another set's manifest, or on a list's images, at the run's own threshold.

    A list (CSV, TSV, Parquet) has the columns path, looked up below its folder, label and, if you know it, group.

    Images that the run has learnt from are refused: known by their source, their file, their pixels, or their group.
    Groups (patients, say) are compared by name if the images have one in common with the run's, or are of its source folder.

    \b
    Example:
      python -m train evaluate runs/augment1 manifests/other.csv
      python -m train evaluate runs/augment1 hospital.csv --columns path=Image,label=Finding
    """
    with one_line_errors():
        import_tensorflow()
        from manifests.contract import is_manifest, root_of
        from train.evaluation import results
        from train.evaluation.phase_metrics import to_json
        from train.inference import external_validation
        from train.inference import predictor as runs
        from train.inference.files import is_list

        named, drop_leaks = _named(columns), on_leak == "drop"
        trained = runs.load(run)
        with progress("evaluating", "images") as show:
            if is_list(manifest) and (named or not is_manifest(manifest)):
                measured = external_validation.measure_list(
                    trained, manifest, named, show, drop_leaks=drop_leaks, other_groups=other_groups
                )
            else:
                base = root_of(manifest, root)
                measured = external_validation.measure(
                    trained, manifest, base, show, drop_leaks=drop_leaks, other_groups=other_groups
                )
    print_json(to_json(measured.metrics) | {"leak_check": measured.check._asdict()})
    say(
        table(
            results.figures(measured.metrics, trained.threshold, f"{run} on {manifest}", group_name=trained.group_name)
        )
    )
    if measured.check.left_out:
        say(f"Left out, since the run has learnt from them or from their groups: {measured.check.left_out:,} images")
    for note in measured.check.notes:
        say(note)


@click.command()
@_RUN
@click.option(
    "--format",
    "kind",
    required=True,
    type=click.Choice(["saved_model", "onnx", "tflite", "openvino"]),
    help="All but saved_model need the packages of requirements-FORMAT.txt.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Where the model goes.  [default: in RUN]")
@of_root
@quiet
def export(run: Path, kind: str, out: Path | None, root: Path | None, **_: bool) -> None:
    """Export the model of RUN for other programs, preprocessing inside: it takes float32 RGB images, 0 to 255.

    What was written is run and compared with the original, on the run's test images if they are at hand, before it
    gets its name. One that answers otherwise is refused.

    \b
    Example:
      python -m train export runs/augment1 --format onnx
    """
    with one_line_errors():
        import_tensorflow()
        from train.inference import export as stage
        from train.inference import predictor as runs

        trained = runs.load(run)
        with silence():  # of converters' notes
            exported = stage.export(trained, kind, out, root)
    width, height = trained.size
    outputs = f"p({trained.classes[1]})" if trained.threshold is not None else f"p of {', '.join(trained.classes)}"
    say(f"Takes float32 (images, {height}, {width}, 3), RGB, 0 to 255; gives {outputs}")
    say(f"Largest difference of a probability from the original's: {exported.difference:.1e}, on {exported.compared}")
    say(f"Exported: {exported.path}")


@click.command()
@at_root
@click.option(
    "--cache",
    "folder",
    type=click.Path(path_type=Path),
    help="Where activations are kept.  [default: data/activations in the root]",
)
@click.option("--prune", is_flag=True, help="Drop what no manifest in the root's folder manifests needs.")
def cache(root: Path, folder: Path | None, prune: bool) -> None:
    """List the kept activations, by set and size; with --prune, drop those of images that no manifest has.

    \b
    Example:
      python -m train cache
      python -m train cache --prune
    """
    with one_line_errors():
        from train.features import cache as stage

        folder = folder or root / "data" / "activations"
        manifests = root / "manifests"
        if prune:
            pruned = stage.prune(folder, manifests)
            say(f"Dropped {pruned.images:,} images' activations, {pruned.bytes / 1e9:.2f} GB")
        rows = stage.listed(folder, stage.needed(manifests))
    if rows.empty:
        say(f"No activations are kept in {folder}")
    else:
        say(table(rows.astype(str)))
