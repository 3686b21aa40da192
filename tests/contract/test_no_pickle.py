"""Nothing in the packages can load a pickle: who can write a file must not be able to run code."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = {"_pickle", "cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve", "skops"}
# torch.save belongs to torch.load: what it writes only the latter reads.
FUNCTIONS = {"torch.load", "torch.save", "pandas.read_pickle"}
METHODS = {"read_pickle", "to_pickle"}


def names_of(tree: ast.AST) -> Iterator[tuple[int, str, str]]:
    """Yield (line, name it is bound to, full dotted name) of everything imported."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                bound = alias.asname or alias.name.partition(".")[0]
                yield node.lineno, bound, alias.name if alias.asname else bound
                yield node.lineno, "", alias.name
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                yield node.lineno, alias.asname or alias.name, f"{node.module}.{alias.name}"


def find_pickle(source: str) -> list[str]:
    """Return "line: what" for each way to a pickle in a module's source."""
    tree = ast.parse(source)
    imports = list(names_of(tree))
    bound = {name: full for _, name, full in imports if name}
    found = [
        f"{line}: imports {full}"
        for line, _, full in imports
        if full.partition(".")[0] in MODULES or full in FUNCTIONS
    ]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            root, _, rest = ast.unparse(node).partition(".")
            full = f"{bound.get(root, root)}.{rest}"
            if full in FUNCTIONS or node.attr in METHODS:
                found.append(f"{node.lineno}: uses {full}")
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            allowed = ast.unparse(node.value)
            found += [f"{node.value.lineno}: allow_pickle={allowed}"] * (allowed != "False")
    return found


def modules() -> list[Path]:
    return sorted(
        path
        for folder in ("src", "components", "pipelines")
        for path in ROOT.glob(f"{folder}/**/*.py")
    )


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_module_cannot_load_a_pickle(path):
    assert find_pickle(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "def late():\n    from joblib import load",
        "import joblib.numpy_pickle as safe",
        "import torch as t\nt.load('weights.pt')",
        "from torch import load",
        "import torch\nread = torch.load",
        "import numpy as np\nnp.load('a.npy', allow_pickle=True)",
        "import numpy as np\nnp.load('a.npy', allow_pickle=flag)",
        "import pandas as pd\npd.read_pickle('frame')",
    ],
)
def test_a_way_to_a_pickle_is_found(source):
    assert find_pickle(source)


@pytest.mark.parametrize(
    "source",
    [
        "import numpy as np\nnp.load('a.npy', mmap_mode='r', allow_pickle=False)",
        "import json\njson.load(open('a.json'))",
        "from safetensors.torch import load_file",
    ],
)
def test_safe_ways_are_left_alone(source):
    assert find_pickle(source) == []
