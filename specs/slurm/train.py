"""Train a wine classifier on a cluster; writes ``model.onnx`` and ``metrics.json``.

Needs Python and nothing else, so that any image will do: a softmax regression, and ONNX written by
hand. Equal data and parameters give an equal file. By hand:
``WINDLASS_INPUT_WINES=wine.csv python train.py --regularization 0.01``.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import struct
from pathlib import Path

CLASSES = 3
"""Cultivars."""


def load(path: str) -> tuple[list[list[float]], list[int]]:
    """The measurements, and the cultivar of each wine in the last column."""
    with open(path, newline="") as file:  # noqa: PTH123 - the smallest Python
        rows = list(csv.reader(file))[1:]
    return [[float(value) for value in row[:-1]] for row in rows], [int(row[-1]) for row in rows]


def scaling(rows: list[list[float]]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each column."""
    columns = list(zip(*rows))  # noqa: B905
    means = [sum(column) / len(column) for column in columns]
    spread = [
        math.sqrt(sum((value - mean) ** 2 for value in column) / len(column))
        for column, mean in zip(columns, means)  # noqa: B905
    ]
    return means, spread


def probabilities(weights: list[list[float]], bias: list[float], row: list[float]) -> list[float]:
    """How likely each cultivar is."""
    scores = [b + sum(w * x for w, x in zip(ws, row)) for ws, b in zip(weights, bias)]  # noqa: B905
    largest = max(scores)
    powers = [math.exp(score - largest) for score in scores]
    return [power / sum(powers) for power in powers]


def fit(
    rows: list[list[float]], labels: list[int], regularization: float, steps: int
) -> tuple[list[list[float]], list[float]]:
    """Weights and bias for each class, by gradient descent."""
    width, count = len(rows[0]), len(rows)
    weights = [[0.0] * width for _ in range(CLASSES)]
    bias = [0.0] * CLASSES
    for _ in range(steps):
        slope = [[regularization * w for w in ws] for ws in weights]
        lift = [0.0] * CLASSES
        for row, label in zip(rows, labels):  # noqa: B905
            for c, p in enumerate(probabilities(weights, bias, row)):
                error = (p - (c == label)) / count
                lift[c] += error
                slope[c] = [s + error * x for s, x in zip(slope[c], row)]  # noqa: B905
        weights = [[w - s for w, s in zip(ws, ss)] for ws, ss in zip(weights, slope)]  # noqa: B905
        bias = [b - s for b, s in zip(bias, lift)]  # noqa: B905
    return weights, bias


# ---- ONNX: a message is a sequence of numbered fields


def number(value: int) -> bytes:
    """A variable-length integer."""
    found = b""
    while value > 0x7F:
        found += bytes([value & 0x7F | 0x80])
        value >>= 7
    return found + bytes([value])


def field(index: int, value: int | str | bytes) -> bytes:
    """One field: an integer, or a text or message with its length."""
    if isinstance(value, int):
        return number(index << 3) + number(value)
    data = value.encode() if isinstance(value, str) else value
    return number(index << 3 | 2) + number(len(data)) + data


def tensor(name: str, shape: list[int], values: list[float]) -> bytes:
    """A constant of 32-bit floats."""
    data = struct.pack(f"<{len(values)}f", *values)
    return b"".join(field(1, n) for n in shape) + field(2, 1) + field(8, name) + field(9, data)


def value(name: str, kind: int, width: int | None) -> bytes:
    """An input or output: any number of rows, with so many columns."""
    rows = field(1, field(2, "rows"))
    columns = field(1, field(1, width)) if width else b""
    return field(1, name) + field(2, field(1, field(1, kind) + field(2, rows + columns)))


def node(operation: str, inputs: list[str], output: str, **attributes: int) -> bytes:
    """One operation of the graph."""
    found = b"".join(field(1, name) for name in inputs) + field(2, output) + field(4, operation)
    for name, given in attributes.items():
        found += field(5, field(1, name) + field(3, given) + field(20, 2))
    return found


def to_onnx(weights: list[list[float]], bias: list[float]) -> bytes:
    """The model: measurements in, label and probabilities out."""
    width = len(weights[0])
    flat = [weight for row in weights for weight in row]
    graph = (
        field(1, node("Gemm", ["features", "weights", "bias"], "scores", transB=1))
        + field(1, node("Softmax", ["scores"], "probabilities", axis=1))
        + field(1, node("ArgMax", ["scores"], "label", axis=1, keepdims=0))
        + field(2, "wine")
        + field(5, tensor("weights", [CLASSES, width], flat))
        + field(5, tensor("bias", [CLASSES], bias))
        + field(11, value("features", 1, width))
        + field(12, value("label", 7, None))
        + field(12, value("probabilities", 1, CLASSES))
    )
    opset = field(1, "") + field(2, 13)
    return field(1, 8) + field(2, "windlass-example") + field(7, graph) + field(8, opset)


def main() -> None:
    """Split, fit, measure, write."""
    parser = argparse.ArgumentParser(description="Train a wine classifier.")
    parser.add_argument("--regularization", type=float, default=0.01)
    parser.add_argument("--steps", type=int, default=150)
    arguments = parser.parse_args()
    rows, labels = load(os.environ["WINDLASS_INPUT_WINES"])
    means, spread = scaling(rows)
    scaled = [[(x - m) / s for x, m, s in zip(row, means, spread)] for row in rows]  # noqa: B905
    held = [n % 4 == 0 for n in range(len(rows))]
    train = [n for n, out in enumerate(held) if not out]
    weights, bias = fit(
        [scaled[n] for n in train],
        [labels[n] for n in train],
        arguments.regularization,
        arguments.steps,
    )
    right = 0
    for n in (n for n, out in enumerate(held) if out):
        found = probabilities(weights, bias, scaled[n])
        right += found.index(max(found)) == labels[n]
    # The scaling goes into the weights: the model takes the measurements as they are.
    bias = [
        b - sum(w * m / s for w, m, s in zip(ws, means, spread))  # noqa: B905
        for ws, b in zip(weights, bias)  # noqa: B905
    ]
    weights = [[w / s for w, s in zip(ws, spread)] for ws in weights]  # noqa: B905
    Path("model.onnx").write_bytes(to_onnx(weights, bias))
    accuracy = round(right / sum(held), 4)
    Path("metrics.json").write_text(json.dumps({"accuracy": accuracy, "held": sum(held)}) + "\n")
    print("accuracy", accuracy, "on", sum(held), "wines not trained on")


if __name__ == "__main__":
    main()
