"""One source's bytes -> its variants' bytes: a pure function, run in worker processes.

A source is decoded once, however many variants it has. A variant's every draw comes from its own seed, so
that neither the worker nor the order matters.
"""

import hashlib
import json
import os
import random
import threading
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from augment.recipe import KERAS_AFFINE, RecipeError
from augment.rendering.affine import KerasAffine, warp
from augment.rendering.tasks import RenderResult, RenderTask, Style, Variant, Written
from common.images import memory
from common.images.pixels import Picture, Pixels, UnreadableImage, picture, read_image, resize

# albumentations takes longer to import than half a thousand images take to render, so it is imported where a
# recipe names a transform of its own; and importing it would ask the network for a newer version.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
_CHANGED = "its bytes are no longer those that were planned with"
cv2.setNumThreads(1)  # the pool has a worker a core already


def run(task: RenderTask) -> RenderResult:
    """Read, render and write one source's variants.

    Raises:
        OSError: an image can't be written (the disk is full, say). What is wrong with the source is returned.
    """
    try:
        data = read_image(task.source, task.style.max_pixels)
        if hashlib.sha256(data).hexdigest() != task.source_sha256:
            return RenderResult([], _CHANGED)
        decoded = _decode(data, task.style)
    except OSError as error:
        if memory.is_lack(error):
            raise
        return RenderResult([], f"can't be read: {error.strerror}")
    except UnreadableImage as error:
        return RenderResult([], str(error), unreadable=True) if _is_as_planned(task) else RenderResult([], _CHANGED)
    rendered = [_render_one(decoded.pixels, variant, task.style) for variant in task.variants]
    width, height = task.style.size
    written = []
    for variant, (jpeg, transform) in zip(task.variants, rendered, strict=True):
        _write(task.images / variant.path, jpeg)
        written.append(Written(variant.path, variant.seed, transform, width, height, hashlib.sha256(jpeg).hexdigest()))
    return RenderResult(written, notes=decoded.notes, largest=decoded.largest)


def _is_as_planned(task: RenderTask) -> bool:
    """Whether the source is what was planned with; it may be too large to be read at once."""
    try:
        with task.source.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == task.source_sha256
    except OSError:
        return False


def render(data: bytes, variants: Sequence[Variant], style: Style) -> list[tuple[bytes, str]]:
    """Decode `data` once and make each variant's JPEG and, as JSON, what was applied to it.

    Raises:
        UnreadableImage: the source can't be decoded.
    """
    image = _decode(data, style).pixels
    return [_render_one(image, variant, style) for variant in variants]


def _decode(data: bytes, style: Style) -> Picture:
    """As `decode_to` does it, with notes."""
    found = picture(data, style.size, style.max_pixels, style.value_range)
    return found._replace(pixels=resize(found.pixels, style.size))


class Step(NamedTuple):
    """A transform of a recipe: (image, numpy's stream, Python's stream) -> the image changed, and what was drawn.

    Nothing drawn: the image was left as it is.
    """

    name: str
    apply: Callable[[Pixels, np.random.Generator, random.Random], tuple[Pixels, dict[str, Any]]]


_of_thread = threading.local()
_TRIALS = 4  # of a transform on either kind of image, before anything is rendered


def pipeline(style: Style) -> tuple[Step, ...]:
    """A style's transforms, those of albumentations each tried on a gray and an RGB image of its size.

    Each thread has its own: albumentations' objects hold their random streams and what they drew last.

    Raises:
        RecipeError: an unknown transform or parameter, or one that gives no 8-bit image of the same size.
    """
    made: dict[Style, tuple[Step, ...]] = _of_thread.__dict__.setdefault("pipelines", {})
    if style not in made:
        made[style] = _pipeline(style)
    return made[style]


def _pipeline(style: Style) -> tuple[Step, ...]:
    listed = [item for entry in json.loads(style.transforms) for item in entry.items()]
    return tuple(
        _keras_affine(given) if name == KERAS_AFFINE else _of_albumentations(name, given, style)
        for name, given in listed
    )


def _keras_affine(given: dict[str, Any]) -> Step:
    try:
        affine = KerasAffine(**given)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"transform {KERAS_AFFINE} does not take {json.dumps(given)}: {_one_line(error)}") from None

    def apply(
        image: Pixels, numpy_stream: np.random.Generator, python_stream: random.Random
    ) -> tuple[Pixels, dict[str, Any]]:
        if affine.p < 1 and not (affine.p > 0 and python_stream.random() < affine.p):  # as albumentations draws it
            return image, {}
        drawn = affine.draw(numpy_stream, *image.shape[:2])
        return warp(image, **drawn), drawn

    return Step(KERAS_AFFINE, apply)


def _of_albumentations(name: str, given: dict[str, Any], style: Style) -> Step:
    import albumentations as A

    warnings.filterwarnings("ignore", module="albu")  # for every image anew: of saturation that gray images lack, say
    kind: Any = getattr(A, name, None)
    if not (isinstance(kind, type) and issubclass(kind, (A.ImageOnlyTransform, A.DualTransform))):
        raise RecipeError(
            f"transform {name!r} is not known; expected {KERAS_AFFINE} or a name from albumentations {A.__version__}"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # albumentations only warns of a parameter it doesn't know
        try:
            transform: Any = kind(**given)
        except MemoryError:  # of this machine, and no fault of the recipe
            raise
        except Exception as error:  # pydantic's, albumentations' and plain TypeErrors
            raise RecipeError(f"transform {name} does not take {json.dumps(given)}: {_one_line(error)}") from None
    if not {"reference_images", "metadata_key", "font_path"}.isdisjoint(transform.InitSchema.model_fields):
        raise RecipeError(f"transform {name} reads other files, which a recipe must not reach for; take it out")
    width, height = style.size
    for colours, shape in (("a gray", (height, width)), ("an RGB", (height, width, 3))):
        for seed in range(_TRIALS):  # what is drawn decides how long it takes, and what is drawn is the same each time
            transform.set_random_state(np.random.default_rng(seed), random.Random(seed))
            try:
                changed = transform(image=np.full(shape, 128, np.uint8), force_apply=True)["image"]
            except MemoryError as error:
                raise MemoryError(f"for transform {name}: {_one_line(error)}") from None
            except Exception as error:  # whatever a transform's own checks raise
                raise RecipeError(f"transform {name} fails on {colours} image: {_one_line(error)}") from None
            _expect_image(changed, shape, name)

    def apply(
        image: Pixels, numpy_stream: np.random.Generator, python_stream: random.Random
    ) -> tuple[Pixels, dict[str, Any]]:
        transform.set_random_state(numpy_stream, python_stream)
        return transform(image=image)["image"], transform.get_applied_params()

    return Step(name, apply)


def _expect_image(image: np.ndarray, shape: tuple[int, ...], transforms: str) -> None:
    if image.shape != shape or image.dtype != np.uint8:
        raise RecipeError(
            f"{transforms} makes {image.dtype} {image.shape} of uint8 {shape}; the images of a set are 8-bit and "
            "of one size"
        )


def _render_one(image: Pixels, variant: Variant, style: Style) -> tuple[bytes, str]:
    applied = ""
    if variant.variant > 0:
        image, applied = _transformed(image, variant.seed, style)
    pixels = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    done, jpeg = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, style.quality])
    if not done:
        raise UnreadableImage(f"can't be encoded as JPEG: {pixels.dtype} {pixels.shape}")
    return jpeg.tobytes(), applied


def _transformed(image: Pixels, seed: int, style: Style) -> tuple[Pixels, str]:
    """Apply the steps one after the other, as albumentations' Compose does with half a dozen checks between them."""
    # One stream for all steps, in their order: set_random_seed would hand each the same one.
    numpy_stream, python_stream = np.random.default_rng(seed), random.Random(seed)
    applied, shape = [], image.shape
    for step in pipeline(style):
        image, drawn = step.apply(image, numpy_stream, python_stream)
        if drawn:
            applied.append((step.name, drawn))
    _expect_image(image, shape, "the transforms together")
    return image, _describe(applied)


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


def _write(path: Path, data: bytes) -> None:
    """Write a file beside `path`, then rename it: another name of a file that was there keeps its bytes."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
