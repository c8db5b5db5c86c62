"""`wormhole config show`: the configuration in force."""

from __future__ import annotations

from operations.parts import Parts
from policies.edit import effective, render


async def config_show(parts: Parts, args: dict[str, object]) -> dict[str, object]:
    """Return the cluster's configuration, or with ``pod_level`` this pod's, defaults filled in."""
    level = "pod" if args.get("pod_level") is True else "cluster"
    config = parts.pod if level == "pod" else parts.cluster
    return {"level": level, "config": effective(config), "toml": render(config)}
