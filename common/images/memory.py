"""A lack of memory, which every library reports in its own words, distinguished from a file that is damaged."""

import errno
import sys
from collections.abc import Callable
from typing import TypeVar

import numpy as np

Argument = TypeVar("Argument")
Result = TypeVar("Result")

_CV2_NO_MEMORY = -4  # cv2.Error.StsNoMem
_BYTES_A_PIXEL = 16  # more than any decoder and what is made of its output take


def is_lack(error: BaseException) -> bool:
    """Whether an error says that memory ran out: Python's and NumPy's, OpenCV's, the system's or Pillow's."""
    cv2 = sys.modules.get("cv2")
    return (
        isinstance(error, MemoryError)
        or bool(cv2 and isinstance(error, cv2.error) and error.code == _CV2_NO_MEMORY)
        or (isinstance(error, OSError) and (error.errno == errno.ENOMEM or "out of memory" in str(error)))
    )


def expect_room(pixels: int) -> None:
    """Raise MemoryError unless an image of so many pixels could be decoded: some decoders call that "broken data"."""
    np.empty(pixels * _BYTES_A_PIXEL, np.uint8)


def checked(run: Callable[[Argument], Result], argument: Argument) -> Result:
    """Run a function, in a worker perhaps, so that a lack of memory is a MemoryError that can be pickled."""
    try:
        return run(argument)
    except Exception as error:
        if is_lack(error):
            raise MemoryError(str(error)) from None
        raise
