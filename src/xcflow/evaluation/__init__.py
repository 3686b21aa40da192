"""How good a model is: metrics, baselines, paired comparison, the gate, the report."""
