"""Environment variables that begin like ours: which are settings, and which somebody else's."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from difflib import get_close_matches

from ..errors import SettingsError

PREFIX = "RESIDENCY_"
# `NAME=value`, as Kubernetes tells every container of a Service named `residency` or `residency-…`, and Docker of a
# link: https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
# https://docs.docker.com/engine/network/links/#environment-variables
INJECTED = re.compile(
    r"RESIDENCY_([A-Z0-9_]+_)?"
    r"(SERVICE_HOST=.*|SERVICE_PORT(_\w+)?=\d+|ENV_\w+=.*|PORT=(tcp|udp|sctp)://.*"
    r"|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|ADDR|PORT|(PORT_)?(START|END)))?=.*)"
    r"|RESIDENCY_([A-Z0-9_]+_)?NAME=/.*",  # a link's name is a path; RESIDENCY_MODEL_NAME=a is a mistake
    re.DOTALL,
)


def given() -> set[str]:
    """The names of all variables that are meant for us. An empty variable is as good as none."""
    return {
        name
        for name, value in os.environ.items()
        if name.startswith(PREFIX) and value and not INJECTED.fullmatch(f"{name}={value}")
    }


def check(allowed: Collection[str]) -> None:
    """Raise SettingsError for a variable that begins like ours and is not `allowed`: it may be misspelt."""
    nearest = {name.removeprefix(PREFIX): name for name in allowed}
    for name in sorted(given().difference(allowed)):
        meant = get_close_matches(name.removeprefix(PREFIX), nearest, n=1)
        suggestion = f"did you mean {nearest[meant[0]]}?" if meant else "it is no setting."
        raise SettingsError(
            f"The variable {name} means nothing here; {suggestion} Allowed: {', '.join(sorted(allowed))}."
        )
