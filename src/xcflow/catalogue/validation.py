"""Judges what was read: which defects there are, how many, and whether that is allowed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xcflow.catalogue import findings as checks
from xcflow.catalogue.expectations import Expectations, Rule, Share
from xcflow.catalogue.findings import (
    MAX_EXAMPLES,
    Check,
    Example,
    Finding,
    Observed,
    Status,
    Tally,
)
from xcflow.catalogue.hashing import find_hashes, first_positions, hash_strings
from xcflow.catalogue.ingest import Facts, TokenFacts
from xcflow.catalogue.readers import EXCERPT_CHARS, Role
from xcflow.catalogue.string_table import StringTable
from xcflow.config import ValidationConfig
from xcflow.errors import DataError
from xcflow.ragged import Ragged

if TYPE_CHECKING:
    import pandas as pd

# Facts are handed to great-expectations this many rows at a time.
TABLE_ROWS = 200_000


@dataclass(frozen=True)
class _RowCheck:
    """A check that is a rule on every row of a table.

    Attributes:
        check: What a row that breaks the rule is counted as.
        rule: The rule.
        remark: Says what the value of the rule's column means, for the examples.
    """

    check: Check
    rule: Rule
    remark: str = ""


@dataclass(frozen=True)
class _Table:
    """Facts about the rows of a file (name -> [N] integers), and the checks on each row."""

    facts: Facts
    columns: Mapping[str, NDArray[Any]]
    row_checks: Sequence[_RowCheck]


class Validation:
    """Judges one catalogue.

    Args:
        config: How much of each defect is allowed.
        folder: The data set folder with the string tables and label rows.
        facts: What was seen while reading.
        files: How many files the catalogue has.
    """

    def __init__(
        self, config: ValidationConfig, folder: Path, facts: Mapping[Role, Facts], files: int
    ) -> None:
        self._config = config
        self._folder = folder
        self._facts = facts
        self._files = files
        self._expectations = Expectations()
        self._judgements = 0

    def of_unreadable_file(self, error: DataError) -> list[Finding]:
        """The findings when reading ended early with ``error``."""
        name = Path(error.file).name if error.file is not None else ""
        tally = Tally()
        tally.add(Example(name, error.line or 0, "", "", error.reason))
        unreadable = Observed(checks.UNREADABLE_FILES, self._files, tally)
        return self._judged([unreadable, *self._observed_while_reading()])

    def of_rows(self, usable: NDArray[np.bool_]) -> list[Finding]:
        """The findings once everything is read.

        Args:
            usable: [N] whether a training document has a text and a label.
        """
        files = Observed(checks.UNREADABLE_FILES, self._files, Tally())
        empty = self._observed_empty_files(usable)
        return self._judged([files, empty, *self._observed_while_reading(), *self._observed_rows()])

    def of_tokens(self, tokens: Mapping[Role, TokenFacts]) -> list[Finding]:
        """The findings once the texts are tokenised."""
        total = sum(int(facts.lengths.sum()) for facts in tokens.values())
        unknown = Tally(sum(facts.unknown for facts in tokens.values()))
        return self._judged([Observed(checks.UNKNOWN_TOKENS, total, unknown)])

    def _observed_empty_files(self, usable: NDArray[np.bool_]) -> Observed:
        test_labels = Ragged.load(self._folder / "test" / "labels")
        parts: dict[Role, tuple[str, int]] = {
            "labels": ("label", len(self._facts["labels"])),
            "train": ("document with a text and a known label", int(usable.sum())),
            "test": ("document with a known label", len(test_labels.data)),
        }
        tally = Tally()
        for role, (row, size) in parts.items():
            if size == 0:
                tally.add(Example(self._facts[role].file, 0, "", "", f"holds not a single {row}"))
        return Observed(checks.EMPTY_FILES, len(parts), tally)

    def _observed_while_reading(self) -> list[Observed]:
        """What was counted row by row while reading."""
        facts = list(self._facts.values())
        named = [f for f in facts if f.role != "test_filter"]
        filters = [f for f in facts if f.role == "test_filter"]
        rows, pairs = sum(f.rows_read for f in facts), sum(f.pairs_read for f in named)
        observed = [
            Observed(checks.UNREADABLE_ROWS, rows, _sum(f.faults for f in facts)),
            Observed(checks.MISSTATED_SIZES, self._files, _sum(f.misstated for f in facts)),
            Observed(checks.EMPTY_IDS, rows, _sum(f.empty_ids for f in facts)),
            Observed(checks.REPEATED_IDS, rows, _sum(map(_with_first_line, named))),
            Observed(checks.UNKNOWN_LABELS, pairs, _sum(f.unknown_labels for f in named)),
            Observed(checks.REPEATED_LABELS, pairs, _sum(f.repeated_labels for f in named)),
        ]
        for f in filters:
            unknown = f.unknown_documents + f.unknown_labels
            observed.append(Observed(checks.UNKNOWN_FILTER, f.rows_read + f.pairs_read, unknown))
        return observed

    def _observed_rows(self) -> list[Observed]:
        """What great-expectations counts on the tables of facts."""
        train, test = self._facts["train"], self._facts["test"]
        tables = [self._labels_table(), self._documents_table(train), self._test_table(test, train)]
        observed: dict[Check, Observed] = {}
        for table in tables:
            rules = [row_check.rule for row_check in table.row_checks]
            counts = self._expectations.count_broken(table.facts.role, _chunks(table), rules)
            for row_check in table.row_checks:
                check = row_check.check
                tally = Tally(counts[check.name], self._examples(table, row_check))
                before = observed.get(check, Observed(check, 0, Tally()))
                total = before.total + len(table.facts)
                observed[check] = Observed(check, total, before.tally + tally)
        return list(observed.values())

    def _labels_table(self) -> _Table:
        facts = self._facts["labels"]
        documents = Ragged.load(self._folder / "train" / "labels").counts(len(facts))
        return _Table(
            facts,
            {
                "text_chars": facts.text_chars,
                "same_text_line": _same_text_line(facts),
                "documents": documents,
            },
            [
                _at_least(checks.EMPTY_LABEL_TEXTS, "text_chars", 1),
                _at_most(checks.REPEATED_LABEL_TEXTS, "same_text_line", 0, "text of line {}"),
                _at_least(checks.COLD_LABELS, "documents", 1),
            ],
        )

    def _documents_table(self, facts: Facts) -> _Table:
        longest = self._config.long_text_chars
        return _Table(
            facts,
            {
                "text_chars": facts.text_chars,
                "same_text_line": _same_text_line(facts),
                "labels": Ragged.load(self._folder / facts.role / "labels").lengths,
            },
            [
                _at_least(checks.EMPTY_TEXTS, "text_chars", 1),
                _at_most(checks.LONG_TEXTS, "text_chars", longest, "{} characters"),
                _at_least(checks.UNLABELLED_DOCUMENTS, "labels", 1),
                _at_most(checks.REPEATED_TEXTS, "same_text_line", 0, "text of line {}"),
            ],
        )

    def _test_table(self, test: Facts, train: Facts) -> _Table:
        table = self._documents_table(test)
        place = find_hashes(train.text_hashes, test.text_hashes)
        found = (place >= 0) & (test.text_chars > 0)
        train_line = np.zeros(len(test), np.int64)
        train_line[found] = train.lines[place[found]]
        remark = f"text of {train.file}, line {{}}"
        row_check = _at_most(checks.TRAIN_TEST_TEXTS, "train_line", 0, remark)
        columns = {**table.columns, "train_line": train_line}
        return _Table(test, columns, [*table.row_checks, row_check])

    def _examples(self, table: _Table, row_check: _RowCheck) -> list[Example]:
        facts, values = table.facts, table.columns[row_check.rule.column]
        rows = np.flatnonzero(row_check.rule.broken_by(values))[:MAX_EXAMPLES]
        if not len(rows):
            return []
        ids = StringTable.load(self._folder / facts.role / "ids").take(rows)
        texts = StringTable.load(self._folder / facts.role / "texts").take(rows)
        return [
            Example(
                facts.file,
                int(facts.lines[row]),
                ids[i],
                texts[i][:EXCERPT_CHARS],
                row_check.remark.format(f"{values[row]:,}"),
            )
            for i, row in enumerate(rows.tolist())
        ]

    def _judged(self, observed: Sequence[Observed]) -> list[Finding]:
        """Let great-expectations compare each share with what is allowed."""
        findings = [self._finding(o) for o in observed]
        shares = [Share(f.check.name, f.share, f.allowed, f.check.tolerance) for f in findings]
        self._judgements += 1
        exceeded = self._expectations.exceeded(f"shares {self._judgements}", shares)
        return [replace(f, status=_status(f.check, exceeded)) for f in findings]

    def _finding(self, observed: Observed) -> Finding:
        check, tally = observed.check, observed.tally
        allowed = getattr(self._config, check.threshold) if check.threshold else float(check.noted)
        examples = tuple(tally.examples)
        return Finding(check, tally.count, observed.total, allowed, "passed", examples)


def _status(check: Check, exceeded: Mapping[str, set[str]]) -> Status:
    if check.name in exceeded["allowed"]:
        return "failed"
    if check.name not in exceeded["tolerated"]:
        return "passed"
    return "noted" if check.noted else "warning"


def _at_least(check: Check, column: str, minimum: int) -> _RowCheck:
    return _RowCheck(check, Rule(check.name, column, minimum=minimum))


def _at_most(check: Check, column: str, maximum: int, remark: str) -> _RowCheck:
    return _RowCheck(check, Rule(check.name, column, maximum=maximum), remark)


def _chunks(table: _Table) -> Iterator[pd.DataFrame]:
    import pandas as pd

    for start in range(0, len(table.facts), TABLE_ROWS):
        part = {name: c[start : start + TABLE_ROWS] for name, c in table.columns.items()}
        yield pd.DataFrame(part)


def _same_text_line(facts: Facts) -> NDArray[np.int64]:
    """[N] line of the first row with the same text where that is an earlier row, else 0."""
    first = first_positions(facts.text_hashes)
    is_later = (first < np.arange(len(facts))) & (facts.text_chars > 0)
    return np.where(is_later, facts.lines[first], 0)


def _with_first_line(facts: Facts) -> Tally:
    """The repeated ids, each example with the line in which its id stood first."""
    tally = facts.repeated_ids
    first = find_hashes(facts.id_hashes, hash_strings(e.id for e in tally.examples))
    examples = [
        replace(example, remark=f"id of line {facts.lines[row]:,}")
        for example, row in zip(tally.examples, first.tolist(), strict=True)
    ]
    return Tally(tally.count, examples)


def _sum(tallies: Iterable[Tally]) -> Tally:
    return reduce(add, tallies, Tally())
