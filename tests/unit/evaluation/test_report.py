"""The pages: self-contained, escaped, complete, and deterministic."""

import re

import pytest

from xcflow.config import GateConfig
from xcflow.evaluation.gate import decide
from xcflow.evaluation.report import evaluation_page, gate_page, opponents_of
from xcflow.report.charts import Series, bar_chart, figure, interval, line_chart, nice_ticks
from xcflow.report.page import signed_points

NASTY = '<script>alert("x")</script> & "quoted"'


@pytest.fixture(scope="module")
def models(large_dataset, noisy):
    return [noisy(large_dataset, accuracy, seed) for seed, accuracy in enumerate((0.6, 0.4, 0.2))]


def test_the_evaluation_page_stands_alone_and_names_every_model(
    large_dataset, models, evaluated, read_page
):
    better, worse, poor = models
    baselines = {"baseline_tfidf": poor, "baseline_untrained": poor}
    evaluation = evaluated(large_dataset, better, worse, baselines, ks=(1, 3, 5, 10, 100))
    judgement = decide(evaluation, GateConfig())
    curves = {
        "encoder": {
            "train/loss": [[i, 1 / i] for i in range(1, 2000)],
            "validation/P@1": [[0, 0.2], [1, 0.4]],
            "validation/R@10": [[0, 0.3], [1, 0.5]],
        },
        "classifier": {"validation/P@1": [[0, 0.4]]},
    }
    page = evaluation_page(evaluation, curves, judgement)
    read_page(page)
    for words in (
        "This model, fused",
        "Champion",
        "Label text by words",
        "Untrained encoder",
        "Module I, encoder: loss by steps",
        "Module I, encoder: validation by epochs, in points",
        judgement.verdict,
        f"{100 * evaluation.metrics['models']['fused']['PSP@5']:.1f}",
        "Time to answer",
        "Gain by label frequency",
        "over: Champion",
        "This model against: Champion",
        "before calibration",
        "Siblings in the place of true labels",
        "Documents on which the models disagree",
    ):
        assert words in page
    assert "Module II, classifiers" not in page  # a single point is no curve
    assert page == evaluation_page(evaluation, curves, judgement)
    assert page.count('<article class="card example">') == 40
    assert "auxiliary" not in page.partition("</style>")[2]
    assert len(page) < 400_000


def test_the_encoder_is_shown_with_and_without_its_auxiliary_vectors(
    large_dataset, models, evaluated, read_page
):
    better, _, poor = models
    others = {"encoder": better, "encoder_without_auxiliary": poor}
    evaluation = evaluated(large_dataset, better, baselines=others)
    page = evaluation_page(evaluation)
    read_page(page)
    section = page[page.index("What the auxiliary vectors do") :]
    figures = evaluation.metrics["models"]
    gain = 100 * (figures["encoder"]["P@1"] - figures["encoder_without_auxiliary"]["P@1"])
    assert f">+{gain:.1f}<" in section
    assert "over: Encoder without auxiliary vectors" in section


@pytest.mark.parametrize(
    ("others", "opponents"),
    [
        ({}, []),
        ({"encoder": 1}, ["encoder"]),
        ({"baseline_tfidf": 2, "baseline_untrained": 0}, ["baseline_untrained", "baseline_tfidf"]),
        ({"baseline_tfidf": 2, "encoder": 1, "champion": 2}, ["champion", "baseline_tfidf"]),
    ],
)
def test_the_opponent_is_champion_or_better_baseline_or_encoder(
    large_dataset, models, evaluated, others, opponents
):
    named = {name: models[place] for name, place in others.items()}
    champion = named.pop("champion", None)
    evaluation = evaluated(large_dataset, models[0], champion, named)
    assert opponents_of(evaluation) == opponents
    found = evaluation_page(evaluation).count('<input id="search"')
    assert found == bool(opponents)


def test_texts_are_escaped(make_dataset, scripted, evaluated, read_page):
    names = [NASTY, "b"]
    dataset = make_dataset(names, [[0]], [[0], [1]])
    texts = dataset.test.texts.to_list()
    said = scripted(names, dict.fromkeys(texts, names))
    silent = scripted(names, {text: [] for text in texts})
    page = evaluation_page(evaluated(dataset, said, baselines={"baseline_tfidf": silent}))
    read_page(page)
    assert "&lt;script&gt;alert" in page


@pytest.mark.parametrize("ks", [(1,), (7,), (2, 50), (1, 3, 5, 10, 100)])
def test_any_depths_and_a_model_alone_make_a_page(make_dataset, scripted, evaluated, ks, read_page):
    dataset = make_dataset(["a", "b"], [[0]], [[0], [1]])
    model = scripted(["a", "b"], {t: [] for t in dataset.test.texts.to_list()})
    read_page(evaluation_page(evaluated(dataset, model, ks=ks)))


def test_the_gate_page_shows_every_question(large_dataset, models, evaluated, read_page):
    better, worse, poor = models
    baselines = {"baseline_tfidf": poor, "baseline_untrained": poor}
    judgement = decide(evaluated(large_dataset, worse, better, baselines), GateConfig())
    page = gate_page(judgement)
    read_page(page)
    assert judgement.verdict == "REJECT"
    compared = [question for question in judgement.checks if question.difference]
    assert page.count('<svg class="interval"') == len(compared) == 15
    for question in judgement.checks:
        assert question.difference or question.words in page
    for title in ("Against the champion", "Against the untrained encoder", "Budgets"):
        assert title in page
    for reason in judgement.reasons:
        assert reason in page


def test_the_gate_page_without_any_figure(large_dataset, models, evaluated, read_page):
    evaluation = evaluated(large_dataset, models[0], models[1], digests=("same", "same"))
    page = gate_page(decide(evaluation, GateConfig()))
    read_page(page)
    assert "The candidate is the champion already." in page


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0, 0), (0.31, 0.33), (-5, 5), (0, 1e-9), (3, 3), (0, 123456), (7, 9)]
)
def test_ticks_enclose_the_values_and_are_few(low, high):
    ticks = nice_ticks(low, high)
    assert ticks[0] <= low
    assert ticks[-1] >= high
    assert 2 <= len(ticks) <= 7
    assert ticks == sorted(set(ticks))


def test_charts_take_missing_single_and_equal_values():
    line = line_chart(
        [Series("a<b", "s1", [0, 1, 2], [float("nan"), 2.0, 2.0]), Series("c", "s2", [1], [2.0])],
        x_ticks=[(0, "0"), (2, "2")],
    )
    assert "a&lt;b" in line
    assert "nan" not in line
    bars = bar_chart(["x"], [Series("a", "s1", [0], [float("nan")]), Series("b", "s2", [0], [0.0])])
    assert "nan" not in bars
    assert line_chart([], x_ticks=[(0, "")])
    assert bar_chart([], [])


def test_error_bars_stand_around_their_values_and_stay_on_the_chart():
    chart = line_chart(
        [
            Series("a", "s1", [0, 1, 2], [10.0, 20.0, float("nan")], [5.0, 0.0, 1.0]),
            Series("b", "s2", [0], [30.0]),
        ],
        x_ticks=[],
    )
    bars = re.findall(
        r'<line class="error s1" x1="([^"]*)" y1="([^"]*)" x2="\1" y2="([^"]*)"', chart
    )
    assert len(bars) == 1
    low, high = float(bars[0][1]), float(bars[0][2])
    dot = float(re.search(r'class="dot s1" cx="[^"]*" cy="([^"]*)"', chart)[1])
    assert dot == pytest.approx((low + high) / 2, abs=0.1)
    assert 10 <= high < dot < low <= 214


def test_long_curves_are_thinned():
    points = list(range(10_000))
    chart = line_chart([Series("loss", "s1", points, points)], x_ticks=[])
    path = re.search(r'points="([^"]*)"', chart)[1].split()
    assert len(path) <= 400


def test_an_interval_stays_inside_its_axis():
    marks = [float(x) for x in re.findall(r'(?:x1|x2|cx)="([^"]*)"', interval(-9, 0.1, 9, 0.0, 1))]
    assert min(marks) >= 4
    assert max(marks) <= 176


def test_an_interval_without_a_threshold_has_no_line_for_it():
    assert "threshold" not in interval(-1, 0.1, 1, None, 1)
    assert "threshold" in interval(-1, 0.1, 1, 0.0, 1)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.12345, "0.1235"), (41.7, "41.7"), (1e6, "1e+06"), (12345.6, "12,346")],
)
def test_figures_are_readable(value, text):
    assert figure(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.0314, "+3.1"), (-0.0314, "−3.1"), (-0.0001, "+0.0"), (0.0, "+0.0")]
)
def test_differences_carry_their_sign_but_no_negative_zero(value, text):
    assert signed_points(value) == text
