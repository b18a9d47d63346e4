"""Tables on the terminal, and silence where TensorFlow and converters print notes of their own."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

RESUME = "Run it again and it goes on where it was. Nothing half-done has its name."  # after an interruption


def table(rows: "pd.DataFrame") -> str:
    """A table with text on the left."""
    texts = rows.select_dtypes(exclude="number")
    wide = {name: max(len(name), *texts[name].str.len()) for name in texts}
    return rows.rename(columns={name: name.ljust(width) for name, width in wide.items()}).to_string(
        index=False, formatters={name.ljust(width): f"{{:<{width}}}".format for name, width in wide.items()}
    )


def import_tensorflow() -> None:
    """Import TensorFlow without its page of build notes, which no setting of its own turns off."""
    if "tensorflow" in sys.modules:
        return
    with silence():
        import tensorflow as tf

        tf.config.list_physical_devices()
        # Else a GPU rounds what it multiplies to 10 bits, and a model gives other numbers there than elsewhere.
        tf.config.experimental.enable_tensor_float_32_execution(enabled=False)


@contextmanager
def silence() -> Iterator[None]:
    """Nothing that the process writes to its stderr, from C++ too, is seen."""
    sys.stderr.flush()
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)
