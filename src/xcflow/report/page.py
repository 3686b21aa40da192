"""Renders pages from templates with values escaped."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from markupsafe import Markup

SCRIPT = "search.js"


def render(package: str, template: str, **values: Any) -> str:
    """A page from a template of a package; it may extend ``base.html.j2`` of this one.

    Args:
        package: Package whose folder ``templates`` holds the template.
        template: Name of the template.
        values: What the template shows; texts are escaped.
    """
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    shared = PackageLoader("xcflow.report")
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), shared]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = lambda value: f"{value:,}"
    environment.filters["points"] = lambda value: f"{100 * value:.1f}"
    environment.filters["signed_points"] = signed_points
    script = shared.get_source(environment, SCRIPT)[0]
    return environment.get_template(template).render(
        script=Markup(script), policy=_policy(script), **values
    )


def _policy(script: str) -> str:
    """A page loads nothing, and of scripts only the known one runs, whatever a text smuggles in."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def signed_points(value: float) -> str:
    """A difference of metrics between 0 and 1 in points, with a proper minus sign."""
    rounded = round(100 * value, 1) + 0.0  # -0.0 becomes 0.0
    return f"{rounded:+.1f}".replace("-", "\N{MINUS SIGN}")
