"""Memory while reading is bounded by the chunk, not by the file."""

import io
import tracemalloc
from collections import deque

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from scipy import sparse

from xcflow.catalogue.formats.csr_file import CsrFile
from xcflow.catalogue.readers import open_catalogue

ROWS = 6000
TEXTS = [f"{i} " + "x" * 1000 for i in range(ROWS)]


def repeated(row: str, header: str = "") -> str:
    return header + "".join(row.replace("TEXT", text) + "\n" for text in TEXTS)


FOLDERS = {
    "csv": {
        "labels.csv": "id,text\n0,a\n",
        "train.csv": repeated("d,TEXT,0", "id,text,labels\n"),
        "test.csv": "id,text,labels\n",
    },
    "json": {
        "lbl.json": '{"title": "a"}\n',
        "trn.json": repeated('{"title": "TEXT", "target_ind": [0]}'),
        "tst.json": "",
    },
    "text": {
        "Y.txt": "a\n",
        "trn_X.txt": repeated("TEXT"),
        "tst_X.txt": "",
        "trn_X_Y.txt": repeated("0:1", f"{ROWS} 1\n"),
        "tst_X_Y.txt": "0 1\n",
    },
    "bags": {
        "Xf.txt": "x" * 1000 + "\n",
        "train.txt": repeated("0 0:1", f"{ROWS} 1 1\n"),
        "test.txt": "0 1 1\n",
    },
}


def peak_of(rows) -> int:
    next(rows)  # imports and compiled patterns
    tracemalloc.start()
    deque(rows, maxlen=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


@pytest.mark.parametrize("kind", FOLDERS)
def test_texts_of_a_file_are_not_all_in_memory(tmp_path, tools, kind):
    reader = open_catalogue(tools.write(tmp_path, FOLDERS[kind]))
    assert peak_of(reader.chunks("train", 100)) < 1_500_000


def test_rows_of_a_parquet_file_are_not_all_in_memory(tmp_path):
    column = pa.array(TEXTS)
    labels = pa.array([["0"]] * ROWS)
    for name in ("labels", "train", "test"):
        table = pa.table({"id": column, "text": column, "labels": labels})
        parquet.write_table(table, tmp_path / f"{name}.parquet", row_group_size=500)
    del column, table
    # A batch of 1,024 rows with two long columns, and what it is turned into.
    assert peak_of(open_catalogue(tmp_path).chunks("train", 100)) < 6_000_000


def test_a_matrix_is_not_all_in_memory(tmp_path):
    whole = sparse.csr_matrix(np.ones((200_000, 10), np.int8))
    stream = io.BytesIO()
    sparse.save_npz(stream, whole)
    (tmp_path / "Y.trn.npz").write_bytes(stream.getvalue())
    assert peak_of(CsrFile(tmp_path / "Y.trn.npz").columns()) < 3_000_000
