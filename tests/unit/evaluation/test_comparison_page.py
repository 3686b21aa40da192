"""The page of a comparison: stands alone, reads well without its script, escapes, is determined."""

import re

import pytest

from xcflow.evaluation.comparison_page import comparison_page
from xcflow.evaluation.contrast import Run, contrast

NASTY = '<script>alert("x")</script> & "quoted"'


@pytest.fixture
def check(read_page):
    """A page with a search box and the script that makes it work."""

    def of(text):
        page = read_page(text)
        assert len(page.scripts) == 1
        assert page.wanted

    return of


@pytest.fixture(scope="module")
def settings():
    return {"run.seed": "1", "module_one.epochs": "8"}


@pytest.fixture
def runs(large_dataset, noisy, evaluated, settings):
    return [
        Run(
            f"run-{seed}",
            evaluated(large_dataset, noisy(large_dataset, accuracy, seed), ks=(1, 3, 5, 10, 100)),
            {**settings, "run.seed": str(seed)},
        )
        for seed, accuracy in enumerate((0.4, 0.6, 0.4))
    ]


def test_the_page_shows_every_run_and_stands_alone(runs, check):
    contrasts = [contrast(runs[0], run) for run in runs[1:]]
    text = comparison_page(contrasts)
    check(text)
    for words in (
        "600 test documents",
        "run-0 (reference)",
        "B against A",
        "C against A",
        "R@10/tail",
        "Share of true pairs found",
        "run.seed",
        "right: </span>",
    ):
        assert words in text
    assert text.count('<article class="card example">') == 60
    gain = contrasts[0].comparison.differences["P@1"].difference
    assert f"{100 * gain:+.1f}" in text
    assert "module_one.epochs" not in text
    assert text == comparison_page([contrast(runs[0], run) for run in runs[1:]])
    assert len(text) < 400_000


def test_the_search_box_waits_for_its_script(runs):
    text = comparison_page([contrast(*runs[:2])])
    assert '<div class="search" role="search" hidden>' in text
    assert '<label for="search">' in text
    assert 'role="status"' in text
    assert "hidden" not in re.search(r"<article[^>]*>", text)[0]


def test_intervals_and_bars_are_drawn_of_all_rows(runs):
    found = contrast(*runs[:2])
    text = comparison_page([found])
    rows = len(found.comparison.differences) + len(found.frequency)
    assert text.count('<svg class="interval"') == rows
    assert text.count('<rect class="bar') == 2 * len(found.frequency)
    assert "threshold" not in text.partition("</style>")[2]


def test_texts_of_users_are_escaped(make_dataset, scripted, evaluated, check):
    names = [NASTY, "b"]
    dataset = make_dataset(names, [[0]], [[0], [1]])
    texts = dataset.test.texts.to_list()
    runs = [
        Run(NASTY, evaluated(dataset, scripted(names, dict(zip(texts, said, strict=True)))), of)
        for said, of in ((([NASTY], ["b"]), {"run.x": NASTY}), (([NASTY], [NASTY]), {"run.x": "1"}))
    ]
    text = comparison_page([contrast(*runs)])
    check(text)
    assert "&lt;script&gt;alert" in text


def test_what_is_missing_leaves_no_hole(make_dataset, scripted, evaluated, check):
    """Other training documents, no configuration, equal answers, no label known from training."""
    model = scripted(["a", "b"], {"text of test0": ["a"]})
    runs = [
        Run(name, evaluated(make_dataset(["a", "b"], train, [[0]]), model, ks=ks), {})
        for name, train, ks in (("one", [[1]], (1,)), ("other", [[1], [1]], (1, 100)))
    ]
    text = comparison_page([contrast(*runs)])
    check(text)
    for words in ("none is recorded of one and other", "There is none.", "measured of other only"):
        assert words in text
