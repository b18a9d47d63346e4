"""Which images to look at: a run's most confident mistakes, its least certain predictions and some right ones.

Each is shown beside where in it the evidence for the prediction is (Grad-CAM).
"""

import base64
import contextlib
import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from common.images.pixels import Pixels, UnreadableImage, decode
from manifests import contract
from manifests.contract import ContractError
from train.evaluation.curves import Scored
from train.evaluation.results import Finished

KINDS = {
    "wrong": "Most confident and wrong",
    "uncertain": "Least certain",
    "right": "Most confident and right",
}
_MOST = {"wrong": 6, "uncertain": 3, "right": 3}  # images of each kind and class
MANY = 8  # classes; of more, one image of each kind and class
_BATCH = 32  # images that evidence is asked of at once
_LARGEST = 320  # pixels of the longer side
_WORDS = (("upper left", "upper middle", "upper right"), ("middle left", "centre", "middle right"),
          ("lower left", "lower middle", "lower right"))  # fmt: skip

Heat = Callable[[NDArray[np.float32], NDArray[np.int64]], NDArray[np.float32]]  # GradCam.heat


class Picked(NamedTuple):
    """An image to look at: `row` is its place among the scored, `predicted` the index of the predicted class."""

    row: int
    kind: str
    predicted: int


class Seen(NamedTuple):
    """A picked image as the page shows it. Where `image` or `overlay` is None there is nothing to show."""

    name: str
    kind: str
    label: str
    predicted: str
    probability: str  # of the predicted class, beside what it was decided by
    image: str | None = None  # data URLs
    overlay: str | None = None
    where: str = ""  # the evidence, in words


def pick(of: Scored, threshold: float | None) -> list[Picked]:
    """The images to look at, by true class, kind and rank; none twice.

    Wrong ones are ranked by how little of the probability their own class got, right ones by how much; uncertain are
    those nearest to the threshold or, with several classes, whose two most probable classes are nearest.

    Args:
        of: the predictions of a phase.
        threshold: with two classes, from which probability on the second is predicted; None: 0.5.
    """
    own = of.probabilities[np.arange(len(of.labels)), of.labels]
    if len(of.classes) == 2:
        doubt = np.abs(of.probabilities[:, 1] - (0.5 if threshold is None else threshold))
    else:
        doubt = np.diff(np.sort(of.probabilities, axis=1)[:, -2:], axis=1)[:, 0]
    wrong = of.predicted != of.labels
    paths = of.rows["path"].to_numpy()
    most = _MOST if len(of.classes) <= MANY else dict.fromkeys(KINDS, 1)
    found: list[Picked] = []
    for label in range(len(of.classes)):
        shown: set[int] = set()
        for kind, (allowed, score) in {
            "wrong": (wrong, own),
            "uncertain": (np.ones(len(wrong), bool), doubt),
            "right": (~wrong, -own),
        }.items():
            rows = [index for index in np.flatnonzero(allowed & (of.labels == label)).tolist() if index not in shown]
            best = sorted(rows, key=lambda index: (score[index], paths[index]))[: most[kind]]
            shown |= set(best)
            found += [Picked(index, kind, int(of.predicted[index])) for index in best]
    return found


def manifest_of(run: Finished, root: Path | None) -> Path:
    """Where the manifest of a run's set is, or was: as the run names it, seen from here or from the root."""
    named = Path(str(run.settings.get("manifest", "")))
    return next((path for path in (named, (root or Path()) / named) if _is_file(path)), named)


def rows_of(run: Finished, manifest: Path) -> tuple[pd.DataFrame | None, str]:
    """The rows of the set that a run is on, or None and why they can't be had."""
    named = manifest
    with contextlib.suppress(OSError, ValueError):  # ValueError: a name that no file can have
        data = manifest.read_bytes()
        if hashlib.sha256(data).hexdigest() != run.settings.get("manifest_sha256"):
            return None, f"{named.name} is no longer the manifest that the run was trained on"
        try:
            return contract.read(manifest), ""
        except ContractError as error:
            return None, str(error)
    return None, f"the set's manifest, {named.name}, is not there any more"


def checksums(rows: pd.DataFrame | None) -> dict[str, str]:
    """The SHA-256 of each image of a manifest, by its path; nothing without a manifest."""
    return {} if rows is None else dict(zip(rows["path"], rows["sha256"], strict=True))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except ValueError:  # a name that no file can have
        return False


def see(
    of: Scored, picked: list[Picked], threshold: float | None, rows: pd.DataFrame | None, root: Path, heat: Heat | None
) -> list[Seen]:
    """The picked images with what is to be shown of them, in their order.

    Args:
        of: the predictions of a phase.
        picked: which of them.
        threshold: as `pick` has it.
        rows: of the set's manifest; without, no image is shown. An image whose checksum isn't the manifest's isn't
            the one that was judged, so it isn't shown.
        root: what the manifest's paths are relative to.
        heat: gives the evidence for a class in each image; without, no evidence is shown.
    """
    known = checksums(rows)
    paths = of.rows["path"].to_numpy()
    images = [pixels(root / paths[each.row], known.get(paths[each.row])) for each in picked]
    heats = {} if heat is None else _heats(picked, images, heat)
    seen = []
    for place, (each, image) in enumerate(zip(picked, images, strict=True)):
        shown = Seen(
            Path(paths[each.row]).name,
            each.kind,
            of.classes[of.labels[each.row]],
            of.classes[each.predicted],
            probability(of, each, threshold),
        )
        if image is not None:
            shown = shown._replace(image=jpeg(image))
        if image is not None and place in heats:
            shown = shown._replace(overlay=jpeg(overlay(image, heats[place])), where=where(heats[place]))
        seen.append(shown)
    return seen


def probability(of: Scored, picked: Picked, threshold: float | None) -> str:
    """The predicted class's probability, and what made it the predicted one.

    With two classes that is the threshold of the positive one, by which 0.413 can be a confident prediction; with more
    it is the runner-up.
    """
    of_image = of.probabilities[picked.row]
    if len(of.classes) == 2:
        at_least = 0.5 if threshold is None else threshold
        decided = f"{of.classes[1]} from {at_least:.3f} on"
        own = "" if picked.predicted == 1 else f"; of {of.classes[1]} {of_image[1]:.3f}"
        return f"{of_image[picked.predicted]:.3f}{own} ({decided})"
    rest = np.delete(np.arange(len(of.classes)), picked.predicted)
    second = rest[of_image[rest].argmax()]
    return f"{of_image[picked.predicted]:.3f} (runner-up: {of.classes[second]}, {of_image[second]:.3f})"


def _heats(picked: list[Picked], pixels: list[Pixels | None], heat: Heat) -> dict[int, NDArray[np.float32]]:
    """The evidence for what each image was taken for, by its place, where there is an image."""
    there = [(place, _colour(image)) for place, image in enumerate(pixels) if image is not None]
    found: dict[int, NDArray[np.float32]] = {}
    for start in range(0, len(there), _BATCH):
        places, images = zip(*there[start : start + _BATCH], strict=True)
        classes = np.array([picked[place].predicted for place in places])
        found |= zip(places, heat(np.stack(images).astype(np.float32), classes), strict=True)
    return found


def where(heat: NDArray[np.float32]) -> str:
    """The evidence in words: in which ninth of the image it is strongest, and over how much of it it is strong."""
    if not heat.max() > 0:
        return "nothing in the image speaks for it"
    rows, columns = heat.shape
    row, column = np.unravel_index(int(heat.argmax()), heat.shape)
    ninth = _WORDS[int((row + 0.5) / rows * 3)][int((column + 0.5) / columns * 3)]
    return f"strongest in the {ninth}, strong over {(heat >= 0.5).mean():.0%} of the image"


def overlay(image: Pixels, heat: NDArray[np.float32]) -> Pixels:
    """The image under its evidence, which goes from nothing over dark blue to yellow.

    Args:
        image: uint8, (height, width) or (height, width, 3).
        heat: float32 (rows, columns), 0..1.
    """
    from matplotlib import colormaps

    height, width = image.shape[:2]
    spread = Image.fromarray(heat.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC)
    strength = np.clip(np.asarray(spread), 0, 1)
    shade = 255 * colormaps["viridis"](strength)[..., :3]
    opacity = 0.6 * strength[..., None]
    mixed: Pixels = np.rint((1 - opacity) * _colour(image) + opacity * shade).astype(np.uint8)
    return mixed


def image(path: Path, sha256: str | None) -> str | None:
    """An image file as a data URL; None if it can't be read, or is not the one of the checksum."""
    found = pixels(path, sha256)
    return None if found is None else jpeg(found)


def jpeg(image: Pixels, largest: int = _LARGEST, quality: int = 82) -> str:
    """An image as a data URL, no larger than need be. Nothing else of its file gets into the page."""
    small = Image.fromarray(image)
    small.thumbnail((largest, largest))
    file = io.BytesIO()
    small.save(file, format="jpeg", quality=quality, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def pixels(path: Path, sha256: str | None) -> Pixels | None:
    """The image of a file; None without a checksum, and where the file is gone or has another."""
    try:
        data = path.read_bytes() if sha256 else b""
        return decode(data) if hashlib.sha256(data).hexdigest() == sha256 else None
    except (OSError, UnreadableImage):
        return None


def _colour(image: Pixels) -> Pixels:
    return np.dstack([image] * 3) if image.ndim == 2 else image
