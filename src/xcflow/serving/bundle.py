"""The model bundle: one folder with everything that a prediction needs. No pickle.

``encoder.json`` and ``encoder.safetensors`` (of a transformer ``encoder.fp32.onnx`` and
``encoder.int8.onnx`` too, with its number before the precision where encoders stand side by side),
``tokenizer.json``, ``labels/`` (ids and texts),
vectors as npy with faiss files beside them, ``bundle.json`` (settings and fusion), ``config.json``
(the sections of the configuration that its last step read; a step is given no others),
``training.json`` (the curves of both modules: module -> name of a curve -> points (step, value)),
``profile/`` (of the catalogue, for later ones to be compared with), ``row_of_label.npy`` (the
auxiliary vector of each label) and ``auxiliary.npy`` (these vectors, in half precision), both to
give new labels a place by, ``document_texts`` (beginnings of the texts that answers are explained
by) and ``document_hashes.npy`` (of the whole texts, to know them again), ``examples.json`` (texts
to try). A refreshed bundle holds the same; its manifest says from which one it came.
"""

from __future__ import annotations

import hashlib

from xcflow.catalogue.string_table import StringTable

KIND = "bundle"
SETTINGS = "bundle.json"
CONFIG = "config.json"
TRAINING = "training.json"
TOKENIZER = "tokenizer.json"
LABEL_COUNTS = "label_counts.npy"
CLUSTERS = "row_of_label.npy"
AUXILIARY = "auxiliary.npy"
DOCUMENT_TEXTS = "document_texts"
DOCUMENT_HASHES = "document_hashes.npy"
EXAMPLES = "examples.json"
# What the manifest of a refreshed bundle says of its refresh, under this name.
REFRESH = "refresh"


def label_map_sha256(ids: StringTable) -> str:
    """The sha256 over all label ids in their order, which is the meaning of every label row."""
    digest = hashlib.sha256()
    for chunk in ids.chunks(50_000):
        for label_id in chunk:
            digest.update(label_id.encode())
            digest.update(b"\n")
    return digest.hexdigest()
