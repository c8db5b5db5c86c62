"""`wormhole invite`: a one-time join code."""

from __future__ import annotations

from mesh.api import Role
from operations.finding import number_argument
from operations.parts import Parts


async def invite(parts: Parts, args: dict[str, object]) -> dict[str, object]:
    """Issue a code that this pod will redeem."""
    made = await parts.admissions.invite(
        uses=int(number_argument(args, "uses", 1)),
        expires_s=number_argument(args, "expires_s", 600.0),
        role=Role.CLIENT if args.get("client") is True else Role.FULL,
    )
    return {"code": made.code, "expires": made.expires, "uses": made.uses, "role": made.role.value}
