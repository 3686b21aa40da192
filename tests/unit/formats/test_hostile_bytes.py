"""Whatever stands in a file: rows, faults or one error, and nothing else."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from xcflow.errors import DataError

JSON = {"lbl.json": "", "trn.json": '{"title": "t", "target_ind": [0]}', "tst.json": ""}
TEXT = {"Y.txt": "a\n", "trn_X.txt": "a\n", "trn_X_Y.txt": "1 1\n0:1\n", "tst_X.txt": ""}
BOW = {"Yf.txt": "1 1\n0:1\n", "trn_X_Xf.txt": "1 1\n0:1\n", "trn_X_Y.txt": "1 1\n0:1\n"}
FOLDERS = {
    "json": JSON,
    "text": {**TEXT, "tst_X_Y.txt": "0 1\n"},
    "bow": {**BOW, "tst_X_Xf.txt": "0 1\n", "tst_X_Y.txt": "0 1\n", "Xf.txt": "a\n"},
    "old": {"train.txt": "1 1 1\n0 0:1\n", "test.txt": "0 1 1\n", "Xf.txt": "a\n"},
}
# Bytes near what the formats expect, and any others.
PIECES = st.sampled_from(
    [b"0:1", b"1", b" ", b",", b":", b"-1", b"1e9", b"\n", b"\r", b"{", b'"uid":', b"[]", b"nan"]
)
CONTENT = st.binary(max_size=30) | st.lists(PIECES, max_size=12).map(b"".join)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (kind, name)
        for kind, files in FOLDERS.items()
        for name in [*files, "filter_labels_test.txt"]
    ],
)
@given(start=st.integers(0, 40), content=CONTENT)
@example(start=0, content=b"9" * 5000)
@example(start=6, content=b"9" * 5000)
def test_any_bytes(kind, name, start, content, tools, tmp_path_factory):
    files = {**FOLDERS[kind], "filter_labels_test.txt": "0 0\n"}
    files[name] = files[name].encode()[:start] + content
    folder = tools.write(tmp_path_factory.mktemp("c"), files)
    messages: list[str] = []
    for role in ("labels", "train", "test_filter"):
        try:
            messages += [reason for _, _, reason in tools.told(tools.read(folder, role))]
        except DataError as error:
            messages.append(str(error))
    assert not any("\n" in message for message in messages)
