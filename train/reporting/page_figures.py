"""The figures of the page of runs, in words and numbers: each as a picture with its description and its table."""

import base64
from dataclasses import asdict
from typing import NamedTuple

import numpy as np
import pandas as pd

from train.evaluation.curves import Band, Curves
from train.evaluation.results import Finished
from train.reporting import plots
from train.tables import FOLDS

_EVERY = 5  # of a band's points in the table


class Shown(NamedTuple):
    """A figure on the page: `url` holds the picture itself, `table` its numbers, the header first."""

    title: str
    url: str
    alt: str
    table: list[list[str]]


def cells(table: pd.DataFrame) -> list[list[str]]:
    """A table's header and rows as text."""
    return [[str(name) for name in table.columns], *(list(map(str, row)) for row in table.to_numpy())]


def of_run(run: Finished, curves: dict[str, Curves]) -> list[Shown]:
    """The figures of a run: its training, and the results of each phase."""
    drawn = {name: _url(plots.svg(figure)) for name, figure in plots.of_run(run, curves).items()}
    return _history(run, drawn) + _ranking(run, curves, drawn) + _probabilities(run, curves, drawn)


def overlaid(runs: dict[str, dict[str, Curves]]) -> list[Shown]:
    """The last phases of runs of the same two classes in one figure: of each run its curves by phase."""
    last = {name: list(curves.values())[-1].ranking for name, curves in runs.items()}
    positives = {tuple(ranking) for ranking in last.values()}
    if len(runs) < 2 or len(positives) > 1 or any(len(names) > 1 for names in positives):
        return []
    ranked = {name: next(iter(ranking.values())) for name, ranking in list(last.items())[: plots.LINES]}
    rocs = {name: each.roc for name, each in ranked.items()}
    recalls = {name: each.precision_recall for name, each in ranked.items()}
    return [
        Shown(
            "ROC curves of all runs, last phase",
            _url(plots.svg(plots.roc(rocs))),
            f"Sensitivity against false positives. {_at(rocs, 0.2, 'sensitivity', 'false positives')}.",
            _band_table("false positives", rocs),
        ),
        Shown(
            "Precision and recall of all runs, last phase",
            _url(plots.svg(plots.precision_recall(recalls))),
            f"Precision against sensitivity. {_at(recalls, 0.9, 'precision', 'sensitivity')}.",
            _band_table("sensitivity", recalls),
        ),
    ]


def sizes(runs: list[Finished]) -> list[Shown]:
    """Accuracy on test against the size of the images, if the runs are on sets of several sizes."""
    points = []
    for run in runs:
        size = run.settings.get("size")
        if not (isinstance(size, list) and len(size) == 2 and all(isinstance(side, int) for side in size)):
            continue
        for phase, of_phase in run.metrics.items():
            accuracy = of_phase.measured.accuracy
            if not accuracy.reason:
                row = {"run": run.name, "phase": phase, "size": size[0], "shape": f"{size[0]} x {size[1]}"}
                points.append(row | {"text": str(accuracy)} | asdict(accuracy))
    if len({point["shape"] for point in points}) < 2:
        return []
    table = pd.DataFrame(points).sort_values(["size", "run"], kind="stable")
    rows = [list(row) for row in table[["shape", "run", "phase", "text"]].to_numpy()]
    alt = "Accuracy against the size of the images. " + "; ".join(
        f"{row[1]} {row[2]} at {row[0]}: {row[3]}" for row in rows
    )
    return [
        Shown(
            "Accuracy by size of the images",
            _url(plots.svg(plots.by_size(table))),
            alt,
            [["size", "run", "phase", "accuracy"], *rows],
        )
    ]


def _history(run: Finished, drawn: dict[str, str]) -> list[Shown]:
    of = run.history.assign(epoch=run.history["epoch"].astype(int))
    folds = [name for name in FOLDS if name in of]
    members = [part for _, part in of.groupby(folds)] if folds else [of]
    who = f", the mean of {len(members)} members" if folds else ""
    tuned = of.loc[of["phase"] == "fine-tuned", "epoch"]
    begun = f"Fine-tuning starts with epoch {tuned.min()}." if len(tuned) else "There is no fine-tuning."
    found = []
    for name in ("accuracy", "loss"):
        train, val = of[name].astype(float), of[f"val_{name}"].astype(float)
        ends = [
            np.mean([float(member[column].iloc[place]) for member in members])
            for column in (name, f"val_{name}")
            for place in (0, -1)
        ]
        alt = (
            f"{name.capitalize()} over {len(of) // len(members)} epochs{who}: train from {ends[0]:.3f} to {ends[1]:.3f}, "
            f"validation from {ends[2]:.3f} to {ends[3]:.3f}. {begun}"
        )
        rows = [
            [*map(str, which), f"{one:.4f}", f"{two:.4f}"]
            for *which, one, two in zip(*(of[column] for column in (*folds, "epoch", "phase")), train, val, strict=True)
        ]
        title = f"{name.capitalize()} in training"
        head = [*folds, "epoch", "phase", f"train {name}", f"validation {name}"]
        found.append(Shown(title, drawn[name], alt, [head, *rows]))
    return found


def _ranking(run: Finished, curves: dict[str, Curves], drawn: dict[str, str]) -> list[Shown]:
    ranked = plots.rankings(curves)
    rocs = {name: each.roc for name, each in ranked.items()}
    recalls = {name: each.precision_recall for name, each in ranked.items()}
    areas = _areas(run)
    of = f" of {run.settings['positive']}, the positive class" if run.settings["positive"] is not None else ""
    return [
        Shown(
            "ROC curve",
            drawn["roc"],
            f"Sensitivity against false positives{of}. {areas['auroc']}. {_at(rocs, 0.2, 'sensitivity', 'false positives')}",
            _band_table("false positives", rocs),
        ),
        Shown(
            "Precision and recall",
            drawn["precision-recall"],
            f"Precision against sensitivity{of}. {areas['auprc']}. {_at(recalls, 0.9, 'precision', 'sensitivity')}",
            _band_table("sensitivity", recalls),
        ),
    ]


def _probabilities(run: Finished, curves: dict[str, Curves], drawn: dict[str, str]) -> list[Shown]:
    reliability = {phase: each.reliability for phase, each in curves.items()}
    last = list(curves.values())[-1]
    of = f"of {run.settings['classes'][1]}, the positive class" if last.sweep else "of the most probable class"
    rows = [
        [
            phase,
            f"{edge:.2f}",
            str(count),
            _number(each.observed, place),
            _ends(each.observed, place) or f"one {run.group_name}",
        ]
        for phase, each in reliability.items()
        for place, (edge, count) in enumerate(zip(each.observed.x, each.counts, strict=True))
        if count
    ]
    alt = f"Observed frequency against the mean predicted probability {of}. {_areas(run)['ece']}."
    found = [
        Shown(
            "Reliability",
            drawn["reliability"],
            alt,
            [["phase", "mean predicted probability", "images", "observed frequency", "95 % interval"], *rows],
        )
    ]
    if last.sweep:
        value = plots.threshold(run)
        chosen = "" if value is None else f" The chosen threshold is {value:.3f}."
        found.append(
            Shown(
                f"Threshold, {list(curves)[-1]}",
                drawn["threshold"],
                f"What each threshold of the probability {of} gives. {_at(last.sweep, 0.5, '', 'the threshold')}.{chosen}",
                _band_table("threshold", last.sweep),
            )
        )
    return found


def _areas(run: Finished) -> dict[str, str]:
    """AUROC, AUPRC and calibration error of each phase in words."""
    words = {"auroc": "AUROC", "auprc": "AUPRC", "ece": "Calibration error"}
    return {
        name: f"{word}: " + ", ".join(f"{phase} {getattr(each.measured, name)}" for phase, each in run.metrics.items())
        for name, word in words.items()
    }


def _at(of: dict[str, Band], x: float, y_is: str, x_is: str) -> str:
    """Each curve's value at one place, in words."""
    values = [f"{name} {_number(band, int(np.abs(band.x - x).argmin()))}" for name, band in of.items()]
    return " ".join(filter(None, ["At", f"{x:g}", x_is, y_is])) + ": " + ", ".join(values)


def _band_table(x: str, of: dict[str, Band]) -> list[list[str]]:
    first = next(iter(of.values())).x
    places = [place for place in range(len(first)) if round(first[place] * 50) % _EVERY == 0]
    return [
        [x, *of],
        *(
            [f"{first[place]:.1f}", *(f"{_number(band, place)} {_ends(band, place)}".strip() for band in of.values())]
            for place in places
        ),
    ]


def _number(band: Band, place: int) -> str:
    value = band.y[place]
    return f"{value:.3f}" if np.isfinite(value) else "not defined"


def _ends(band: Band, place: int) -> str:
    low, high = band.low[place], band.high[place]
    return f"[{low:.3f}, {high:.3f}]" if np.isfinite(low) and np.isfinite(high) else ""


def _url(svg: bytes) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"
