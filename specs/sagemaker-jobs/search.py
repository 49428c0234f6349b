"""Fit a line to noisy points by gradient descent and print the loss: something to tune."""

from __future__ import annotations

import argparse
import json
import os
import random
from pathlib import Path


def main() -> None:
    """The params are under ``params`` and ``ranges`` in jobs.yaml."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=0.05)
    parser.add_argument("--steps", type=int, default=50)
    arguments, _ = parser.parse_known_args()
    draw = random.Random(7)
    points = [(x / 10, 3 * x / 10 + draw.gauss(0, 0.1)) for x in range(20)]
    slope = 0.0
    for _ in range(arguments.steps):
        slope -= arguments.rate * sum(2 * x * (slope * x - y) for x, y in points) / len(points)
    loss = sum((slope * x - y) ** 2 for x, y in points) / len(points)
    folder = Path(os.environ.get("SM_MODEL_DIR", "."))
    (folder / "slope.json").write_text(json.dumps({"slope": slope}))
    print(f"Testing Loss: {loss:.6f}")


if __name__ == "__main__":
    main()
