"""The files below a folder, found by what a list calls them: a path, the end of one, or a name."""

from collections.abc import Iterable


class Lookup:
    """Files below a folder, by name."""

    def __init__(self, files: Iterable[str]) -> None:
        """Args: files: their paths, POSIX, relative to the folder."""
        self.files = list(files)
        # A name that several files have stands with all of them, any other with its one: a million lists are slow to make.
        self._by_name: dict[str, str | list[str]] = {}
        for file in self.files:
            name = file.rpartition("/")[2]
            other = self._by_name.setdefault(name, file)
            if isinstance(other, list):
                other.append(file)
            elif other is not file:
                self._by_name[name] = [other, file]
        self._by_stem: dict[str, list[str]] | None = None

    def find(self, path: str) -> tuple[str, str]:
        """The file that a path in a list means, relative to the folder, or nothing and the reason.

        That is the file at this path; or else the one whose path ends as this one does, in as many parts as any: lists
        name files alone, or from a folder on that is called otherwise here. A name without an ending finds one with it.
        """
        only = self._by_name.get(path)
        if isinstance(only, str):
            return only, ""
        wanted = path.replace("\\", "/").split("/")
        files = self._by_name.get(wanted[-1]) or self._without_ending(wanted[-1])
        if isinstance(files, str):
            return files, ""
        if not files:
            return "", "no such file" if path else "no path"
        if len(files) == 1:
            return files[0], ""
        by_length: dict[int, list[str]] = {}
        for file in files:
            by_length.setdefault(_common_end(file.split("/")[:-1], wanted[:-1]), []).append(file)
        best = by_length[max(by_length)]
        exact = "/".join(part for part in wanted if part != ".")
        if exact in best:
            return exact, ""
        if len(best) > 1:
            return "", f"may be {best[0]} or {best[1]}; give more of its path"
        return best[0], ""

    def find_all(self, paths: list[str]) -> tuple[list[str], dict[str, str]]:
        """The file of each path, empty where there is none; and of such a path, the reason. Fast for names alone."""
        known = list(map(self._by_name.get, paths))
        files, reasons = [file if isinstance(file, str) else "" for file in known], dict[str, str]()
        for at in [at for at, file in enumerate(files) if not file]:
            files[at], reason = self.find(paths[at])
            if reason:
                reasons[paths[at]] = reason
        return files, reasons

    def _without_ending(self, name: str) -> list[str]:
        if self._by_stem is None:
            self._by_stem = {}
            for known, files in self._by_name.items():
                self._by_stem.setdefault(known.rpartition(".")[0], []).extend(
                    [files] if isinstance(files, str) else files
                )
        return self._by_stem.get(name, []) if name else []


class Unlisted:
    """Files below a folder that can't be listed, as a web server's: a path means what lies at it."""

    def find(self, path: str) -> tuple[str, str]:
        """The path itself, unless it leads out of the folder, or nothing and the reason."""
        parts = path.replace("\\", "/").split("/")
        if not path or ".." in parts or ":" in parts[0] or not parts[0]:
            return "", "no path below the list's folder"
        return "/".join(part for part in parts if part not in ("", ".")), ""

    def find_all(self, paths: list[str]) -> tuple[list[str], dict[str, str]]:
        """As `Lookup` has it."""
        found = [self.find(path) for path in paths]
        reasons = {path: reason for path, (_, reason) in zip(paths, found, strict=True) if reason}
        return [file for file, _ in found], reasons


def _common_end(first: list[str], second: list[str]) -> int:
    """How many parts two paths have in common at their ends."""
    count = 0
    for one, other in zip(reversed(first), reversed(second), strict=False):
        if one != other:
            break
        count += 1
    return count
