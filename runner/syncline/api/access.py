"""What endpoints ask of a caller: the roles as dependencies, what needs an admin, and the request's id."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from syncline.api.auth import Caller, require
from syncline.api.problems import Problem

Viewer = Annotated[Caller, Depends(require("viewer"))]
Operator = Annotated[Caller, Depends(require("operator"))]
Admin = Annotated[Caller, Depends(require("admin"))]

ADMIN_OPTIONS = ("force_overwrite", "allow_mass_delete")
"""What sets a guard aside."""


async def _request_id(request: Request) -> str:
    found: str = request.state.request_id
    return found


RequestId = Annotated[str, Depends(_request_id)]


def check_admin(caller: Caller, *wanted: str) -> None:
    """Raise a problem 403 where anything of what is wanted needs an admin, and the caller is none."""
    needed = [name for name in wanted if name in ADMIN_OPTIONS]
    if needed and caller.role != "admin":
        raise Problem(
            403,
            "forbidden",
            f"{' and '.join(needed)} {'needs' if len(needed) == 1 else 'need'} the role admin; "
            f"this token's is {caller.role}",
            "Use an admin's token, or leave that out.",
        )
