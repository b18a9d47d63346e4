"""What a list says of an image -> its class, or why it has none."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from augment.list_format import ANY, LEAVE_OUT, MAJORITY, NEGATIVE, POSITIVE, ListFormat
from common.errors import printable

_YES, _NO, _UNCERTAIN = ("true", "yes", "y", "t"), ("false", "no", "n", "f"), ("uncertain", "u")
_AROUND = " \t'\"[]"  # of a finding, where a cell is a list as Python prints it


class Finding(NamedTuple):
    """The class that a row gives its image, or, where it gives none, the reason.

    `rule` says what the row leaves open, where one of the recipe's rules decided.
    """

    label: str
    reason: str = ""
    rule: str = ""


def classes(given: ListFormat) -> tuple[str, str]:
    """The names of the negative and the positive class, where one finding is set against the rest."""
    return given.negative or f"no {given.positive}", str(given.positive)


def findings_of(cell: str, given: ListFormat) -> list[str]:
    """The findings that a cell of the label column holds."""
    if given.separator is None:
        return [cell] if cell else []
    return [finding for each in cell.split(given.separator) if (finding := each.strip(_AROUND))]


def of_cell(cell: str, given: ListFormat) -> Finding:
    """The class that a cell of the label column gives."""
    findings = findings_of(cell, given)
    if given.positive is None:
        if len(findings) > 1:
            return Finding("", "several findings; list.positive would set one of them against the rest")
        return Finding(findings[0]) if findings else Finding("", f"left out: {given.label} is blank")
    rule, what = given.blank, f"{given.label} is blank"
    if cell not in (given.positive, given.negative) and (cell.casefold() == "uncertain" or cell in ("-1", "-1.0")):
        rule, what = given.uncertain, f"{given.label} is uncertain"
    elif findings:
        return _against(given.positive in findings, given.negative in findings if given.negative else None, given)
    if rule == LEAVE_OUT:
        return Finding("", f"left out: {what}")
    return _against(rule == POSITIVE, rule == NEGATIVE if given.negative else None, given)._replace(rule=what)


def of_columns(positive: str, negative: str | None, given: ListFormat) -> Finding:
    """The class that two columns of 1, 0, -1 or blank give: of the one finding, and of the other if there is one."""
    found, other = _sign(positive), None if negative is None else _sign(negative)
    for column, cell, sign in ((given.positive, positive, found), (given.negative, negative, other)):
        if sign == "?":
            return Finding("", f"{column} is {cell!r:.40}, expected 1, 0, -1 or blank")
    rule = what = ""
    if found == "-1":
        rule, what = given.uncertain, f"{given.positive} is uncertain"
    elif found == "" and other != "1":
        rule, what = given.blank, f"{given.positive} is blank"
    if rule == LEAVE_OUT:
        return Finding("", f"left out: {what}")
    is_positive = rule == POSITIVE if rule else found == "1"
    by_rule = _against(is_positive, None if other is None else other == "1", given)
    return by_rule._replace(rule=what if by_rule.label else "")


def combine(found: Sequence[Finding], readers: Sequence[str], given: ListFormat) -> Finding:
    """The class of an image that several rows are about.

    Args:
        found: what each row gives.
        readers: who wrote each row; with `majority`, each has one vote: positive if one of their rows is.
        given: how rows that disagree are combined.
    """
    if len(set(found)) == 1:
        return found[0]
    if given.several == ANY:
        return _any(found, given)
    if given.several != MAJORITY:
        return Finding("", f"its rows disagree: {_listed(found)}")
    votes: dict[str, list[Finding]] = {}
    for number, (reader, finding) in enumerate(zip(readers, found, strict=True)):
        votes.setdefault(reader if given.reader else str(number), []).append(finding)
    counted = Counter(_vote(of_one, given) for of_one in votes.values())
    (winner, most), *others = counted.most_common()
    if others and others[0][1] == most:
        return Finding("", f"no majority among its {'readers' if given.reader else 'rows'}: {_listed(found)}")
    neither = Finding("", f"its rows disagree: {_listed(found)}")  # each reader with himself
    return winner if winner.label else next((each for each in found if not each.label), neither)


def _vote(found: Sequence[Finding], given: ListFormat) -> Finding:
    """What one reader says of an image, without reasons."""
    if given.positive:
        return Finding(_any(found, given).label)
    return Finding(found[0].label if len(set(found)) == 1 else "")


def _any(found: Iterable[Finding], given: ListFormat) -> Finding:
    """Positive if a row is, else negative if a row is, else as the first that says why it is neither."""
    by_label = {each.label: each for each in reversed(list(found))}
    negative, positive = classes(given)
    return by_label.get(positive) or by_label.get(negative) or by_label[""]


def _against(is_positive: bool, is_negative: bool | None, given: ListFormat) -> Finding:
    negative, positive = classes(given)
    if is_positive and is_negative:
        return Finding("", f"contradictory: {positive} and {negative}")
    if is_positive:
        return Finding(positive)
    if is_negative is False:
        return Finding("", f"left out: neither {positive} nor {negative}")
    return Finding(negative)


def _sign(cell: str) -> str:
    """A cell that stands for yes, no, uncertain or nothing as 1, 0, -1 or nothing; a question mark for any other."""
    word = cell.strip().casefold()
    for sign, words in (("1", _YES), ("0", _NO), ("-1", _UNCERTAIN)):
        if word in words:
            return sign
    try:
        number = float(word) if word else None
    except ValueError:
        return "?"
    return "" if number is None else {1.0: "1", 0.0: "0", -1.0: "-1"}.get(number, "?")


def _listed(found: Iterable[Finding]) -> str:
    said = sorted({printable(each.label or each.reason.removeprefix("left out: ")) for each in found})
    return f"{', '.join(said):.200}"
