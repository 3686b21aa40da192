"""The pipelines on a cluster: compiled, uploaded, started, scheduled, watched and cancelled."""
