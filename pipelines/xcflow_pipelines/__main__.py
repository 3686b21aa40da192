"""``python -m xcflow_pipelines`` is ``xcflow``, also where no command is installed."""

from xcflow_pipelines.cli import main

main()
