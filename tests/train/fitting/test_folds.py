"""The division of patients into folds."""

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, reject
from hypothesis import strategies as st

from train.dataset import Dataset, DatasetError
from train.fitting import folds

CLASSES = ("0", "01")


def a_set(counts: list[tuple[str, int, bool]], test: int = 2) -> Dataset:
    """Patients 000, 001, ... by (class, sources, whether these are there as they are), each source augmented twice."""
    rows = [
        (
            f"{group:03}/{source}-{variant}.jpg",
            "train" if group % 3 else "val",
            label,
            f"{group:03}",
            f"{group:03}/{source}",
            variant,
        )
        for group, (label, sources, original) in enumerate(counts)
        for source in range(sources)
        for variant in range(0 if original else 1, 3)
    ]
    rows += [(f"t{number}.jpg", "test", CLASSES[number % 2], f"t{number}", f"t{number}", 0) for number in range(test)]
    found = pd.DataFrame(rows, columns=["path", "split", "label", "group", "source", "variant"])
    found = found.assign(source_sha256=found["source"], sha256=found["path"])
    return Dataset(found, {}, CLASSES, (8, 8), Path(), "")


patients = st.lists(st.tuples(st.sampled_from(CLASSES), st.integers(1, 3), st.booleans()), min_size=6, max_size=40)


@given(patients, st.integers(2, 5), st.integers(1, 2), st.integers(0, 2**31 - 1))
def test_every_patient_is_held_out_once_and_trained_on_otherwise(
    counts: list[tuple[str, int, bool]], count: int, repeats: int, seed: int
) -> None:
    """In each repeat; with all of its images, and scored on those that are not augmented."""
    assume(all(sum(label == each and original for each, _, original in counts) >= count for label in CLASSES))
    dataset = folds.pooled(a_set(counts))
    try:
        divided = folds.assign(dataset, count, repeats, seed)
    except DatasetError:  # few patients, each with many sources: a fold without a class
        reject()
    rows = dataset.of("train").reset_index(drop=True)
    assert "val" not in set(dataset.rows["split"])
    assert [(fold.repeat, fold.number) for fold in divided] == [
        (repeat, number) for repeat in range(1, repeats + 1) for number in range(1, count + 1)
    ]
    for fold in divided:
        trained, held_out = (set(rows["group"].iloc[places]) for places in (fold.train, fold.held_out))
        assert not trained & held_out
        assert len(fold.train) + len(fold.held_out) == len(rows)
        assert set(fold.val) == {place for place in fold.held_out if rows["variant"].iloc[place] == 0}
    for repeat in range(1, repeats + 1):
        times = Counter(place for fold in divided if fold.repeat == repeat for place in fold.held_out)
        assert times == Counter(range(len(rows)))
    assert len({fold.seed for fold in divided}) == len(divided)


def test_patients_who_share_an_image_stay_together() -> None:
    """However they are chained: else a fold would train on the bytes that it is scored on."""
    dataset = folds.pooled(a_set([("0", 1, True)] * 20 + [("01", 1, True)] * 20))
    number = dataset.rows["group"].str.extract(r"(\d+)")[0].astype(int)
    # 000 shares with 001 its source, 001 with 002 its image as it is written, 003 with 004 its source, and so on.
    chained = dataset.rows.assign(
        source_sha256=np.where(number % 5 < 2, (number // 5).astype(str), dataset.rows["source_sha256"]),
        sha256=np.where((number % 5).isin([1, 2]), (number // 5).astype(str), dataset.rows["sha256"]),
    )
    rows = chained[chained["split"] == "train"].reset_index(drop=True)
    for fold in folds.assign(dataset._replace(rows=chained), 3, 2, 0):
        held_out = set(rows["group"].iloc[fold.held_out])
        for first in range(0, 40, 5):
            together = {f"{first + place:03}" for place in range(3)}
            assert together <= held_out or not together & held_out
        for column in ("source_sha256", "sha256"):
            assert not set(rows[column].iloc[fold.train]) & set(rows[column].iloc[fold.val])


def test_sources_of_one_name_are_those_of_their_patients() -> None:
    """A manifest from elsewhere may call them 0.png in each patient's folder; every image is held out once."""
    dataset = folds.pooled(a_set([("0", 2, True)] * 20 + [("01", 1, True)] * 20))
    named = dataset._replace(rows=dataset.rows.assign(source=dataset.rows["source"].str[-1] + ".png"))
    times = Counter(place for fold in folds.assign(named, 4, 1, 0) for place in fold.held_out)
    assert times == Counter(range((dataset.rows["split"] == "train").sum()))


def test_folds_are_stratified_by_class_and_by_what_can_be_scored() -> None:
    """With one source a patient, classes and originals differ by one between folds at most."""
    dataset = folds.pooled(a_set([("0", 1, True)] * 20 + [("01", 1, True)] * 41 + [("01", 1, False)] * 30))
    rows = dataset.of("train").reset_index(drop=True)
    for fold in folds.assign(dataset, 5, 3, 0):
        held_out = rows.iloc[fold.held_out].drop_duplicates("source")
        assert Counter(held_out["label"] + (held_out["variant"] == 0).astype(str)) in (
            {"0True": 4, "01True": 8, "01False": 6},
            {"0True": 4, "01True": 9, "01False": 6},
        )


def test_folds_follow_from_names_and_seed_alone() -> None:
    """Not from the order of the rows; repeats differ, and so do seeds."""
    dataset = folds.pooled(a_set([("0", 1, True)] * 20 + [("01", 2, True)] * 20))
    groups = dataset.of("train")["group"].to_numpy()
    shuffled = dataset._replace(rows=dataset.rows.iloc[np.random.default_rng(0).permutation(len(dataset.rows))])
    of_shuffled = shuffled.of("train")["group"].to_numpy()

    def divided(seed: int) -> list[set[str]]:
        return [set(groups[fold.held_out]) for fold in folds.assign(dataset, 4, 2, seed)]

    assert [set(of_shuffled[fold.held_out]) for fold in folds.assign(shuffled, 4, 2, 7)] == divided(7)
    assert divided(7) != divided(8)
    assert divided(7)[:4] != divided(7)[4:]


def test_a_set_is_scored_on_its_unaugmented_images() -> None:
    """Those of train and val; its augmented ones are only trained on."""
    dataset = folds.scored(a_set([("0", 1, True), ("01", 1, False), ("01", 2, True)]))
    rows = dataset.rows
    assert rows.loc[rows["split"] == "val", "path"].tolist() == ["000/0-0.jpg", "002/0-0.jpg", "002/1-0.jpg"]
    assert (rows.loc[rows["split"] == "train", "variant"] > 0).all()
    assert (rows["split"] == "test").sum() == 2


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ([("0", 1, True)] * 2 + [("01", 1, True)] * 9, "images (variant 0) of class 0 of 2 groups, and each fold"),
        ([("0", 1, False)] * 9 + [("01", 1, True)] * 9, "images (variant 0) of class 0 of 0 groups, and each fold"),
    ],
)
def test_too_few_patients_are_named(counts: list[tuple[str, int, bool]], words: str) -> None:
    """The class, how many, and what to do."""
    with pytest.raises(DatasetError) as caught:
        folds.assign(folds.pooled(a_set(counts)), 3, 1, 0)
    assert words in str(caught.value)
    assert str(caught.value).endswith("give fewer folds, or collect more images")
