"""KerasAffine: the random affine map of Keras's ImageDataGenerator as an albumentations transform.

Source: keras/src/legacy/preprocessing/image.py, `get_random_transform` and `apply_affine_transform` (Keras
3.15.1). Checked against them in tests/augment/test_affine.py.
"""

import math
from typing import Any

import albumentations as A
import cv2
import numpy as np
from albumentations.core.transforms_interface import BaseTransformInitSchema
from pydantic import Field

from manifests.pixels import Pixels


class KerasAffine(A.ImageOnlyTransform):  # type: ignore[misc]  # albumentations ships no types
    """Rotate, shift, shear and zoom about the centre, bilinear, edges repeated.

    Args:
        rotation_range: degrees; theta is drawn from +-rotation_range.
        width_shift_range: as a share of the width below 1, in pixels from 1 on; drawn from +- of it.
        height_shift_range: the same of the height.
        shear_range: DEGREES, as Keras reads it; drawn from +-shear_range.
        zoom_range: zx and zy are drawn from 1 - zoom_range to 1 + zoom_range each on its own. The map leads
            from output to input, so that 0.8 magnifies.
    """

    class InitSchema(BaseTransformInitSchema):  # type: ignore[misc]  # albumentations ships no types
        """What albumentations checks the arguments by."""

        rotation_range: float = Field(ge=0)
        width_shift_range: float = Field(ge=0)
        height_shift_range: float = Field(ge=0)
        shear_range: float = Field(ge=0)
        zoom_range: float = Field(ge=0, lt=1)

    def __init__(
        self,
        rotation_range: float = 0.0,
        width_shift_range: float = 0.0,
        height_shift_range: float = 0.0,
        shear_range: float = 0.0,
        zoom_range: float = 0.0,
        p: float = 1.0,
    ) -> None:
        super().__init__(p=p)
        self.rotation_range = rotation_range
        self.width_shift_range = width_shift_range
        self.height_shift_range = height_shift_range
        self.shear_range = shear_range
        self.zoom_range = zoom_range

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, float]:
        """Draw theta and shear in degrees, tx and ty in pixels, and the zooms, in Keras's order.

        As in Keras 3, tx is drawn by the height but moves along x, and ty the other way round: its
        `apply_affine_transform` swaps the axes after they were drawn.
        """
        height, width = params["shape"][:2]

        def draw(spread: float, scale: float = 1.0, middle: float = 0.0) -> float:
            return middle + float(self.random_generator.uniform(-spread, spread)) * scale

        return {
            "theta": draw(self.rotation_range),
            "tx": draw(self.height_shift_range, height if self.height_shift_range < 1 else 1),
            "ty": draw(self.width_shift_range, width if self.width_shift_range < 1 else 1),
            "shear": draw(self.shear_range),
            "zx": draw(self.zoom_range, middle=1.0),
            "zy": draw(self.zoom_range, middle=1.0),
        }

    def apply(
        self, img: Pixels, theta: float, tx: float, ty: float, shear: float, zx: float, zy: float, **_: Any
    ) -> Pixels:
        """Map an image of shape (height, width) or (height, width, channels)."""
        height, width = img.shape[:2]
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        matrix = output_to_input(theta, tx, ty, shear, zx, zy, height, width)
        warped = cv2.warpAffine(img, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
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
