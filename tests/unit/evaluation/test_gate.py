"""The gate with two different models in both orders, at its edges, and its thresholds file."""

import dataclasses
import json
import re

import pytest

from xcflow.artifact import writing
from xcflow.config import Config, GateConfig, default_gate
from xcflow.errors import ArtifactError, ConfigError, GateError
from xcflow.evaluation.gate import decide
from xcflow.evaluation.verdict import KIND, VERDICT, Judgement

GATE = GateConfig(secondary=("P@5", "PSP@5", "R@100"), margin=0.02)


@pytest.fixture(scope="module")
def good(large_dataset, noisy):
    return noisy(large_dataset, 0.6, seed=1)


@pytest.fixture(scope="module")
def bad(large_dataset, noisy):
    return noisy(large_dataset, 0.4, seed=2)


@pytest.fixture(scope="module")
def baselines(large_dataset, noisy):
    return {
        "baseline_tfidf": noisy(large_dataset, 0.1, seed=3),
        "baseline_untrained": noisy(large_dataset, 0.2, seed=4),
    }


def test_the_better_of_two_models_is_promoted_and_the_worse_rejected(
    large_dataset, good, bad, baselines, evaluated
):
    upwards = decide(evaluated(large_dataset, good, bad, baselines), GATE)
    downwards = decide(evaluated(large_dataset, bad, good, baselines), GATE)
    assert upwards.verdict == "PROMOTE"
    assert downwards.verdict == "REJECT"
    assert any("a significant rise" in reason for reason in upwards.reasons)
    assert any("P@1" in r and "below the champion" in r for r in downwards.reasons)
    assert upwards.champion == "digest of champion"
    assert all(check.outcome == "yes" for check in upwards.checks)


def test_an_experiment_is_held_where_it_would_be_promoted(
    large_dataset, good, bad, baselines, evaluated
):
    experiment = dataclasses.replace(GATE, promote=False)
    judgement = decide(evaluated(large_dataset, good, bad, baselines), experiment)
    assert judgement.verdict == "HOLD"
    assert judgement.reasons == ("It was trained for an experiment: gate.promote is off.",)
    downwards = decide(evaluated(large_dataset, bad, good, baselines), experiment)
    assert downwards.verdict == "REJECT"


def test_models_of_equal_quality_are_held(large_dataset, noisy, good, baselines, evaluated):
    twin = noisy(large_dataset, 0.6, seed=9)
    strict = dataclasses.replace(GATE, alpha=0.001)
    judgement = decide(evaluated(large_dataset, twin, good, baselines), strict)
    assert judgement.verdict == "HOLD"
    assert "too close to call" in judgement.reasons[0]


def test_the_same_answers_under_another_name_are_held(large_dataset, good, baselines, evaluated):
    judgement = decide(evaluated(large_dataset, good, good, baselines), GATE)
    assert judgement.verdict == "HOLD"


def test_the_champion_itself_is_held_whatever_it_scores(large_dataset, good, bad, evaluated):
    evaluation = evaluated(large_dataset, good, bad, digests=("one", "one"))
    judgement = decide(evaluation, GATE)
    assert judgement.verdict == "HOLD"
    assert judgement.reasons == ("The candidate is the champion already.",)


def test_the_first_model_must_beat_both_baselines(large_dataset, good, bad, baselines, evaluated):
    first = decide(evaluated(large_dataset, good, None, baselines), GATE)
    assert first.verdict == "PROMOTE"
    assert first.champion == ""
    assert {check.against for check in first.checks if check.difference} == set(baselines)
    one_is_better = baselines | {"baseline_untrained": good}
    poor = decide(evaluated(large_dataset, bad, None, one_is_better), GATE)
    assert poor.verdict == "REJECT"
    assert all("the untrained encoder" in reason for reason in poor.reasons)


def test_a_champion_does_not_lift_the_floors(large_dataset, noisy, good, bad, evaluated):
    strong = {
        name: noisy(large_dataset, 0.9, 5) for name in ("baseline_tfidf", "baseline_untrained")
    }
    judgement = decide(evaluated(large_dataset, good, bad, strong), GATE)
    assert judgement.verdict == "REJECT"
    assert not any("champion" in reason for reason in judgement.reasons)


def test_a_gain_at_the_top_does_not_pay_for_a_loss_below(
    large_dataset, scripted, good, baselines, evaluated
):
    names = large_dataset.labels.ids.to_list()
    truth = [
        [names[row] for row in large_dataset.test.labels[i]] for i in range(len(large_dataset.test))
    ]
    texts = large_dataset.test.texts.to_list()
    top_only = scripted(names, {text: true[:1] for text, true in zip(texts, truth, strict=True)})
    both = scripted(
        names,
        {
            text: [*([true[0]] if i % 3 else []), *true[1:]]
            for i, (text, true) in enumerate(zip(texts, truth, strict=True))
        },
    )
    judgement = decide(evaluated(large_dataset, top_only, both, baselines), GATE)
    assert judgement.verdict == "REJECT"
    primary = next(c for c in judgement.checks if c.against == "champion" and c.metric == "P@1")
    assert primary.outcome == "yes"
    assert any("a fall beyond the margin of 2.0" in reason for reason in judgement.reasons)


@pytest.fixture(scope="module")
def sliced(make_dataset):
    """400 test documents with a label of the head each; in the first few it is one of the tail."""

    def make(tail):
        names = ["head", "wrong", *(f"t{i}" for i in range(30))]
        train = [[0]] * 30 + [[2 + i] for i in range(30)]
        test = [[2 + i % 30] if i < tail else [0] for i in range(400)]
        return make_dataset(names, train, test), names

    return make


def test_a_gain_at_the_head_does_not_pay_for_a_loss_in_the_tail(sliced, scripted, evaluated):
    dataset, names = sliced(tail=60)
    texts = dataset.test.texts.to_list()
    weak = {
        name: scripted(names, {text: ["wrong"] for text in texts})
        for name in ("baseline_tfidf", "baseline_untrained")
    }
    new = scripted(names, {t: ["head"] for t in texts})
    right = {t: [names[dataset.test.labels[i][0]]] for i, t in enumerate(texts)}
    old = scripted(names, right | {text: ["wrong"] for text in texts[60:200]})
    evaluation = evaluated(dataset, new, old, weak)
    only_head = dataclasses.replace(GATE, slice_metric="", secondary=())
    assert decide(evaluation, only_head).verdict == "PROMOTE"
    judgement = decide(evaluation, dataclasses.replace(GATE, secondary=()))
    assert judgement.verdict == "REJECT"
    assert len(judgement.reasons) == 1
    assert judgement.reasons[0].startswith("R@10/tail is 0.0, 100.0 below the champion")


def test_a_small_slice_only_speaks_when_it_fell_for_certain(sliced, scripted, evaluated):
    dataset, names = sliced(tail=20)
    texts = dataset.test.texts.to_list()
    right = {t: [names[dataset.test.labels[i][0]]] for i, t in enumerate(texts)}
    missed = {name: scripted(names, {t: [] for t in texts}) for name in ("baseline_tfidf",)}
    missed["baseline_untrained"] = missed["baseline_tfidf"]
    # One more hit and one less among 20 documents of the tail; a real rise at the head.
    new = scripted(names, right | {texts[0]: []})
    old = scripted(names, right | {t: [] for t in [texts[1], *texts[20:100]]})
    evaluation = evaluated(dataset, new, old, missed)
    judgement = decide(evaluation, GATE)
    assert judgement.verdict == "PROMOTE"
    (tail,) = [c for c in judgement.checks if c.metric == "R@10/tail"]
    assert "no certain fall, in 20 documents only" in tail.words
    assert tail.difference.low < -GATE.slice_margin
    strict = decide(evaluation, dataclasses.replace(GATE, slice_documents=20))
    assert strict.verdict == "HOLD"
    assert "perhaps a fall beyond the margin of 2.0" in strict.reasons[0]


def test_new_labels_are_no_merit_over_the_champion(make_dataset, scripted, evaluated):
    """Equal models, of which one was trained when the catalogue had a label less."""
    dataset = make_dataset(["a", "b"], [[0], [1]], [[0]] * 300 + [[1]] * 100)
    texts = dataset.test.texts.to_list()
    new = scripted(["a", "b"], {t: ["a"] if i < 300 else ["b"] for i, t in enumerate(texts)})
    old = scripted(["a"], {t: ["a"] for t in texts})
    nothing = scripted(["a", "b"], {t: [] for t in texts})
    weak = {"baseline_tfidf": nothing, "baseline_untrained": nothing}
    judgement = decide(evaluated(dataset, new, old, weak), GATE)
    assert judgement.verdict == "HOLD"
    assert "0.0 above the champion (100.0): too close to call" in judgement.reasons[0]
    assert any("compared on the 1 that both know, in 300 documents" in n for n in judgement.notes)
    alone = "1 label is known to the candidate alone; of their 100 test pairs it finds 100.0%"
    assert any(alone in note for note in judgement.notes)


@pytest.mark.parametrize(
    ("budget", "facts", "words"),
    [
        ({"max_latency_ms": 1e-6}, {}, "answered within"),
        ({"max_latency_ratio": 1e-6}, {}, "times as long as with the champion"),
        ({"max_bundle_mb": 1.0}, {}, "The bundle has 3 MB, beyond the budget of 1 MB."),
        ({"max_memory_mb": 1.0}, {}, "beyond the budget of 1 MB"),
        ({}, {"index_recall": {"labels": 0.5}}, "The index of labels finds 50.0%"),
    ],
)
def test_a_better_model_beyond_a_budget_is_rejected(
    large_dataset, good, bad, baselines, evaluated, budget, facts, words
):
    evaluation = evaluated(large_dataset, good, bad, baselines, facts=facts)
    judgement = decide(evaluation, dataclasses.replace(GATE, **budget))
    assert judgement.verdict == "REJECT"
    (reason,) = judgement.reasons
    assert words in reason
    generous = dict.fromkeys(budget, 1000000000.0) or {"min_index_recall": 0.5}
    assert decide(evaluation, dataclasses.replace(GATE, **generous)).verdict == "PROMOTE"


def test_a_latency_that_was_not_measured_holds(large_dataset, good, bad, baselines, evaluated):
    evaluation = evaluated(large_dataset, good, bad, baselines, latency_texts=0)
    judgement = decide(evaluation, GATE)
    assert judgement.verdict == "HOLD"
    assert "evaluation.latency_texts is 0" in judgement.reasons[0]
    unasked = dataclasses.replace(GATE, max_latency_ms=0.0)
    assert decide(evaluation, unasked).verdict == "PROMOTE"


def test_data_in_doubt_hold_a_better_model(large_dataset, good, bad, baselines, evaluated):
    warned = {"status": "warning", "sentence": "Empty texts: 7 of 400 documents (1.75%)"}
    noted = {"status": "noted", "sentence": "Cold labels: 3 of 40 labels (7.5%)"}
    meta = {"status": "warning", "findings": [noted, warned]}
    manifest = dataclasses.replace(large_dataset.manifest, meta=meta)
    dataset = dataclasses.replace(large_dataset, manifest=manifest)
    evaluation = evaluated(dataset, good, bad, baselines)
    judgement = decide(evaluation, GATE)
    assert judgement.verdict == "PROMOTE"
    assert f"The data report warns: {warned['sentence']}." in judgement.notes
    strict = decide(evaluation, dataclasses.replace(GATE, max_data_status="noted"))
    assert strict.verdict == "HOLD"
    assert strict.reasons == (f"The data report has to be looked at first: {warned['sentence']}.",)
    strictest = decide(evaluation, dataclasses.replace(GATE, max_data_status="passed"))
    assert noted["sentence"] in strictest.reasons[0]


def test_the_verdict_names_the_rise_that_would_have_been_seen(
    large_dataset, noisy, good, baselines, evaluated
):
    twin = noisy(large_dataset, 0.6, seed=9)
    judgement = decide(evaluated(large_dataset, twin, good, baselines), GATE)
    (note,) = judgement.notes
    named = re.search(r"a real rise of P@1 by ([0-9.]+) points over the champion is seen 80%", note)
    # Two independent models of .6: the difference deviates by sqrt(2 * .6 * .4 / 600) = .0283,
    # times 1.645 + .842.
    assert float(named[1]) == pytest.approx(7.0, abs=0.5)


def test_a_verdict_is_acted_on_only_with_the_evaluation_it_is_about(
    large_dataset, good, bad, baselines, evaluated, tmp_path
):
    one = evaluated(large_dataset, good, bad, baselines)
    other = evaluated(large_dataset, bad, good, baselines)
    with writing(tmp_path / "verdict", KIND) as folder:
        (folder / VERDICT).write_text(decide(one, GATE).to_json())
    assert Judgement.open_with_evaluation(tmp_path / "verdict", one.path).verdict == "PROMOTE"
    with pytest.raises(GateError, match="the verdict is about the evaluation"):
        Judgement.open_with_evaluation(tmp_path / "verdict", other.path)
    path = tmp_path / "verdict" / VERDICT
    path.write_text(path.read_text().replace("PROMOTE", "HOLD"))
    with pytest.raises(ArtifactError, match="altered"):
        Judgement.open_with_evaluation(tmp_path / "verdict", one.path)


def test_few_documents_are_never_enough(make_dataset, scripted, evaluated):
    names = ["a", "b"]
    dataset = make_dataset(names, [[0], [1]], [[0]] * 10)
    texts = dataset.test.texts.to_list()
    right, wrong = (scripted(names, {text: [x] for text in texts}) for x in names)
    weak = {"baseline_tfidf": wrong, "baseline_untrained": wrong}
    judgement = decide(evaluated(dataset, right, wrong, weak), GATE)
    assert judgement.verdict == "HOLD"
    assert "10 test documents" in judgement.reasons[0]
    lenient = dataclasses.replace(GATE, minimum_documents=10)
    assert decide(evaluated(dataset, right, wrong, weak), lenient).verdict == "PROMOTE"


def test_where_every_model_is_right_a_first_one_can_still_be_promoted(
    make_dataset, scripted, evaluated
):
    dataset = make_dataset(["only"], [[0]], [[0]] * 120)
    model = scripted(["only"], {text: ["only"] for text in dataset.test.texts.to_list()})
    baselines = {"baseline_tfidf": model, "baseline_untrained": model}
    assert decide(evaluated(dataset, model, None, baselines), GATE).verdict == "PROMOTE"
    assert decide(evaluated(dataset, model, model, baselines), GATE).verdict == "HOLD"


def test_a_lift_can_be_asked_for(large_dataset, good, bad, baselines, evaluated):
    evaluation = evaluated(large_dataset, good, bad, baselines)
    judgement = decide(evaluation, dataclasses.replace(GATE, lift=0.3))
    assert judgement.verdict == "HOLD"
    assert "not certainly more than 30.0" in judgement.reasons[0]


def test_a_slice_can_be_guarded_and_an_absent_one_holds(
    large_dataset, good, bad, baselines, evaluated
):
    evaluation = evaluated(large_dataset, good, bad, baselines)
    guarded = dataclasses.replace(GATE, secondary=("R@5/tail",))
    assert decide(evaluation, guarded).verdict == "PROMOTE"
    absent = decide(evaluation, dataclasses.replace(GATE, secondary=("R@5/cold",)))
    assert absent.verdict == "HOLD"
    assert "no test document has a label of this slice" in absent.reasons[0]


def test_the_verdict_is_a_function_of_its_inputs(large_dataset, good, bad, baselines, evaluated):
    evaluation = evaluated(large_dataset, good, bad, baselines)
    assert decide(evaluation, GATE) == decide(evaluation, GATE)


def test_the_verdict_survives_its_file(large_dataset, good, bad, baselines, evaluated, tmp_path):
    judgement = decide(evaluated(large_dataset, good, bad, baselines), GATE)
    with writing(tmp_path / "verdict", KIND) as folder:
        (folder / VERDICT).write_text(judgement.to_json())
    assert Judgement.open(tmp_path / "verdict") == judgement
    tree = json.loads((tmp_path / "verdict" / VERDICT).read_text())
    assert tree["verdict"] == "PROMOTE"
    assert isinstance(tree["reasons"], list)


def test_a_metric_that_was_not_measured_is_one_clear_line(large_dataset, good, evaluated):
    evaluation = evaluated(large_dataset, good, good, ks=(1, 5))
    with pytest.raises(ArtifactError, match="k 100 was not measured"):
        decide(evaluation, GATE)


def test_the_shipped_thresholds_name_every_key_and_are_the_defaults():
    assert default_gate() == GateConfig()
    import tomllib
    from pathlib import Path

    shipped = tomllib.loads((Path(__file__).parents[3] / "mlflow" / "gate.toml").read_text())
    assert set(shipped) == {field.name for field in dataclasses.fields(GateConfig)}


def test_a_profile_overrides_single_thresholds(tmp_path):
    profile = tmp_path / "mine.toml"
    profile.write_text("[gate]\nmargin = 0.01\n")
    config = Config.load(profile, ["gate.alpha=0.1"])
    assert config.gate == dataclasses.replace(default_gate(), margin=0.01, alpha=0.1)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("gate.primary='P@l'", "'P@l' is no metric"),
        ("gate.secondary=['nDCG@5/tail']", "is no metric"),
        ("gate.primary='P@7'", "evaluation.ks must hold 7"),
        ("gate.margn=0.1", "did you mean gate.margin"),
        ("gate.alpha=0.5", "gate.alpha must be in"),
        ("gate.slice_metric='P@1'", "gate.slice_metric must be a recall such as R@10"),
        ("gate.slice_metric='R@7'", "evaluation.ks must hold 7"),
        ("gate.max_latency_ms=-1.0", "gate.max_latency_ms must be at least 0"),
        ("gate.max_data_status=failed", "max_data_status"),
    ],
)
def test_wrong_thresholds_are_refused_before_a_run_starts(tmp_path, override, message):
    profile = tmp_path / "mine.toml"
    profile.write_text("")
    with pytest.raises(ConfigError, match=message):
        Config.load(profile, [override])
