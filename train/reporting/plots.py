"""Curves of finished runs, drawn: one panel a figure, so that a phone shows them as well.

No line is known by its colour alone: each has its own dashes or marks as well. The colours are those of Okabe and Ito,
which every kind of colour vision can distinguish.
"""

import functools
import io
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from common.errors import escaped
from train.evaluation import curves as bands
from train.evaluation.curves import Band, Curves, Ranking, Reliability
from train.evaluation.results import Finished
from train.tables import FOLDS

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)))
LINES = len(_COLOURS)  # more can't be distinguished
_STYLE: Any = {
    "text.parse_math": False,  # a class may be called $x$
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "evenset",  # else the ids are drawn at random
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}
_Given = ParamSpec("_Given")


def _styled(draw: Callable[_Given, Figure]) -> Callable[_Given, Figure]:
    @functools.wraps(draw)
    def drawn(*arguments: _Given.args, **options: _Given.kwargs) -> Figure:
        with rc_context(_STYLE):
            return draw(*arguments, **options)

    return drawn


def svg(figure: Figure) -> bytes:
    """The figure as SVG: the same bytes each time."""
    return _saved(figure, format="svg", metadata={"Date": None, "Creator": None})


def png(figure: Figure) -> bytes:
    """The figure as PNG."""
    return _saved(figure, format="png", dpi=120, metadata={"Software": None})


def _saved(figure: Figure, **options: Any) -> bytes:
    file = io.BytesIO()
    with rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # in matplotlib's font; a browser has others
        figure.savefig(file, **options)
    return file.getvalue()


@_styled
def history(of: pd.DataFrame, name: str) -> Figure:
    """Accuracy or loss over the epochs of both phases."""
    figure, axis = _panel("epoch", name)
    draw_history(axis, of, name)
    return figure


def draw_history(axis: Axes, of: pd.DataFrame, name: str) -> None:
    """Draw `name` over the epochs of both phases, with the start of fine-tuning marked.

    Of a cross-validation there is a pair of thin lines a member, and the first start.
    """
    members = [part for _, part in of.groupby(list(FOLDS))] if "fold" in of else [of]
    style: dict[str, Any] = (
        {"markersize": 3} if len(members) == 1 else {"markersize": 0, "linewidth": 0.8, "alpha": 0.6}
    )
    for number, each in enumerate(members):
        train, val = ("train", "validation") if number == 0 else (None, None)
        axis.plot(each["epoch"], each[name], color=_COLOURS[0], marker="o", label=train, **style)
        val_values = each[f"val_{name}"]
        axis.plot(each["epoch"], val_values, color=_COLOURS[1], marker="s", linestyle="--", label=val, **style)
    tuned = of.loc[of["phase"] == "fine-tuned", "epoch"]
    if len(tuned):
        axis.axvline(tuned.min() - 0.5, color="gray", linestyle=":", label="start of fine-tuning")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set(xlabel="epoch", ylabel=name)
    axis.grid(alpha=0.3)
    axis.legend()


@_styled
def roc(of: dict[str, Band]) -> Figure:
    """Sensitivity against the rate of false positives, a curve a name."""
    figure, axis = _panel("false positives (1 - specificity)", "sensitivity")
    axis.plot([0, 1], [0, 1], color="gray", linestyle=":", linewidth=1, label="chance")
    _bands(axis, of, steps="steps-post")
    axis.legend(loc="lower right")
    return figure


@_styled
def precision_recall(of: dict[str, Band]) -> Figure:
    """Precision against sensitivity, a curve a name."""
    figure, axis = _panel("sensitivity (recall)", "precision")
    _bands(axis, of, steps="default")
    axis.legend(loc="lower left")
    return figure


@_styled
def sweep(of: dict[str, Band], threshold: float | None) -> Figure:
    """Sensitivity, specificity and balanced accuracy against the threshold; 0.5 and the chosen one are marked."""
    figure, axis = _panel("threshold", "")
    axis.axvline(0.5, color="gray", linestyle=":", label="0.5")
    if threshold is not None:
        axis.axvline(threshold, color="black", linestyle="-", linewidth=1, label=f"chosen: {threshold:.3f}")
    _bands(axis, of)
    figure.legend(loc="outside upper center", ncols=3, fontsize=8)
    return figure


@_styled
def reliability(of: dict[str, Reliability], predicted: str) -> Figure:
    """Observed frequency against mean predicted probability, by bin, with the number of images of each bin below."""
    figure = Figure(figsize=(4.6, 4.4), layout="constrained")
    axis, below = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    axis.plot([0, 1], [0, 1], color="gray", linestyle=":", linewidth=1, label="perfectly calibrated")
    for place, (name, each) in enumerate(of.items()):
        x, y, low, high = (values[each.counts > 0] for values in each.observed)
        # A bin with images of one patient only has no interval.
        ends = np.nan_to_num(np.clip([y - low, high - y], 0, None))
        look: dict[str, Any] = {"color": _COLOURS[place], "linestyle": _DASHES[place], "marker": "os"[place % 2]}
        axis.errorbar(x, y, ends, label=name, markersize=4, capsize=2, elinewidth=1, **look)
        edges = np.linspace(0, 1, len(each.counts) + 1)
        below.stairs(each.counts, edges, color=_COLOURS[place], linestyle=_DASHES[place])
    axis.set(ylabel="observed frequency", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    below.set(xlabel=f"mean predicted probability of {short(predicted)}", ylabel="images")
    axis.grid(alpha=0.3)
    axis.legend(loc="upper left")
    return figure


@_styled
def by_size(points: pd.DataFrame) -> Figure:
    """Test accuracy against the images' width: columns run, phase, size, value, low, high."""
    figure, axis = _panel("width of the images in pixels", "accuracy")
    axis.set(xlim=(None, None), ylim=(None, None))
    for place, (phase, of_phase) in enumerate(points.groupby("phase", sort=False)):
        ends = [of_phase["value"] - of_phase["low"], of_phase["high"] - of_phase["value"]]
        look: dict[str, Any] = {"color": _COLOURS[place], "marker": "os"[place % 2], "linestyle": "none"}
        axis.errorbar(of_phase["size"], of_phase["value"], ends, label=phase, capsize=3, **look)
    axis.legend()
    return figure


def of_run(run: Finished, curves: dict[str, Curves]) -> dict[str, Figure]:
    """All figures of a run by name; `threshold` only with two classes."""
    drawn, last = rankings(curves), list(curves.values())[-1]
    predicted = run.settings["classes"][1] if last.sweep else "the most probable class"
    found = {name: history(run.history, name) for name in ("accuracy", "loss")}
    found["roc"] = roc({name: each.roc for name, each in drawn.items()})
    found["precision-recall"] = precision_recall({name: each.precision_recall for name, each in drawn.items()})
    found["reliability"] = reliability({phase: each.reliability for phase, each in curves.items()}, predicted)
    if last.sweep:
        found["threshold"] = sweep(last.sweep, threshold(run))
    return found


def pictures(run: Finished) -> dict[str, bytes]:
    """All figures of a run as PNGs, by name."""
    curves = {phase: bands.curves(bands.scored(run, phase)) for phase in run.metrics}
    return {name: png(figure) for name, figure in of_run(run, curves).items()}


def threshold(run: Finished) -> float | None:
    """The one chosen for the last phase."""
    return run.last.threshold.value if run.last.threshold else None


def rankings(of: dict[str, Curves]) -> dict[str, Ranking]:
    """What the ranking figures show: of two classes both phases, of more each class in the last phase.

    Of more classes than lines can be distinguished, those that are ranked worst.
    """
    last = list(of.values())[-1].ranking
    if len(last) == 1:
        return {phase: next(iter(each.ranking.values())) for phase, each in of.items()}
    worst = sorted(last, key=lambda label: float(np.nan_to_num(last[label].roc.y).sum()))[:LINES]
    return {label: each for label, each in last.items() if label in worst}


def _panel(x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.6, 3.8), layout="constrained")
    axis = figure.subplots()
    axis.set(xlabel=x, ylabel=y)
    axis.grid(alpha=0.3)
    return figure, axis


def _bands(axis: Axes, of: dict[str, Band], steps: str = "default") -> None:
    for place, (name, band) in enumerate(of.items()):
        look: dict[str, Any] = {"color": _COLOURS[place], "linestyle": _DASHES[place]}
        step: Any = {"step": "post"} if steps == "steps-post" else {}
        axis.fill_between(band.x, band.low, band.high, color=_COLOURS[place], alpha=0.18, linewidth=0, **step)
        axis.plot(band.x, band.y, label=short(name), drawstyle=steps, **look)
    axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))


def short(name: str) -> str:
    """A class's name as a legend shows it: not too long, and without the leading _ by which matplotlib hides one."""
    shown = escaped_lines(name)
    shown = shown if len(shown) <= 24 else shown[:23] + "\N{HORIZONTAL ELLIPSIS}"
    return f" {shown}" if shown.startswith("_") else shown


def escaped_lines(text: str) -> str:
    """Text with what XML can't hold, or what turns the direction of writing, as an escape; lines stay lines."""
    return "\n".join(map(escaped, text.split("\n")))
