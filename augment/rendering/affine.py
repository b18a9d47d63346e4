"""KerasAffine: the random affine map of Keras's ImageDataGenerator, on OpenCV.

Source: keras/src/legacy/preprocessing/image.py, `get_random_transform` and `apply_affine_transform` (Keras
3.15.1). Checked against them in tests/augment/rendering/test_affine.py.
"""

import math
from dataclasses import asdict, dataclass

import cv2
import numpy as np

from common.images.pixels import Pixels


@dataclass(frozen=True)
class KerasAffine:
    """Rotate, shift, shear and zoom about the centre, bilinear, edges repeated.

    No albumentations transform, since importing that takes as long as half a thousand images take to render.

    Args:
        rotation_range: degrees; theta is drawn from +-rotation_range.
        width_shift_range: as a share of the width below 1, in pixels from 1 on; drawn from +- of it. A whole number N
            is drawn from, as in Keras, the whole numbers below N, and their opposites.
        height_shift_range: the same of the height.
        shear_range: DEGREES, as Keras reads it; drawn from +-shear_range.
        zoom_range: zx and zy are drawn from 1 - zoom_range to 1 + zoom_range each on its own. The map leads
            from output to input, so that 0.8 magnifies.
        p: how probable it is that an image is changed at all.

    Raises:
        ValueError: one of them is no number, or out of range.
    """

    rotation_range: float = 0.0
    width_shift_range: float = 0.0
    height_shift_range: float = 0.0
    shear_range: float = 0.0
    zoom_range: float = 0.0
    p: float = 1.0

    def __post_init__(self) -> None:
        most = {"zoom_range": math.nextafter(1.0, 0.0), "p": 1.0}
        for name, value in asdict(self).items():
            highest = most.get(name, math.inf)
            # A NaN is not in any range; true and false are numbers to Python, but a slip here.
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= highest:
                within = {"zoom_range": "from 0 to below 1", "p": "from 0 to 1"}.get(name, "from 0 on")
                raise ValueError(f"{name} is {value!r}, expected a number {within}")

    def draw(self, stream: np.random.Generator, height: int, width: int) -> dict[str, float]:
        """Draw theta and shear in degrees, tx and ty in pixels, and the zooms, in Keras's order.

        As in Keras 3, tx is drawn by the height but moves along x, and ty the other way round: its
        `apply_affine_transform` swaps the axes after they were drawn.
        """

        def uniform(spread: float, scale: float = 1.0, middle: float = 0.0) -> float:
            return middle + float(stream.uniform(-spread, spread)) * scale

        def shift(spread: float, side: int) -> float:
            if isinstance(spread, int) and spread:
                return float(stream.integers(spread) * stream.choice([-1, 1]))
            return uniform(spread, side if spread < 1 else 1)

        return {
            "theta": uniform(self.rotation_range),
            "tx": shift(self.height_shift_range, height),
            "ty": shift(self.width_shift_range, width),
            "shear": uniform(self.shear_range),
            "zx": uniform(self.zoom_range, middle=1.0),
            "zy": uniform(self.zoom_range, middle=1.0),
        }


def warp(image: Pixels, theta: float, tx: float, ty: float, shear: float, zx: float, zy: float) -> Pixels:
    """Map an image of shape (height, width) or (height, width, channels) by what KerasAffine has drawn."""
    height, width = image.shape[:2]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    matrix = output_to_input(theta, tx, ty, shear, zx, zy, height, width)
    warped = cv2.warpAffine(image, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return warped.astype(np.uint8, copy=False)


def output_to_input(
    theta: float, tx: float, ty: float, shear: float, zx: float, zy: float, height: int, width: int
) -> np.ndarray:
    """The 2 x 3 float64 matrix that maps an output pixel (x, y, 1) to the input pixel it shows: R.T.S.Z about the centre.

    Keras builds it for (x, y) and then swaps both its axes to index arrays by (row, column). cv2 counts (x, y),
    so it serves here as built.
    """
    cos, sin = math.cos(math.radians(theta)), math.sin(math.radians(theta))
    cos_shear, sin_shear = math.cos(math.radians(shear)), math.sin(math.radians(shear))
    rotation = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    shift = np.array([[1, 0, tx], [0, 1, ty], [0, 0, 1]])
    shearing = np.array([[1, -sin_shear, 0], [0, cos_shear, 0], [0, 0, 1]])
    zoom = np.diag([zx, zy, 1])
    # Keras centres x by the height and y by the width; that only matters where the two differ.
    to_centre = np.array([[1, 0, height / 2 - 0.5], [0, 1, width / 2 - 0.5], [0, 0, 1]])
    from_centre = np.array([[1, 0, 0.5 - height / 2], [0, 1, 0.5 - width / 2], [0, 0, 1]])
    matrix: np.ndarray = (to_centre @ rotation @ shift @ shearing @ zoom @ from_centre)[:2]
    return matrix
