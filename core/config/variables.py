"""Environment variables with our prefix: which are settings, and which others have injected."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from difflib import get_close_matches

from ..errors import SettingsError

PREFIX = "RESIDENCY_"
# The form `NAME=value` of the variables that Kubernetes sets in every container for a Service named `residency` or
# `residency-…`, and Docker for a link:
# https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
# https://docs.docker.com/engine/network/links/#environment-variables
INJECTED = re.compile(
    r"RESIDENCY_([A-Z0-9_]+_)?"
    r"(SERVICE_HOST=.*|SERVICE_PORT(_\w+)?=\d+|ENV_\w+=.*|PORT=(tcp|udp|sctp)://.*"
    r"|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|ADDR|PORT|(PORT_)?(START|END)))?=.*)"
    r"|RESIDENCY_([A-Z0-9_]+_)?NAME=/.*",  # a link's name is a path; RESIDENCY_MODEL_NAME=a is a user's mistake
    re.DOTALL,
)


def residency_variables() -> set[str]:
    """The names of all variables with our prefix that are set and not injected. An empty one counts as unset."""
    return {
        name
        for name, value in os.environ.items()
        if name.startswith(PREFIX) and value and not INJECTED.fullmatch(f"{name}={value}")
    }


def check(allowed: Collection[str]) -> None:
    """Raise SettingsError for a variable with our prefix that is not `allowed`: it may be misspelt."""
    full_names = {name.removeprefix(PREFIX): name for name in allowed}
    for name in sorted(residency_variables().difference(allowed)):
        similar = get_close_matches(name.removeprefix(PREFIX), full_names, n=1)
        suggestion = f"did you mean {full_names[similar[0]]}? " if similar else ""
        raise SettingsError(f"The variable {name} is not a setting; {suggestion}allowed: {', '.join(sorted(allowed))}.")
