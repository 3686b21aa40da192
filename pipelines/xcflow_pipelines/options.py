"""Options that several commands share, and the forms of their answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xcflow.home import DEFAULT, VARIABLE

if TYPE_CHECKING:
    from xcflow.config import Config

DEFAULT_PROFILE = "quick"

HomeOption = Annotated[
    Path | None,
    typer.Option(
        "--home", metavar="DIR", help=f"Folder of all state [default: ${VARIABLE} or {DEFAULT}]."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Answer in JSON, for programs.")]
ProfileOption = Annotated[
    str,
    typer.Option("--profile", metavar="NAME|FILE|URI", help="A shipped profile or a TOML file."),
]
SetOption = Annotated[
    list[str],
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override one value; may be repeated."),
]


def load_config(profile: str, overrides: list[str]) -> Config:
    """The configuration that the options of a command ask for."""
    from xcflow.config import Config

    return Config.load(profile, overrides)


def print_json(value: Mapping[str, Any] | list[Any]) -> None:
    """Answer a program."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
