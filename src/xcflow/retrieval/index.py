"""Nearest vectors by inner product: exact for few vectors, approximate for many.

A single text must be answered in a millisecond, and reading 40,000 vectors takes longer. So more
than a few are first scanned in 4-bit codes (product quantisation, a 16th of the bytes: Andre et
al., VLDB 2015), and the best by codes are compared by the vectors themselves. Where even the codes
are too many to read, inverted lists say which to read.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xcflow.config import RetrievalConfig
from xcflow.half import as_float32
from xcflow.retrieval.exact import search as exact_search
from xcflow.topk import TopK

Kind = Literal["flat", "scan", "ivf"]
_IVF_SAMPLE = 64  # training vectors for each inverted list
_SEARCHED_SHARE = 0.5  # least share of the vectors for which an approximate index is good
_BLOCK = 65_536  # vectors that join an inverted file at a time
# Of the best by codes, so many for each wanted one are compared by their vectors, and at least so
# many: with codes of two dimensions each, 1 in 200 of the true 100 best is missed, none of the 10.
_COMPARED = 4
_COMPARED_AT_LEAST = 200
_CENTRES = 16
_INNER_PRODUCT = 0  # faiss.METRIC_INNER_PRODUCT
_PRODUCTS = 2**20  # rows compared at a time: bounds memory


def index_kind(config: RetrievalConfig, vectors: int) -> Kind:
    """The kind of index for a number of vectors: as configured, or by size."""
    if config.index != "auto":
        return config.index
    if vectors <= config.flat_limit:
        return "flat"
    return "scan" if vectors <= config.scan_limit else "ivf"


class Candidates(NamedTuple):
    """Vectors among which the best for N queries are.

    Attributes:
        positions: [N, n] of them, -1 for none.
        products: [N, n] with the query; None where they are still to be computed.
    """

    positions: NDArray[np.int64]
    products: NDArray[np.float32] | None = None


class VectorIndex:
    """``M`` unit vectors that can be searched.

    Attributes:
        kind: ``flat`` reads all vectors, ``scan`` all codes, ``ivf`` some inverted lists.
        vectors: [M, D] the vectors, possibly memory-mapped; float32, but for ``ivf`` in the
            precision they came in, and for a ``scan`` perhaps in half precision.
    """

    def __init__(
        self,
        vectors: NDArray[Any],
        kind: Kind,
        codes: Any = None,
        only: NDArray[np.bool_] | None = None,
    ) -> None:
        self.vectors = vectors
        self.kind: Kind = kind
        self._codes = codes
        self._selected = None if only is None else np.flatnonzero(only)
        self._searched = vectors if only is None or codes else vectors[self._selected]
        self._parameters = None if only is None or not codes else _only(codes, only)

    def __len__(self) -> int:
        return len(self.vectors)

    @classmethod
    def build(
        cls, vectors: NDArray[Any], config: RetrievalConfig, *, half: bool = False
    ) -> VectorIndex:
        """Build the index that the configuration asks for, the same bytes each time.

        Args:
            vectors: [M, D] of any precision.
            config: Which index.
            half: Whether a scan keeps the vectors in half precision: half the memory, but a search
                takes somewhat longer.
        """
        kind = index_kind(config, len(vectors))
        if kind == "ivf":
            return cls(vectors, kind, _ivf(vectors, config))
        whole = as_float32(vectors)
        if kind == "flat":
            return cls(whole, kind)
        return cls(whole.astype(np.float16) if half else whole, kind, _scan(whole))

    def search(self, queries: NDArray[np.float32], k: int) -> TopK:
        """The ``k`` nearest of each query [N, D]; positions of vectors stand for labels."""
        block = _PRODUCTS // self._width(k) or 1
        parts = []
        for start in range(0, max(len(queries), 1), block):
            part = queries[start : start + block]
            parts.append(self.best(self.compared(part, self.candidates(part, k)), k))
        if len(parts) == 1:
            return parts[0]
        return TopK(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    def candidates(self, queries: NDArray[np.float32], k: int) -> Candidates:
        """The first part of a search for ``k``: which vectors to compare with each query."""
        queries, found = as_float32(queries), min(k, len(self._searched))
        if self._codes is None or (self.kind == "scan" and self._width(k) >= len(self)):
            # Without the products: an exact search rounds by the number of queries.
            near = exact_search(queries, self._searched, found).labels.astype(np.int64)
            return Candidates(near if self._selected is None else self._selected[near])
        if self.kind == "scan":
            return Candidates(self._codes.search(queries, self._width(k))[1])
        products, near = self._codes.search(queries, found, params=self._parameters)
        return Candidates(near, np.where(near >= 0, products, np.float32(-np.inf)))

    def compared(self, queries: NDArray[np.float32], candidates: Candidates) -> Candidates:
        """The second part: all candidates with their products."""
        if candidates.products is not None:
            return candidates
        positions = candidates.positions
        return Candidates(positions, _products(as_float32(queries), self.vectors, positions))

    def best(self, compared: Candidates, k: int) -> TopK:
        """The last part: the best of those that were compared."""
        assert compared.products is not None
        order = np.argsort(-compared.products, axis=1, kind="stable")[:, :k]
        each = np.arange(len(order))[:, None]
        labels = compared.positions[each, order].astype(np.int32)
        scores = compared.products[each, order]
        if labels.shape[1] == k:
            return TopK(labels, scores)
        best = TopK.none(len(order), k)
        best.labels[:, : labels.shape[1]] = labels
        best.scores[:, : labels.shape[1]] = scores
        return best

    def _width(self, k: int) -> int:
        """Vectors that are compared with a query."""
        return max(_COMPARED * k, _COMPARED_AT_LEAST) if self.kind == "scan" else k

    def products(
        self,
        queries: NDArray[np.float32],
        rows: NDArray[np.int64],
        places: NDArray[np.int64],
    ) -> NDArray[np.float32]:
        """[T] inner products of query ``rows[t]``, rising, and vector ``places[t]``."""
        out = np.empty(len(rows), np.float32)
        bounds = np.searchsorted(rows, np.arange(len(queries) + 1)).tolist()
        for query, (start, stop) in enumerate(pairwise(bounds)):
            chosen = places[None, start:stop]
            products = _products(queries[query : query + 1], self.vectors, chosen)
            out[start:stop] = products[0]
        return out

    def restricted_to(self, only: NDArray[np.bool_]) -> VectorIndex:
        """The same vectors at the same positions, of which a search finds those marked in [M].

        Inverted lists hold few of a small part, and codes cannot be left out; there the part is
        searched exactly.
        """
        large = self.kind == "ivf" and only.sum() >= _SEARCHED_SHARE * len(self)
        return VectorIndex(self.vectors, self.kind, self._codes if large else None, only)

    def save(self, prefix: Path) -> None:
        """Write ``<prefix>.npy`` and, where there is one, ``<prefix>.faiss``."""
        np.save(f"{prefix}.npy", np.asarray(self.vectors))
        if self._codes is not None:
            import faiss

            faiss.write_index(self._codes, f"{prefix}.faiss")

    @classmethod
    def load(cls, prefix: Path, kind: Kind) -> VectorIndex:
        """Open what ``save`` wrote; everything stays memory-mapped."""
        # As a plain array: each look at a memmap costs microseconds.
        vectors = np.asarray(np.load(f"{prefix}.npy", mmap_mode="r", allow_pickle=False))
        if kind == "flat":
            return cls(vectors, kind)
        import faiss

        return cls(vectors, kind, faiss.read_index(f"{prefix}.faiss", faiss.IO_FLAG_MMAP_IFC))


def _only(codes: Any, only: NDArray[np.bool_]) -> Any:
    """What tells an inverted file to find the marked vectors alone, and all else as it is set."""
    import faiss

    kinds: Any = faiss  # its stubs lack these
    selector = kinds.IDSelectorBitmap(np.packbits(only, bitorder="little"))
    return kinds.SearchParametersIVF(sel=selector, nprobe=codes.nprobe)


def _scan(vectors: NDArray[np.float32]) -> Any:
    import faiss

    dim = vectors.shape[1]
    kinds: Any = faiss
    codes = kinds.IndexPQFastScan(dim, dim // 2 if dim % 2 == 0 else dim, 4, _INNER_PRODUCT)
    # 16 centres of each two dimensions cannot be learned from fewer vectors.
    codes.train(np.resize(vectors, (max(len(vectors), _CENTRES), dim)))
    codes.add(vectors)
    return codes


def _products(
    queries: NDArray[np.float32], vectors: NDArray[Any], rows: NDArray[np.int64]
) -> NDArray[np.float32]:
    """[N, n] products of N queries with the vectors in n rows each."""
    out = np.empty(rows.shape, np.float32)
    if vectors.dtype != np.float32:
        for query, row in enumerate(rows):
            np.dot(as_float32(vectors[row]), queries[query], out=out[query])
        return out
    import faiss

    kinds: Any = faiss
    pointers = [kinds.swig_ptr(array) for array in (out, queries, vectors, rows)]
    threads = kinds.omp_get_max_threads()
    if len(rows) == 1:  # which is shared with no other thread: to wait for them is all in vain
        kinds.omp_set_num_threads(1)
    kinds.fvec_inner_products_by_idx(*pointers, vectors.shape[1], *rows.shape)
    kinds.omp_set_num_threads(threads)
    return out


def _ivf(vectors: NDArray[Any], config: RetrievalConfig) -> Any:
    import faiss

    lists = max(1, min(int(4 * len(vectors) ** 0.5), len(vectors) // _IVF_SAMPLE))
    dim = vectors.shape[1]
    graph: Any = faiss.index_factory(dim, f"IVF{lists},SQfp16", faiss.METRIC_INNER_PRODUCT)
    sample = np.random.default_rng(0).permutation(len(vectors))[: lists * _IVF_SAMPLE]
    graph.train(as_float32(vectors[np.sort(sample)]))
    for start in range(0, len(vectors), _BLOCK):
        graph.add(as_float32(vectors[start : start + _BLOCK]))
    graph.nprobe = max(1, round(config.ivf_probe * lists))
    return graph


def recall_at(found: TopK, exact: TopK) -> float:
    """Share of the exact results that an index found, over all queries."""
    hits = (found.labels[:, :, None] == exact.labels[:, None, :]) & (exact.labels >= 0)[:, None, :]
    return float(hits.any(axis=1).sum() / max((exact.labels >= 0).sum(), 1))
