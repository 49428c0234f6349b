"""Train a wine classifier and write ``model.onnx`` and ``metrics.json`` to the working directory.

The data are the UCI wine recognition data that scikit-learn carries: 178 wines of three Italian
cultivars, 13 chemical measurements each. Equal parameters give an equal file, byte for byte, so
that its digest says which model it is.

This is an ordinary script: it knows nothing of Windlass and runs by hand as well:
``python train.py --regularization 1.0 --seed 7``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import ModelProto
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler


def parse_arguments() -> argparse.Namespace:
    """Read the parameters: the names under ``params`` in wine.yaml."""
    parser = argparse.ArgumentParser(description="Train a wine classifier.")
    parser.add_argument("--regularization", type=float, default=1.0, help="more is simpler")
    parser.add_argument("--seed", type=int, default=7, help="chooses the wines held out")
    parser.add_argument("--test-share", type=float, default=0.3, help="share of wines held out")
    arguments = parser.parse_args()
    if arguments.regularization <= 0:
        parser.error("--regularization must be above 0")
    if not 0 < arguments.test_share < 1:
        parser.error("--test-share must be between 0 and 1")
    return arguments


def export(pipeline: Pipeline, features: int) -> ModelProto:
    """Make the ONNX model. Names are fixed: a chance name would change the digest."""
    model: ModelProto = to_onnx(
        pipeline,
        name="wine",
        initial_types=[("features", FloatTensorType([None, features]))],
        options={id(pipeline): {"zipmap": False}},
        target_opset=18,
    )
    model.doc_string = "Cultivar of a wine from 13 chemical measurements"
    model.producer_name, model.producer_version = "windlass-quickstart", "1"
    return model


def check(model: bytes, pipeline: Pipeline, rows: NDArray[np.float32]) -> None:
    """Stop unless ONNX Runtime answers as scikit-learn does."""
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    label, probabilities = session.run(["label", "probabilities"], {"features": rows})
    expected = pipeline.predict_proba(rows)
    if not np.allclose(probabilities, expected, atol=1e-4):
        worst = float(np.abs(probabilities - expected).max())
        raise SystemExit(f"the exported model is off by {worst:.6f}; it is not written")
    if not np.array_equal(label, pipeline.predict(rows)):
        raise SystemExit("the exported model chooses other classes; it is not written")


def main() -> None:
    """Split, fit, measure, export, check, write."""
    arguments = parse_arguments()
    wine = load_wine()
    rows = wine.data.astype(np.float32)
    train_rows, test_rows, train_labels, test_labels = train_test_split(
        rows,
        wine.target,
        test_size=arguments.test_share,
        stratify=wine.target,
        random_state=arguments.seed,
    )
    pipeline = make_pipeline(
        StandardScaler(), LogisticRegression(C=1 / arguments.regularization, max_iter=1000)
    )
    pipeline.fit(train_rows, train_labels)

    metrics = {
        "accuracy": round(float(accuracy_score(test_labels, pipeline.predict(test_rows))), 4),
        "log_loss": round(float(log_loss(test_labels, pipeline.predict_proba(test_rows))), 4),
        "train_rows": len(train_rows),
        "test_rows": len(test_rows),
    }
    model = export(pipeline, rows.shape[1]).SerializeToString(deterministic=True)
    check(model, pipeline, rows)
    Path("model.onnx").write_bytes(model)
    Path("metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    print(f"accuracy {metrics['accuracy']} on {len(test_rows)} wines not trained on")


if __name__ == "__main__":
    main()
