"""In what respects a catalogue may differ from the last accepted one."""

from __future__ import annotations

from xcflow.catalogue.findings import Check

SECTION = "drift"


def _check(name: str, title: str, unit: str, meaning: str, advice: str) -> Check:
    return Check(name, title, unit, meaning, advice, f"{name}.fail", section=SECTION)


REMOVED_LABELS = _check(
    "removed_labels",
    "Labels that were removed",
    "labels of the accepted catalogue",
    "No model trained on this catalogue can give them.",
    "Look whether the export is complete and whether ids are kept: a label with a new id counts as "
    "one removed and one added.",
)
ADDED_LABELS = _check(
    "added_labels",
    "Labels that were added",
    "labels",
    "They are learned from their documents; without any they are found through their text.",
    "Look whether they are new, or old ones with new ids.",
)
RENAMED_LABELS = _check(
    "renamed_labels",
    "Labels with another text than before",
    "labels in both catalogues",
    "A better wording does no harm. Where an id now means something else, its documents teach the "
    "wrong thing.",
    "Look whether each id still means what it meant. Ids that are row numbers shift when a row is "
    "added or removed above them.",
)
REMOVED_DOCUMENTS = _check(
    "removed_documents",
    "Documents that were removed",
    "documents of the accepted catalogue",
    "Their labels have fewer examples, and figures of the two test splits are of other documents.",
    "Look whether the export was cut off and whether ids are kept.",
)
ADDED_DOCUMENTS = Check(
    "added_documents",
    "Documents that were added",
    "documents",
    "More to learn from.",
    "Nothing needs to be done.",
    noted=True,
    section=SECTION,
)
LABEL_SHARES = _check(
    "label_shares",
    "Pairs by which the labels' shares differ",
    "pairs of a training document and a label",
    "So many pairs would need another label for each label to have its share of before (total "
    "variation distance). Other documents than before, or labels that were mixed up.",
    "Look at the labels named here, and whether documents name the labels that they should.",
)
LABEL_FREQUENCIES = _check(
    "label_frequencies",
    "Labels by which the frequencies of labels differ",
    "labels",
    "So many labels, at least, would need more or fewer documents for the distribution of before "
    "(Kolmogorov-Smirnov distance). Rare labels are harder to learn.",
    "Look whether documents lost labels, or whether many more or fewer documents were exported.",
)
DOCUMENT_LENGTHS = _check(
    "document_lengths",
    "Documents by which the lengths of documents differ",
    "documents",
    "So many documents, at least, would need more or fewer characters for the distribution of "
    "before (Kolmogorov-Smirnov distance). Other fields in the text, or texts that were cut off.",
    "Look whether the text is made of the same fields as before.",
)
LABEL_LENGTHS = _check(
    "label_lengths",
    "Labels by which the lengths of label texts differ",
    "labels",
    "So many label texts, at least, would need more or fewer characters for the distribution of "
    "before (Kolmogorov-Smirnov distance).",
    "Look whether the text is made of the same fields as before.",
)
UNKNOWN_TOKENS_RISE = _check(
    "unknown_tokens_rise",
    "Tokens without an entry in the tokenizer beyond the share of before",
    "tokens",
    "Texts in another language or script, or of another encoding. Another encoder.model counts "
    "with another tokenizer and may show here too.",
    "Look for texts that were decoded wrongly.",
)
