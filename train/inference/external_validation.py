"""A run measured on another set's test images: external validation."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from common.errors import UserError
from common.lists.tables import header
from manifests import contract
from train import dataset as datasets
from train.data_checks import leaks
from train.dataset import Dataset
from train.evaluation.metrics import metrics
from train.evaluation.phase_metrics import Metrics
from train.inference.files import read_list
from train.inference.predict import predict
from train.inference.predictor import Trained
from train.tables import probability

_BATCH = 32


class ExternalValidationError(UserError):
    """The set can't be used to measure this run; the message names what is wrong and the fix."""


class Check(NamedTuple):
    """How the test images were compared with what the run has learnt from.

    `by` are the kinds of comparison that could be made; `left_out` how many images were found and dropped; `notes` say
    what could not be compared, and why.
    """

    by: tuple[str, ...]
    left_out: int
    notes: tuple[str, ...]


class Measured(NamedTuple):
    """A run's figures on the test images, and how these were compared with what it has learnt from."""

    metrics: Metrics
    check: Check


def measure(
    trained: Trained,
    manifest: Path,
    root: Path,
    progress: Callable[[int, int], None],
    *,
    drop_leaks: bool = False,
    other_groups: bool = False,
) -> Measured:
    """Run a trained model on the test images of a manifest, at the threshold that was chosen on its own validation.

    Args:
        trained: the run.
        manifest: of the set.
        root: what its paths are relative to.
        progress: called with (images done, images in all).
        drop_leaks: leave out images that the run has learnt from, rather than refuse the set.
        other_groups: a group of this set is another than the run's of the same name.

    Raises:
        ContractError: a manifest breaks the contract.
        DatasetError: an image is missing, or not the one in the manifest.
        LeakError: the record of what the run has learnt from is damaged.
        ExternalValidationError: no test images, other classes or sizes, or images that the run has learnt from.
    """
    rows = contract.read(manifest)
    test = rows[rows["split"] == "test"].reset_index(drop=True)
    if test.empty:
        raise ExternalValidationError(f"{manifest}: has no test images; build the set with test above 0")
    if strange := sorted(set(test["label"]) - set(trained.classes)):
        raise ExternalValidationError(
            f"{manifest}: has the class {strange[0]}, the run knows {', '.join(trained.classes)}"
        )
    sizes = sorted(set(zip(test["width"].tolist(), test["height"].tolist(), strict=True)))
    if sizes != [trained.size]:
        raise ExternalValidationError(
            f"{manifest}: images of {sizes[0]}, the run takes {trained.size}; build it with that size"
        )
    dataset = Dataset(test, contract.read_card(manifest), trained.classes, trained.size, root, "")
    datasets.expect_files(dataset, manifest)
    unseen, check = _unseen(trained, rows, dataset, manifest, drop_leaks=drop_leaks, other_groups=other_groups)
    for path, sha256 in zip(dataset.paths(unseen), unseen["sha256"], strict=True):
        datasets.expect_image(path, sha256)
    parts = []
    for batch in datasets.images(dataset.paths(unseen), trained.size, _BATCH):
        parts.append(trained.probabilities(batch.numpy()))
        progress(sum(map(len, parts)), len(unseen))
    groups, labels = unseen["group"].to_numpy(), dataset.labels(unseen)
    probabilities = np.concatenate(parts).astype(np.float64)
    return Measured(
        metrics(labels, probabilities, groups, trained.classes, trained.threshold, group_name=trained.group_name), check
    )


def measure_list(
    trained: Trained,
    place: Path,
    columns: Mapping[str, str],
    progress: Callable[[int, int], None],
    *,
    drop_leaks: bool = False,
    other_groups: bool = False,
) -> Measured:
    """Run a trained model on the images of a list, read as `predict` reads them, at the run's own threshold.

    Args:
        trained: the run.
        place: the list: CSV, TSV or Parquet with the columns path, label and, if it names groups, group.
        columns: how these are called, where they are called otherwise.
        progress: called with (images done, images in all).
        drop_leaks: as `measure` takes it.
        other_groups: as `measure` takes it.

    Raises:
        ListError: the list can't be read, or lacks a column.
        LeakError: the record of what the run has learnt from is damaged.
        ExternalValidationError: no readable image, a class that the run doesn't know, or images that the run has learnt
            from.
    """
    has_groups = "group" in columns or "group" in header(place)
    found, rows = read_list(place, columns, ["label", *(["group"] if has_groups else [])])
    broken, rows["path"] = found[len(rows) :], [str(entry.path) for entry in found[: len(rows)]]
    rows, unclear = _one_row_an_image(rows)
    if strange := sorted(set(rows["label"]) - set(trained.classes)):
        raise ExternalValidationError(
            f"{place}: has the class {strange[0]!r}, the run knows {', '.join(trained.classes)}; give a column of classes, or build "
            "a set of the list and give its manifest"
        )
    record, notes = _record(trained, Path())
    notes = unclear + notes
    by_path = {str(entry.path): entry for entry in found}
    table = predict(trained, [by_path[path] for path in rows["path"]], progress, record=record)
    is_read = (table["error"] == "").to_numpy()
    if (unread := len(table) - is_read.sum() + len(broken)) > 0:
        first = next((f"{row.file}: {row.error}" for row in table[~is_read].itertuples()), "")
        first = first or f"{broken[0].name}: {broken[0].error}"
        notes.insert(
            0, f"{unread:,} of its {len(table) + len(broken):,} rows have no image that can be read; first: {first}"
        )
    learnt, by = pd.Series("", table.index), tuple[str, ...]()
    if record:
        learnt, by, compared = _learnt(record, table, rows, other_groups=other_groups)
        notes += compared
    seen = (learnt != "").to_numpy()
    if seen.any() and not drop_leaks:
        raise _learnt_from(place, table["file"], learnt)
    used = is_read & ~seen
    if not used.any():
        raise ExternalValidationError(f"{place}: no image is left to measure the run on. {' '.join(notes)}".rstrip())
    groups = rows["group"].where(rows["group"] != "", rows["path"]) if has_groups else rows["path"]
    labels = rows["label"].map({name: index for index, name in enumerate(trained.classes)})
    probabilities = table.loc[used, [probability(name) for name in trained.classes]].to_numpy(np.float64)
    measured = metrics(
        labels[used].to_numpy(np.int64),
        probabilities,
        groups[used].to_numpy(),
        trained.classes,
        trained.threshold,
        group_name=trained.group_name,
    )
    return Measured(measured, Check(by, int(seen.sum()), tuple(notes)))


def _learnt(
    record: leaks.Record, table: pd.DataFrame, rows: pd.DataFrame, *, other_groups: bool
) -> tuple["pd.Series[str]", tuple[str, ...], list[str]]:
    """Why each image of a list was learnt from, or nothing; by what they were compared; and notes on what couldn't be."""
    found = table["trained_on"].fillna("").str.partition(", ")[2]  # the split comes first
    by = ("file", *(["pixels"] if len(record.pictured) else []))
    if "group" not in rows:
        unnamed = "Not compared: groups, which the list doesn't name; --columns group=COLUMN says where it does."
        return found, by, [unnamed]
    if other_groups:
        return found, by, []
    alike = leaks.called_alike(record, rows) & (rows["group"] != "") & (table["error"] == "")
    if (found != "").any():
        return found.mask(alike & (found == ""), "the same group"), (*by, "group"), []
    # Names such as `002` are given in every hospital, so that by themselves they say nothing.
    why = "the list and the run's set have no image in common"
    return found, by, [_taken_for_others(rows.loc[alike, "group"].nunique(), why)] if alike.any() else []


def _one_row_an_image(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The rows that say one class of an image, each image once, and a note on those that don't."""
    blank = rows["label"] == ""
    labelled = rows[~blank].drop_duplicates()
    several = labelled["path"].duplicated(keep=False)
    left_out = {
        "rows without a class": rows.loc[blank, "path"],
        "images with several classes or groups": labelled.loc[several, "path"].drop_duplicates(),
    }
    notes = [
        f"Left out, {what}: {len(paths):,}; first: {paths.iloc[0]}" for what, paths in left_out.items() if len(paths)
    ]
    return labelled[~several].reset_index(drop=True), notes


def _taken_for_others(count: int, why: str) -> str:
    return f"{count:,} of its groups are called as groups that the run learnt from. They are taken for others, since {why}."


def _learnt_from(place: Path, names: "pd.Series[str]", found: "pd.Series[str]") -> ExternalValidationError:
    """The refusal of images that the run has learnt from; `found` says of each why it is one, or nothing."""
    same = found != ""
    kinds = ", ".join(f"{reason}: {(found == reason).sum():,}" for reason in leaks.REASONS if (found == reason).any())
    fix = "--on-leak drop leaves them out"
    if (found[same] == "the same group").all():
        fix += ", --other-groups says that these are others of the same name"
    return ExternalValidationError(
        f"{place}: {same.sum():,} of its {len(found):,} test images ({names[same].iloc[0]}, ...) are among those that the run "
        f"learnt from, or show the same groups ({kinds}); its figures would be too good. {fix}"
    )


def _unseen(
    trained: Trained, rows: pd.DataFrame, dataset: Dataset, manifest: Path, *, drop_leaks: bool, other_groups: bool
) -> tuple[pd.DataFrame, Check]:
    """The test images that the run has not learnt from, as far as that can be said."""
    test = dataset.rows
    record, notes = _record(trained, dataset.root)
    if record is None:
        return test, Check((), 0, tuple(notes))
    by_group = not other_groups and _same_groups(trained, record, rows, dataset.card)
    alike = test.loc[leaks.called_alike(record, test), "group"].nunique()
    if alike and not by_group and not other_groups:
        why = "the two sets have no image in common and their sources lie in different folders"
        notes.append(_taken_for_others(alike, why))
    found = leaks.find(record, test, dataset.paths(test), by_group=by_group)
    same = found != ""
    if same.any() and not drop_leaks:
        raise _learnt_from(manifest, test["path"], found)
    if same.all():
        raise ExternalValidationError(
            f"{manifest}: the run has learnt from all of its {len(test):,} test images; give another set"
        )
    by = ["source", "file", *(["pixels"] if len(record.pictured) else []), *(["group"] if by_group else [])]
    return test[~same].reset_index(drop=True), Check(tuple(by), int(same.sum()), tuple(notes))


def _record(trained: Trained, root: Path) -> tuple[leaks.Record | None, list[str]]:
    """What the run has learnt from, and what is not known of that."""
    record = leaks.read(trained.run)
    if record is not None:
        return record, []
    # A run of an older version: its set's manifest says it, as long as it is the one that the run was trained on.
    named = Path(str(trained.settings.get("manifest", "")))
    older = "the run was made by a version that kept no record of its images"
    for manifest in (named, root / named):
        try:
            is_own = hashlib.sha256(manifest.read_bytes()).hexdigest() == trained.settings.get("manifest_sha256")
        except (OSError, ValueError):  # ValueError: a name that no file can have
            continue
        if is_own:
            own = Dataset(contract.read(manifest), {}, trained.classes, trained.size, root, "")
            return leaks.Record.of(leaks.learnt(own, None)), [f"Not checked by pixels: {older}."]
    note = (
        f"Not checked: whether the run learnt from these images; {older}, and its set's manifest ({named}) is gone or "
        "another by now. Train the run again to have it checked."
    )
    return None, [note]


def _same_groups(trained: Trained, record: leaks.Record, rows: pd.DataFrame, card: dict[str, Any]) -> bool:
    """Whether a group's name means the same in both sets: unless they are known to be of different sources.

    Names such as `002` are given in every hospital, so that by themselves they say nothing.
    """
    if rows["source_sha256"].isin(record.rows["source_sha256"]).any():
        return True
    own, other = trained.settings.get("source"), card.get("source")
    return not own or not other or own == other
