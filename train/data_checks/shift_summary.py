"""What was measured of shift and shortcuts, in sentences for people who never heard of either, and as tables."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from manifests.contract import group_name
from train.data_checks.image_statistics import OF_FILE
from train.data_checks.shift import OfClass, Shift
from train.evaluation.phase_metrics import Estimate
from train.evaluation.significance import holm

LEVEL = 0.05  # of all tests for shift together
_STRONG = 0.6  # a shortcut's AUROC, or one less this, that its whole interval lies beyond
_WHERE_TEST_DIFFERS = (
    "So test is a sample of something else than train, and validation, which is like train, doesn't predict the figures on "
    "test. Look at the test images that are least like train, and find out how they were made and chosen. If test is what the "
    "model will meet, put images of its kind into train; else take a test set that is like what it will meet."
)
_WHERE_SHORTCUTS_ARE = (
    "What helps: find out why (another device, ward or program for one class?); collect both classes in the same way; test on "
    "images of another place (`evaluate`), where the shortcut doesn't hold; `fit: crop` or `pad` in the recipe where stretching "
    "keeps the shape visible; a transform in the recipe that varies what gives the class away."
)
_WHERE_AUGMENTATION_SHOWS = (
    "That is harmless where each class holds the same share of augmented images (`augmented_share: even` in the recipe), and "
    "gives the class away where it doesn't."
)


class Part(NamedTuple):
    """A part of the summary: what is asked and how, what was found, what to do (empty if nothing), and a table."""

    title: str
    lead: str
    findings: list[str]
    advice: str
    table: pd.DataFrame

    @property
    def sentences(self) -> list[str]:
        """All that is said, in order."""
        return list(filter(None, [self.lead, *self.findings, self.advice]))


def summary(shift: Shift, settings: Mapping[str, Any]) -> list[Part]:
    """Shift, shortcuts, and marks of augmentation, each where it was measured.

    Args:
        shift: as measured.
        settings: of the run.
    """
    parts = [_shift(shift, group_name(settings)), _shortcuts(shift, settings), _augmented(shift)]
    return [part for part in parts if len(part.table)]


def _shift(shift: Shift, name: str) -> Part:
    lead = (
        "Images of train and test are compared within their class: 0.5 means that nothing distinguishes them, 1 that it can "
        "always be said which is which. `network` is a logistic regression on the output of the frozen backbone, `statistics` "
        f"one on simple statistics of the {_files(shift)}, each tried on {name}s that it was not fitted to. The intervals take "
        "the regressions as given. That test differs is said where chance, with train and test exchanged among the "
        f"{name}s, seldom does as well: p, corrected (Holm) for all regressions and classes, is below {LEVEL}."
    )
    corrected = _corrected(shift)
    said = [_of_class(label, of_class, corrected.get(label, {})) for label, of_class in shift.classes.items()]
    differs = any(p < LEVEL for of_class in corrected.values() for p in of_class.values())
    columns = {
        f"{label}, {of.train:,} train + {of.test:,} test": {"network": of.network, "statistics": of.statistics}
        | of.single
        for label, of in shift.classes.items()
    }
    return Part("Is test like train?", lead, said, _WHERE_TEST_DIFFERS if differs else "", _table(columns))


def _of_class(label: str, of_class: OfClass, p: Mapping[str, float]) -> str:
    """What is said of a class, given the corrected p of both regressions, or none."""
    network, statistics = of_class.network, of_class.statistics
    if network.value is None:
        return f"{label}: not measured, {network.reason}."
    if not p:
        return (
            f"{label}: an older version measured it, and didn't test how often chance does as well (network {network}; "
            f"statistics {statistics})."
        )
    seen = (
        f"A network tells them apart at an AUROC of {network} ({_p(p['network'])}), simple statistics at {statistics} "
        f"({_p(p['statistics'])})"
    )
    if min(p.values()) >= LEVEL:
        return f"{label}: no sign that test images differ from train images. {seen}."
    most = max(of_class.single, key=lambda name: _beyond(of_class.single[name]), default=None)
    if most:
        each = of_class.single[most]
        seen += f"; of single ones {most} differs most ({each}, {_direction(each)} in test)"
    return f"{label}: test images differ from train images in more than chance. {seen}."


def _corrected(shift: Shift) -> dict[str, dict[str, float]]:
    """The p of all classes and regressions, each corrected for the number of all of them."""
    measured = [(label, name, p) for label, of_class in shift.classes.items() for name, p in of_class.p.items()]
    found: dict[str, dict[str, float]] = {}
    for (label, name, _), p in zip(measured, holm(np.array([p for _, _, p in measured])), strict=True):
        found.setdefault(label, {})[name] = float(p)
    return found


def _p(p: float) -> str:
    return f"p = {p:.3f}" if p >= 0.001 else "p < 0.001"


def _shortcuts(shift: Shift, settings: Mapping[str, Any]) -> Part:
    of_what = {"source": "source files", "image": "images of the set"}
    columns = {
        f"{label}, by {of_what[kind]}": found
        for kind, of_kind in shift.shortcuts.items()
        for label, found in of_kind.items()
    }
    columns |= {f"traces to a network, within {label}": found for label, found in shift.traces.items()}
    lead = (
        "How far a class follows from one number that says nothing of what an image shows: an AUROC, 0.5 means not at all, 0 "
        "and 1 fully. A network can learn such a shortcut in place of what the class means, and fails where it doesn't hold."
    )
    if shift.reason:
        lead += f" The source files were not measured: {shift.reason}."
    said = []
    for label, name, each in _strong(shift.shortcuts.get("source", {})):
        gone = _of_trace(shift, name, settings) if name in OF_FILE else ""
        said.append(
            f"The {name} of the source file alone gives {label} at {each} ({_direction(each)} in {label}).{gone}"
        )
    said += [
        f"In the set's images the {name} alone gives {label} at {each} ({_direction(each)} in {label})."
        for label, name, each in _strong(shift.shortcuts.get("image", {}))
    ]
    advice = _WHERE_SHORTCUTS_ARE if said else ""
    said = said or [f"None of these gives the class beyond {_STRONG}."]
    return Part("What gives the class away?", lead, said, advice, _table(columns))


def _of_trace(shift: Shift, name: str, settings: Mapping[str, Any]) -> str:
    """Whether what only files have is still to be seen in the set's images."""
    found = {label: of_class[name] for label, of_class in shift.traces.items() if name in of_class}
    if not found:
        return ""
    size = settings.get("size")
    shape = f"{size[0]} x {size[1]}" if isinstance(size, list) and len(size) == 2 else "of one size"
    seen = ", ".join(f"{each} within {label}" for label, each in found.items())
    held = any((each.low or 0) > _STRONG for each in found.values())
    verdict = "its trace is still there" if held else "hardly a trace is left"
    return (
        f" The set's images are all {shape}, but {verdict}: the network's output tells sources with a high one from those with a "
        f"low one at {seen}."
    )


def _augmented(shift: Shift) -> Part:
    lead = (
        "Single statistics of augmented images against originals of the same class, in train: above 0.5, augmented images have "
        "the higher one. Resampling blurs, moved edges change the border, and a second JPEG compression the bits per pixel."
    )
    said = [
        f"{label}: augmented images are known by their {name}, {each} ({_direction(each)} in augmented images)."
        for label, name, each in _strong(shift.augmented)
    ]
    advice = _WHERE_AUGMENTATION_SHOWS if said else ""
    said = said or [f"None of them tells augmented images from originals beyond {_STRONG}."]
    return Part("What marks augmented images?", lead, said, advice, _table(shift.augmented))


def _table(columns: Mapping[str, Mapping[str, Estimate]]) -> pd.DataFrame:
    """A row a statistic, a column a class or the like; `-` where nothing was measured."""
    names = dict.fromkeys(name for found in columns.values() for name in found)
    cells = {head: [_short(found.get(name)) for name in names] for head, found in columns.items()}
    return pd.DataFrame({"AUROC": list(names)} | cells)


def _strong(found: Mapping[str, Mapping[str, Estimate]]) -> Iterator[tuple[str, str, Estimate]]:
    """Class, statistic and AUROC of those that lie beyond what is worth a word, the strongest first."""
    all_of_it = [(label, name, each) for label, of_class in found.items() for name, each in of_class.items()]
    for label, name, each in sorted(all_of_it, key=lambda row: -_beyond(row[2])):
        if _beyond(each) > _STRONG - 0.5:
            yield label, name, each


def _beyond(each: Estimate) -> float:
    """How far the nearer end of an AUROC's interval is from 0.5; less than 0 where the interval holds 0.5."""
    if each.low is None or each.high is None:
        return -1.0
    return max(each.low - 0.5, 0.5 - each.high)


def _direction(each: Estimate) -> str:
    return "higher" if (each.value or 0) > 0.5 else "lower"


def _short(each: Estimate | None) -> str:
    return "-" if each is None or each.value is None else str(each)


def _files(shift: Shift) -> str:
    return "source files" if shift.files == "source" else "set's images"
