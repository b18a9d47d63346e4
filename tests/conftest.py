"""Fixtures for all tests: tiny source folders of real images, and the real X-rays where they are at hand."""

import gc
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

# How long an example takes depends on what else the machine does.
settings.register_profile("evenset", deadline=None)
settings.load_profile("evenset")

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

MakeSource = Callable[..., Path]
_MOST_MEMORY = 4e9  # bytes that any one process of the tests may take: a laptop has 8 GB


def _peaks() -> dict[str, float]:
    """Bytes that this process, and the largest of those that it started, took at most; empty where no one counts."""
    if sys.platform == "win32":
        return {}
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    kinds = {"this process": resource.RUSAGE_SELF, "the largest of its children": resource.RUSAGE_CHILDREN}
    return {name: float(resource.getrusage(kind).ru_maxrss * unit) for name, kind in kinds.items()}


_of_workers: dict[str, float] = {}  # the same of pytest-xdist's workers, the largest of each kind


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over what a worker that is done has counted."""
    output = getattr(node, "workeroutput", {})
    for name, peak in output.get("peaks", {}).items():
        _of_workers[f"a worker, {name}"] = max(peak, _of_workers.get(f"a worker, {name}", 0.0))
    _raised.update(output.get("raised", {}))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A run whose tests pass but take more memory than a laptop has is a failure."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:  # in a worker, whose exit status nobody asks for
        output |= {"peaks": _peaks(), "raised": _raised}
        return
    if max((_peaks() | _of_workers).values(), default=0) > _MOST_MEMORY and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


_raised: dict[str, float] = {}  # bytes by which a test raised the peak of this process


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Note which tests raise the peak memory, and let go of what such a test held."""
    before = _peaks().get("this process", 0.0)
    result = yield
    _raised[item.nodeid] = _peaks().get("this process", 0.0) - before
    if _raised[item.nodeid]:
        gc.collect()  # networks are cycles, and Python, which doesn't see the gigabytes behind them, waits with those
    return result


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the peak memory, and which tests raised it most."""
    peaks = _peaks() | _of_workers
    if peaks:
        text = ", ".join(f"{name} {peak / 1e9:.2f} GB" for name, peak in peaks.items())
        over = max(peaks.values()) > _MOST_MEMORY
        terminalreporter.write_line(
            f"Peak memory: {text}; at most {_MOST_MEMORY / 1e9:g} GB each{': FAILED' if over else ''}", red=over
        )
        for name in sorted(_raised, key=_raised.__getitem__, reverse=True)[:5]:
            terminalreporter.write_line(f"  {_raised[name] / 1e9:.2f} GB of it by {name}")


@pytest.fixture(scope="session")
def make_source() -> MakeSource:
    """A function (folder, {"train/NORMAL": 6, ...}) -> folder that writes class folders of small noisy JPEGs.

    With keys of SPLIT/CLASS it makes the Kermany layout, with keys of CLASS the plain one. The names are
    Kermany's: NORMAL has one image a patient, any other class three. No two images are alike, and no patient
    is in two folders.
    """

    def make(folder: Path, counts: dict[str, int], size: tuple[int, int] = (48, 36), suffix: str = ".jpeg") -> Path:
        patient = 0
        for place, count in counts.items():
            (folder / place).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                if place.endswith("NORMAL"):
                    patient += 1
                    name = f"IM-{patient:04d}-0001"
                else:
                    patient += number % 3 == 0
                    name = f"person{patient}_virus_{number}"
                rng = np.random.default_rng([patient, number])
                coarse = Image.fromarray(rng.integers(0, 256, (6, 8), dtype=np.uint8))
                coarse.resize(size, Image.Resampling.BICUBIC).save(folder / place / f"{name}{suffix}")
            patient += 1
        return folder

    return make


@pytest.fixture
def busy() -> Iterator[None]:
    """Every core has something else to do, as far as it hasn't already."""
    idle = (os.cpu_count() or 1) - int(os.getloadavg()[0])
    burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(idle)]
    yield
    for burner in burners:
        burner.kill()
        burner.wait()


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """The environment for a process that runs the programs from another folder: `cwd` need not be the repository."""
    paths = [str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """A function (bytes) -> folder that makes a file system of that size, or gives the one it made another size."""
    folder = tmp_path / "disk"

    def resize(size: int) -> Path:
        how = ["-o", f"remount,size={size}"] if folder.exists() else ["-t", "tmpfs", "-o", f"size={size}"]
        folder.mkdir(exist_ok=True)
        done = subprocess.run(["mount", *how, "tmpfs", folder], check=False, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no right to mount a small file system: {done.stderr.strip()}")
        return folder

    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("mounting a small file system takes root and `mount`")
    yield resize
    subprocess.run(["umount", "--lazy", folder], check=False, capture_output=True)


@pytest.fixture(scope="session")
def xrays_full() -> Path:
    """240 real X-rays at full size: train/{NORMAL,PNEUMONIA}/*.jpeg. Read only."""
    return _xrays("chest_xray_full")


@pytest.fixture(scope="session")
def xrays_224() -> Path:
    """The whole Kermany set at 224 x 224: {train,val,test}/{NORMAL,PNEUMONIA}/*.jpeg. Read only."""
    return _xrays("chest_xray_224")


def _xrays(name: str) -> Path:
    shared = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("EVENSET_XRAYS", shared)) / name
    if not folder.is_dir():
        pytest.skip(f"no real X-rays at {folder}; set EVENSET_XRAYS to the folder that holds {name}")
    return folder


_CHROMIUMS = ("chromium", "chromium-browser", "google-chrome")
# It asks for nothing of its own, so that whatever it asks for is the page's.
_QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run",
)  # fmt: skip


class Opened(NamedTuple):
    """A page in the browser, with the errors it has logged and the URLs it has asked for so far."""

    page: "Page"
    errors: list[str]
    requests: list[str]


OpenPage = Callable[..., Opened]


@pytest.fixture(scope="session")
def chromium() -> "Iterator[Browser]":
    """A real headless Chromium."""
    found = next(filter(None, map(shutil.which, _CHROMIUMS)), None)
    if not found:
        pytest.skip("no Chromium to show the page in; get one by: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=_QUIET)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: "Browser") -> Iterator[OpenPage]:
    """A function (file, playwright's context options) -> Opened that opens a page from the file system."""
    contexts = []

    def opened(file: Path, **options: Any) -> Opened:
        contexts.append(chromium.new_context(**options))
        shown = Opened(contexts[-1].new_page(), [], [])
        shown.page.on(
            "console", lambda entry: shown.errors.append(entry.text) if entry.type in ("error", "warning") else None
        )
        shown.page.on("pageerror", lambda error: shown.errors.append(str(error)))
        shown.page.on("request", lambda request: shown.requests.append(request.url))
        shown.page.goto(file.resolve().as_uri())
        return shown

    yield opened
    for context in contexts:
        context.close()
