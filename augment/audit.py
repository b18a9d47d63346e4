"""What a data manager wants to know of a source folder before building: faults, leaks and look-alikes."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, NamedTuple

import imagehash
import numpy as np
import pandas as pd
from PIL import Image

from augment.list_format import ListFormat
from augment.sources.dicom_tags import GroupTag
from augment.sources.groups import describe_groups
from augment.sources.layout import Rejected
from augment.sources.scan import scan
from common.images.pixels import UnreadableImage, header, picture, read_image
from common.remote import Location
from common.workers import Workers
from common.workers.dispatch import results
from common.workers.process_pool import WorkerDied

_SIDE = 16  # of the perceptual hash: 256 bits, since at the usual 64 X-rays of different patients are alike
_WORDS = _SIDE * _SIDE // 64
_BATCH = 16  # images a task


class Audit(NamedTuple):
    """What was found. `report` holds JSON values only; `leaks` says how many of the findings cross splits."""

    report: dict[str, Any]
    leaks: int


class _Look(NamedTuple):
    """One image: what it declares, the SHA-256 of its pixels and its perceptual hash, 256 bits as bytes."""

    format: str
    mode: str
    bits: int
    width: int
    height: int
    pixels: str
    phash: bytes
    largest: float | None  # sample, of those with more than 8 bits
    notes: tuple[str, ...]

    @property
    def declared(self) -> str:
        """Format, mode and bit depth."""
        return f"{self.format} {self.mode} {self.bits} bits"


class _File(NamedTuple):
    """One image that is to be looked at."""

    source: Location
    name: str
    max_pixels: int


def audit(
    source: Location,
    group: str,
    distance: int,
    max_pixels: int,
    workers: Workers,
    progress: Callable[[int, int], None],
    list_format: ListFormat | None = None,
    group_tag: GroupTag | None = None,
) -> Audit:
    """Look at every image of a source folder.

    Args:
        source: as `scan` takes it.
        group: as `scan` takes it.
        distance: images are near-identical if their perceptual hashes (DCT of 256 bits, Zauner 2010, as imagehash
            has it) differ in no more bits than this. Of Kermany's X-rays, copies that were reduced, recompressed
            or brightened differ in up to 12, the most alike of different patients in 36.
        max_pixels: an image that declares more is reported as unreadable.
        workers: which read and decode.
        progress: called with (images done, images in all).
        list_format: as `scan` takes it.
        group_tag: as `scan` takes it.

    Raises:
        ScanError: as `scan` has it.
        DispatchError: as `results` has it. An image that crashes its decoder is reported as unreadable instead.
    """
    scanned = scan(source, group, workers.read, list_format=list_format, group_tag=group_tag)
    images = scanned.sources
    looks, unreadable = _look_at_all(scanned.folder, images, max_pixels, workers.compute, progress)
    seen = images[images["source"].isin(looks)].reset_index(drop=True)
    found = [looks[name] for name in seen["source"]]
    seen["pixels"] = [look.pixels for look in found]
    near = _near_identical(seen, b"".join(look.phash for look in found), distance)
    split_groups = _split_groups(seen)  # what doesn't decode is no image, and leaks nowhere
    same_bytes, same_pixels = _same(seen, "source_sha256"), _same(seen, "pixels")
    report = {
        "source": source.as_posix() if isinstance(source, Path) else str(source),
        "images": len(seen),
        "counts": _nested_counts(seen),
        "formats": dict(sorted(Counter(look.declared for look in found).items())),
        "largest_samples": _largest_samples(found),
        "width": _spread(look.width for look in found),
        "height": _spread(look.height for look in found),
        "unreadable": [entry._asdict() for entry in sorted([*scanned.rejected, *unreadable])],
        "groups": seen["group"].nunique(),
        "groups_unknown": describe_groups(seen, group, scanned.list_format, scanned.tag).warning,
        "warnings": list(scanned.warnings),
        "groups_in_several_splits": split_groups,
        "byte_identical": same_bytes,
        "pixel_identical": [found for found in same_pixels if found["files"] not in [s["files"] for s in same_bytes]],
        "near_identical": near,
        "notes": [{"source": name, "note": note} for name in seen["source"] for note in looks[name].notes],
        "files": [_declared(name, looks[name]) for name in seen["source"]],
    }
    alike = [*same_bytes, *report["pixel_identical"], *near]
    return Audit(report, len(split_groups) + sum("across splits" in found["where"] for found in alike))


def _look_at_all(
    source: Location, images: pd.DataFrame, max_pixels: int, executor: Executor, progress: Callable[[int, int], None]
) -> tuple[dict[str, _Look], list[Rejected]]:
    looks, unreadable, done = {}, [], 0
    names = images["source"].tolist()
    batches = (
        [_File(source, name, max_pixels) for name in names[at : at + _BATCH]] for at in range(0, len(names), _BATCH)
    )
    for batch in results(_look_at_batch, batches, executor, lambda file: source / file.name, _failed):
        for name, look in batch:
            if isinstance(look, _Look):
                looks[name] = look
            else:
                unreadable.append(Rejected(name, look))
        done += len(batch)
        progress(done, len(names))
    return looks, unreadable


def _look_at_batch(batch: Sequence[_File]) -> list[tuple[str, _Look | str]]:
    return [(file.name, _look(file.source / file.name, file.max_pixels)) for file in batch]


def _failed(file: _File, error: WorkerDied) -> tuple[str, _Look | str]:
    return file.name, error.reason


def _look(path: Location, max_pixels: int) -> _Look | str:
    """Look at one image, or say why that can't be done."""
    try:
        data = read_image(path, max_pixels)
        declared = header(data)
        found = picture(data, max_pixels=max_pixels)
    except OSError as error:
        return f"can't be read: {error.strerror}"
    except UnreadableImage as error:
        return str(error)
    pixels = found.pixels
    digest = hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()
    bits = imagehash.phash(Image.fromarray(pixels), hash_size=_SIDE).hash
    return _Look(*declared, digest, np.packbits(bits).tobytes(), found.largest, found.notes)


def _largest_samples(looks: Iterable[_Look]) -> dict[str, dict[str, float]]:
    """Of each format with more than 8 bits a sample, the spread of the files' largest samples."""
    largest: dict[str, list[float]] = {}
    for look in looks:
        if look.largest is not None:
            largest.setdefault(look.declared, []).append(look.largest)
    return {declared: _spread(of_files) for declared, of_files in sorted(largest.items())}


def _declared(name: str, look: _Look) -> dict[str, Any]:
    """A file's own entry of the report."""
    kinds = ("format", "mode", "bits", "width", "height", "largest")
    return {"source": name, **{kind: getattr(look, kind) for kind in kinds}, "notes": list(look.notes)}


def _same(images: pd.DataFrame, column: str) -> list[dict[str, Any]]:
    """Groups of files that have the same value in a column."""
    twice = images[images[column].duplicated(keep=False)]
    return sorted((_described(alike) for _, alike in twice.groupby(column)), key=lambda found: found["files"])


def _near_identical(images: pd.DataFrame, phashes: bytes, distance: int) -> list[dict[str, Any]]:
    """Pairs of files that look alike and are not pixel-identical. Compares all pairs, a block of rows at a time."""
    pixels = pd.factorize(images["pixels"])[0]
    hashes = np.frombuffer(phashes, np.uint64).reshape(-1, _WORDS)
    pairs = []
    for start in range(0, len(hashes), 256):
        differ = hashes[start : start + 256, None] ^ hashes[None, start:]
        bits = np.bitwise_count(differ).sum(axis=-1, dtype=np.uint16)
        for row, column in np.argwhere(bits <= distance):
            if column > row and pixels[start + row] != pixels[start + column]:
                pair = images.iloc[[start + row, start + column]]
                pairs.append({**_described(pair), "distance": int(bits[row, column])})
    return pairs


def _described(alike: pd.DataFrame) -> dict[str, Any]:
    """Which files are alike and whether that crosses splits or classes."""
    across = [
        f"across {what}" for what, column in (("splits", "split"), ("classes", "label")) if len(set(alike[column])) > 1
    ]
    return {"files": alike["source"].tolist(), "where": " and ".join(across) or "within a split and class"}


def _split_groups(images: pd.DataFrame) -> list[dict[str, Any]]:
    """The groups that are in several of the source's own splits, with how many images in each."""
    splits = images.groupby("group")["split"].nunique()
    across = images[images["group"].isin(splits.index[splits > 1])]
    return [
        {"group": group, "images": {split: int(count) for split, count in sorted(Counter(of_group["split"]).items())}}
        for group, of_group in across.groupby("group")
    ]


def _nested_counts(images: pd.DataFrame) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {}
    for (split, label), count in images.groupby(["split", "label"]).size().items():
        counts.setdefault(split or "all", {})[label] = int(count)
    return counts


def _spread(sizes: Iterable[float]) -> dict[str, float]:
    listed = sorted(sizes)
    return {"least": listed[0], "median": listed[len(listed) // 2], "most": listed[-1]} if listed else {}
