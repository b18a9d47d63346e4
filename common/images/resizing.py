"""An image -> the image in another size: stretched, padded or cropped."""

import cv2
import numpy as np

from common.images.pictures import Pixels


def resize(image: Pixels, size: tuple[int, int], fit: str = "stretch") -> Pixels:
    """Bring an image to a size: area-averaged when it shrinks, bilinear when it grows.

    Args:
        image: uint8, shape (height, width) or (height, width, 3).
        size: (width, height).
        fit: `stretch` changes the aspect; `pad` keeps it, with the whole image in the middle of black; `crop` keeps it,
            with as much of the image's middle as fills the size.
    """
    height, width = image.shape[:2]
    if fit == "pad":
        scale = min(size[0] / width, size[1] / height)
        inner = _stretched(image, (_side(width * scale, size[0]), _side(height * scale, size[1])))
        canvas = np.zeros((size[1], size[0], *image.shape[2:]), np.uint8)
        left, top = (size[0] - inner.shape[1]) // 2, (size[1] - inner.shape[0]) // 2
        canvas[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
        return canvas
    if fit == "crop":
        scale = max(size[0] / width, size[1] / height)
        wide, high = _side(size[0] / scale, width), _side(size[1] / scale, height)
        left, top = (width - wide) // 2, (height - high) // 2
        image = image[top : top + high, left : left + wide]
    return _stretched(image, size)


def _side(length: float, most: int) -> int:
    return min(most, max(1, round(length)))


def _stretched(image: Pixels, size: tuple[int, int]) -> Pixels:
    if image.shape[1::-1] == size:
        return image
    shrinks = image.shape[1] >= size[0] and image.shape[0] >= size[1]
    resized = cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return resized.astype(np.uint8, copy=False)
