"""Whom an image shows, read from its name: the group that splitting keeps together, usually the patient."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from augment.sources.layout import Listed

# How names commonly begin with a patient: up to a separator, or letters and a number, or a number.
_CANDIDATES = (r"([^_]+)_", r"([^-]+)-", r"([^ ]+) ", r"([^.]+)\.", r"(.+)[_-]", r"([A-Za-z]+\d+)", r"(\d+)")
_LEAST_SHARE = 0.5  # of the names that must show a group, for groups to pass for known


class Groups(NamedTuple):
    """How the groups of a source were found: `matched` of `of` files by the pattern or by an inner folder."""

    pattern: str
    matched: int
    of: int
    example: str = ""  # a name that the pattern doesn't match
    suggestion: str = ""  # a pattern that would match most names and join several files each

    @property
    def are_known(self) -> bool:
        """Whether most files show whom they are of; if not, each is taken for a group of its own."""
        return self.matched >= _LEAST_SHARE * self.of

    @property
    def warning(self) -> str:
        """What to say where names don't match; empty if all do."""
        if self.matched == self.of:
            return ""
        advice = (
            f"in the recipe, try `group: '{self.suggestion}'`"
            if self.suggestion
            else "give the recipe a `group` pattern, or `group: '(.+)'` if each file is of another patient"
        )
        return (
            f"the group pattern {self.pattern} matches {self.matched:,} of {self.of:,} file names (not {self.example}), so "
            f"each other file counts as a patient of its own, and a patient may be in several splits; {advice}"
        )


def group_of(source: str, pattern: str) -> str:
    """Whom the image at `source` shows: the pattern's first group in its file name, or else the path itself."""
    return _by_name(source, pattern) or source


def find_groups(files: Sequence[Listed], pattern: str, default: str) -> list[str]:
    """The group of each file: its path, where neither its name nor a folder shows one.

    Args:
        files: as listed.
        pattern: a regular expression, matched at the start of a file name; its first group names the group.
        default: the pattern that stands where a recipe gives none. The folder between a class and a file names the group
            before the default does, but not before a pattern of the recipe's own.
    """
    found = []
    for file in files:
        by_name = _by_name(file.source, pattern)
        group = (file.inner or by_name) if pattern == default else (by_name or file.inner)
        found.append(group or file.source)
    return found


def describe_groups(sources: pd.DataFrame, pattern: str) -> Groups:
    """How the groups of some sources were found.

    Args:
        sources: of the table that `scan` gives; those that are no images say nothing of names.
        pattern: that their groups were looked for by.
    """
    unknown = sources.loc[sources["group"] == sources["source"], "source"]
    names = [name.rpartition("/")[2] for name in unknown]
    example, suggestion = (names[0], _suggest(names)) if names else ("", "")
    return Groups(pattern, len(sources) - len(names), len(sources), example, suggestion)


def _by_name(source: str, pattern: str) -> str:
    match = re.match(pattern, source.rpartition("/")[2])
    return unicodedata.normalize("NFC", match[1]) if match and match[1] else ""


def _suggest(names: Sequence[str]) -> str:
    """A pattern that finds in most names a beginning that repeats; empty if none does."""
    for pattern in _CANDIDATES:
        groups = Counter(match[1] for name in names if (match := re.match(pattern, name)))
        repeats = [count for count in groups.values() if count > 1]
        most = max(groups.values(), default=0)
        if len(groups) >= 5 and groups.total() >= 0.9 * len(names) and sum(repeats) >= 0.2 * len(names) > most / 2:
            return pattern
    return ""
