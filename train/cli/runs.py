"""The commands that look at finished runs: compare, report, shift."""

import json
from dataclasses import asdict
from pathlib import Path

import click

import train
from common.console import as_json, of_root, one_line_errors, print_json, quiet, say
from train.console import RESUME, table


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
    help="Compare only the last phase of each RUN with that of the first; the intervals of all comparisons hold together.",
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
        if len(found):
            images = "out of fold, on the same images" if out_of_fold else "on the same test images"
            say(f"\nThe second less the first, {images}:")
            say(table(difference.as_text(found)))
            say(f"{found['p'].notna().sum()} tests. {difference.tests_in_words(finished[0].group_name)}")


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

    The page holds all that it shows, images of the test patients too: mind whom you send it to.

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
        for part in shift_summary.summary(found, finished.settings):
            say(f"\n{part.title}\n")
            for sentence in part.sentences:
                say(sentence)
            if len(part.table):
                say(f"\n{table(part.table)}")
