"""Images that take more memory than there is: whatever a decoder calls that, it is no finding about the file."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

# Decodes a file under limits of memory that rise in steps, each in a process of its own, and prints what it came to.
DECODES = """
import os, resource, sys
from pathlib import Path
from common.images.memory import is_lack
from common.images.pixels import UnreadableImage, decode_to

data = Path(sys.argv[1]).read_bytes()
size = int(next(line for line in open("/proc/self/status") if line.startswith("VmSize")).split()[1]) * 1024
for step in range(0, 160 * 2**20, 16 * 2**20):
    if os.fork() == 0:
        resource.setrlimit(resource.RLIMIT_AS, (size + step, size + step))
        try:
            decode_to(data, (64, 64))
            os.write(1, b"decoded\\n")
        except UnreadableImage as error:
            os.write(1, f"unreadable: {error}\\n".encode())
        except Exception as error:
            os.write(1, b"lack\\n" if is_lack(error) else f"{error!r}\\n".encode())
        os._exit(0)
    os.wait()
"""


def write(path: Path, kind: str) -> Path:
    """A large image of a sort."""
    gray = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 12), dtype=np.uint8)).resize((2400, 1800))
    colour = Image.merge("RGB", [gray, gray.transpose(Image.Transpose.FLIP_LEFT_RIGHT), gray])
    transparent = colour.copy()
    transparent.putalpha(gray)
    deep = Image.fromarray(np.asarray(gray).astype(np.uint16) * 256)
    image, options = {
        "gray.png": (gray, {}),
        "transparent.png": (transparent, {}),
        "deep.png": (deep, {}),
        "progressive.jpeg": (colour, {"progressive": True}),
        "cmyk.jpeg": (colour.convert("CMYK"), {}),
        "lzw.tiff": (colour, {"compression": "tiff_lzw"}),
        "jpeg.tiff": (colour, {"compression": "jpeg"}),
        "lossy.webp": (colour, {}),
        "lossless.webp": (colour, {"lossless": True, "method": 0}),
        "transparent.webp": (transparent, {"method": 0}),
        "colour.bmp": (colour, {}),
        "palette.gif": (gray.convert("P"), {}),
    }[kind]
    image.save(path / kind, **options)
    return path / kind


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [
        "gray.png", "transparent.png", "deep.png", "progressive.jpeg", "cmyk.jpeg", "lzw.tiff", "jpeg.tiff",
        "lossy.webp", "lossless.webp", "transparent.webp", "colour.bmp", "palette.gif",
    ],
)  # fmt: skip
def test_a_lack_of_memory_is_never_called_damage(tmp_path: Path, environment, kind: str) -> None:
    """With too little of it, each decoder's own words for that become a MemoryError; with enough, it decodes."""
    command = [sys.executable, "-c", DECODES, write(tmp_path, kind)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)
    outcomes = done.stdout.splitlines()
    assert set(outcomes) == {"lack", "decoded"}, done.stdout
    assert outcomes[-1] == "decoded"


def test_damage_is_still_called_damage(tmp_path: Path, environment) -> None:
    """A file that breaks off is unreadable, with memory enough."""
    path = write(tmp_path, "lossy.webp")
    path.write_bytes(path.read_bytes()[:200])
    command = [sys.executable, "-c", DECODES, path]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.splitlines()[-1].startswith("unreadable: ")
