"""The pipelines, and the `xcflow` command."""
