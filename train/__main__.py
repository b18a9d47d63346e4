"""`python -m train`."""

import os
import sys

from train.cli import main

if __name__ == "__main__":
    try:
        main(prog_name="python -m train")
    except SystemExit as end:
        # All is closed and on disk by now. What Python would go on to do, take TensorFlow down piece by piece, takes
        # longer than an epoch of the frozen phase.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code if isinstance(end.code, int) else bool(end.code))
