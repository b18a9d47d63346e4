"""Images of shapes and textures, and which of them each shows: what the demo's backbone is pretrained on.

An image is gray and shows some of KINDS, each somewhere, bright or dark, over a scene that is mostly its own mirror image.
None is a chest phantom of the sample's: a network that has learnt them knows blobs, lines and grain that break a symmetry,
and nothing of lungs.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

SIZE = 96  # pixels a side
_SHARE = 0.3  # of the images show a kind

Film = NDArray[np.float32]  # shape (SIZE, SIZE), 0 where a shape isn't, about 1 where it is


def disc(rng: np.random.Generator) -> Film:
    """A filled ellipse."""
    return _ellipse(_point(rng), rng.uniform(8, 34, 2), rng.uniform(0, 180))


def blurred_disc(rng: np.random.Generator) -> Film:
    """A filled ellipse without an edge."""
    return _blur(disc(rng), rng.uniform(4, 9))


def arc(rng: np.random.Generator) -> Film:
    """Half an ellipse's outline or more."""
    film, (x, y), (a, b) = _empty(), _point(rng), rng.integers(10, 36, 2).tolist()
    tilt, length, width = rng.uniform(0, 180), rng.uniform(180, 360), int(rng.integers(2, 6))
    cv2.ellipse(film, (x, y), (a, b), tilt, 0, length, 1.0, width, cv2.LINE_AA)
    return film


def polygon(rng: np.random.Generator) -> Film:
    """Three to five corners."""
    film, corners = _empty(), int(rng.integers(3, 6))
    angles, radii = np.sort(rng.uniform(0, 2 * np.pi, corners)), rng.uniform(14, 40, corners)
    around = np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)
    cv2.fillPoly(film, [np.rint(_point(rng) + around).astype(np.int32)], 1.0, cv2.LINE_AA)
    return film


def stripes(rng: np.random.Generator) -> Film:
    """A wavy grating."""
    y, x = np.mgrid[:SIZE, :SIZE]
    angle = rng.uniform(0, np.pi)
    phase = x * np.cos(angle) + y * np.sin(angle) + rng.normal(0, 3) * _grain(rng, 20)
    wave = np.clip(2 * np.sin(2 * np.pi * phase / rng.uniform(5, 24)), 0, 1)
    return wave.astype(np.float32) * _window(rng)


def net(rng: np.random.Generator) -> Film:
    """Fine, branching lines that close: where smooth noise is 0."""
    return np.exp(-2.5 * np.abs(_grain(rng, rng.uniform(1.2, 4)))) * _window(rng)


def grain(rng: np.random.Generator) -> Film:
    """Fine noise."""
    return np.float32(0.5) * _grain(rng, rng.uniform(0.5, 1.2)) * _window(rng)


def lumps(rng: np.random.Generator) -> Film:
    """Coarse, soft blobs."""
    return np.float32(0.6) * np.clip(_grain(rng, rng.uniform(4, 9)), 0, 2) * _window(rng)


def dots(rng: np.random.Generator) -> Film:
    """Up to forty small discs."""
    film = _empty()
    for _ in range(int(rng.integers(6, 40))):
        cv2.circle(film, _point(rng, margin=0.1), int(rng.integers(1, 4)), 1.0, cv2.FILLED, cv2.LINE_AA)
    return film


def tree(rng: np.random.Generator) -> Film:
    """Lines that fork and thin out."""
    film = _empty()
    branches = [
        (np.array(_point(rng)), rng.uniform(0, 2 * np.pi), rng.uniform(3, 5)) for _ in range(rng.integers(1, 5))
    ]
    for start, angle, width in branches:  # the list grows while it is read
        end = start + rng.uniform(6, 16) * np.array([np.cos(angle), np.sin(angle)])
        (x, y), (to_x, to_y) = np.rint(start).astype(int).tolist(), np.rint(end).astype(int).tolist()
        cv2.line(film, (x, y), (to_x, to_y), 1.0, max(1, round(width)), cv2.LINE_AA)
        if width > 1:
            branches.append((end, angle + rng.normal(0, 0.3), width - 0.5))
            branches += [(end, angle + rng.choice([-0.7, 0.7]), width - 0.8)] if rng.random() < 0.35 else []
    return film


KINDS = (disc, blurred_disc, arc, polygon, stripes, net, grain, lumps, dots, tree)


def draw(rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Draw an image, gray, shape (SIZE, SIZE), and say which of KINDS it shows."""
    shown = rng.random(len(KINDS)) < _SHARE
    film = _scene(rng)
    for kind in rng.permutation(np.flatnonzero(shown)):
        film = film + rng.choice([-1, 1, 1]) * rng.uniform(0.08, 0.4) * KINDS[kind](rng)
    film = _blur(film.astype(np.float32), rng.uniform(0.4, 1.0))
    film += rng.uniform(0, 0.04) * rng.standard_normal(film.shape, np.float32)
    return (255 * np.clip(film, 0, 1)).astype(np.uint8), shown


def _scene(rng: np.random.Generator) -> Film:
    """What the shapes lie over: clouds, and mostly ellipses and arcs, all of which have their mirror image."""
    film = np.float32(rng.uniform(0.2, 0.7)) + np.float32(rng.uniform(0, 0.25)) * _grain(rng, rng.uniform(15, 40))
    if rng.random() < 0.3:
        return film
    for _ in range(int(rng.integers(0, 5))):
        ellipse = _ellipse(_point(rng, margin=0.0), rng.uniform(10, 40, 2), rng.uniform(0, 180))
        film += np.float32(rng.choice([-1, 1]) * rng.uniform(0.05, 0.35)) * _blur(ellipse, rng.uniform(0.8, 4))
    for _ in range(int(rng.integers(0, 9))):
        film += np.float32(rng.uniform(0.02, 0.15)) * arc(rng)
    return np.concatenate([film[:, : SIZE // 2], film[:, SIZE // 2 - 1 :: -1]], axis=1)


def _empty() -> Film:
    return np.zeros((SIZE, SIZE), np.float32)


def _point(rng: np.random.Generator, margin: float = 0.2) -> tuple[int, int]:
    x, y = np.rint(SIZE * rng.uniform(margin, 1 - margin, 2)).astype(int).tolist()
    return x, y


def _ellipse(centre: tuple[int, int], axes: NDArray[np.float64], tilt: float) -> Film:
    film = _empty()
    cv2.ellipse(film, centre, (int(axes[0]), int(axes[1])), tilt, 0, 360, 1.0, cv2.FILLED, cv2.LINE_AA)
    return film


def _window(rng: np.random.Generator) -> Film:
    """Where a texture is seen, fading out."""
    return _blur(_ellipse(_point(rng), rng.uniform(24, 70, 2), rng.uniform(0, 180)), 6)


def _grain(rng: np.random.Generator, size: float) -> Film:
    """Noise with structures about `size` across: mean 0, standard deviation 1."""
    film = _blur(rng.standard_normal((SIZE, SIZE), np.float32), size)
    return film / film.std()


def _blur(film: Film, sigma: float) -> Film:
    return np.asarray(cv2.GaussianBlur(film, (0, 0), sigma), np.float32)
