"""Builds the data set debian-related: which packages relate to this Debian package?

A document is a package ("name: short description"). Its labels are the packages that it names in
Depends, Pre-Depends, Recommends, Suggests or Enhances, alternatives and all. Run it on a machine
that has Debian's package lists (after ``apt-get update``), or give it a Packages file:

    python tools/build_debian_related.py --output debian-related [--packages Packages.gz]

The same index gives the same bytes. With ``--train-of FOLDER`` the sources of that data set's
training documents train again and all others are tested, so that a newer index leaves the split
where it was.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import re
import subprocess
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

RELATION_FIELDS = ("Depends", "Pre-Depends", "Recommends", "Suggests", "Enhances")
# A label on more than this share of the documents says nothing about a package (libc6, perl).
LARGEST_LABEL_SHARE = 0.01
TEST_SHARE = 0.2
APT_LISTS = Path("/var/lib/apt/lists")

Labels = dict[str, list[str]]  # document -> its labels, both sorted by name


@dataclass(frozen=True)
class Package:
    """One package of the index; ``related`` are the names in its relation fields, as written."""

    name: str
    source: str
    text: str
    related: frozenset[str]


@dataclass(frozen=True)
class DataSet:
    """Labels, the two splits, and the labels to leave out when a test document is scored."""

    labels: list[str]
    train: Labels
    test: Labels
    test_filter: Labels
    removed: dict[str, int]


def stanzas(lines: Iterable[str]) -> Iterator[dict[str, str]]:
    """Yield the stanzas of a control file as field -> value with its continuation lines."""
    fields: dict[str, str] = {}
    key = ""
    for line in lines:
        if line[0] in " \t" and key:
            fields[key] += "\n" + line.strip()
        elif line.strip():
            key, _, value = line.partition(":")
            fields[key] = value.strip()
        elif fields:
            yield fields
            fields, key = {}, ""
    if fields:
        yield fields


def read_packages(lines: Iterable[str]) -> dict[str, Package]:
    """Read a Packages index; of a package that is listed twice the later stanza counts.

    Raises:
        ValueError: a stanza names no package.
    """
    packages = {}
    for fields in stanzas(lines):
        if "Package" not in fields:
            raise ValueError("not a Packages index: it has a stanza without the field Package")
        name = fields["Package"]
        description = fields.get("Description", "").partition("\n")[0]
        relations = ",".join(fields[field] for field in RELATION_FIELDS if field in fields)
        # "python3:any (>= 3.11) | pypy3 [amd64]" names python3 and pypy3.
        names = (re.match(r"\s*([a-z0-9][a-z0-9+.-]*)", r) for r in re.split(r"[,|]", relations))
        packages[name] = Package(
            name=name,
            source=fields.get("Source", name).split()[0],
            text=" ".join(f"{name}: {description}".split()),
            related=frozenset(match[1] for match in names if match),
        )
    return packages


def in_test_split(source: str) -> bool:
    """Say whether the packages of a source, alike in text and labels, are test documents.

    A hash of the source's name keeps them where they are when other packages come and go.
    """
    digest = hashlib.sha256(source.encode()).digest()
    return int.from_bytes(digest[:8], "big") < TEST_SHARE * 2**64


def relations(packages: Mapping[str, Package]) -> tuple[Labels, int]:
    """Return package -> the labels that say something about it, and how many labels never do."""
    related = {name: package.related & packages.keys() for name, package in packages.items()}
    related = {name: labels for name, labels in sorted(related.items()) if labels}
    frequency = Counter(label for labels in related.values() for label in labels)
    ceiling = LARGEST_LABEL_SHARE * len(related)
    common = {label for label, count in frequency.items() if count > ceiling}
    return {name: sorted(labels - common - {name}) for name, labels in related.items()}, len(common)


def build(
    packages: Mapping[str, Package], in_test: Callable[[str], bool] = in_test_split
) -> DataSet:
    """Turn the index into documents, labels and splits.

    Where a training document A names a test document B, the pair (B, A) would only ask for what
    training has shown: it is no truth of B, and the filter takes A, as well as B itself, out of B's
    predictions. Labels without a training document are dropped.

    Args:
        packages: Package name -> package.
        in_test: Whether the packages of a source belong to the test split.
    """
    pairs, too_common = relations(packages)
    splits: tuple[Labels, Labels] = ({}, {})
    for name, labels in pairs.items():
        if labels:
            splits[in_test(packages[name].source)][name] = labels
    train, candidates = splits
    named_by = defaultdict(set)  # label -> the training documents that have it
    for name, labels in train.items():
        for label in labels:
            named_by[label].add(name)

    test: Labels = {}
    test_filter: Labels = {}
    reciprocal = unseen = 0
    for name, labels in candidates.items():
        hidden = named_by.get(name, set())
        truth = [label for label in labels if label not in hidden and label in named_by]
        reciprocal += sum(label in hidden for label in labels)
        unseen += sum(label not in hidden and label not in named_by for label in labels)
        if truth:
            test[name] = truth
            test_filter[name] = sorted((hidden | {name}) & named_by.keys())
    return DataSet(
        labels=sorted(named_by),
        train=train,
        test=test,
        test_filter=test_filter,
        removed={
            "labels dropped: too common": too_common,
            "points dropped: nothing left": sum(not labels for labels in pairs.values()),
            "test pairs dropped: reciprocal pair in train": reciprocal,
            "test pairs dropped: label has no training point": unseen,
            "test points dropped: no label left": len(candidates) - len(test),
        },
    )


def write(data: DataSet, texts: Mapping[str, str], folder: Path) -> dict[str, object]:
    """Write gzipped JSON Lines and a ``meta.json`` to ``folder``; return what the latter says."""
    folder.mkdir(parents=True, exist_ok=True)
    documents = data.train | data.test
    rows = {name: {"id": name, "text": texts[name]} for name in (*data.labels, *documents)}
    files: dict[str, list[dict[str, object]]] = {
        "labels.jsonl.gz": [{**rows[name]} for name in data.labels],
        "trn.jsonl.gz": [{**rows[name], "labels": found} for name, found in data.train.items()],
        "tst.jsonl.gz": [{**rows[name], "labels": found} for name, found in data.test.items()],
        "tst_filter.jsonl.gz": [{"id": name, "labels": f} for name, f in data.test_filter.items()],
    }
    digests = {}
    for file_name, lines in files.items():
        buffer = io.BytesIO()
        # Without a name and a time in its header the same rows give the same bytes.
        with gzip.GzipFile("", "wb", fileobj=buffer, mtime=0) as file:
            for line in lines:
                file.write((json.dumps(line, ensure_ascii=False) + "\n").encode())
        (folder / file_name).write_bytes(buffer.getvalue())
        digests[file_name] = hashlib.sha256(buffer.getvalue()).hexdigest()
    meta: dict[str, object] = {
        "train_points": len(data.train),
        "test_points": len(data.test),
        "labels": len(data.labels),
        "train_pairs": sum(map(len, data.train.values())),
        "test_pairs": sum(map(len, data.test.values())),
        "removed": data.removed,
        "source": "Debian main, binary-amd64/Packages",
        "licence": "package metadata published by the Debian project; each description under its "
        "package's own free licence (main = DFSG-free)",
        "sha256": digests,
    }
    (folder / "meta.json").write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")
    return meta


def apt_packages_file() -> Path:
    """Find the Packages index of main that ``apt-get update`` has fetched."""
    found = list(APT_LISTS.glob("*_main_binary-amd64_Packages*"))
    if not found:
        raise FileNotFoundError(f"no amd64 package list in {APT_LISTS}; run apt-get update first")
    # The security and update suites are lists too, and short ones.
    return max(found, key=lambda path: path.stat().st_size)


def read_text(path: Path) -> str:
    """Return the text of a Packages file: plain, .gz, or .lz4 as apt may store it."""
    if path.suffix == ".lz4":
        helper = ["/usr/lib/apt/apt-helper", "cat-file", str(path)]
        return subprocess.run(helper, check=True, stdout=subprocess.PIPE).stdout.decode("utf-8")
    content = path.read_bytes()
    return (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8")


def split_of(folder: Path, packages: Mapping[str, Package]) -> Callable[[str], bool]:
    """Return the split that trains on the sources an earlier data set trained on, and no others."""
    with gzip.open(folder / "trn.jsonl.gz", "rt", encoding="utf-8") as lines:
        names = [json.loads(line)["id"] for line in lines]
    trained = {packages[name].source for name in names if name in packages}
    return lambda source: source not in trained


def main(argv: list[str] | None = None) -> None:
    """Build the data set from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    parser.add_argument("--packages", type=Path, help="Packages file (default: the one of apt)")
    parser.add_argument("--train-of", type=Path, help="data set whose training split to keep")
    arguments = parser.parse_args(argv)
    try:
        text = read_text(arguments.packages or apt_packages_file())
        packages = read_packages(text.splitlines(keepends=True))
        kept = arguments.train_of
        in_test = split_of(kept, packages) if kept else in_test_split
        texts = {name: package.text for name, package in packages.items()}
        meta = write(build(packages, in_test), texts, arguments.output)
    except (OSError, EOFError, ValueError, subprocess.CalledProcessError) as error:
        parser.exit(1, f"build_debian_related: {error}\n")
    print(json.dumps(meta, indent=1))


if __name__ == "__main__":
    main()
