"""An environment for each trainer that does not install beside ours: python environments.py [NAME …].

NAME.txt lists every package with its version, so the resolver decides nothing. torch is installed first, in the version
that prep uses: a package that required another version would install CUDA.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
DIRECTORY = HERE.parents[2] / ".peers"
TORCH = "torch==2.13.0"
NAMES = ("pylate", "colbert", "flag-embedding", "tevatron", "lightning-ir")


def python_of(name: str) -> Path:
    """The interpreter of an environment. Makes the environment if it is missing, or differs from its file."""
    wanted = (HERE / f"{name}.txt").read_text(encoding="utf-8")
    directory, python = DIRECTORY / name, DIRECTORY / name / "bin" / "python"
    made = directory / "made.txt"
    if not made.is_file() or made.read_text(encoding="utf-8") != wanted:
        subprocess.run([sys.executable, "-m", "venv", "--clear", directory], check=True)
        pip = [python, "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, TORCH], check=True)
        subprocess.run([*pip, "--no-deps", "--requirement", HERE / f"{name}.txt"], check=True)
        made.write_text(wanted, encoding="utf-8")
    return python


if __name__ == "__main__":
    for name in sys.argv[1:] or NAMES:
        print(python_of(name))
