"""The test for whether two kinds of images differ: seldom wrong of noise, and not blind."""

import numpy as np
import pytest
from scipy.stats import binom

from train.data_checks import chance

KIND = np.repeat([False, True], 40)


@pytest.mark.parametrize("of_patient", [1, 4])
def test_noise_seldom_differs(of_patient: int) -> None:
    """At p < 0.05 in about 5 % of samples, whatever the images of a patient have in common."""
    found = []
    patients = np.arange(80) // of_patient
    for seed in range(80):
        rng = np.random.default_rng(seed)
        features = rng.normal(size=(80, 20))[patients] + 0.5 * rng.normal(size=(80, 20))
        found.append(chance.p_of(features, KIND, patients))
    most = binom.ppf(0.999, 80, 0.05)
    assert sum(p < 0.05 for p in found) <= most
    assert np.mean(found) == pytest.approx(0.5, abs=0.12)


def test_a_difference_is_seen() -> None:
    """In one of 200 numbers, in every order of the rows."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(80, 200))
    features[KIND, 0] += 5
    assert chance.p_of(features, KIND, np.arange(80)) < 0.01
    order = rng.permutation(80)
    assert chance.p_of(features[order], KIND[order], np.arange(80)[order]) < 0.01


def test_images_of_one_patient_are_one() -> None:
    """Eight images each of three and three patients are told apart fully, as one in twenty exchanges of patients is."""
    patients = np.repeat(np.arange(6), 8)
    kind = patients >= 3
    features = np.random.default_rng(1).normal(size=(6, 50))[patients]
    features[kind, 0] += 20
    assert chance.p_of(features, kind, patients) >= 0.04
    assert chance.p_of(features, kind, np.arange(48)) < 0.001, "if they were of 48"


def test_what_is_one_number_and_whom_both_kinds_show_give_no_difference() -> None:
    """Equal predictions are no evidence, however the rows are sorted; patients on both sides can't be exchanged."""
    assert chance.p_of(np.ones((80, 3)), KIND, np.arange(80)) > 0.05
    features = KIND[:, None] + np.random.default_rng(0).normal(0, 0.1, (80, 1))
    assert chance.p_of(features, KIND, np.arange(80) % 40) == 1.0
