"""The command `xcflow compare`: runs set against the first one."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from xcflow.home import Home
from xcflow_pipelines.pages import write_page
from xcflow_pipelines.records import find_measured, tracking_of
from xcflow_pipelines.shell import OK, BadUsageError

if TYPE_CHECKING:
    from rich.table import Table

    from xcflow.evaluation.bootstrap import Difference
    from xcflow.evaluation.contrast import Contrast
    from xcflow.evaluation.examples import Example

MOST_RUNS = 7
SHOWN_LABELS = 3


def compare_runs(home: Home, names: Sequence[str], page: Path | None, as_json: bool) -> int:
    """Compare runs with the first one and tell how they differ; returns the exit code.

    Args:
        home: Where runs are found by name.
        names: Runs by name, id in the tracking store, or evaluation folder; two to seven.
        page: The HTML file to write, if any.
        as_json: Whether to answer with JSON on standard output.

    Raises:
        BadUsageError: Too few or too many runs, or one is unknown.
        ArtifactError: They were measured on different test splits.
        StorageError: The page cannot be written.
    """
    if not 2 <= len(names) <= MOST_RUNS:
        raise BadUsageError(f"compare takes two to {MOST_RUNS} runs, not {len(names)}")
    from xcflow.evaluation.contrast import Run, contrast
    from xcflow.evaluation.result import Evaluation

    tracking = tracking_of(home)
    found = [find_measured(home, tracking, name) for name in names]
    runs = [Run(run.name, Evaluation.open(run.folder), run.settings) for run in found]
    contrasts = [contrast(runs[0], run) for run in runs[1:]]
    if page:
        from xcflow.evaluation.comparison_page import comparison_page

        write_page(page, comparison_page(contrasts))
    if as_json:
        tree = {
            "reference": runs[0].name,
            "documents": runs[0].evaluation.documents,
            "comparisons": [contrast_tree(c) for c in contrasts],
        }
        typer.echo(json.dumps(tree, indent=2, ensure_ascii=False))
    else:
        _tell(contrasts)
        if page:
            typer.echo(f"\nthe page: {page}")
    return OK


def contrast_tree(contrast: Contrast) -> dict[str, Any]:
    """Everything that is known of a comparison, as plain values."""
    groups: dict[str, dict[str, Any]] = {"metrics": {}, "slices": {}}
    for name, difference in contrast.comparison.differences.items():
        groups["slices" if "/" in name else "metrics"][name] = _difference_tree(difference)
    better, worse = contrast.examples
    return {
        "run": contrast.other.name,
        "confidence": contrast.comparison.confidence,
        **groups,
        "label_frequency": {
            "k": contrast.frequency_depth,
            "groups": [
                {**asdict(f.group), "recall": _difference_tree(f.recall)}
                for f in contrast.frequency
            ],
        },
        "documents": {
            "k": contrast.flips.k,
            "better": len(contrast.flips.better),
            "worse": len(contrast.flips.worse),
            "same": contrast.flips.same,
        },
        "examples": {
            "better": [_example_tree(e) for e in better],
            "worse": [_example_tree(e) for e in worse],
        },
        "settings": {s.key: [s.before, s.after] for s in contrast.settings},
        "not_compared": dict(contrast.left_out),
    }


def _difference_tree(found: Difference) -> dict[str, float]:
    values = asdict(found)
    return {"reference": values.pop("b"), "run": values.pop("a"), **values}


def _example_tree(example: Example) -> dict[str, Any]:
    values = asdict(example)
    return {**values, "reference": values.pop("a"), "run": values.pop("b")}


def _tell(contrasts: Sequence[Contrast]) -> None:
    from xcflow.evaluation.comparison_page import LETTERS
    from xcflow_pipelines.teller import console

    typer.echo(f"A  {contrasts[0].reference.name}  (the reference)")
    for letter, contrast in zip(LETTERS[1:], contrasts, strict=False):
        typer.echo(f"{letter}  {contrast.other.name}")
    for letter, contrast in zip(LETTERS[1:], contrasts, strict=False):
        typer.echo("")
        console().print(comparison_table(contrast, letter))
        for line in (
            *_document_lines(contrast, letter),
            *_setting_lines(contrast, letter),
            *_left_out_lines(contrast, letter),
        ):
            typer.echo(line)


def comparison_table(contrast: Contrast, letter: str) -> Table:
    """The main metrics and the slices with the interval of the difference, in percent."""
    from rich.table import Table

    from xcflow.evaluation.comparison_page import slice_metrics
    from xcflow.evaluation.difference_lines import mark_of
    from xcflow.registry.summary import MAIN_METRICS

    found = contrast.comparison.differences
    ks = sorted({int(name.partition("@")[2]) for name in found if "/" not in name})
    sliced = [name for part in contrast.slices for name in slice_metrics(ks, part)]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(f"{contrast.comparison.documents:,} documents")
    interval = f"{100 * contrast.comparison.confidence:.0f}% interval"
    for title in ("A", letter, f"{letter} - A", interval):
        table.add_column(title, justify="right")
    table.add_column("")
    for name in (*MAIN_METRICS, *sliced):
        if not (d := found.get(name)):
            continue
        values = [f"{100 * v:.2f}" for v in (d.b, d.a)]
        signed = [f"{100 * v:+.2f}" for v in (d.difference, d.low, d.high)]
        table.add_row(name, *values, signed[0], f"{signed[1]} .. {signed[2]}", mark_of(d))
    return table


def _document_lines(contrast: Contrast, letter: str) -> list[str]:
    flips = contrast.flips
    counts = (
        f"{letter} has more for {len(flips.better):,} documents, fewer for "
        f"{len(flips.worse):,}, as many for {flips.same:,}"
    )
    from xcflow_pipelines.teller import WIDTH

    lines = [f"\nright labels among the first {flips.k}: {counts}"]
    for sign, examples in zip("+-", contrast.flipped, strict=True):
        for example in examples:
            before, after = example.right
            head = f"{sign} {before} -> {after}  {example.id}  {example.text}"
            lines.append(f"  {textwrap.shorten(head, WIDTH - 2, placeholder=' ...')}")
            gained, lost = _changed(example)
            lines += [_labels_line(what, of) for what, of in (("found", gained), ("lost", lost))]
    return [line for line in lines if line]


def _changed(example: Example) -> tuple[list[str], list[str]]:
    """Texts of the right labels that only the other run has, and only the reference."""
    a, b = ({x.id: x.text for x in answers if x.right} for answers in (example.a, example.b))
    return [t for i, t in b.items() if i not in a], [t for i, t in a.items() if i not in b]


def _labels_line(what: str, texts: Sequence[str]) -> str:
    if not texts:
        return ""
    more = f"; {len(texts) - SHOWN_LABELS} more" if len(texts) > SHOWN_LABELS else ""
    named = "; ".join(textwrap.shorten(t, 40, placeholder=" ...") for t in texts[:SHOWN_LABELS])
    return f"      {what}: {named}{more}"


def _setting_lines(contrast: Contrast, letter: str) -> list[str]:
    if not contrast.settings:
        return []
    rows = [f"  {s.key}: {_value(s.before)} -> {_value(s.after)}" for s in contrast.settings]
    return [f"\nconfiguration, A -> {letter}", *rows]


def _value(text: str | None) -> str:
    return "not set" if text is None else text or '""'


def _left_out_lines(contrast: Contrast, letter: str) -> list[str]:
    if not contrast.left_out:
        return []
    rows = [f"  {what}: {why}" for what, why in contrast.left_out.items()]
    return [f"\nnot compared, A and {letter}", *rows]
