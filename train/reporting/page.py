"""Finished runs -> one HTML page for people, with all that it shows inside: it asks for nothing, and runs no script."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from markupsafe import Markup

from common import html
from common.errors import UserError
from common.files import write_atomically
from common.images.pixels import UnreadableImage, decode
from manifests import contract
from train.evaluation import compare, curves, results
from train.evaluation.results import Finished, ResultsError
from train.reporting import (
    error_analysis,
    forest_plot,
    label_section,
    model_card,
    page_figures,
    plots,
    shift_section,
    verdict,
)
from train.settings import DEMO

TEMPLATES = Path(__file__).parent / "templates"

LoadHeat = Callable[[Path, tuple[int, int]], tuple[error_analysis.Heat | None, str]]


class PageError(UserError):
    """The page can't be made; the message names what stands in the way and the fix."""


class Confusion(NamedTuple):
    """How often which class was taken for which: a row a true class, each cell a count and its tenths of the row."""

    title: str
    rows: list[list[tuple[int, int]]]


class RunSection(NamedTuple):
    """What the page shows of one run."""

    id: str
    run: Finished
    lead: str
    split: str
    summaries: list[list[list[str]]]  # the cells of tables
    confusions: list[Confusion]
    augmentation: tuple[list[str], list[list[str]]]  # sentences, and the cells of a table
    shift: shift_section.Section | None
    curves: dict[str, curves.Curves]  # by phase
    figures: list[page_figures.Shown]
    seen: list[error_analysis.Seen]
    unseen: str  # why images, or the evidence in them, are not shown
    labels: label_section.LabelSection | None  # of a cross-validation
    rescaling: page_figures.Shown | None
    model_card: model_card.Card
    settings: list[tuple[str, str]]


def default_out(runs: list[Path]) -> Path:
    """Where the page goes: into the run, or beside several runs."""
    parents = {os.path.abspath(run.parent) for run in runs}  # noqa: PTH100  # a link stays what it is called
    if len(runs) == 1:
        return runs[0] / "report.html"
    common = Path(os.path.commonpath(parents))
    return (runs[0].parent if len(parents) == 1 else common) / "report.html"


def write(
    runs: list[Path], root: Path | None, out: Path, load_heat: LoadHeat, progress: Callable[[int, int], None]
) -> list[str]:
    """Write the page of some runs, and give the sentences that it opens with.

    Args:
        runs: their folders.
        root: what their sets' manifests' paths are relative to; None: as their cards have it.
        out: where the page goes, .html.
        load_heat: of a run's folder and the (width, height) of its images gives what maps evidence, or why it can't.
        progress: called with (steps done, steps in all).

    Raises:
        ResultsError: a folder holds no finished run, or a damaged one.
        PageError: the page can't be written where it is to go.
    """
    if out.suffix.lower() not in (".html", ".htm"):
        raise PageError(f"--out {out} should end in .html")
    folders = results.distinct(runs)
    finished = [_read(run, name) for run, name in zip(folders, _names(folders), strict=True)]
    sections = []
    for number, (folder, run) in enumerate(zip(folders, finished, strict=True), 1):
        sections.append(_section(f"run{number}", folder, run, root, load_heat))
        progress(number, len(folders) + 1)
    sentences, compared, uncompared = _compared(finished)
    overall = page_figures.sizes(finished)
    if not uncompared:
        overall = page_figures.overlaid({each.run.name: each.curves for each in sections}) + overall
    page = _rendered(sections, sentences, compared, uncompared, overall)
    progress(len(folders) + 1, len(folders) + 1)
    try:
        write_atomically(out, page)
    except OSError as error:
        raise PageError(f"--out {out}: {error.strerror}; give another place") from None
    return sentences


def _names(runs: list[Path]) -> list[str]:
    """The runs' folders as the page calls them: no more of their paths than distinguishes them."""
    whole = [run.resolve() for run in runs]
    common = os.path.commonpath([run.parent for run in whole])
    return [run.relative_to(common).as_posix() for run in whole]


def _read(folder: Path, name: str) -> Finished:
    """A run whose every part is as `fit` writes it, under the name that the page calls it."""
    run = results.read(folder)
    try:
        _expect_classes(folder, run)
        model_card.of(run, None, {})
        _confusions(run)
        _lead(run), _augmentation(run)
        run.history[["loss", "accuracy", "val_loss", "val_accuracy"]].astype(float)
        run.history["epoch"].astype(int)
        for phase in run.metrics:
            curves.scored(run, phase)
    except (LookupError, TypeError, AttributeError, ValueError, ZeroDivisionError, RecursionError) as error:
        if isinstance(error, ResultsError):
            raise
        raise ResultsError(f"{folder} is damaged ({type(error).__name__}: {error}); train the run again") from None
    return run._replace(name=name)


def _expect_classes(folder: Path, run: Finished) -> None:
    """That the classes are at least two names, and the positive one the second of two."""
    classes, positive = run.settings["classes"], run.settings["positive"]
    if not (
        isinstance(classes, list) and len(set(map(str, classes))) >= 2 and all(isinstance(n, str) for n in classes)
    ):
        raise ResultsError(f"{folder}: settings.json is damaged: got the classes {classes!r:.80}; train the run again")
    if positive != (classes[1] if len(classes) == 2 else None):
        raise ResultsError(
            f"{folder}: settings.json is damaged: got the positive class {positive!r:.80} of {', '.join(classes)!r:.80}; "
            "train the run again"
        )


def _section(name: str, folder: Path, run: Finished, root: Path | None, load_heat: LoadHeat) -> RunSection:
    scored = {phase: curves.scored(run, phase) for phase in run.metrics}
    last = scored[list(scored)[-1]]
    manifest = error_analysis.manifest_of(run, root)
    rows, gone = error_analysis.rows_of(run, manifest)
    root = contract.root_of(manifest, root)
    seen, unseen = _seen(folder, run, last, rows, gone, root, load_heat)
    drawn = {phase: curves.curves(each) for phase, each in scored.items()}
    return RunSection(
        name,
        run,
        _lead(run),
        last.split,
        list(map(page_figures.cells, results.summaries(run))),
        _confusions(run),
        _augmentation(run),
        shift_section.section(folder, run, rows, root),
        drawn,
        page_figures.of_run(run, drawn),
        seen,
        unseen,
        label_section.of_run(folder, run, rows, root),
        _rescaling(folder),
        model_card.of(run, rows, contract.read_card(manifest) if rows is not None else {}),
        [(key, str(value)) for key, value in run.settings.items() if not isinstance(value, (dict, list))],
    )


def _lead(run: Finished) -> str:
    """What was trained on what, in a line."""
    images = ", ".join(f"{count:,} {split}" for split, count in run.settings["images"].items())
    classes = " and ".join(run.settings["classes"]) if len(run.settings["classes"]) < 5 else "many classes"
    positive = f" {run.settings['positive']} is the positive class." if run.settings["positive"] is not None else ""
    return (
        f"{run.settings.get('backbone', 'A model')} on {run.settings['set']}: {images} images of {classes}.{positive}"
    )


def _seen(
    folder: Path,
    run: Finished,
    of: curves.Scored,
    rows: pd.DataFrame | None,
    gone: str,
    root: Path,
    load_heat: LoadHeat,
) -> tuple[list[error_analysis.Seen], str]:
    threshold = plots.threshold(run)
    picked = error_analysis.pick(of, threshold)
    if rows is None:
        return error_analysis.see(of, picked, threshold, None, root, None), f"The images are not shown: {gone}."
    size = (int(rows["width"].iloc[0]), int(rows["height"].iloc[0]))
    heat, why = load_heat(folder, size)
    seen = error_analysis.see(of, picked, threshold, rows, root, heat)
    missing = sum(each.image is None for each in seen)
    faults = [f"{missing} of {len(seen)} images are not shown: they are gone or have changed since."] if missing else []
    if why:
        faults.append(f"Where the evidence is can't be shown: {why}.")
    return seen, " ".join(faults)


def _augmentation(run: Finished) -> tuple[list[str], list[list[str]]]:
    said, compared = results.augmentation(run)
    return said, page_figures.cells(compared)


def _confusions(run: Finished) -> list[Confusion]:
    found = []
    for phase, of_phase in run.metrics.items():
        for point, decided in of_phase.measured.decisions.items():
            if point == "most probable":
                title = f"{phase}, the most probable class"
            else:
                chosen = f", {of_phase.threshold.value:.3f}," if of_phase.threshold else ""
                at = "0.5" if point == "0.5" else f"the chosen threshold{chosen}"
                title = f"{phase}, {run.settings['positive']} from {at} on"
            rows = [[(n, round(10 * n / max(1, sum(row)))) for n in row] for row in decided.confusion]
            found.append(Confusion(title, rows))
    return found


def _rescaling(folder: Path) -> page_figures.Shown | None:
    """The run's picture of what rescaling loses, with its table."""
    try:
        picture = error_analysis.jpeg(decode((folder / "rescaling.png").read_bytes()), largest=1600, quality=88)
    except (OSError, UnreadableImage):
        return None
    try:
        table = page_figures.cells(pd.read_csv(folder / "rescaling.csv", dtype=str, keep_default_na=False))
    except (OSError, ValueError):
        table = []
    losses = "; ".join(f"{row[0]}: SSIM {row[1]}, PSNR {row[2]}" for row in table[1:] if len(row) >= 3)
    alt = f"An original image beside itself rescaled to other sizes. {losses}"
    return page_figures.Shown("What rescaling loses", picture, alt, table)


def _compared(runs: list[Finished]) -> tuple[list[str], list[forest_plot.Forest], str]:
    """The verdict, the comparison of all runs and phases, and why there is none."""
    shown = [forest_plot.accuracies(runs)]
    try:
        found = compare.differences(runs, lambda done, total: None)  # noqa: ARG005
    except ResultsError as error:
        return verdict.verdict(runs, None), shown, str(error)
    sentences, texts = verdict.verdict(runs, found) + compare.notes(found), compare.as_text(found)
    if len(runs) == 1:  # whose name says nothing
        for each in (found, texts):
            each[["first", "second"]] = each[["first", "second"]].map(
                lambda name: name.removeprefix(f"{runs[0].name} ")
            )
    return sentences, shown + forest_plot.differences(found, texts), ""


def _rendered(
    sections: list[RunSection],
    sentences: list[str],
    compared: list[forest_plot.Forest],
    uncompared: str,
    overall: list[page_figures.Shown],
) -> str:
    style = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    environment = html.environment(TEMPLATES)
    # An interval in brackets stays on one line.
    environment.filters["bound"] = lambda cell: re.sub(r"(\[[^\],]*), ", "\\1,\N{NO-BREAK SPACE}", cell)
    page = environment.get_template("report.html").render(
        style=Markup(style),  # noqa: S704  # our own file; all that comes from a run is escaped
        style_hash=html.policy_hash(style),
        sections=sections,
        notices=sorted({str(each.run.settings.get("notice") or "") for each in sections} - {""})
        + [DEMO] * any(each.run.settings.get("backbone") == "demo" for each in sections),
        verdict=sentences,
        compared=compared,
        uncompared=uncompared,
        overall=overall,
        kinds=error_analysis.KINDS,
        tests=compare.tests_in_words(sections[0].run.group_name),
        group_name=sections[0].run.group_name,
        use=model_card.USE,
        no_device=model_card.NO_DEVICE,
    )
    return plots.escaped_lines(page)
