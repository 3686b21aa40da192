"""What a catalogue is checked for, and what was found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

MAX_EXAMPLES = 10

Status = Literal["passed", "noted", "warning", "failed"]


@dataclass(frozen=True)
class Example:
    """A row that stands for a finding.

    Attributes:
        file: Name of the file inside the catalogue.
        line: 1-based line; 0 where the finding has none.
        id: Id of the row.
        text: Beginning of its text.
        remark: What there is to see.
    """

    file: str
    line: int
    id: str
    text: str
    remark: str = ""


@dataclass
class Tally:
    """How often something was met, and the first few examples."""

    count: int = 0
    examples: list[Example] = field(default_factory=list)

    def add(self, example: Example, count: int = 1) -> None:
        """Count something and keep the example while there are few."""
        self.count += count
        if len(self.examples) < MAX_EXAMPLES:
            self.examples.append(example)

    def __add__(self, other: Tally) -> Tally:
        examples = (self.examples + other.examples)[:MAX_EXAMPLES]
        return Tally(self.count + other.count, examples)


@dataclass(frozen=True)
class Check:
    """Something a catalogue is checked for.

    Attributes:
        name: Its short name, as in the JSON report.
        title: What is counted.
        unit: What it is a share of.
        meaning: What it does to the model, and what was done about it.
        advice: What the owner of the data can do.
        threshold: The value in the section that says how large a share may be; empty where
            nothing is allowed.
        noted: Whether it belongs to the nature of catalogues and is no reason for a warning.
        tolerance: A share that is not worth a word.
        section: The section of the configuration that holds the threshold.
    """

    name: str
    title: str
    unit: str
    meaning: str
    advice: str
    threshold: str = ""
    noted: bool = False
    tolerance: float = 0.0
    section: str = "validation"

    @property
    def key(self) -> str:
        """The threshold as ``--set`` takes it, empty where there is none."""
        return f"{self.section}.{self.threshold}" if self.threshold else ""


@dataclass(frozen=True)
class Observed:
    """A check's count before it is judged.

    Attributes:
        check: What was checked.
        total: Of how many rows (or pairs, tokens).
        tally: How many show it, and the first few.
    """

    check: Check
    total: int
    tally: Tally


@dataclass(frozen=True)
class Finding:
    """The result of a check.

    Attributes:
        check: What was checked.
        count: How many rows (or pairs, tokens) show it.
        total: Of how many.
        allowed: The share that is allowed, 0 to 1.
        status: ``passed``, ``noted`` or ``warning`` (found, within what is allowed), ``failed``.
        examples: The first few.
    """

    check: Check
    count: int
    total: int
    allowed: float
    status: Status
    examples: tuple[Example, ...]

    @property
    def share(self) -> float:
        """The observed share, 0 to 1."""
        return self.count / self.total if self.total else float(self.count > 0)

    @property
    def sentence(self) -> str:
        """The finding in one line."""
        text = f"{self.check.title}: {self.count:,} of {self.total:,} {self.check.unit}"
        if self.allowed == 0:
            return f"{text} (none allowed)"
        if self.allowed < 1:
            return f"{text} ({percent(self.share)}, {percent(self.allowed)} allowed)"
        return f"{text} ({percent(self.share)})"


def percent(share: float) -> str:
    """A share as a percentage that never shows a small one as none."""
    if 0.0 < share < 0.0001:
        return "< 0.01%"
    return f"{100 * share:.3g}%"


UNREADABLE_FILES = Check(
    "unreadable_files",
    "Files that cannot be read",
    "files",
    "Nothing after the place of the fault is known, so the catalogue is refused.",
    "Fetch or export the file again.",
)
EMPTY_FILES = Check(
    "empty_files",
    "Parts of the catalogue without a usable row",
    "parts",
    "A model needs labels, training documents with a label, and test documents with a label.",
    "Look whether the files were swapped or cut off, and whether the labels that documents name "
    "are written as in the list of labels.",
)
UNREADABLE_ROWS = Check(
    "unreadable_rows",
    "Rows that cannot be read",
    "rows",
    "Where the limit allows it, such a row is left out.",
    "Mend the lines named here; docs/data-formats.md says what the rows of each format are.",
    "max_unreadable_rows",
)
MISSTATED_SIZES = Check(
    "misstated_sizes",
    "Files with another number of rows than is stated",
    "files",
    "The rows that are there count. Where they are fewer, the file may have been cut off.",
    "Compare the number with that of the source.",
    "max_misstated_sizes",
)
EMPTY_IDS = Check(
    "empty_ids",
    "Rows without an id",
    "rows",
    "Nothing could refer to it. Where the limit allows it, such a row is left out.",
    "Give every label and document an id that stays the same over time.",
    "max_empty_ids",
)
REPEATED_IDS = Check(
    "repeated_ids",
    "Rows whose id stood before in the same file",
    "rows",
    "Where the limit allows it, only the first row of an id is kept.",
    "Make ids unique; where a document was split over rows, join its labels in one row.",
    "max_repeated_ids",
)
EMPTY_TEXTS = Check(
    "empty_texts",
    "Documents without text",
    "documents",
    "They are kept, but not trained on; in the test split they count as they are.",
    "Leave them out of the export, or fill in what describes them.",
    "max_empty_texts",
)
EMPTY_LABEL_TEXTS = Check(
    "empty_label_texts",
    "Labels without text",
    "labels",
    "The label's id stands for its text. Rare and cold labels are found through their text only.",
    "Add names or descriptions.",
    "max_empty_label_texts",
)
LONG_TEXTS = Check(
    "long_texts",
    "Documents with an over-long text",
    "documents",
    "Only the first data.max_document_tokens tokens are used.",
    "Begin the text with what describes the document best, or raise data.max_document_tokens.",
    "max_long_texts",
)
UNKNOWN_LABELS = Check(
    "unknown_labels",
    "Labels that a document names and the catalogue lacks",
    "pairs of a document and a label",
    "The pair is left out, so the document looks as if it did not have the label.",
    "Export labels and documents at the same time; look for labels that were renamed or removed.",
    "max_unknown_labels",
)
REPEATED_LABELS = Check(
    "repeated_labels",
    "Labels that a document names more than once",
    "pairs of a document and a label",
    "The label counts once.",
    "Nothing needs to be done.",
    noted=True,
)
UNLABELLED_DOCUMENTS = Check(
    "unlabelled_documents",
    "Documents without a label",
    "documents",
    "They are kept, but neither trained on nor evaluated.",
    "Look whether their labels got lost (see the labels that the catalogue lacks).",
    "max_unlabelled_documents",
)
REPEATED_TEXTS = Check(
    "repeated_texts",
    "Documents with the text of an earlier one in the same split",
    "documents",
    "All are kept. Equal texts with different labels contradict each other in training, and in "
    "the test split they count more than others. Case and white space are not looked at.",
    "Join such documents and their labels, or add what tells them apart to the text.",
    "max_repeated_texts",
)
REPEATED_LABEL_TEXTS = Check(
    "repeated_label_texts",
    "Labels with the text of an earlier one",
    "labels",
    "The encoder cannot tell them apart; only labels with documents are told apart by training.",
    "Add what tells them apart, for example the name of the broader label.",
    "max_repeated_label_texts",
)
COLD_LABELS = Check(
    "cold_labels",
    "Labels without a training document (cold)",
    "labels",
    "They are allowed: they are found through their text alone.",
    "Give them telling texts.",
    noted=True,
)
TRAIN_TEST_TEXTS = Check(
    "train_test_texts",
    "Test documents whose text is also a training document's",
    "test documents",
    "The model has seen them with their labels, so the test figures flatter it.",
    "Split by text, so that equal texts fall on the same side.",
    "max_train_test_texts",
)
UNKNOWN_FILTER = Check(
    "unknown_filter",
    "Entries of the test filter that the catalogue lacks",
    "entries",
    "The entry is left out: its document is not in the test split, or its label is unknown.",
    "Make the filter from the same export as the test split.",
    "max_unknown_filter",
)
UNKNOWN_TOKENS = Check(
    "unknown_tokens",
    "Tokens that the tokenizer has no entry for",
    "tokens",
    "The model sees the same sign for all of them.",
    "Choose an encoder.model made for the language of the texts, or raise data.catalogue_words.",
    "max_unknown_tokens",
    tolerance=0.02,
)
