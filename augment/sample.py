"""A small synthetic stand-in for the chest X-rays, so that a fresh clone runs before any download.

`draw` writes chest phantoms: a drawn thorax with lungs, heart, spine and ribs, in the folders and under
the file names of the Kermany set, whose names carry the patient. A bacterial pneumonia is one or two
focal consolidations, a viral one a diffuse interstitial pattern in both lungs; a normal chest has
neither, but strong vessels, soft tissue over the bases and poor exposures occur in both classes and some
pneumonias are faint, so that the classes can be learned but not told apart at a glance. The pictures
show no patient, prove nothing about medicine, and say SYNTHETIC wherever they are shown.

Everything is drawn in canvas units: x to the right, y down, the midline at x = 300, some 360 rows in view.
Brightness is what a film shows: 0 where the beam passes through air, 1 where bone stops it.
"""

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

COUNTS = {
    ("train", "NORMAL"): 30, ("train", "PNEUMONIA"): 90,
    ("val", "NORMAL"): 8, ("val", "PNEUMONIA"): 8,
    ("test", "NORMAL"): 16, ("test", "PNEUMONIA"): 24,
}  # fmt: skip
_CANVAS = (600, 480)  # width, height; wider than the view on every side, so that turning it bares no edge
_VIEW = (480, 360)
_MIDLINE = 300
_SIDES = (-1, 1)  # the patient's right lung is on the left of the image, as radiologists look at it

Film = NDArray[np.float32]  # shape (height, width), brightness
Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Anatomy:
    """A patient's proportions, the same in each of their images. Lengths in canvas units."""

    lung_width: float  # half the widest part of one lung
    apex: float  # y of the lungs' upper end
    diaphragm: float  # y of the right dome's top; the left one lies a little lower
    mediastinum: float  # half the distance between the lungs
    heart: float  # half the heart's width
    rib_spacing: float
    rib_tilt: float  # degrees by which ribs fall outwards
    breast: float  # brightness of the soft tissue in front of the bases: looks like a mild haze

    @classmethod
    def of(cls, rng: np.random.Generator) -> "Anatomy":
        """The next patient of `rng`."""
        return cls(
            lung_width=rng.uniform(56, 70),
            apex=rng.uniform(92, 108),
            diaphragm=rng.uniform(312, 340),
            mediastinum=rng.uniform(20, 27),
            heart=rng.uniform(60, 78),
            rib_spacing=rng.uniform(23, 28),
            rib_tilt=rng.uniform(12, 24),
            breast=rng.choice([0.0, rng.uniform(0.02, 0.10)]),
        )

    def lung_centre(self, side: int) -> tuple[float, float]:
        """The middle of the lung on `side`."""
        return _MIDLINE + side * (self.mediastinum + self.lung_width), (self.apex + self.diaphragm) / 2 + 10


def draw(folder: Path, seed: int = 0) -> int:
    """Draw the sample below `folder`: SPLIT/CLASS/*.jpeg and NOTICE. The same seed gives the same bytes.

    Args:
        folder: is created, and appears only once every image is in it.
        seed: of the whole set; patients and images derive theirs from it and their own name.

    Returns:
        The number of images.

    Raises:
        FileExistsError: `folder` exists; it is left as it is.
    """
    if os.path.lexists(folder):
        raise FileExistsError(f"{folder} already exists; delete it or name another folder for the sample")
    folder.parent.mkdir(parents=True, exist_ok=True)
    roster = _roster(seed)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
        drawn = Path(temporary) / folder.name
        for place, patient, names in roster:
            (drawn / place).mkdir(parents=True, exist_ok=True)
            body, lungs, vessels, opacity = _chest(patient, _stream(seed, patient))
            for name in names:
                rng = _stream(seed, name)
                # Repeat X-rays: the same chest, with a disease that has grown or cleared since.
                film = body + lungs * (rng.uniform(0.5, 1.5) * vessels + rng.uniform(0.6, 1.2) * opacity)
                _, jpeg = cv2.imencode(".jpeg", _expose(film, rng), [cv2.IMWRITE_JPEG_QUALITY, 90])
                (drawn / place / name).write_bytes(jpeg.tobytes())
        notice = f"Synthetic chest phantoms drawn by Evenset (seed {seed}): not X-rays, no patients.\n"
        (drawn / "NOTICE").write_text(notice, encoding="utf-8")
        os.replace(drawn, folder)
    return sum(len(names) for _, _, names in roster)


def _stream(seed: int, name: str) -> np.random.Generator:
    """Random numbers that depend on the set's seed and on a name, not on what was drawn before."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()))


def _roster(seed: int) -> list[tuple[str, str, list[str]]]:
    """Who is in the set: (SPLIT/CLASS, patient, the names of the patient's one to four images)."""
    rng = _stream(seed, "roster")
    numbers = {"NORMAL": 114, "bacteria": 0, "virus": 0}  # the last patient; each kind counts for itself
    image = 0  # a pneumonia's file name ends in a number that runs through the whole set
    roster = []
    for (split, label), left in COUNTS.items():
        patients = 0
        while left:
            shots = min(left, int(rng.choice([1, 1, 2, 3, 4])))
            patients += 1
            kind = "NORMAL" if label == "NORMAL" else "virus" if patients % 3 == 0 else "bacteria"
            numbers[kind] += int(rng.integers(1, 4))
            if kind == "NORMAL":
                patient = f"{'NORMAL2-' if patients % 2 == 0 else ''}IM-{numbers[kind]:04}"
                names = [f"{patient}-{shot:04}.jpeg" for shot in range(1, shots + 1)]
            else:
                patient = f"person{numbers[kind]}_{kind}"
                names = [f"{patient}_{image + shot}.jpeg" for shot in range(1, shots + 1)]
                image += shots
            roster.append((f"{split}/{label}", patient, names))
            left -= shots
    return roster


def _chest(patient: str, rng: np.random.Generator) -> tuple[Film, Film, Film, Film]:
    """The patient's chest: (body, lungs as a 0..1 mask, vessels, opacity), the last two to go into the lungs."""
    anatomy = Anatomy.of(rng)
    heart, lungs = _organs(anatomy)
    body = _trunk() - 0.40 * lungs + 0.12 * heart + _skeleton(anatomy)
    for side in _SIDES:
        x, _ = anatomy.lung_centre(side)
        body += anatomy.breast * _ellipse((x, anatomy.diaphragm - 30), (58, 48), blur=8)
    vessels = _vessels(anatomy, rng)
    if "bacteria" in patient:
        opacity = _consolidation(anatomy, rng)
    elif "virus" in patient:
        opacity = _interstitial(anatomy, rng)
    else:
        opacity = np.zeros_like(body)
    return body, lungs, vessels, opacity


def _organs(anatomy: Anatomy) -> tuple[Film, Film]:
    """Heart and lungs as 0..1 masks; the lungs end at the diaphragm and give way to the heart."""
    heart = _ellipse((_MIDLINE + 18, anatomy.diaphragm - 44), (anatomy.heart, 56), angle=38, blur=5)
    heart = np.maximum(heart, _ellipse((_MIDLINE + 5, anatomy.diaphragm - 105), (anatomy.mediastinum + 14, 80), blur=5))
    lungs = np.zeros_like(heart)
    for side in _SIDES:
        x, y = anatomy.lung_centre(side)
        # Two ellipses make a lung: narrow above, wide below.
        upper = _ellipse((x - side * 4, y - 18), (anatomy.lung_width * 0.82, y - 18 - anatomy.apex), angle=side * -5)
        lower = _ellipse((x, y + 45), (anatomy.lung_width, 120), angle=side * -3)
        dome = _ellipse((x - side * 12, anatomy.diaphragm + 68 + 5 * side), (anatomy.lung_width * 1.35, 68))
        lungs = np.maximum(lungs, np.maximum(upper, lower) * (1 - dome))
    lungs[int(anatomy.diaphragm) + 40 :] = 0  # what the lower ellipses leave beside and below the domes
    return heart, _blur(lungs, 2.5) * (1 - 0.85 * heart)


def _trunk() -> Film:
    """Soft tissue: neck, shoulders, trunk and the arms that hang beside it."""
    neck: Points = [(_MIDLINE, -40), (_MIDLINE, 120)]
    half: Points = [(48, 40), (64, 68), (110, 84), (155, 100), (178, 130), (180, 260), (168, 520)]  # from the midline
    trunk = [(_MIDLINE + x, y) for x, y in half] + [(_MIDLINE - x, y) for x, y in reversed(half)]
    film = np.zeros(_CANVAS[::-1], np.float32)
    cv2.fillPoly(film, [np.array(trunk, np.int32)], 0.58)
    film = np.maximum(film, 0.52 * _line(neck, 92))
    for side in _SIDES:
        arm: Points = [(_MIDLINE + side * 158, 128), (_MIDLINE + side * 212, 200), (_MIDLINE + side * 250, 520)]
        film = np.maximum(film, 0.46 * _line(arm, 62))
        film += 0.16 * _line(arm, 20, blur=3)  # the humerus
    return _blur(film, 7)


def _skeleton(anatomy: Anatomy) -> Film:
    """Spine, ribs, clavicles."""
    film = 0.10 * _line([(_MIDLINE, -40), (_MIDLINE, 520)], 32, blur=3)
    for y in range(20, 480, 20):
        film += 0.06 * _line([(_MIDLINE - 11, y), (_MIDLINE + 11, y)], 9, blur=2)  # vertebral bodies
    for side in _SIDES:
        x, _ = anatomy.lung_centre(side)
        for rib in range(10):
            # Behind, a rib leaves the spine and falls outwards; in front it comes back, lower and fainter.
            y = anatomy.apex + 8 + rib * anatomy.rib_spacing
            reach = anatomy.lung_width * min(1.12, 0.72 + 0.09 * rib)
            centre = (x - side * (anatomy.lung_width * 1.1 - reach), y + 14)
            tilt = side * anatomy.rib_tilt
            film += 0.075 * _ellipse(centre, (reach, 22), tilt, blur=1.2, width=7, arc=(180, 360))
            film += 0.035 * _ellipse((centre[0], y + 22), (reach, 34), -tilt, blur=1.5, width=9, arc=(20, 160))
        clavicle: Points = [(_MIDLINE + side * 14, 128), (_MIDLINE + side * 70, 112), (_MIDLINE + side * 150, 104)]
        film += 0.15 * _line(clavicle, 11, blur=2)
    return film


def _vessels(anatomy: Anatomy, rng: np.random.Generator) -> Film:
    """Hila, and the vessels that fan out from them, thinning towards the chest wall."""
    film = np.zeros(_CANVAS[::-1], np.float32)
    for side in _SIDES:
        hilum = np.array([_MIDLINE + side * (anatomy.mediastinum + 14), (anatomy.apex + anatomy.diaphragm) / 2 - 8])
        branches = [(hilum, angle, 6.0) for angle in np.radians(np.linspace(-75, 85, 7) + rng.uniform(-12, 12, 7))]
        for start, angle, width in branches:
            end = start + rng.uniform(10, 20) * np.array([side * np.cos(angle), np.sin(angle)])
            cv2.line(film, start.astype(int), end.astype(int), 0.06 + 0.01 * width, round(width))
            if width > 2:  # goes on, thinner, and forks now and then; the list grows while it is read
                fork = rng.choice([0.0, rng.uniform(0.4, 0.8)]) * rng.choice(_SIDES)
                branches += [(end, angle + rng.normal(0, 0.2) - fork / 2, width - 0.8)]
                branches += [(end, angle + fork, width - 1.4)] if fork else []
        film = np.maximum(film, 0.13 * _ellipse((hilum[0], hilum[1]), (13, 24), angle=side * -15, blur=5))
    return _blur(film, 1.2)


def _consolidation(anatomy: Anatomy, rng: np.random.Generator) -> Film:
    """Bacterial: one or two focal, lumpy, blurred opacities, mostly in the middle and lower zones."""
    film = np.zeros(_CANVAS[::-1], np.float32)
    lumps = _grain(rng, 9)
    severity = rng.uniform(0.14, 0.40)
    for _ in range(int(rng.integers(1, 3))):
        x, y = anatomy.lung_centre(int(rng.choice(_SIDES)))
        centre = (x + rng.uniform(-25, 25), y + rng.uniform(-55, 85))
        focus = _ellipse(centre, (rng.uniform(32, 62), rng.uniform(30, 58)), rng.uniform(0, 180), blur=12)
        film = np.maximum(film, severity * focus * np.clip(1 + 0.25 * lumps, 0, None))
    return film


def _interstitial(anatomy: Anatomy, rng: np.random.Generator) -> Film:
    """Viral: haze around the hila and a fine net of streaks and specks through both lungs."""
    net = _blur(np.exp(-2 * np.abs(_grain(rng, 3))), 1.2) * np.clip(1 + 0.5 * _grain(rng, 16), 0, None)
    y = (anatomy.apex + anatomy.diaphragm) / 2 + 15
    haze = _ellipse((_MIDLINE, y), (2.1 * anatomy.lung_width, 95), blur=24)
    return rng.uniform(0.4, 1.0) * (0.12 * haze + 0.15 * net * (0.3 + haze))


def _expose(film: Film, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Take the picture: position, exposure, grain and the burnt-in word. Returns uint8, (height, width)."""
    height = int(rng.integers(440, 761))
    width = int(np.clip(height * rng.uniform(1.15, 1.5), 560, 900))
    scale = max(width / _VIEW[0], height / _VIEW[1]) * rng.uniform(0.97, 1.12)
    turn = cv2.getRotationMatrix2D((_CANVAS[0] / 2, _CANVAS[1] / 2), rng.normal(0, 2.5), scale)
    turn[1, :2] *= rng.uniform(0.96, 1.04)  # a deeper or shallower breath
    turn[0, 2] = width / 2 - turn[0, :2] @ (_MIDLINE + rng.normal(0, 7), 228 + rng.normal(0, 7))
    turn[1, 2] = height / 2 - turn[1, :2] @ (_MIDLINE, 228 + rng.normal(0, 7))
    film = cv2.warpAffine(film, turn, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    film = rng.uniform(0.02, 0.10) + rng.uniform(0.85, 1.10) * np.clip(film, 0, 1) ** rng.uniform(0.85, 1.25)
    film += rng.uniform(0.010, 0.028) * _blur(rng.standard_normal(film.shape, np.float32), 0.8)
    pixels = (255 * np.clip(film, 0, 1)).astype(np.uint8)
    return _burn_in(pixels, "SYNTHETIC")


def _burn_in(pixels: NDArray[np.uint8], word: str) -> NDArray[np.uint8]:
    """Write `word` into the upper left corner, a third of the image wide: legible at 224 x 224 too."""
    (wide, high), _ = cv2.getTextSize(word, cv2.FONT_HERSHEY_SIMPLEX, 1.0, 2)
    size, margin = pixels.shape[1] / 3 / wide, pixels.shape[1] // 40
    ink = np.zeros_like(pixels)
    at = (margin, margin + int(high * size))
    cv2.putText(ink, word, at, cv2.FONT_HERSHEY_SIMPLEX, size, 255, max(1, round(2 * size)), cv2.LINE_AA)
    rim = cv2.dilate(ink, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9)))  # legible on any background
    return np.maximum(np.minimum(pixels, 255 - rim), ink)


def _ellipse(
    centre: tuple[float, float],
    axes: tuple[float, float],
    angle: float = 0,
    blur: float = 0,
    width: int = -1,
    arc: tuple[float, float] = (0, 360),
) -> Film:
    """An ellipse of brightness 1 on an empty canvas, filled or an arc `width` wide; axes are half-axes."""
    film = np.zeros(_CANVAS[::-1], np.float32)
    whole = [(round(a), round(b)) for a, b in (centre, axes)]
    cv2.ellipse(film, whole[0], whole[1], angle, *arc, 1.0, width)
    return _blur(film, blur)


def _line(points: Points, width: float, blur: float = 0) -> Film:
    """A broken line of brightness 1 on an empty canvas."""
    film = np.zeros(_CANVAS[::-1], np.float32)
    cv2.polylines(film, [np.array(points).round().astype(np.int32)], False, 1.0, max(1, round(width)))
    return _blur(film, blur)


def _grain(rng: np.random.Generator, size: float) -> Film:
    """Noise with structures about `size` across: mean 0, standard deviation 1."""
    film = _blur(rng.standard_normal(_CANVAS[::-1], np.float32), size)
    return (film - film.mean()) / film.std()


def _blur(film: Film, sigma: float) -> Film:
    return cv2.GaussianBlur(film, (0, 0), sigma) if sigma else film
