"""The door to great-expectations: rules on rows, counted chunk by chunk, and limits of shares.

The library needs seconds to load, and hundreds of bytes of memory for each row it sees. So it is
imported late and is handed small numeric tables of facts, a chunk at a time.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Rule:
    """An expectation on every row of a table: ``minimum <= column <= maximum``.

    Attributes:
        name: What a row that breaks it is counted as.
        column: The column it looks at.
        minimum: Smallest value; None for no limit.
        maximum: Largest value; None for no limit.
    """

    name: str
    column: str
    minimum: int | None = None
    maximum: int | None = None

    def broken_by(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        """[N] whether each value lies outside."""
        outside = np.zeros(len(values), bool)
        if self.minimum is not None:
            outside |= values < self.minimum
        if self.maximum is not None:
            outside |= values > self.maximum
        return outside


@dataclass(frozen=True)
class Share:
    """An observed share and the expectations on it.

    Attributes:
        name: What it is a share of.
        observed: What was found, 0 to 1.
        allowed: The largest that can be lived with.
        tolerated: The largest that is not worth a word.
    """

    name: str
    observed: float
    allowed: float
    tolerated: float


class Expectations:
    """An ephemeral great-expectations context, with one suite and checkpoint for each table."""

    def __init__(self) -> None:
        os.environ["GX_ANALYTICS_ENABLED"] = "false"  # nothing may be sent anywhere
        import great_expectations as gx
        from great_expectations.data_context.types.base import ProgressBarsConfig

        self._gx = gx
        self._context = gx.get_context(mode="ephemeral")
        self._context.variables.progress_bars = ProgressBarsConfig(globally=False)
        self._source = self._context.data_sources.add_pandas("catalogue")

    def count_broken(
        self, table: str, chunks: Iterable[pd.DataFrame], rules: Sequence[Rule]
    ) -> dict[str, int]:
        """How many rows break each rule.

        Args:
            table: Name of the table; each name is used once.
            chunks: The table in pieces with the same integer columns.
            rules: The rules.

        Returns:
            Name of a rule -> number of rows that break it.
        """
        expect = self._gx.expectations
        checkpoint = self._checkpoint(
            table,
            [
                expect.ExpectColumnValuesToBeBetween(
                    column=rule.column,
                    min_value=rule.minimum,
                    max_value=rule.maximum,
                    meta={"name": rule.name},
                )
                for rule in rules
            ],
            # Listing unexpected rows costs twenty times as much as counting them.
            {"result_format": "BASIC", "partial_unexpected_count": 0},
        )
        counts = dict.fromkeys((rule.name for rule in rules), 0)
        for chunk in chunks:
            for result in _results(checkpoint, chunk):
                counts[result.expectation_config.meta["name"]] += result.result["unexpected_count"]
        return counts

    def exceeded(self, table: str, shares: Sequence[Share]) -> dict[str, set[str]]:
        """Which shares are larger than allowed, and which larger than tolerated.

        Args:
            table: Name of the table of shares; each name is used once.
            shares: The shares.

        Returns:
            ``allowed`` and ``tolerated`` -> names of the shares that exceed it.
        """
        import pandas as pd

        expect = self._gx.expectations
        checkpoint = self._checkpoint(
            table,
            [
                expect.ExpectColumnPairValuesAToBeGreaterThanB(
                    column_A=limit, column_B="observed", or_equal=True, meta={"name": limit}
                )
                for limit in ("allowed", "tolerated")
            ],
            {"result_format": "COMPLETE", "unexpected_index_column_names": ["name"]},
        )
        results = _results(checkpoint, pd.DataFrame([asdict(share) for share in shares]))
        return {
            result.expectation_config.meta["name"]: {
                row["name"] for row in result.result.get("unexpected_index_list") or ()
            }
            for result in results
        }

    def _checkpoint(
        self, table: str, expectations: list[Any], result_format: dict[str, Any]
    ) -> Any:
        gx, context = self._gx, self._context
        batch = self._source.add_dataframe_asset(table).add_batch_definition_whole_dataframe("all")
        suite = context.suites.add(gx.ExpectationSuite(name=table, expectations=expectations))
        definition = gx.ValidationDefinition(name=table, data=batch, suite=suite)
        checkpoint = gx.Checkpoint(
            name=table,
            validation_definitions=[context.validation_definitions.add(definition)],
            result_format=result_format,
        )
        return context.checkpoints.add(checkpoint)


def _results(checkpoint: Any, frame: pd.DataFrame) -> list[Any]:
    """The results of one run; an expectation that could not be evaluated is a defect of ours."""
    outcome = checkpoint.run(batch_parameters={"dataframe": frame})
    (run,) = outcome.run_results.values()
    for result in run.results:
        if result.exception_info.get("raised_exception", False):
            raise RuntimeError(f"great-expectations: {result.exception_info['exception_message']}")
    return list(run.results)
