"""What every benchmark prints: figures, the ratio that counts, and what was to be reached."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from statistics import median, quantiles


def percentile(values: Sequence[float], percent: int) -> float:
    """The percentile of at least two values."""
    return quantiles(values, n=100, method="inclusive")[percent - 1]


def summary_ms(seconds: Sequence[float]) -> dict[str, float]:
    """Median and 99th percentile, in milliseconds."""
    return {"medianMs": round(median(seconds) * 1_000, 3), "p99Ms": round(percentile(seconds, 99) * 1_000, 3)}


def show(name: str, figures: Mapping[str, object], *, reach: str, reached: bool) -> None:
    """Print as text, or as one JSON line with `--json`."""
    if "--json" in sys.argv:
        print(json.dumps({"benchmark": name, "reach": reach, "reached": reached} | dict(figures)))
        return
    print(f"{name}: {'reached' if reached else 'NOT REACHED'} ({reach})")
    for key, value in figures.items():
        print(f"  {key}: {value}")
