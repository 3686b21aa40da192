"""What an encoded text costs where a transformer answers: torch beside onnxruntime.

    python benchmarks/encoding.py CATALOGUE

The packaged MiniLM cut to its first layers, as it comes, encodes texts of the catalogue's training
documents: by torch in float32 (and in bfloat16 where the processor has units for it), and by its
exports in float32 and int8. All are in one process and take turns, in an order that is reversed
each time. Shown are the median time of one text and the median rate of many, tokens cut beforehand,
and the cosine with torch's float32 vectors. Writes ``results/encoding.json`` beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from throughput import RESULTS, processor

from xcflow.catalogue.dataset import Dataset
from xcflow.config import Config, EncoderConfig
from xcflow.encoders.build import save_encoder
from xcflow.encoders.frozen import FrozenEncoder, load_frozen
from xcflow.encoders.frozen_transformer import onnx_file
from xcflow.encoders.onnx_export import export
from xcflow.encoders.transformer import pretrained_transformer, use_bf16
from xcflow.pretrained import model_folder
from xcflow.ragged import Ragged
from xcflow.steps import run_step

PACKAGES = ("xcflow", "torch", "onnxruntime")


def texts_of(catalogue: Path, count: int, threads: int, folder: Path) -> Ragged:
    """Token rows of some training documents, without words of the catalogue's own.

    The step also gives numeric libraries so many threads.
    """
    config = Config.from_dict({"data": {"catalogue_words": 0}, "run": {"threads": threads}})
    run_step("validate_data", config, {"catalogue": catalogue}, folder)
    dataset = Dataset.open(folder)
    return dataset.train.tokens.take(dataset.fit_rows[:count])


def contenders(layers: int, folder: Path) -> dict[str, FrozenEncoder]:
    """The same model in each way of running it."""
    found = {}
    for bf16 in ["off", "on"] if use_bf16("auto") else ["off"]:
        config = EncoderConfig(kind="transformer", layers=layers, bf16=bf16)
        encoder = pretrained_transformer(config, model_folder("minilm") / "tokenizer.json")
        place = folder / f"{layers}-{bf16}"
        place.mkdir()
        save_encoder(encoder.eval(), place)
        found["torch, bf16" if bf16 == "on" else "torch, fp32"] = load_frozen(place)
        if bf16 == "off":
            export(encoder, place)
            for precision in ("fp32", "int8"):
                found[f"onnxruntime, {precision}"] = load_frozen(place, precision)
                size = onnx_file(place, precision).stat().st_size
                print(f"{layers} layers, {precision}: {size / 1e6:.1f} MB")
    return found


def seconds(encoder: FrozenEncoder, tokens: Ragged) -> float:
    """Time of one call."""
    started = time.perf_counter()
    encoder.encode(tokens)
    return time.perf_counter() - started


def race(encoders: dict[str, FrozenEncoder], tokens: Ragged, turns: int) -> dict[str, Any]:
    """Medians over turns; the first one is not counted."""
    exact = encoders["torch, fp32"].encode(tokens)
    rates: dict[str, list[float]] = {name: [] for name in encoders}
    single: dict[str, list[float]] = {name: [] for name in encoders}
    for turn in range(turns + 1):
        for name in encoders if turn % 2 == 0 else reversed(encoders):
            rate = len(tokens) / seconds(encoders[name], tokens)
            ones = [
                seconds(encoders[name], tokens.slice(row, row + 1))
                for row in range(turn, len(tokens), max(1, len(tokens) // 50))
            ]
            if turn:
                rates[name].append(rate)
                single[name] += ones
    return {
        name: {
            "one_text_ms": 1e3 * statistics.median(single[name]),
            "texts_per_second": statistics.median(rates[name]),
            "least_cosine": float(np.min((encoder.encode(tokens) * exact).sum(1))),
        }
        for name, encoder in encoders.items()
    }


def table(models: dict[str, Any]) -> str:
    lines = [
        "| layers | | one text, ms | texts/s | least cosine |",
        "| --- | --- |" + " ---: |" * 3,
    ]
    for layers, found in models.items():
        for name, row in found.items():
            cells = (row["one_text_ms"], row["texts_per_second"], row["least_cosine"])
            lines.append(f"| {layers} | {name} | {'{:.2f} | {:,.0f} | {:.4f}'.format(*cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("catalogue", type=Path)
    parser.add_argument("--layers", type=int, nargs="+", default=[3, 6])
    parser.add_argument("--texts", type=int, default=256)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args()
    results: dict[str, Any] = {
        "catalogue": args.catalogue.resolve().name,
        "machine": {"processor": processor(), "threads": args.threads},
        "versions": {package: version(package) for package in PACKAGES},
        "models": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        tokens = texts_of(args.catalogue, args.texts, args.threads, Path(folder) / "dataset")
        results["tokens_per_text"] = float(tokens.lengths.mean())
        for layers in args.layers:
            encoders = contenders(layers, Path(folder))
            results["models"][str(layers)] = race(encoders, tokens, args.turns)
    (RESULTS / "encoding.json").write_text(json.dumps(results, indent=1) + "\n")
    print(table(results["models"]))


if __name__ == "__main__":
    main()
