"""Engines from their start to their end, good and bad; nothing of them outlives whoever started them."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Semaphore
from typing import Any
from urllib.request import Request, urlopen

import psutil
import pytest

from core.config.engines import EngineChoice
from core.errors import EngineFailed, LoadFailed
from core.loaders.run import loader as loading
from core.loaders.run import ports
from core.loaders.run import process as ending
from core.loaders.run.guarded import Guarded
from core.loaders.run.loader import EngineLoader
from core.loaders.run.ports import free_port, listeners
from core.loaders.run.process import EngineProcess
from core.residency.decisions import Decisions
from core.residency.host import Host
from core.residency.keeper import Keeper
from core.residency.versions import Versions
from strategies.keep_alive import KeepAlive
from tests.helpers.engines import FAKE_ENGINE, engine
from tests.helpers.support import ROOT, SECONDS, ids, in_threads, start, wait_for

MIB = 1 << 20


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is learned in one test is not known in another."""
    monkeypatch.setenv("RESIDENCY_CACHE", str(tmp_path / "cache"))


def fake(*flags: str, **settings: Any) -> EngineChoice:
    return EngineChoice.model_validate(engine(*flags, **settings))


@pytest.fixture
def loader() -> Iterator[EngineLoader]:
    """A loader, of whose engines nothing may be left."""
    before = set(psutil.Process().children(recursive=True))
    yield EngineLoader()
    wait_for(lambda: set(psutil.Process().children(recursive=True)) <= before)


def ask(engine: EngineProcess, path: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(f"{engine.url}{path}", data), timeout=SECONDS) as response:
        return json.load(response)


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until_gone(*pids: int) -> None:
    wait_for(lambda: not any(map(is_alive, pids)))


def test_slow_and_503_while_loading(loader: EngineLoader, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "residency")
    choice = fake("--slow 0.1", "--loading 0.2", "--size 30", "--say", "'a \x1b[31mred\x1b[0m word'")
    engine = loader.load("chat", choice)
    try:
        assert ask(engine, "/health") == {"status": "ok"}
        assert sum(engine.phases.values()) > 0.3
        assert 30 * MIB < engine.nbytes < 90 * MIB
        assert not engine.has_ended()
        assert "chat: a  [31mred [0m word" in caplog.messages
    finally:
        engine.close()
    assert engine.has_ended()
    assert engine.pids == []
    engine.close()
    assert engine.measure() == engine.nbytes > 0


def test_never_ready(loader: EngineLoader) -> None:
    with pytest.raises(EngineFailed, match=r"was not ready within 0.8 s: it answered 503, not 200, .*raise 'within'"):
        loader.load("chat", fake("--never", "--fork", within=0.8))
    with pytest.raises(EngineFailed, match="it does not listen on its port"):
        loader.load("chat", fake("--silent-port", within=0.5))


def test_an_end_before_it_is_ready_is_said_at_once(loader: EngineLoader, tmp_path: Path) -> None:
    with pytest.raises(EngineFailed, match=r"ended with status 3 .*its last line was: fake engine: the model cannot"):
        loader.load("chat", fake("--fail 3", within=SECONDS))
    killed = EngineChoice(run=f"{sys.executable} -c 'import os; os.kill(os.getpid(), 9)' ${{port}}")
    with pytest.raises(EngineFailed, match="was ended by signal 9 before it was ready"):
        loader.load("chat", killed)
    script = tmp_path / "script"
    script.write_bytes(b"\x7fnot a program")
    script.chmod(0o755)
    with pytest.raises(EngineFailed, match="could not be started: Exec format error"):
        loader.load("chat", EngineChoice(run=f"{script} ${{port}}"))


@pytest.mark.parametrize(
    ("run", "says"),
    [
        (f"{sys.executable} -c \"print('${{SECRET}}'); exit(3)\" ${{port}}", "ended with status 3"),
        (f"{sys.executable} -c \"print('${{SECRET}}'); exit(0)\" ${{port}}", "must stay in the foreground"),
        (f"{sys.executable} -c \"print('${{SECRET}}', flush=True); input_()\" ${{port}}", "ended with status 1"),
        ("${SECRET} ${port}", "not installed"),
        (f"{sys.executable} ${{UNSET_SECRET}} ${{port}}", "a variable that is not set"),
    ],
)
def test_callers_see_nothing_of_a_command_that_fails(loader: EngineLoader, run: str, says: str) -> None:
    """Neither of its words, nor of its environment, nor of its output, which may hold both."""
    choice = EngineChoice(run=run, environment={"SECRET": "hunter2"})
    with pytest.raises(EngineFailed) as caught:
        loader.load("chat", choice)
    told = Versions({"chat": choice}).redact("chat", caught.value)
    assert says in told
    assert "hunter2" not in told
    assert "SECRET" not in told


def test_a_fixed_port_is_waited_for_while_an_engine_of_ours_has_it(loader: EngineLoader) -> None:
    """As of one that is replaced by one with other settings, and still answers its last request."""
    port = free_port()
    choices = [fake(port=port, within=within) for within in (SECONDS, 0.2)]
    first = loader.load("chat", choices[0])
    with pytest.raises(EngineFailed, match=rf"another engine of this server has had the port {port} for 0.2 s"):
        loader.load("other", choices[1])
    with ThreadPoolExecutor() as pool:
        loading = pool.submit(loader.load, "chat", choices[0])
        first.close()
        second = loading.result(SECONDS)
    os.kill(ask(second, "/pids")[0], signal.SIGKILL)
    third = loader.load("chat", choices[0])  # nor does one that has crashed keep it
    second.close()
    third.close()


def test_a_grandchild_and_a_deaf_child_end(loader: EngineLoader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "GRACE", 0.2)
    engine = loader.load("chat", fake("--fork", "--stubborn"))
    pids = ask(engine, "/pids")
    assert {*pids} < {*engine.pids}
    engine.close()
    assert not any(map(is_alive, pids))


def test_a_grandchild_ends_with_a_child_that_crashes(loader: EngineLoader) -> None:
    engine = loader.load("chat", fake("--fork"))
    child, grandchild = ask(engine, "/pids")
    os.kill(child, signal.SIGKILL)
    wait_until_gone(child, grandchild)
    wait_for(engine.has_ended)
    engine.close()


def test_a_killed_guardian_takes_its_engine_with_it(loader: EngineLoader) -> None:
    engine = loader.load("chat", fake())
    guardian, child = engine.pids
    os.kill(guardian, signal.SIGKILL)
    wait_until_gone(guardian, child)
    wait_for(engine.has_ended)
    engine.close()


def test_signals_for_the_server_do_not_reach_its_engines(loader: EngineLoader) -> None:
    """Ctrl-C, and the SIGTERM that a service manager sends to all: the server ends its engines in order."""
    engine = loader.load("chat", fake("--stubborn"))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(engine.pids[0], number)
    assert ask(engine, "/health") == {"status": "ok"}
    os.kill(ask(engine, "/pids")[0], signal.SIGKILL)
    engine.close()


def test_output_never_holds_up_an_engine(loader: EngineLoader, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "residency")
    script = f"import sys; print('x' * 300_000); print('y\\n' * 30_000); sys.argv[:] = sys.argv[1:]; \
exec(open('{FAKE_ENGINE}').read())"
    command = f'{sys.executable} -c "{script}" fake --port ${{port}}'
    engine = loader.load("chat", EngineChoice(run=command, within=SECONDS))
    engine.close()
    said = [message for message in caplog.messages if message.startswith("chat: ")]
    assert max(map(len, said)) < 2100
    assert len(said) < 5000
    assert any("lines left out" in message for message in said)


STARTS_ONE = """
import json, os, sys
from core.config.engines import EngineChoice
from core.loaders.run.loader import EngineLoader
os.environ["OMP_NUM_THREADS"] = "77"  # as a server does for its own forwards
engine = EngineLoader().load("chat", EngineChoice.model_validate_json(sys.argv[1]))
import psutil
print(json.dumps(psutil.Process(engine.pids[1]).environ()))
engine.close()
"""


def test_its_environment() -> None:
    choice = fake(environment={"WHO": "me", "PATH": os.environ["PATH"]})
    own = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", STARTS_ONE, choice.model_dump_json(exclude_unset=True)],
        env=own | {"RESIDENCY_TOKEN": "not for others"},
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    environment = json.loads(done.stdout)
    assert environment["WHO"] == "me"
    assert not {"RESIDENCY_TOKEN", "RESIDENCY_CACHE", "OMP_NUM_THREADS", "port", "model"} & environment.keys()


def test_another_server_on_its_port(loader: EngineLoader, monkeypatch: pytest.MonkeyPatch) -> None:
    """A free port was taken before the engine listened on it: the next start has another one."""
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        taken = stranger.getsockname()[1]
        free = [free_port()]
        monkeypatch.setattr(ports, "free_port", lambda avoided: free.pop() if len(free) > 1 else free[0])
        free.append(taken)

        def start_late(*arguments: Any) -> Any:
            if len(free) == 1:
                stranger.listen()
            return Guarded(*arguments)

        monkeypatch.setattr(loading, "Guarded", start_late)
        engine = loader.load("chat", fake("--slow 0.1"))
        engine.close()
        assert engine.url == f"http://127.0.0.1:{free[0]}"
        with pytest.raises(EngineFailed, match=f"another process listens on port {taken}"):
            loader.load("chat", fake(port=taken))


def test_a_fixed_port(loader: EngineLoader) -> None:
    port = free_port()
    engine = loader.load("chat", EngineChoice(run=f"{sys.executable} {FAKE_ENGINE} --port {port}", port=port))
    engine.close()
    assert engine.url.endswith(f":{port}")


def test_ipv6_alone(loader: EngineLoader) -> None:
    choice = EngineChoice(run=f'{sys.executable} -c "{V6}" ${{port}}')
    engine = loader.load("chat", choice)
    engine.close()
    assert engine.url.startswith("http://[::1]:")


V6 = f"import runpy, socket, sys; m = runpy.run_path('{FAKE_ENGINE}'); m['Server'].address_family = socket.AF_INET6; \
sys.argv[1:] = ['--host', '::1', '--port', sys.argv[1]]; m['main']()"


def elsewhere(tmp_path: Path) -> tuple[EngineChoice, subprocess.Popen[str], Path]:
    """An engine that is no child of ours, as in a container: its command ends at once, and another one stops it."""
    port, note = free_port(), tmp_path / "stopped"
    server = start(sys.executable, str(FAKE_ENGINE), "--port", str(port))
    kill = f"import os, pathlib; os.kill({server.pid}, 15); pathlib.Path('{note}').open('a').write('${{model}}')"
    choice = EngineChoice.model_validate(
        {"run": "true", "port": port, "stop": f'{sys.executable} -c "{kill}"', "memory": {"fixed": 5 * MIB}}
    )
    return choice, server, note


def test_what_an_operator_should_know(
    loader: EngineLoader, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "residency")
    loader.prepare({"a": fake(stop="true"), "b": fake(stop="true", memory={"fixed": 5}), "c": fake()})
    assert [message[:46] for message in caplog.messages] == ["Model 'a' has 'stop': if it runs elsewhere, as"]
    caplog.clear()
    monkeypatch.setattr(multiprocessing, "parent_process", object)
    loader.prepare({"b": fake(), "c": fake()})
    assert caplog.messages == ["This process is a worker. Each worker starts engines of its own: b, c."]


def test_what_lives_elsewhere_is_stopped_by_its_own_command(loader: EngineLoader, tmp_path: Path) -> None:
    choice, server, note = elsewhere(tmp_path)
    port = choice.port
    wait_for(lambda: bool(listeners(port or 0)))
    with pytest.raises(EngineFailed, match=f"another process listens on port {port}"):
        loader.load("speech", choice)  # before its start it is a stranger
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "is_open", lambda port: False)
        engine = loader.load("speech", choice)
    assert not engine.has_ended()
    assert engine.measure() == 5 * MIB
    engine.close()
    server.communicate(timeout=SECONDS)
    assert note.read_text() == "speech"
    loader.prepare({})
    assert note.read_text() == "speech"


def test_what_lives_elsewhere_is_stopped_after_its_server_was_killed(loader: EngineLoader, tmp_path: Path) -> None:
    choice, server, note = elsewhere(tmp_path)
    script = f"""
from core.loaders.run import loader as loading
from core.loaders.run import ports
loading.is_open = lambda port: False
engine = loading.EngineLoader().load("speech", loading.EngineChoice.model_validate_json({choice.model_dump_json()!r}))
print("ready", flush=True)
input()
"""
    killed = start(sys.executable, "-c", script, cwd=ROOT, stdin=subprocess.PIPE)
    assert killed.stdout is not None
    assert killed.stdout.readline() == "ready\n"
    killed.kill()
    killed.communicate(timeout=SECONDS)
    assert server.poll() is None
    in_threads(4, lambda _: EngineLoader().prepare({}))  # servers that start at the same time
    server.communicate(timeout=SECONDS)
    assert note.read_text() == "speech"


def test_nothing_outlives_a_killed_process(loader: EngineLoader) -> None:
    """Not even a grandchild of a grandchild in a session of its own, and not an engine that is not ready yet."""
    script = f"""
import threading
from core.loaders.run.loader import EngineLoader, EngineChoice
loader = EngineLoader()
threading.Thread(target=loader.load, args=["late", EngineChoice.model_validate({engine("--never")!r})]).start()
engine = loader.load("chat", EngineChoice.model_validate({engine("--fork --stubborn")!r}))
print(*engine.pids, flush=True)
"""
    killed = start(sys.executable, "-c", script, cwd=ROOT)
    assert killed.stdout is not None
    pids = [int(word) for word in killed.stdout.readline().split()]
    assert len(pids) == 3
    others = psutil.Process(killed.pid).children(recursive=True)
    killed.kill()
    killed.communicate(timeout=SECONDS)
    wait_until_gone(*pids, *(other.pid for other in others))


# Under a strategy.


def keeper_of(models: dict[str, EngineChoice], *, slots: int = 4, **options: Any) -> Keeper:
    versions = Versions(models)
    strategy = KeepAlive(**options)
    keeper = Keeper(Decisions(strategy, "keep-alive"), Host("keep-alive", None, versions, Semaphore(slots)))  # type: ignore[arg-type]
    versions.keepers.append(keeper)
    keeper.start()
    return keeper


@pytest.fixture
def closing(loader: EngineLoader) -> Iterator[list[Keeper]]:
    keepers: list[Keeper] = []
    yield keepers
    for keeper in keepers:
        keeper.close()


def engine_of(keeper: Keeper, model_id: str) -> EngineProcess:
    [copy] = [copy for copy in keeper.residents() if copy.model_id == model_id]
    found: EngineProcess = copy.model.engine
    return found


def use(keeper: Keeper, model_id: str, body: Any = None) -> Any:
    with keeper.lease(model_id) as leased:
        assert leased.model.engine is not None
        leased.answered = 1
        return ask(leased.model.engine, "/x", body or {})


def reasons(keeper: Keeper, model_id: str) -> list[str]:
    return [event.reason for event in reversed(keeper.host.history(model_id))]


def test_growth_is_measured_when_the_last_lease_ends(closing: list[Keeper]) -> None:
    keeper = keeper_of({"a": fake()})
    closing.append(keeper)
    use(keeper, "a")
    [before] = keeper.residents()
    small = before.to_resident().nbytes
    with keeper.lease("a"):
        use(keeper, "a", {"grow": 40})
        assert keeper.residents()[0].nbytes == small  # another lease is left
    assert keeper.residents()[0].to_resident().nbytes > small + 35 * MIB
    with keeper.lease("a") as leased:
        record = leased.model.record
    assert (record.loader, record.cpu_seconds == record.seconds) == ("run", True)
    assert keeper.unload("a")
    assert keeper.host.size("a") > small + 35 * MIB  # learned
    assert reasons(keeper, "a") == ["request", "manual"]


def test_growth_over_the_budget_evicts_at_once(closing: list[Keeper]) -> None:
    keeper = keeper_of({"a": fake("--size 60", memory="90MiB"), "b": fake(memory="90MiB")}, memory_budget=200 * MIB)
    closing.append(keeper)
    use(keeper, "a")
    use(keeper, "b")
    assert ids(keeper) == ["a", "b"]
    use(keeper, "b", {"grow": 150})
    assert ids(keeper) == ["b"]
    use(keeper, "b", {"grow": 60})  # too large alone
    assert ids(keeper) == []
    use(keeper, "a")
    assert (reasons(keeper, "a"), reasons(keeper, "b")) == (["request", "budget", "request"], ["request", "budget"])


def test_an_engine_of_which_nothing_is_known_loads_alone(closing: list[Keeper]) -> None:
    keeper = keeper_of({"a": fake(), "b": fake("--size 1")}, memory_budget=200 * MIB)
    closing.append(keeper)
    assert keeper.host.size("a", 200 * MIB) == 200 * MIB
    use(keeper, "a")
    use(keeper, "b")
    assert ids(keeper) == ["b"]
    use(keeper, "a")
    assert ids(keeper) == ["b", "a"]  # by now both are measured


def test_a_crash_between_requests_is_a_load_for_that_reason(closing: list[Keeper]) -> None:
    keeper = keeper_of({"a": fake("--fork")})
    closing.append(keeper)
    use(keeper, "a")
    engine = engine_of(keeper, "a")
    child, grandchild = ask(engine, "/pids")
    os.kill(child, signal.SIGKILL)
    wait_for(engine.has_ended)
    assert use(keeper, "a")["pid"] != child
    assert reasons(keeper, "a") == ["request", "crash", "crash"]
    assert keeper.host.crashes == 1
    wait_until_gone(grandchild)


def test_a_crash_under_leases_fails_only_those(closing: list[Keeper]) -> None:
    keeper = keeper_of({"a": fake()})
    closing.append(keeper)
    with keeper.lease("a") as leased:
        with pytest.raises(OSError, match=r".*"):
            use(keeper, "a", {"exit": 1})
        wait_for(leased.model.has_ended)
    assert use(keeper, "a")["method"] == "POST"
    assert reasons(keeper, "a") == ["request", "crash", "crash"]


def test_starts_take_no_load_slots(closing: list[Keeper]) -> None:
    keeper = keeper_of({"a": fake(), "b": fake()}, slots=0)
    closing.append(keeper)
    in_threads(2, lambda i: use(keeper, "ab"[i]))
    assert sorted(ids(keeper)) == ["a", "b"]


def test_a_failure_is_a_sentence_and_the_next_request_tries_again(
    closing: list[Keeper], monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = keeper_of({"a": fake("--fail 4"), "b": EngineChoice(run="${NO_SUCH} ${port}")})
    closing.append(keeper)
    with pytest.raises(LoadFailed, match=r"Loading model 'a' failed: its command ended with status 4 before"):
        use(keeper, "a")
    assert "a variable that is not set" in keeper.host.failures["b"]


def test_another_command_is_another_process(closing: list[Keeper]) -> None:
    keeper = keeper_of({"a": fake()})
    closing.append(keeper)
    use(keeper, "a")
    first = engine_of(keeper, "a")
    versions = keeper.host.versions
    versions.set_reference("a", fake(aliases=["other"], parallel=2))
    keeper.retire()
    assert engine_of(keeper, "a") is first
    assert versions.current("a").engine == fake(aliases=["other"], parallel=2)
    with keeper.lease("a"):
        versions.set_reference("a", fake("--size 1"))
        keeper.retire()
        assert not first.has_ended()
        assert ask(first, "/health") == {"status": "ok"}
    assert first.has_ended()
    use(keeper, "a")
    assert engine_of(keeper, "a") is not first
    assert reasons(keeper, "a") == ["request", "removed", "request"]


def test_deaf_engines_end_at_the_same_time(loader: EngineLoader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "GRACE", 0.5)
    orders: list[str] = []

    def record(order: str) -> None:
        given = getattr(Guarded, order)

        def give(guarded: Guarded) -> None:
            orders.append(order)
            given(guarded)

        monkeypatch.setattr(Guarded, order, give)

    record("terminate")
    record("kill")
    keeper = keeper_of({name: fake("--stubborn") for name in "abc"})
    in_threads(3, lambda i: use(keeper, "abc"[i]))
    keeper.close()
    assert orders == ["terminate"] * 3 + ["kill"] * 3


def test_an_expired_engine_does_not_hold_up_the_timer(closing: list[Keeper], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "GRACE", SECONDS)
    keeper = keeper_of({"deaf": fake("--stubborn"), "b": fake()}, ttl={"deaf": 0.2, "b": 0.4})
    closing.append(keeper)
    deaf = use(keeper, "deaf")["pid"]
    use(keeper, "b")
    wait_for(lambda: reasons(keeper, "b") == ["request", "expired"])
    assert is_alive(deaf)
    os.kill(deaf, signal.SIGKILL)
    wait_for(lambda: reasons(keeper, "deaf") == ["request", "expired"])
