"""Whom an image shows, read from its name: the group that splitting keeps together, such as a patient."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from augment.list_format import ListFormat
from augment.sources.layout import Listed

# How names commonly begin with a patient: up to a separator, or letters and a number, or a number.
_CANDIDATES = (r"([^_]+)_", r"([^-]+)-", r"([^ ]+) ", r"([^.]+)\.", r"(.+)[_-]", r"([A-Za-z]+\d+)", r"(\d+)")
_LEAST_SHARE = 0.5  # of the names that must show a group, for groups to pass for known


class Groups(NamedTuple):
    """How the groups of a source were found: `matched` of `of` files by the pattern, an inner folder or a list's column."""

    pattern: str
    matched: int
    of: int
    example: str = ""  # a name that the pattern doesn't match
    suggestion: str = ""  # a pattern that would match most names and join several files each
    list_format: ListFormat | None = None  # how the list was read, of a source that is one
    tag: str = ""  # by which DICOM files were grouped before all else
    name: str = "group"  # what the recipe calls one

    @property
    def are_known(self) -> bool:
        """Whether most files show whom they are of; if not, each is taken for a group of its own."""
        return self.matched >= _LEAST_SHARE * self.of

    @property
    def warning(self) -> str:
        """What to say where names don't match; empty if all do."""
        if self.matched == self.of:
            return ""
        alone = f"counts as its own {self.name}, and one {self.name} may be in several splits"
        if self.tag and self.matched:
            return (
                f"{self.of - self.matched:,} of {self.of:,} images (such as {self.example}) have no {self.tag}, and nothing else "
                f"names their group, so each of those {alone}"
            )
        if self.list_format and self.list_format.group:
            return (
                f"the column {self.list_format.group} names no group for {self.of - self.matched:,} of {self.of:,} images (not for "
                f"{self.example}), so each of those {alone}"
            )
        if self.list_format and not self.matched:
            return (
                f"the list names no groups, so each of its {self.of:,} images {alone}; in the recipe, give the column of the "
                f"{self.name}, `list: {{group: COLUMN}}`, or a `group` pattern that finds it in the path"
            )
        advice = (
            f"in the recipe, try `group: '{self.suggestion}'`"
            if self.suggestion
            else f"give the recipe a `group` pattern, or `group: '(.+)'` if each file is of another {self.name}"
        )
        return (
            f"the group pattern {self.pattern} matches {self.matched:,} of {self.of:,} file names (not {self.example}), so "
            f"each other file {alone}; {advice}"
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


def groups_of_list(files: pd.DataFrame, pattern: str, default: str) -> list[str]:
    """The group of each image of a list: as its column says, or by a pattern, or else the path itself.

    Args:
        files: with the columns source and group, empty where the list names none.
        pattern: searched in the whole path, unless it is the default, which is matched at the start of a file's name.
        default: as `find_groups` takes it.
    """
    by_path = (lambda path: _by_name(path, pattern)) if pattern == default else (lambda path: _searched(path, pattern))
    named = zip(files["source"].tolist(), files["group"].tolist(), strict=True)
    return [group or by_path(source) or source for source, group in named]


def describe_groups(
    sources: pd.DataFrame, pattern: str, list_format: ListFormat | None = None, tag: str = "", group_name: str = "group"
) -> Groups:
    """How the groups of some sources were found.

    Args:
        sources: of the table that `scan` gives; those that are no images say nothing of names.
        pattern: that their groups were looked for by.
        list_format: how the list was read, of a source that is one.
        tag: by which DICOM files were grouped, if they were.
        group_name: what the recipe calls one.
    """
    unknown = sources.loc[sources["group"] == sources["source"], "source"]
    names = [name.rpartition("/")[2] for name in unknown]
    example, suggestion = (names[0], _suggest(names)) if names else ("", "")
    return Groups(pattern, len(sources) - len(names), len(sources), example, suggestion, list_format, tag, group_name)


def _by_name(source: str, pattern: str) -> str:
    match = re.match(pattern, source.rpartition("/")[2])
    return unicodedata.normalize("NFC", match[1]) if match and match[1] else ""


def _searched(path: str, pattern: str) -> str:
    match = re.search(pattern, path)
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
