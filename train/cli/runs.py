"""The commands that look at finished runs: compare, report, shift, labels."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

import train
from common.console import as_json, of_root, one_line_errors, print_json, quiet, say
from train.console import RESUME, table

if TYPE_CHECKING:
    import pandas as pd

_MOST = 10  # labels that are printed of each class
_ADVICE = (
    "What to do: have someone who can read these images look at them, at the source in full size. Where a label is wrong, "
    "correct it in the source and build the set again; else leave it. Don't drop images because the model disagrees: hard "
    "ones are among them, and without them every figure is too good."
)


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN...")
@click.option(
    "--out-of-fold",
    is_flag=True,
    help="Compare cross-validated runs by their predictions out of fold, on the images that all of them were scored on, and "
    "leave test unopened: for choosing between recipes and settings.",
)
@click.option(
    "--against-first",
    is_flag=True,
    help="Compare only the last phase of each RUN with that of the first; of each figure the intervals of all runs hold together.",
)
@as_json
def compare(runs: tuple[Path, ...], *, out_of_fold: bool, against_first: bool, **_: bool) -> None:
    """Compare RUNs on the test images, frozen and fine-tuned, with intervals and tests, beside the original study.

    \b
    Example:
      python -m train compare runs/original runs/augment1 runs/augment2
      python -m train compare --out-of-fold runs/original-folds runs/augment1-folds
    """
    with one_line_errors(RESUME):
        from train.evaluation import compare as difference
        from train.evaluation import results

        finished = [results.read(run) for run in results.distinct(runs)]
        if not out_of_fold:
            say(table(results.overview(finished)))
        found = train.compare(runs, out_of_fold=out_of_fold, against_first=against_first)
        print_json(json.loads(found.to_json(orient="records")))
        if not len(found):
            say("There is nothing to compare: give several runs.")
        if len(found):
            images = "out of fold, on the same images" if out_of_fold else "on the same test images"
            say(f"\nThe second less the first, {images}:")
            say(table(difference.as_text(found)))
            say(f"{found['p'].notna().sum()} tests. {difference.tests_in_words(finished[0].group_name)}")
            for note in difference.notes(found):
                say(note)


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN...")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Where the page goes.  [default: report.html in RUN, or beside several]",
)
@of_root
@quiet
def report(runs: tuple[Path, ...], out: Path | None, root: Path | None, **_: bool) -> None:
    """Write one HTML page of RUNs: numbers, curves, mistakes with the evidence for them, comparison, model card.

    The page holds all that it shows, images of patients too: mind whom you send it to.

    \b
    Example:
      python -m train report runs/augment1
      python -m train report runs/original runs/augment1 runs/augment2
    """
    with one_line_errors(RESUME):
        say(f"Report: {train.report(runs, out, root=root)}")


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@as_json
def shift(run: Path, **_: bool) -> None:
    """Say whether RUN's test images are like its train images, and what else than the content gives the class away.

    It was measured when RUN was trained, and is in its report, too, with the test images least like train.

    \b
    Example:
      python -m train shift runs/augment1
    """
    with one_line_errors(RESUME):
        from train.data_checks import shift_summary
        from train.evaluation import results

        finished, found = results.read(run), train.shift(run)
        print_json(asdict(found))
        parts = shift_summary.summary(found, finished.settings)
        if not parts:
            say(f"Nothing was measured: {found.reason}.")
        for part in parts:
            say(f"\n{part.title}\n")
            for sentence in part.sentences:
                say(sentence)
            if len(part.table):
                say(f"\n{table(part.table)}")


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Write the table to this CSV file.")
@quiet
@as_json
def labels(run: Path, out: Path | None, **_: bool) -> None:
    """List the labels of RUN's set that may be wrong: images to look at, the likeliest first, by class.

    RUN is cross-validated (`fit --folds 5`), so each image was predicted by members that weren't trained on its patient.
    Listed are images for which they speak for another class (confident learning), and images that are the same picture
    as one with another label.

    \b
    Example:
      python -m train labels runs/augment1-folds
      python -m train labels runs/augment1-folds --out doubtful.csv
    """
    with one_line_errors():
        from train import tables
        from train.data_checks import label_review

        if out:
            tables.check_out(out, "path,source_sha256,label,group,suggested,", "table of labels")
        found = label_review.read(run)
        if out:
            tables.write(out, found.table)
    print_json(
        {"images": found.images, "classes": json.loads(found.by_class.to_json(orient="records"))}
        | {"labels": json.loads(found.table.to_json(orient="records"))}
    )
    kept = run / label_review.NAME  # which runs of older versions lack
    say(found.sentence(out or (kept if kept.is_file() else None)))
    say(table(found.by_class))
    for label in found.by_class["label"]:
        _print_labels(f"\nLabelled {label}, predicted otherwise:", found.doubtful[found.doubtful["label"] == label])
    _print_labels("\nThe same picture as one with another label:", found.twins)
    if not found.compared:
        say(
            "\nNot compared: whether images are the same picture; the version that trained the run kept no record of that."
        )
    say(f"\n{_ADVICE}")


def _print_labels(title: str, rows: "pd.DataFrame") -> None:
    """The first of some rows, if there are any."""
    if rows.empty:
        return
    say(title)
    first = rows.head(_MOST)
    twins = first["why"].str.startswith("same picture")
    hidden = ["source_sha256", "label", *([] if twins.any() else ["why"])]
    say(table(first.drop(columns=hidden).round(3)))
    if len(rows) > _MOST:
        say(f"... and {len(rows) - _MOST:,} more; --out has them all")
