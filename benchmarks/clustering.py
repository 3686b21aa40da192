"""Time and memory of balanced clustering.

    python benchmarks/clustering.py [--points N] [--dim D] [--clusters K]

Random unit vectors around random centres. Writes ``results/clustering.json`` beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from pathlib import Path

import numpy as np
import torch

from xcflow.labels.clustering import balanced_clusters


def main() -> None:
    """Cluster and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--clusters", type=int, default=16_384)
    args = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(1)
    vectors = torch.randn(args.points, args.dim)
    centres = torch.randn(args.clusters, args.dim)
    for start in range(0, args.points, 10_000):
        block = vectors[start : start + 10_000]
        block += centres[torch.randint(args.clusters, (len(block),))]
        block /= block.norm(dim=1, keepdim=True)
    start_s = time.monotonic()
    members = balanced_clusters(vectors, args.clusters, seed=1)
    seconds = time.monotonic() - start_s
    sizes = np.bincount(members, minlength=args.clusters)
    result = {
        "points": args.points,
        "dim": args.dim,
        "clusters": args.clusters,
        "threads": torch.get_num_threads(),
        "seconds": round(seconds, 1),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "smallest": int(sizes.min()),
        "largest": int(sizes.max()),
    }
    (Path(__file__).parent / "results" / "clustering.json").write_text(
        json.dumps(result, indent=1) + "\n"
    )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
