"""A small synthetic stand-in for the chest X-rays, so that a fresh clone runs before any download.

`draw` writes chest phantoms in the folders and under the file names of the Kermany set, whose names carry
the patient. A bacterial pneumonia is one or two focal consolidations, a viral one a diffuse interstitial
pattern in both lungs; a normal chest has neither. Strong vessels, soft tissue over the bases and poor
exposures occur in both classes and some pneumonias are faint: the classes can be learned, but not from
brightness alone. The pictures show no patient, prove nothing about medicine, and all say SYNTHETIC.

Lengths are canvas units: x from the midline, y down. Brightness is the film's: air is 0, dense bone 1.
"""

import hashlib
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from common.errors import UserError
from manifests.contract import SAMPLE_NOTICE

COUNTS = {
    "train/NORMAL": 40, "train/PNEUMONIA": 160,
    "val/NORMAL": 8, "val/PNEUMONIA": 8,
    "test/NORMAL": 120, "test/PNEUMONIA": 180,
}  # fmt: skip
_WIDTH, _HEIGHT = 600, 480  # of the canvas
_VIEW = (480, 360)  # what an image shows of it; the margin keeps the edge out of a turned or shifted image

Film = NDArray[np.float32]  # shape (_HEIGHT, _WIDTH) until it is exposed
Point = tuple[float, float]


class SampleError(UserError, FileExistsError):
    """The sample's folder is there already."""


class Entry(NamedTuple):
    """A patient in the set: in which SPLIT/CLASS, and what the one to four images are called."""

    place: str
    patient: str
    names: list[str]


@dataclass(frozen=True)
class Anatomy:
    """A patient's proportions, the same in each of their images."""

    lung_width: float  # half the widest part of one lung
    apex: float  # y of the lungs' upper end
    diaphragm: float  # y of the right dome's top; the left one is a little lower
    mediastinum: float  # half the distance between the lungs
    heart: float  # half the heart's length
    rib_spacing: float
    rib_tilt: float  # degrees by which ribs fall outwards
    breast: float  # brightness of the soft tissue in front of the bases, which looks like haze; often 0

    @classmethod
    def of(cls, rng: np.random.Generator) -> "Anatomy":
        """Draw a patient's proportions."""
        ranges = ((56, 70), (92, 108), (312, 340), (20, 27), (60, 78), (23, 28), (12, 24), (-0.1, 0.1))
        return cls(*(max(0.0, rng.uniform(low, high)) for low, high in ranges))

    @property
    def lung_centre(self) -> Point:
        """The middle of a lung."""
        return self.mediastinum + self.lung_width, (self.apex + self.diaphragm) / 2 + 10


def draw(folder: Path, seed: int = 0) -> int:
    """Draw the sample: SPLIT/CLASS/*.jpeg and NOTICE below `folder`, which appears once all are drawn.

    The same seed gives the same bytes. Returns the number of images.

    Raises:
        SampleError: `folder` exists; it is left as it is.
    """
    if folder.exists() or folder.is_symlink():
        raise SampleError(f"{folder} already exists; delete it or name another folder for the sample")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
        drawn = Path(temporary) / folder.name
        for place in COUNTS:
            (drawn / place).mkdir(parents=True)
        with ThreadPoolExecutor() as pool:  # OpenCV and NumPy's random numbers leave the interpreter to the others
            list(pool.map(lambda entry: _draw_patient(drawn / entry.place, seed, entry), _roster(seed)))
        notice = f"{SAMPLE_NOTICE} (seed {seed}): not X-rays, no patients.\n"
        (drawn / "NOTICE").write_text(notice, encoding="utf-8")
        drawn.replace(folder)
    return sum(COUNTS.values())


def _draw_patient(folder: Path, seed: int, entry: Entry) -> None:
    """Draw a patient's images into a folder."""
    body, lungs, vessels, opacity = _chest(entry.patient, _stream(seed, entry.patient))
    for name in entry.names:
        rng = _stream(seed, name)
        # Repeat X-rays: the same chest, with a disease that has grown or cleared since.
        film = body + lungs * (rng.uniform(0.5, 1.5) * vessels + rng.uniform(0.7, 1.2) * opacity)
        _, jpeg = cv2.imencode(".jpeg", _expose(film, rng), [cv2.IMWRITE_JPEG_QUALITY, 90])
        (folder / name).write_bytes(jpeg.tobytes())


def _stream(seed: int, name: str) -> np.random.Generator:
    """Random numbers that depend on the set's seed and on a name, not on what was drawn before."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest(), "big"))


def _roster(seed: int) -> list[Entry]:
    """Who is in the set."""
    rng = _stream(seed, "roster")
    numbers = {"IM": 114, "NORMAL2-IM": 114, "bacteria": 0, "virus": 0}  # of the last patient of each kind
    pneumonias = 0  # a pneumonia's file name ends in a number that runs through the whole set
    roster = []
    for place, count in COUNTS.items():
        normal = place.endswith("NORMAL")
        made = dict.fromkeys(numbers, 0)
        while (total := sum(made.values())) < count:
            usual, rare = ("IM", "NORMAL2-IM") if normal else ("bacteria", "virus")
            kind = rare if 3 * made[rare] < total else usual  # a third of the images, as near as may be
            shots = range(1, 1 + min(count - total, int(rng.choice([1, 1, 2, 3, 4]))))
            made[kind] += len(shots)
            numbers[kind] += int(rng.integers(1, 4))
            patient = f"{kind}-{numbers[kind]:04}" if normal else f"person{numbers[kind]}_{kind}"
            ends = [f"-{shot:04}" if normal else f"_{pneumonias + shot}" for shot in shots]
            pneumonias += 0 if normal else len(shots)
            roster.append(Entry(place, patient, [f"{patient}{end}.jpeg" for end in ends]))
    return roster


def _chest(patient: str, rng: np.random.Generator) -> tuple[Film, Film, Film, Film]:
    """The patient's chest: body, lungs as a mask of 0 to 1, and vessels and opacity to add within it."""
    anatomy = Anatomy.of(rng)
    heart, lungs = _organs(anatomy)
    body = _soft_tissue(anatomy) - 0.40 * lungs + 0.12 * heart + _bones(anatomy)
    vessels = np.maximum(_vessels(anatomy, rng), _vessels(anatomy, rng)[:, ::-1])
    if "bacteria" in patient:
        return body, lungs, vessels, _consolidation(anatomy, rng)
    if "virus" in patient:
        return body, lungs, vessels, _interstitium(anatomy, rng)
    return body, lungs, vessels, np.zeros_like(body)


def _organs(anatomy: Anatomy) -> tuple[Film, Film]:
    """Heart and lungs as masks of 0 to 1; the lungs end at the diaphragm and give way to the heart."""
    great_vessels = _ellipse((5, anatomy.diaphragm - 105), (anatomy.mediastinum + 14, 80))
    heart = _ellipse((18, anatomy.diaphragm - 44), (anatomy.heart, 56), tilt=38)
    heart = _blur(np.maximum(heart, great_vessels), 5)
    (x, y), width = anatomy.lung_centre, anatomy.lung_width
    above = _ellipse((x - 4, y - 18), (0.82 * width, y - 18 - anatomy.apex), tilt=-5)
    below = _ellipse((x, y + 45), (width, 120), tilt=-3)
    dome = _ellipse((x - 12, anatomy.diaphragm + 68), (1.35 * width, 68))
    lung = np.maximum(above, below) * (1 - dome)
    lung[int(anatomy.diaphragm) + 35 :] = 0  # what is left below the dome
    lungs = np.maximum(lung[:, ::-1], np.roll(lung, 8, axis=0))
    return heart, _blur(lungs, 2.5) * (1 - 0.85 * heart)


def _soft_tissue(anatomy: Anatomy) -> Film:
    """Neck, shoulders, trunk, breasts, and the arms that hang beside them."""
    arm: list[Point] = [(158, 128), (212, 200), (250, 520)]
    film = np.maximum(0.46 * _lines([arm], 62), 0.52 * _lines([[(0, -40), (0, 120)]], 92))
    trunk = [(0, 40), (48, 40), (64, 68), (110, 84), (155, 100), (178, 130), (180, 260), (168, 520), (0, 520)]
    cv2.fillPoly(film, [_on_canvas(trunk)], 0.58)
    film += 0.16 * _lines([arm], 20)  # the humerus
    breast = _ellipse((anatomy.lung_centre[0], anatomy.diaphragm - 30), (58, 48))
    return _blur(_both(film), 7) + anatomy.breast * _blur(_both(breast), 8)


def _bones(anatomy: Anatomy) -> Film:
    """Spine, ribs and clavicles."""
    vertebrae: list[list[Point]] = [[(-11, y), (11, y)] for y in range(20, _HEIGHT, 20)]
    spine = 0.10 * _lines([[(0, -40), (0, 520)]], 32) + 0.06 * _lines(vertebrae, 9)
    clavicles = _both(_lines([[(14, 128), (70, 112), (150, 104)]], 11))
    behind, before = [], []
    for rib in range(10):
        # Behind, a rib leaves the spine and falls outwards; in front it comes back, lower and fainter.
        reach = round(anatomy.lung_width * min(1.12, 0.72 + 0.09 * rib))
        x = round(anatomy.mediastinum - 0.1 * anatomy.lung_width) + reach
        y = round(anatomy.apex + 22 + rib * anatomy.rib_spacing)
        behind.append(cv2.ellipse2Poly((x, y), (reach, 22), round(anatomy.rib_tilt), 180, 360, 5))
        before.append(cv2.ellipse2Poly((x, y + 8), (reach, 34), -round(anatomy.rib_tilt), 20, 160, 5))
    ribs = _both(0.075 * _lines(behind, 7) + 0.035 * _lines(before, 9))
    return _blur(spine + 0.15 * clavicles, 2) + _blur(ribs, 1.3)


def _vessels(anatomy: Anatomy, rng: np.random.Generator) -> Film:
    """One lung's hilum, and the vessels that branch out from it, thinning towards the chest wall."""
    hilum = (anatomy.mediastinum + 14, (anatomy.apex + anatomy.diaphragm) / 2 - 8)
    film = 0.13 * _blur(_ellipse(hilum, (13, 24), tilt=-15), 5)
    angles = np.radians(np.linspace(-75, 85, 7) + rng.uniform(-12, 12, 7))
    branches = [(hilum, angle, 6.0) for angle in angles]
    for (x, y), angle, width in branches:  # the list grows while it is read
        length = rng.uniform(10, 20)
        end = (x + length * np.cos(angle), y + length * np.sin(angle))
        start, stop = _on_canvas([(x, y), end]).tolist()
        cv2.line(film, start, stop, 0.06 + 0.01 * width, round(width))
        if width > 2:
            fork = rng.choice([-1, 0, 0, 1]) * rng.uniform(0.4, 0.8)
            branches.append((end, angle + rng.normal(0, 0.2) - fork / 2, width - 0.8))
            branches += [(end, angle + fork, width - 1.4)] if fork else []
    return _blur(film, 1.2)


def _consolidation(anatomy: Anatomy, rng: np.random.Generator) -> Film:
    """Bacterial: one or two focal, lumpy, blurred opacities anywhere from the upper zone to the base."""
    film = np.zeros((_HEIGHT, _WIDTH), np.float32)
    for _ in range(int(rng.integers(1, 3))):
        x, y = anatomy.lung_centre
        centre = (x + rng.uniform(-25, 25), y + rng.uniform(-55, 85))
        focus = _ellipse(centre, (rng.uniform(32, 62), rng.uniform(30, 58)), tilt=rng.uniform(0, 180))
        film = np.maximum(film, focus[:, :: rng.choice([-1, 1])])
    lumps: Film = np.clip(1 + 0.25 * _grain(rng, 9), 0, None)
    return rng.uniform(0.17, 0.42) * _blur(film, 12) * lumps


def _interstitium(anatomy: Anatomy, rng: np.random.Generator) -> Film:
    """Viral: haze around the hila and a fine net, denser in patches, through both lungs."""
    patches: Film = np.clip(1 + 0.5 * _grain(rng, 16), 0, None)
    net = _blur(np.exp(-2 * np.abs(_grain(rng, 3))), 1.2) * patches
    haze = _blur(_ellipse((0, anatomy.lung_centre[1] + 5), (2.1 * anatomy.lung_width, 95)), 24)
    return rng.uniform(0.4, 1.0) * (0.12 * haze + 0.15 * net * (0.3 + haze))


def _expose(film: Film, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Take the picture, landscape, of some size: position, breath, exposure, grain, the burnt-in word."""
    height = int(rng.integers(440, 761))
    width = int(np.clip(height * rng.uniform(1.15, 1.5), 560, 900))
    scale = max(width / _VIEW[0], height / _VIEW[1]) * rng.uniform(0.97, 1.12)
    place = np.array(cv2.getRotationMatrix2D((0, 0), rng.normal(0, 2.5), scale))
    place[1] *= rng.uniform(0.96, 1.04)  # a deeper or shallower breath
    place[:, 2] = np.array([width, height]) / 2 - place[:, :2] @ rng.normal([_WIDTH / 2, 228], 7)
    placed = cv2.warpAffine(film, place, (width, height), borderMode=cv2.BORDER_REPLICATE)
    film = rng.uniform(0.85, 1.10) * np.clip(placed, 0, 1) ** rng.uniform(0.85, 1.25)
    film += rng.uniform(0.010, 0.028) * _blur(rng.standard_normal(film.shape, np.float32), 0.8)
    film += rng.uniform(0.02, 0.10)  # fog
    return _burn_in((255 * np.clip(film, 0, 1)).astype(np.uint8), "SYNTHETIC")


def _burn_in(pixels: NDArray[np.uint8], word: str) -> NDArray[np.uint8]:
    """Write `word` into the upper left corner, a third of the image wide: legible at 224 x 224 too."""
    (wide, high), _ = cv2.getTextSize(word, cv2.FONT_HERSHEY_SIMPLEX, 1.0, 2)
    size, margin = pixels.shape[1] / 3 / wide, pixels.shape[1] // 40
    ink = np.zeros_like(pixels)
    at = (margin, margin + int(high * size))
    cv2.putText(ink, word, at, cv2.FONT_HERSHEY_SIMPLEX, size, 255, round(2 * size), cv2.LINE_AA)
    rim = np.asarray(cv2.dilate(ink, np.ones((7, 7), np.uint8)), np.uint8)  # black, for bright shoulders
    return np.maximum(np.minimum(pixels, 255 - rim), ink)


def _ellipse(centre: Point, axes: Point, tilt: float = 0) -> Film:
    """A filled ellipse of brightness 1; `axes` are half-axes, `tilt` is in degrees clockwise."""
    film = np.zeros((_HEIGHT, _WIDTH), np.float32)
    half_axes = (round(axes[0]), round(axes[1]))
    cv2.ellipse(film, _on_canvas(centre).tolist(), half_axes, tilt, 0, 360, 1.0, cv2.FILLED)
    return film


def _lines(lines: Sequence[ArrayLike], width: int) -> Film:
    """Broken lines of brightness 1, each of shape (points, 2)."""
    film = np.zeros((_HEIGHT, _WIDTH), np.float32)
    cv2.polylines(film, [_on_canvas(line) for line in lines], isClosed=False, color=1.0, thickness=width)
    return film


def _on_canvas(line: ArrayLike) -> NDArray[np.int32]:
    """Points measured from the midline -> columns and rows."""
    return np.rint(np.add(line, (_WIDTH / 2, 0))).astype(np.int32)


def _both(film: Film) -> Film:
    """What is drawn on one side, on both."""
    return np.maximum(film, film[:, ::-1])


def _grain(rng: np.random.Generator, size: float) -> Film:
    """Noise with structures about `size` across: mean 0, standard deviation 1."""
    film = _blur(rng.standard_normal((_HEIGHT, _WIDTH), np.float32), size)
    return film / float(film.std())


def _blur(film: Film, sigma: float) -> Film:
    if sigma < 5:
        return np.asarray(cv2.GaussianBlur(film, (0, 0), sigma), np.float32)
    # A wide one at a quarter of the size, where it costs a fraction and looks the same.
    small = cv2.resize(film, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    blurred = cv2.GaussianBlur(small, (0, 0), sigma / 4)
    return np.asarray(cv2.resize(blurred, film.shape[::-1], interpolation=cv2.INTER_CUBIC), np.float32)
