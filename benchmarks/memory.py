"""Peak memory of the main process of a build of a million images, where no image is rendered: tables, journal and publishing.

    python benchmarks/memory.py [IMAGES]

Workers are stood in for by a thread that writes empty files and gives back what a worker would. Run by `make bench`.
"""

import hashlib
import pickle
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(Path(__file__).parent))

from planning import made_up

from augment import building
from augment.recipe import resolve
from augment.rendering.tasks import RenderResult, RenderTask, Written
from augment.rendering.work import run_all
from augment.sources.scan import Scan
from augment.storage.place import Place
from common.workers import Workers

# What augment1 of the study notes of an image.
TRANSFORM = '[{"Affine":{"rotate":-7.5214,"shear":4.8123,"translate":[-12.4512,20.1841],"zoom":[0.9534,1.0312]}},{"HorizontalFlip":{}}]'


class Canned(Executor):
    """Does what workers do, but for the images."""

    def submit(self, run: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Give what a worker would have sent."""
        future: Future[Any] = Future()
        done = [(task, canned(task)) for task in args[1]] if run_all in args else run(*args, **kwargs)
        future.set_result(pickle.loads(pickle.dumps(done)))  # noqa: S301  # our own
        return future


def canned(task: RenderTask) -> RenderResult:
    """The result of a task whose images are empty."""
    written = []
    for path, variant, seed in task.variants:
        (task.images / path).touch() if task.images else None
        transform = TRANSFORM.replace("7.5214", str(seed % 10**6)) if variant else ""
        written.append(Written(path, seed, transform, 224, 224, hashlib.sha256(path.encode()).hexdigest()))
    return RenderResult(written)


def measure(images: int, sources: int) -> None:
    """Build once, and print seconds and peak memory."""
    found = made_up(sources)
    recipe = resolve(
        "bench", {"per_class": images // 2, "val": 0, "test": 0, "transforms": ["HorizontalFlip"]}, "bench"
    )
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch)
        (out / "source").mkdir()
        place = Place(out, out / "source", out / "data" / "bench", out / "manifests" / "bench.csv")
        begun = time.perf_counter()
        workers = Workers(Canned(), Canned())
        built = building.build(Scan(found, [], "", out / "source"), recipe, place, workers, lambda *_: None)
        seconds = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    print(f"{built.rendered:,} images of {sources:,} sources: {seconds:.0f} s, main process {peak:.2f} GB at most")


def main() -> None:
    """Measure few and many sources, each in a process of its own."""
    images = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    for sources in (images // 5, images):
        subprocess.run([sys.executable, __file__, str(images), str(sources)], check=True)


if __name__ == "__main__":
    measure(int(sys.argv[1]), int(sys.argv[2])) if len(sys.argv) > 2 else main()
