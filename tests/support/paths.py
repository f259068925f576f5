"""Where the binary and the Python environments are."""

import os
import pathlib

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
TRINE = pathlib.Path(os.environ.get("TRINE_BIN", ROOT / "target" / "debug" / "trine"))


def python_of(name):
    """The interpreter of one of the environments that scripts/test makes: main, kafka2, es7."""
    return str(ROOT / "target" / "venv" / name / "bin" / "python")
