"""One source's bytes -> its variants' bytes: a pure function, run in worker processes.

A source is decoded once, however many variants it has. A variant's every draw comes from its own seed, so
that neither the worker nor the order matters.
"""

import copy
import hashlib
import json
import random
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from augment.recipe import ONE_OF
from augment.rendering import image_file
from augment.rendering.tasks import RenderResult, RenderTask, Style, Variant, Written
from augment.rendering.transforms import expect_image, pipeline
from common.images import memory
from common.images.pixels import Picture, Pixels, UnreadableImage, picture, read_image
from common.images.resizing import resize
from common.remote import Remote
from common.workers.cluster import here

_CHANGED = "its bytes are no longer those that were planned with"
cv2.setNumThreads(1)  # the pool has a worker a core already


def run(task: RenderTask) -> RenderResult:
    """Read and render one source's variants, and write them unless they are to be handed back.

    Raises:
        OSError: an image can't be written (the disk is full, say). What is wrong with the source is returned.
    """
    try:
        data = read_image(task.source, task.style.max_pixels)
        if hashlib.sha256(data).hexdigest() != task.source_sha256:
            return RenderResult([], _CHANGED)
        decoded = _decode(data, task.style)
    except OSError as error:
        # One that is gone was deleted; one that is refused was read before, so credentials have run out.
        is_on_the_way = isinstance(task.source, Remote) and not isinstance(error, FileNotFoundError)
        if memory.is_lack(error) or is_on_the_way:
            raise  # the machine's fault, or that of the way to a store, which another try may find mended
        return RenderResult([], f"can't be read: {error.strerror}")
    except UnreadableImage as error:
        return RenderResult([], str(error), unreadable=True) if _is_as_planned(task) else RenderResult([], _CHANGED)
    rendered = [_render_one(decoded.pixels, variant, task.style) for variant in task.variants]
    width, height = task.style.size
    written = []
    for variant, (encoded, transform) in zip(task.variants, rendered, strict=True):
        if task.images:
            image_file.write(task.images / variant.path, encoded)
        sha256 = hashlib.sha256(encoded).hexdigest()
        written.append(Written(variant.path, variant.seed, transform, width, height, sha256))
    images = () if task.images else tuple(encoded for encoded, _ in rendered)
    return RenderResult(written, notes=decoded.notes, largest=decoded.largest, data=images, worker=here())


def _is_as_planned(task: RenderTask) -> bool:
    """Whether the source is what was planned with; it may be too large to be read at once."""
    try:
        if isinstance(task.source, Remote):
            return hashlib.sha256(task.source.read()).hexdigest() == task.source_sha256
        with task.source.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == task.source_sha256
    except OSError:
        return False


def render(data: bytes, variants: Sequence[Variant], style: Style) -> list[tuple[bytes, str]]:
    """Decode `data` once and make each variant's bytes and, as JSON, what was applied to it.

    Raises:
        UnreadableImage: the source can't be decoded.
    """
    image = _decode(data, style).pixels
    return [_render_one(image, variant, style) for variant in variants]


def _decode(data: bytes, style: Style) -> Picture:
    """As `decode_to` does it, with notes."""
    found = picture(data, style.size, style.max_pixels, style.value_range)
    return found._replace(pixels=resize(found.pixels, style.size, style.fit))


def _render_one(image: Pixels, variant: Variant, style: Style) -> tuple[bytes, str]:
    applied = ""
    if variant.variant > 0:
        image, applied = _transformed(image, variant.seed, style)
    pixels = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    options = [cv2.IMWRITE_JPEG_QUALITY, style.quality] if style.format == "jpeg" else []
    done, encoded = cv2.imencode(f".{style.format}", pixels, options)
    if not done:
        raise UnreadableImage(f"can't be encoded as {style.format.upper()}: {pixels.dtype} {pixels.shape}")
    return encoded.tobytes(), applied


def _transformed(image: Pixels, seed: int, style: Style) -> tuple[Pixels, str]:
    """Apply the steps one after the other, as albumentations' Compose does with half a dozen checks between them."""
    # One stream for all steps, in their order: set_random_seed would hand each the same one.
    numpy_stream, python_stream = np.random.default_rng(seed), random.Random(seed)
    applied, shape = [], image.shape
    for step in pipeline(style):
        image, drawn = step.apply(image, numpy_stream, python_stream)
        if drawn:
            applied.append((step.name, drawn))
    expect_image(image, shape, "the transforms together")
    return image, _describe(applied)


def geometry_alone(image: Pixels, seed: int, style: Style) -> tuple[Pixels, float]:
    """An image after the geometric ones of a variant's transforms, and the share of it that the image doesn't reach.

    That share was invented: by repeating the edge, or filled with a value. What is mirrored there isn't noticed.
    """
    streams = np.random.default_rng(seed), random.Random(seed)
    frame = np.zeros_like(image)
    frame[[0, -1]] = frame[:, [0, -1]] = 255
    moved = [image, np.full_like(image, 255), frame]
    for step in pipeline(style):
        before = copy.deepcopy(streams)
        image, drawn = step.apply(image, *streams)
        kind = next(iter(drawn), "") if step.name == ONE_OF else step.name
        if drawn and kind in step.geometric:
            moved = [step.apply(each, *copy.deepcopy(before))[0] for each in moved]
    image, whole, frame = moved
    repeated = cv2.morphologyEx((frame >= 254).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    return image, float(np.mean((whole < 254) | (repeated > 0)))


def _describe(applied: list[tuple[str, dict[str, Any]]]) -> str:
    """JSON of the transforms that took effect, with the parameters they drew."""
    steps = [{name: {key: _plain(value) for key, value in drawn.items() if key != "shape"}} for name, drawn in applied]
    return json.dumps(steps, separators=(",", ":"))


def _plain(value: Any) -> Any:
    """A drawn parameter as JSON: numbers to six places; of a large array only its shape, since the seed has it all."""
    if isinstance(value, np.ndarray):
        return _plain(value.tolist()) if value.size <= 16 else f"array{list(value.shape)}"
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value[:16]]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return value if isinstance(value, (str, int, bool, type(None))) else type(value).__name__
