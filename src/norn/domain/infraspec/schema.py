"""The JSON Schema of infraspec.yaml, for editors and for scripts."""

from __future__ import annotations

from typing import Any

from norn.domain.infraspec.fields import ROOT


def infraspec_schema() -> dict[str, Any]:
    """JSON Schema, draft 2020-12. What several keys say together is checked by `norn validate` alone."""
    webserver = {"properties": {"role": {"const": "webserver"}}}
    worker_has_no = {"not": {"anyOf": [{"required": [key]} for key in ("port", "healthcheck", "hosts")]}}
    return (
        {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "infraspec.yaml",
            "description": "What an app needs, and how it is built, run and brought back.",
        }
        | ROOT.schema()
        | {"if": webserver, "then": {"required": ["port"]}, "else": worker_has_no}
    )
