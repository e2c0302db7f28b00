"""The names of this package, its command and its app, which differ between a checkout and an installation."""

from __future__ import annotations

PACKAGE = __name__.partition(".")[0]
IS_CHECKOUT = PACKAGE == "core"
COMMAND = "python runner.py" if IS_CHECKOUT else PACKAGE
APP = f"{PACKAGE}.app:app"
CLUSTER, PLACER = f"{PACKAGE}.cluster", f"{PACKAGE}.cluster.placer"
CLUSTER_BUILD = f"{CLUSTER}:build"
CLUSTER_SERVERS = {
    "local": (CLUSTER,),
    "ray": (f"{CLUSTER}.ray_server", "--lifecycle", "ray"),
    "ray-multiplexed": (f"{CLUSTER}.ray_server", "--lifecycle", "ray-multiplexed"),
}
ROUND = f"{PACKAGE}.bench.round"
STRATEGIES = "strategies" if IS_CHECKOUT else f"{PACKAGE}.strategies"
