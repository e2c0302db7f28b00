"""A cluster on a private Ray of this machine, for experiments: one process to start and to end.

python -m core.cluster.ray_server settings.yaml --port 8001
python -m core.cluster.ray_server settings.yaml --port 8001 --lifecycle ray-multiplexed
"""

from __future__ import annotations

import os
import secrets
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click
import psutil

from ..errors import ResidencyError, SettingsError
from ..system.threads import forward_threads
from .run_folder import run_folder

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GRACE_SECONDS = 5.0
OBJECT_STORE = 80 << 20  # bytes; the least that Ray accepts is 75 MiB, and nothing is stored in it
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing leaves the machine
    "RAY_AUTH_MODE": "token",  # a port of Ray runs code for whoever knows the token
    "RAY_DEDUP_LOGS": "0",
}


@contextmanager
def private_ray(cpus: float, nodes: int) -> Iterator[None]:
    """Run a Ray of our own, with so many cores to give away, and without anything that outlives this process.

    The `nodes` share the cores of this machine, as those of the lifecycle `local` do.
    """
    with run_folder() as folder:
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, forward_threads() // nodes)))
        yield from _ray_in(folder, cpus)


def _ray_in(folder: Path, cpus: float) -> Iterator[None]:
    os.environ.update(ENVIRONMENT)
    os.environ["TMPDIR"] = str(folder)  # for all that nodes and balancer write
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_urlsafe(32))  # Ray would write one to the home directory
    os.environ.pop("RAY_ADDRESS", None)  # which would lead to somebody else's cluster
    import ray

    try:
        ray.init(
            address="local",
            num_cpus=max(1, round(cpus + 0.5)),
            include_dashboard=False,
            object_store_memory=OBJECT_STORE,
            namespace="serve",
            log_to_driver=True,
            logging_level="WARNING",
            _node_ip_address="127.0.0.1",
            _temp_dir=str(folder),
        )
        _end_at_signals()  # again, because Ray has replaced the handlers
        yield
    finally:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)  # who sent it may send it twice
        children = psutil.Process().children(recursive=True)
        with suppress(Exception):
            ray.shutdown()  # at once: Serve's own shutdown takes seconds, and nobody sends requests any more
        for child in psutil.wait_procs(children, GRACE_SECONDS)[1]:
            child.kill()


class Ended(BaseException):
    """The server was asked to end."""


def _end_at_signals() -> None:
    def end(*_: object) -> None:
        raise Ended

    for number in SIGNALS:
        signal.signal(number, end)


def run(config: Path, host: str, port: int, lifecycle: str) -> None:
    """Serve until a signal comes. Raises ResidencyError."""
    from .blueprint import read_blueprint

    blueprint = read_blueprint(config)
    if blueprint.cluster.nodes.min != blueprint.cluster.nodes.max:
        raise SettingsError(f"{config}: cluster.nodes: must be a number here.")
    _end_at_signals()
    nodes = blueprint.cluster.nodes.max
    cpus = (nodes + 1) * blueprint.cluster.resources.num_cpus  # a replacement starts before what it replaces has ended
    with suppress(Ended), private_ray(cpus, nodes):
        from ray import serve

        if lifecycle == "ray":
            from .front import Listen
            from .ray import application

            serve.start(proxy_location="Disabled")
            serve.run(application(blueprint, Listen(host, port)), route_prefix=None, blocking=False)
        else:
            from .ray_multiplexed import multiplexed

            serve.start(proxy_location="HeadOnly", http_options={"host": host, "port": port})
            serve.run(multiplexed(blueprint), route_prefix="/", blocking=False)
        while True:
            signal.pause()


@click.command(help=__doc__)
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(1, 65535), required=True)
@click.option("--lifecycle", type=click.Choice(["ray", "ray-multiplexed"]), default="ray", show_default=True)
def main(**arguments: Any) -> None:
    """Run the command."""
    try:
        run(**arguments)
    except ResidencyError as error:
        sys.exit(f"residency: {error}")


if __name__ == "__main__":
    main()
