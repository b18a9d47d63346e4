"""The files below a folder, found by what a list calls them: a path, the end of one, or a name."""

from collections.abc import Iterable
from typing import NamedTuple

from common.images.formats import ENDINGS
from common.lists import nfc


class Match(NamedTuple):
    """The file that a path means, relative to the folder; or nothing and the reason.

    `is_end`: the file's path is only the end of the one in the list, which begins in a folder around this one.
    """

    file: str
    reason: str = ""
    is_end: bool = False


class Lookup:
    """Files below a folder, by the ends of their paths."""

    def __init__(self, files: Iterable[str]) -> None:
        """Args: files: their paths, POSIX, relative to the folder."""
        files = list(files)
        names = list(files)
        if composed := {nfc(file): file for file in files if not file.isascii()}:  # some file systems decompose é
            more = composed.keys() - set(files)
            names, files = [*files, *more], [*files, *(composed[name] for name in more)]
        self._files = _Ends(names, files)
        self._stems: _Ends | None = None

    def find(self, path: str) -> Match:
        """The file that a path in a list means.

        That is the file at this path; or else the one whose path ends as this one does; or else the one whose path is
        the end of this one, since lists begin in folders around this one. A name without an ending finds one with it.
        """
        if not (parts := _parts(path)):
            return Match("", "no path")
        found = self._files.find(parts)
        if not found:
            if self._stems is None:
                self._stems = self._files.without_endings()
            found = self._stems.find(parts)
        return found or Match("", "no such file")

    def find_all(self, paths: list[str]) -> tuple[list[str], dict[str, str]]:
        """The file of each path, empty where there is none; and of such a path, the reason. Fast for whole paths and names.

        Different paths that only end as one file's does can't all mean it: then none of them does. Where no path is found,
        the folder around them may be called otherwise here.
        """
        reasons: dict[str, str] = {}
        files = [file if isinstance(file, str) else "" for file in map(self._files.by_end(1).get, paths)]
        if not all(files):
            whole = map(self._files.by_end(0).get, paths)
            files = [file or (at if isinstance(at, str) else "") for file, at in zip(files, whole, strict=True)]
        found = {path: self.find(path) for path, file in zip(paths, files, strict=True) if not file}
        if not any(files) and not any(match.file for match in found.values()):
            found |= self._renamed(list(found))
        first: dict[str, str] = {}
        contested: set[str] = set()
        if any(match.is_end for match in found.values()):
            for path, file in zip(paths, files, strict=True):
                meant = file or found[path].file
                other = first.setdefault(meant, path)
                if other != path and _parts(other) != _parts(path):
                    contested.add(meant)
        for at in [at for at, file in enumerate(files) if not file]:
            match = found[paths[at]]
            if match.is_end and match.file in contested:
                match = Match("", "no such file: the one that it ends as is another row's")
            files[at] = match.file
            if match.reason:
                reasons[paths[at]] = match.reason
        return files, reasons

    def _renamed(self, paths: list[str]) -> dict[str, Match]:
        """The files of paths that begin in one folder, which has another name here: `C:/export`, say, and `images`.

        Which one it is most of the paths that end as a file does must agree on, and they must go on in different folders:
        else a patient's folder that is missing would pass for another patient's.
        """
        found: dict[tuple[str, str], dict[str, str]] = {}  # by the folder's names, there and here
        for path in paths:
            parts = _parts(path)
            if match := self._files.longest_end(parts):
                file, count = match
                there, here = "/".join(parts[:-count]), file.rsplit("/", count)[0]
                found.setdefault((there, here), {})[path] = file
        (there, _), agreed = max(found.items(), key=lambda each: len(each[1]), default=(("", ""), {}))
        inner = {_parts(path)[there.count("/") + 1] for path in agreed}
        if len(inner) < 2 or 2 * len(agreed) <= sum(map(len, found.values())):
            return {}
        return {path: Match(file) for path, file in agreed.items()}


class _Ends:
    """Files by their names, and by the last parts of those."""

    def __init__(self, names: list[str], files: list[str]) -> None:
        """Args: names: what each file is found by, a path; files: the files."""
        self._names, self._files = names, files
        self._by_count: dict[int, dict[str, str | list[str]]] = {}
        self._depth = 1 + max((name.count("/") for name in names), default=0)

    def find(self, parts: list[str]) -> Match | None:
        """The file that a path of these parts means; None if there is none."""
        for count in range(min(len(parts), self._depth), 0, -1):
            end = nfc("/".join(parts[-count:]))
            found = self.by_end(count).get(end)
            whole = self.by_end(0).get(end) if found else None
            is_end = count < len(parts)
            if found is None or (is_end and whole is None):
                continue
            found = whole if whole and not is_end else found
            if isinstance(found, list):
                return Match("", f"may be {found[0]} or {found[1]}; give more of its path")
            return Match(found, is_end=is_end)
        return None

    def longest_end(self, parts: list[str]) -> tuple[str, int] | None:
        """The one file that a path has most parts at its end in common with, a folder and a name at least; and how many."""
        for count in range(min(len(parts), self._depth) - 1, 1, -1):
            if found := self.by_end(count).get(nfc("/".join(parts[-count:]))):
                return (found, count) if isinstance(found, str) else None
        return None

    def without_endings(self) -> "_Ends":
        """The same files by their names without the endings that images have."""
        split = [name.rpartition(".") for name in self._names]
        pairs = [
            (stem, file) for (stem, _, end), file in zip(split, self._files, strict=True) if end.lower() in ENDINGS
        ]
        return _Ends([stem for stem, _ in pairs], [file for _, file in pairs])

    def by_end(self, count: int) -> dict[str, str | list[str]]:
        """The files by the last parts of their names, so many of them; by whole names if that is 0."""
        if count not in self._by_count:
            if count == 1:
                keys = [name.rpartition("/")[2] for name in self._names]
            else:
                keys = ["/".join(name.rsplit("/", count)[-count:]) for name in self._names] if count else self._names
            # A name that several files have stands with all of them, any other with its one: a million lists are slow to make.
            found: dict[str, str | list[str]] = {}
            for key, file in zip(keys, self._files, strict=True):
                other = found.setdefault(key, file)
                if isinstance(other, list):
                    other.append(file)
                elif other is not file:
                    found[key] = [other, file]
            self._by_count[count] = found
        return self._by_count[count]


class Unlisted:
    """Files below a folder that can't be listed, as a web server's: a path means what lies at it."""

    def find(self, path: str) -> Match:
        """The path itself, unless it leads out of the folder, or nothing and the reason."""
        parts = path.replace("\\", "/").split("/")
        if not path or ".." in parts or ":" in parts[0] or not parts[0]:
            return Match("", "no path below the list's folder")
        if "=" in path.partition("?")[2]:  # a signature, say, which would get into the manifest
            return Match("", "a query after the path; give the path alone")
        return Match("/".join(part for part in parts if part not in ("", ".")))

    def find_all(self, paths: list[str]) -> tuple[list[str], dict[str, str]]:
        """As `Lookup` has it."""
        found = [self.find(path) for path in paths]
        reasons = {path: match.reason for path, match in zip(paths, found, strict=True) if match.reason}
        return [match.file for match in found], reasons


def _parts(path: str) -> list[str]:
    return [part for part in path.replace("\\", "/").split("/") if part not in ("", ".")]
