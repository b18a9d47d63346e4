"""What workers run: the functions that are handed to an executor.

The main process imports this module to name them, and what renders is imported where they run.
"""

from collections.abc import Sequence

from augment.rendering.tasks import RenderResult, RenderTask, Style

MODULES = ("augment.rendering.work", "augment.rendering.render")  # that a worker needs
# The packages whose version can change the bytes of any set, and those that only some sources and transforms go through.
PACKAGES = ("numpy", "opencv-python-headless", "pillow", "simplejpeg")
TRANSFORM_PACKAGES = ("albumentations", "albucore", "scipy")
DICOM_PACKAGES = ("pydicom", "python-gdcm", "pylibjpeg", "pylibjpeg-openjpeg")
ALL_PACKAGES = (*PACKAGES, *TRANSFORM_PACKAGES, *DICOM_PACKAGES)


def check(style: Style) -> None:
    """Make a style's pipeline, for its errors.

    Raises:
        RecipeError: as `transforms.pipeline` has it.
    """
    from augment.rendering.transforms import pipeline

    pipeline(style)


def run_all(tasks: Sequence[RenderTask]) -> list[tuple[RenderTask, RenderResult]]:
    """Each task with its result.

    Raises:
        OSError: as `render.run` has it.
    """
    from augment.rendering.render import run

    return [(task, run(task)) for task in tasks]
