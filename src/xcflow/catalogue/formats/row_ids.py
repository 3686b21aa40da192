"""The ids of rows that other files name by their numbers."""

from __future__ import annotations

from collections.abc import Iterable


class RowIds:
    """An id for each row, and one that is nobody's for each number without a row.

    A row's own id counts where it is the first with it; else its number stands for it.

    Args:
        own: The id that each row has, empty where it has none.
    """

    def __init__(self, own: Iterable[str]) -> None:
        given = list(own)
        self._taken = frozenset(given)
        self._ids: list[str] = []
        seen: set[str] = set()
        for row, name in enumerate(given):
            is_own = bool(name) and name not in seen
            seen.add(name)
            self._ids.append(name if is_own else self._free(row))

    def of(self, row: int) -> str:
        """The id of a row."""
        return self._ids[row] if 0 <= row < len(self._ids) else self._free(row)

    def _free(self, row: int) -> str:
        name = str(row)
        while name in self._taken:
            name = f"row {name}"
        return name
