"""Which of two classes is the positive one: the one that sensitivity, thresholds and curves are about."""

import re
from typing import NamedTuple

# Words by which a class's name says that there is nothing to be found.
_NEGATIVE = frozenset(
    [
        "0",
        "absence",
        "absent",
        "background",
        "benign",
        "clean",
        "control",
        "controls",
        "false",
        "healthy",
        "neg",
        "negative",
        "nil",
        "none",
        "normal",
        "ok",
        "unaffected",
        "undamaged",
        "undiseased",
        "unfractured",
        "unharmed",
        "uninfected",
        "uninjured",
        "unremarkable",
    ]
)
_ALONE = frozenset(["clear", "well"])  # the same, but not in a longer name: "clear cell", "well differentiated"
_NEGATORS = frozenset(["no", "non", "not", "without", "w/o"])
# Of the other class's name: "nontumor" beside "tumor". Not "un", "in" or "a": unstable and atypical are the findings.
_PREFIXES = ("no", "non", "not", "without")
# Names without a finding beside the same with one of the other prefixes.
_SOUND = frozenset(["complete", "regular", "stable", "symmetric", "symmetrical", "typical"])
_FAULTS = ("un", "in", "a", "ir")
_WORD = re.compile(r"w/o|[^\W\d_]+|\d+")


class Choice(NamedTuple):
    """Two classes, the negative one first, and why the second is the positive one."""

    classes: tuple[str, str]
    reason: str


def choose(labels: tuple[str, str], positive: str | None) -> Choice:
    """Order two classes, so that the positive one is the second.

    Args:
        labels: the names of the classes.
        positive: the one that was asked for; None: the one whose name doesn't say that there is nothing to be found
            (NORMAL, healthy, negative, control, no_finding, non-covid, 0, ...), or the alphabetically second.
    """
    first, second = sorted(labels)
    if positive is not None:
        return Choice((second, first) if positive == first else (first, second), "as --positive says")
    negative = [_is_negative(first), _is_negative(second)]
    if not any(negative):
        negative = [_negates(first, second), _negates(second, first)]
    if negative[0] == negative[1]:
        return Choice((first, second), "the alphabetically second")
    classes = (first, second) if negative[0] else (second, first)
    return Choice(classes, f"the name {classes[0]!r} says negative")


def _is_negative(name: str) -> bool:
    """Whether a name says that there is nothing to be found, as `NORMAL`, `no_finding` and `NonDemented` do."""
    if name.strip() == "-":
        return True
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)  # NoFinding
    words = [(word.lstrip("0") or "0") if word.isdecimal() else word for word in _WORD.findall(apart.casefold())]
    for word, after in zip(words, [*words, ""][1:], strict=True):
        if word in _NEGATORS:
            return after not in _NEGATIVE | _ALONE  # "not healthy" is a finding
        if word in _NEGATIVE or (word in _ALONE and len(words) == 1):
            return True
    return False


def _negates(name: str, other: str) -> bool:
    """Whether a name is the other with a prefix that says no, as `nontumor`, or what the other denies, as `stable`."""
    name, other = ("".join(re.findall(r"[^\W_]+", each.casefold())) for each in (name, other))
    return any(name == prefix + other for prefix in _PREFIXES) or (
        name in _SOUND and any(other == prefix + name for prefix in _FAULTS)
    )
