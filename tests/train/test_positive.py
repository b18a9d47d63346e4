"""Which of two classes is the positive one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.positive import choose


@pytest.mark.parametrize(
    ("negative", "positive"),
    [
        ("NORMAL", "COVID"),
        ("NORMAL", "PNEUMONIA"),
        ("well", "ill"),
        ("healthy", "Diseased"),
        ("control", "Alzheimer"),
        ("Uninfected", "Parasitized"),
        ("benign", "malignant"),
        ("absent", "present"),
        ("negative", "Positive"),
        ("no", "yes"),
        ("none", "lesion"),
        ("0", "1"),
        ("00", "01"),
        ("FALSE", "TRUE"),
        ("-", "+"),
        ("class0", "class1"),
        ("grade 0", "grade 10"),
        ("NO_PNEUMONIA", "PNEUMONIA"),
        ("No Finding", "Effusion"),
        ("NoFinding", "Finding"),
        ("non-covid", "covid"),
        ("notumor", "tumor"),
        ("NonDemented", "Demented"),
        ("without fracture", "with fracture"),
        ("w/o mass", "mass"),
        ("uninjured", "injured"),
        ("healthy", "unhealthy"),
        ("healthy", "not healthy"),
        ("normal", "non-normal"),
        ("normal", "abnormal"),
        ("normal lung", "acute"),
        ("stable", "unstable"),
        ("typical", "Atypical"),
        ("symmetric", "asymmetric"),
        ("complete", "incomplete"),
        ("clear", "cloudy"),
        ("well", "not well"),
    ],
)
def test_what_a_name_calls_negative_is_not_positive(negative: str, positive: str) -> None:
    """In any case, as the whole name or a word of it, whichever comes first; the reason names it."""
    for labels in ((negative, positive), (positive, negative)):
        found = choose(labels, None)
        assert found.classes == (negative, positive)
        assert found.reason == f"the name {negative!r} says negative"
        assert choose(labels, negative).classes == (positive, negative)
        assert choose(labels, positive).classes == (negative, positive)


@pytest.mark.parametrize(
    "labels",
    [
        ("cat", "dog"),
        ("01", "02"),
        ("benign", "normal"),
        ("10", "9"),
        ("", "x"),
        ("NIH", "noise"),
        ("clear cell", "papillary"),
        ("poorly differentiated", "well differentiated"),
        ("aseptic", "septic"),
    ],
)
def test_where_names_say_nothing_the_second_is_positive(labels: tuple[str, str]) -> None:
    """Neither or both: the alphabetically second, as it says."""
    assert choose(labels, None) == (labels, "the alphabetically second")


@given(st.text(), st.text())
def test_any_two_names_have_one_order(one: str, two: str) -> None:
    """Whatever they are called, and in whichever order they come."""
    if one != two:
        found = choose((one, two), None)
        assert found == choose((two, one), None)
        assert set(found.classes) == {one, two}
