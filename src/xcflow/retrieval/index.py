"""Nearest vectors by inner product: exact for few vectors, approximate for many."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from xcflow.config import RetrievalConfig
from xcflow.retrieval.exact import search as exact_search
from xcflow.topk import NO_LABEL, TopK

Kind = Literal["flat", "hnsw", "ivf"]
_IVF_SAMPLE = 64  # training vectors for each inverted list
_SEARCHED_SHARE = 0.5  # least share of the vectors for which an approximate index is good
_BLOCK = 65_536  # vectors that join an inverted file at a time


def index_kind(config: RetrievalConfig, vectors: int) -> Kind:
    """The kind of index for a number of vectors: as configured, or by size."""
    if config.index != "auto":
        return config.index
    if vectors <= config.flat_limit:
        return "flat"
    return "hnsw" if vectors <= config.hnsw_limit else "ivf"


class VectorIndex:
    """``M`` unit vectors that can be searched.

    Attributes:
        kind: ``flat`` reads the vectors themselves; ``hnsw`` and ``ivf`` use a faiss index.
        vectors: [M, D] the vectors, possibly memory-mapped; float32 where they are searched
            themselves, else in the precision they came in, for scoring a few.
    """

    def __init__(
        self,
        vectors: NDArray[Any],
        kind: Kind,
        graph: Any = None,
        only: NDArray[np.bool_] | None = None,
    ) -> None:
        self.vectors = vectors
        self.kind: Kind = kind
        self._graph = graph
        self._selected = None if only is None else np.flatnonzero(only)
        self._searched = vectors if only is None or graph else vectors[self._selected]
        self._parameters = None if only is None or not graph else _only(graph, kind, only)

    def __len__(self) -> int:
        return len(self.vectors)

    @classmethod
    def build(cls, vectors: NDArray[Any], config: RetrievalConfig) -> VectorIndex:
        """Build the index that the configuration asks for, the same bytes each time."""
        kind = index_kind(config, len(vectors))
        if kind == "flat":
            return cls(_float32(vectors), kind)
        build = _hnsw if kind == "hnsw" else _ivf
        return cls(vectors, kind, build(vectors, config))

    def search(self, queries: NDArray[np.float32], k: int) -> TopK:
        """The ``k`` nearest of each query [N, D]; positions of vectors stand for labels."""
        if self._graph is None:
            top = exact_search(queries, self._searched, k)
            if self._selected is None:
                return top
            rows = np.append(self._selected, NO_LABEL)[top.labels]
            return TopK(rows.astype(np.int32), top.scores)
        found = min(k, len(self))
        labels = np.full((len(queries), k), NO_LABEL, np.int32)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        values, rows = self._graph.search(_float32(queries), found, params=self._parameters)
        labels[:, :found] = rows
        scores[:, :found] = np.where(rows >= 0, values, -np.inf)
        return TopK(labels, scores)

    def restricted_to(self, only: NDArray[np.bool_]) -> VectorIndex:
        """The same vectors at the same positions, of which a search finds those marked in [M].

        An approximate index finds few of a small part; there the part is searched exactly.
        """
        small = only.sum() < _SEARCHED_SHARE * len(self)
        return VectorIndex(self.vectors, self.kind, None if small else self._graph, only)

    def save(self, prefix: Path) -> None:
        """Write ``<prefix>.npy`` and, where there is one, ``<prefix>.faiss``."""
        np.save(f"{prefix}.npy", np.asarray(self.vectors))
        if self._graph is not None:
            import faiss

            faiss.write_index(self._graph, f"{prefix}.faiss")

    @classmethod
    def load(cls, prefix: Path, kind: Kind) -> VectorIndex:
        """Open what ``save`` wrote; everything stays memory-mapped."""
        vectors = np.load(f"{prefix}.npy", mmap_mode="r", allow_pickle=False)
        if kind == "flat":
            return cls(vectors, kind)
        import faiss

        return cls(vectors, kind, faiss.read_index(f"{prefix}.faiss", faiss.IO_FLAG_MMAP_IFC))


def _only(graph: Any, kind: Kind, only: NDArray[np.bool_]) -> Any:
    """What tells a faiss index to find the marked vectors alone, and all else as it is set."""
    import faiss

    kinds: Any = faiss  # its stubs lack these
    selector = kinds.IDSelectorBitmap(np.packbits(only, bitorder="little"))
    if kind == "hnsw":
        return kinds.SearchParametersHNSW(sel=selector, efSearch=graph.hnsw.efSearch)
    return kinds.SearchParametersIVF(sel=selector, nprobe=graph.nprobe)


def _float32(vectors: NDArray[Any]) -> NDArray[np.float32]:
    return np.ascontiguousarray(vectors, np.float32)


def _hnsw(vectors: NDArray[Any], config: RetrievalConfig) -> Any:
    import faiss

    graph = faiss.IndexHNSWFlat(vectors.shape[1], config.hnsw_links, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = config.hnsw_build
    graph.hnsw.efSearch = config.hnsw_search
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)  # links depend on the order in which threads insert
    try:
        graph.add(_float32(vectors))
    finally:
        faiss.omp_set_num_threads(threads)
    return graph


def _ivf(vectors: NDArray[Any], config: RetrievalConfig) -> Any:
    import faiss

    lists = max(1, min(int(4 * len(vectors) ** 0.5), len(vectors) // _IVF_SAMPLE))
    dim = vectors.shape[1]
    graph: Any = faiss.index_factory(dim, f"IVF{lists},SQfp16", faiss.METRIC_INNER_PRODUCT)
    sample = np.random.default_rng(0).permutation(len(vectors))[: lists * _IVF_SAMPLE]
    graph.train(_float32(vectors[np.sort(sample)]))
    for start in range(0, len(vectors), _BLOCK):
        graph.add(_float32(vectors[start : start + _BLOCK]))
    graph.nprobe = max(1, round(config.ivf_probe * lists))
    return graph


def recall_at(found: TopK, exact: TopK) -> float:
    """Share of the exact results that an index found, over all queries."""
    hits = (found.labels[:, :, None] == exact.labels[:, None, :]) & (exact.labels >= 0)[:, None, :]
    return float(hits.any(axis=1).sum() / max((exact.labels >= 0).sum(), 1))
