"""`learning_rate: auto`: a share of the base's training rate, or a short seeded ladder.

Published rates are for 7-B models; blind defaults that destroy or do nothing are the first
complaint of this field's users.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

LADDER = (3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3)
PROBE_STEPS = 6
WITHOUT_ANYTHING = 1e-5


def from_manifest(manifest: Mapping[str, Any] | None, share: float) -> tuple[float, str] | None:
    """The share of the rate that the base was trained with, where its manifest knows it."""
    rate = (manifest or {}).get("learning_rate")
    if not rate:
        return None
    return share * float(rate), f"auto: {share:g} of the base's training rate {float(rate):g}"


def ladder(try_rate: Callable[[float], float], before: float) -> tuple[float, str]:
    """The largest rate of LADDER after whose probe steps the retain NLL is still near `before`.

    try_rate: rate -> retain NLL after PROBE_STEPS steps from the origin (nats per token).
    """
    allowed = before + max(0.05 * before, 0.05)
    best = LADDER[0]
    for rate in LADDER:
        after = try_rate(rate)
        if not after <= allowed:
            break
        best = rate
    return best, (
        f"auto: the largest rate that kept the retain NLL at or below {allowed:.3g} nats over {PROBE_STEPS} probe steps"
    )
