"""An environment for each trainer that does not install beside ours: python environments.py [NAME …].

Each is made from NAME.txt, names and versions and nothing else, so that the resolver decides nothing. torch comes
first and by its exact version, as for ourselves: whatever asks for another one would draw CUDA onto this machine.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
PLACE = HERE.parents[2] / ".peers"
TORCH = "torch==2.13.0"
NAMES = ("pylate", "colbert", "flag-embedding", "tevatron", "lightning-ir")


def python_of(name: str) -> Path:
    """The interpreter of an environment, which is made unless it is there as its file says."""
    wanted = (HERE / f"{name}.txt").read_text(encoding="utf-8")
    place, python = PLACE / name, PLACE / name / "bin" / "python"
    made = place / "made.txt"
    if not made.is_file() or made.read_text(encoding="utf-8") != wanted:
        subprocess.run([sys.executable, "-m", "venv", "--clear", place], check=True)
        pip = [python, "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, TORCH], check=True)
        subprocess.run([*pip, "--no-deps", "--requirement", HERE / f"{name}.txt"], check=True)
        made.write_text(wanted, encoding="utf-8")
    return python


if __name__ == "__main__":
    for asked in sys.argv[1:] or NAMES:
        print(python_of(asked))
