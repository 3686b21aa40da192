"""Names that the tracking store, the registry and the pipeline share."""

from __future__ import annotations

# Environment: the identity of a pipeline run, by which its tasks find the run in MLflow. On a
# cluster it is Kubeflow's run id.
RUN_KEY_VARIABLE = "XCFLOW_RUN_KEY"

# How a run ends, as MLflow calls it.
RUNNING = "RUNNING"
FINISHED = "FINISHED"
FAILED = "FAILED"
KILLED = "KILLED"

# Verdicts of the gate, and the file of its step that holds one.
VERDICT_FILE = "verdict.json"
PROMOTE = "PROMOTE"
HOLD = "HOLD"
REJECT = "REJECT"

# Aliases of a registered model.
CHAMPION = "champion"
PREVIOUS = "previous"

# Tags of runs.
RUN_KEY = "kfp_run_id"
JOINED = "joined"
STEP = "step"
STEP_KEY = "step_key"
CACHED = "from_cache"
VERDICT = "verdict"
ERROR = "error"
METHOD = "method"
SETTINGS = "settings"
NOT_PROMOTED = "not_promoted"
CATALOGUE = "catalogue"
CATALOGUE_LISTING = "catalogue_listing"
LICENCE = "licence"
KIND = "kind"
REFRESHED_FROM = "refreshed_from"

# What the tag KIND says of a run that refreshed the champion instead of training a model.
REFRESH = "refresh"
# The steps that may have made a run's model.
MODEL_STEPS = ("build_index", "refresh_model")

# Folders and files among a run's artifacts.
EVALUATION_PLACE = "evaluation"
VERDICT_PLACE = "verdict"
TIMES_FILE = "times.csv"
CARD_FILE = "model_card.md"

# Tags of model versions and logged models.
BUNDLE_DIGEST = "bundle_digest"
COMPARED_WITH = "compared_with"
EVALUATION_DIGEST = "evaluation_digest"
CATALOGUE_DIGEST = "catalogue_digest"
TEST_SPLIT = "test_split"
REASON = "reason"

# Tag of a registered model: the run that holds the moves of its champion.
MOVES_RUN = "moves_run"
