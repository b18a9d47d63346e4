"""A recipe's transforms: KerasAffine, and albumentations', which are known here and nowhere else."""

import inspect
import json
import os
import random
import threading
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from augment.recipe import KERAS_AFFINE, ONE_OF, RecipeError
from augment.rendering.affine import KerasAffine, warp
from augment.rendering.tasks import Style
from common.errors import did_you_mean
from common.images.pixels import Pixels

# albumentations takes longer to import than half a thousand images take to render, so it is imported where a
# recipe names a transform of its own; and importing it would ask the network for a newer version.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")


class Step(NamedTuple):
    """A transform of a recipe: (image, numpy's stream, Python's stream) -> the image changed, and what was drawn.

    Nothing drawn: the image was left as it is. `p` is how probable a change is; `always` makes it certain. `geometric`
    are those of the names in it whose transforms move pixels and leave them their values.
    """

    name: str
    p: float
    apply: Callable[..., tuple[Pixels, dict[str, Any]]]
    geometric: frozenset[str]


_of_thread = threading.local()
_NOT_GEOMETRIC = ("Morphological", "NoOp")  # of those that move boxes and masks along with the image
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
    return _steps(json.loads(style.transforms), style)


def _steps(transforms: list[dict[str, Any]], style: Style) -> tuple[Step, ...]:
    own: dict[str, Callable[[dict[str, Any]], Step]] = {
        KERAS_AFFINE: _keras_affine,
        ONE_OF: partial(_one_of, style=style),
    }
    return tuple(
        own[name](given) if name in own else _of_albumentations(name, given, style)
        for entry in transforms
        for name, given in entry.items()
    )


def _one_of(given: dict[str, Any], style: Style) -> Step:
    """One of several, with probability p; which, goes by their own p, as albumentations' OneOf has it."""
    p, steps = given.get("p", 0.5), _steps(given["transforms"], style)
    shares = [step.p for step in steps]
    if isinstance(p, bool) or not isinstance(p, (int, float)) or not 0 <= p <= 1 or not any(shares):
        raise RecipeError(f"OneOf has p {p!r} and its transforms {shares}, expected numbers from 0 to 1, not all 0")

    def apply(
        image: Pixels, numpy_stream: np.random.Generator, python_stream: random.Random, *, always: bool = False
    ) -> tuple[Pixels, dict[str, Any]]:
        if not always and python_stream.random() >= p:
            return image, {}
        step = python_stream.choices(steps, shares)[0]
        image, drawn = step.apply(image, numpy_stream, python_stream, always=True)
        return image, {step.name: {key: value for key, value in drawn.items() if key != "shape"}}

    return Step(ONE_OF, p, apply, frozenset().union(*(step.geometric for step in steps)))


def _keras_affine(given: dict[str, Any]) -> Step:
    try:
        affine = KerasAffine(**given)
    except (TypeError, ValueError) as error:
        raise RecipeError(_not_taken(KERAS_AFFINE, KerasAffine, given, error)) from None

    def apply(
        image: Pixels, numpy_stream: np.random.Generator, python_stream: random.Random, *, always: bool = False
    ) -> tuple[Pixels, dict[str, Any]]:
        # As albumentations draws it.
        if not always and affine.p < 1 and not (affine.p > 0 and python_stream.random() < affine.p):
            return image, {}
        drawn = affine.draw(numpy_stream, *image.shape[:2])
        return warp(image, **drawn), drawn

    return Step(KERAS_AFFINE, affine.p, apply, frozenset({KERAS_AFFINE}))


def _of_albumentations(name: str, given: dict[str, Any], style: Style) -> Step:
    import albumentations as A

    warnings.filterwarnings("ignore", module="albu")  # for every image anew: of saturation that gray images lack, say
    kind: Any = getattr(A, name, None)
    if not (isinstance(kind, type) and issubclass(kind, (A.ImageOnlyTransform, A.DualTransform))):
        known = [each for each, of in vars(A).items() if isinstance(of, type) and issubclass(of, A.BasicTransform)]
        raise RecipeError(
            f"transform {name!r} is not known; expected {KERAS_AFFINE} or a name from albumentations "
            f"{A.__version__}{did_you_mean(name, [KERAS_AFFINE, *known])}"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # albumentations only warns of a parameter it doesn't know
        try:
            transform: Any = kind(**given)
        except MemoryError:  # of this machine, and no fault of the recipe
            raise
        except Exception as error:  # pydantic's, albumentations' and plain TypeErrors
            raise RecipeError(_not_taken(name, kind, given, error)) from None
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
            expect_image(changed, shape, name)

    def apply(
        image: Pixels, numpy_stream: np.random.Generator, python_stream: random.Random, *, always: bool = False
    ) -> tuple[Pixels, dict[str, Any]]:
        transform.set_random_state(numpy_stream, python_stream)
        return transform(image=image, force_apply=always)["image"], transform.get_applied_params()

    moves = issubclass(kind, A.DualTransform) and "Dropout" not in " ".join(of.__name__ for of in kind.__mro__)
    return Step(name, transform.p, apply, frozenset({name} if moves and name not in _NOT_GEOMETRIC else ()))


def expect_image(image: np.ndarray, shape: tuple[int, ...], transforms: str) -> None:
    """Refuse what is no 8-bit image of a shape.

    Raises:
        RecipeError: naming `transforms`, which made it.
    """
    if image.shape != shape or image.dtype != np.uint8:
        raise RecipeError(
            f"{transforms} makes {image.dtype} {image.shape} of uint8 {shape}; the images of a set are 8-bit and "
            "of one size"
        )


def _not_taken(name: str, kind: Callable[..., Any], given: dict[str, Any], error: Exception) -> str:
    """The message for parameters that a transform doesn't take, with one that may be meant."""
    known = list(inspect.signature(kind).parameters)
    close = next(filter(None, (did_you_mean(key, known) for key in given if key not in known)), "")
    return f"transform {name} does not take {json.dumps(given)}: {_one_line(error)}{close}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
