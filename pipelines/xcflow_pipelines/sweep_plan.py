"""A sweep as its file declares it: a profile, data, and a grid of settings."""

from __future__ import annotations

import difflib
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xcflow.config import Config, read_toml
from xcflow.errors import ConfigError
from xcflow_pipelines.toml_text import toml_value

SEED = "run.seed"
MOST_COMBINATIONS = 100
KEYS = ("profile", "data", "set", "grid")


@dataclass(frozen=True)
class Combination:
    """One choice of all swept values.

    Attributes:
        values: Swept key -> its value, in the order of the grid.
        config: The whole configuration, which never promotes.
    """

    values: Mapping[str, Any]
    config: Config

    @property
    def setting(self) -> str:
        """The values without the seed, in words: what the runs of a group have in common."""
        return described({key: value for key, value in self.values.items() if key != SEED})


@dataclass(frozen=True)
class SweepPlan:
    """What is to be run.

    Attributes:
        name: The file's name without its ending.
        data: The catalogue's folder or URI; empty for the bundled one.
        keys: The swept keys without the seed.
        combinations: What to run, the last key of the grid changing fastest.
    """

    name: str
    data: str
    keys: tuple[str, ...]
    combinations: tuple[Combination, ...]

    @property
    def numeric_key(self) -> str | None:
        """The first swept key, other than the seed, all of whose values are numbers."""
        for key in self.keys:
            values = [c.values[key] for c in self.combinations]
            if all(type(value) in (int, float) for value in values):
                return key
        return None


def described(values: Mapping[str, Any]) -> str:
    """Swept values in words."""
    return ", ".join(f"{key} = {toml_value(value)}" for key, value in values.items())


def read_plan(path: Path) -> SweepPlan:
    """Read a sweep's file and check all configurations that it asks for.

    Raises:
        ConfigError: It cannot be read, has an unknown key or a wrong value, or its grid is empty
            or too large.
    """
    tree = read_toml(path)
    for key in tree:
        if key not in KEYS:
            near = difflib.get_close_matches(key, KEYS, n=1, cutoff=0.0)[0]
            raise ConfigError(f"{path}: unknown key {key}, did you mean {near}?")
    texts = {key: tree.get(key, default) for key, default in (("profile", "quick"), ("data", ""))}
    for key, value in texts.items():
        if not isinstance(value, str):
            raise ConfigError(f"{path}: {key} must be a string, not {value!r}")
    fixed, grid = (_settings(tree.get(name, {}), f"{path}: {name}") for name in ("set", "grid"))
    for name, table in (("set", fixed), ("grid", grid)):
        for key, value in table.items():
            _require_setting(key, value, f"{path}: {name}")
    for key, values in grid.items():
        _require_values(values, f"{path}: grid: {key}")
    count = math.prod(map(len, grid.values()))
    if not grid:
        raise ConfigError(f'{path}: the grid is empty: name values, as in "run.seed" = [1, 2, 3]')
    if count > MOST_COMBINATIONS:
        raise ConfigError(
            f"{path}: {count:,} combinations are too many, {MOST_COMBINATIONS} are allowed"
        )
    combinations = []
    for chosen in itertools.product(*grid.values()):
        values = dict(zip(grid, chosen, strict=True))
        settings = {**fixed, **values, "gate.promote": False}
        overrides = [f"{key}={toml_value(value)}" for key, value in settings.items()]
        try:
            combinations.append(Combination(values, Config.load(texts["profile"], overrides)))
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None
    keys = tuple(key for key in grid if key != SEED)
    return SweepPlan(path.stem, texts["data"], keys, tuple(combinations))


def _settings(tree: Any, where: str) -> dict[str, Any]:
    """``section.key`` -> value, from quoted keys, dotted keys or tables."""
    if not isinstance(tree, Mapping):
        raise ConfigError(f"{where} must be a table, not {tree!r}")
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}.{k}": v for k, v in _settings(value, where).items()}
        else:
            flat[key] = value
    return flat


def _require_setting(key: str, value: Any, where: str) -> None:
    """A name as ``--set`` takes it, and a value that can be written as one."""
    if "." not in key:
        raise ConfigError(f"{where}: {key}: expected section.key")
    for item in value if isinstance(value, list) else [value]:
        if not isinstance(item, str | int | float | list):
            raise ConfigError(f"{where}: {key}: {item} is no value of a configuration")


def _require_values(values: Any, where: str) -> None:
    if not isinstance(values, list) or not values:
        raise ConfigError(f"{where} must be a list of values, not {values!r}")
    for i, value in enumerate(values):
        if value in values[:i]:
            raise ConfigError(f"{where} names {value!r} twice")
