from __future__ import annotations

import asyncio
import fcntl
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from select import select
from threading import Event
from time import monotonic
from typing import Any

import httpx
import psutil
import pytest
from safetensors.torch import load_file, save_file

from core.bench.client import connect
from core.checkpoints.dtypes import converted_directory
from core.errors import LoadFailed, ModelCrashed, ModelGone
from core.loaders.mapped.loader import MappedLoader
from core.loaders.onnxruntime.loader import OnnxRuntimeLoader
from core.loaders.subprocess import children
from core.loaders.subprocess.children import PRELOAD, ForkServer
from core.loaders.subprocess.loader import SubprocessLoader, SubprocessModel
from core.residency.keeper import Keeper
from core.serving.dispatcher import Dispatcher
from core.serving.events import Answer
from strategies.lru_cached import LruCached
from strategies.persistent import Persistent
from tests.helpers.architectures import build
from tests.helpers.support import ROOT, SECONDS, checkpoint_in, keeper_of, run_python, running, wait_for
from tests.server.test_forms import phobert

TEXTS = ["This is good, I love it.", "This is terrible, I hate it."]
LABELS = ["POSITIVE", "NEGATIVE"]
OPTIONS: dict[str, dict[str, Any]] = {  # by the inner loader: its way that needs no measuring first
    "onnxruntime": {"inner": "onnxruntime", "pack": False},
    "mapped": {"inner": "mapped", "linear": "stock"},
}


@pytest.fixture(scope="module", params=OPTIONS)
def inner(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def loader(inner: str) -> SubprocessLoader:
    return SubprocessLoader(**OPTIONS[inner])


@pytest.fixture
def model(loader: SubprocessLoader, embedded_directory: Path) -> Iterator[SubprocessModel]:
    model = loader.load(embedded_directory)
    yield model
    model.close()


def labels(model: Any) -> list[str]:
    return [label for label, _ in model.predict(TEXTS)]


def stop(model: SubprocessModel) -> psutil.Process:
    """Let the child hang."""
    assert model.pid is not None
    child = psutil.Process(model.pid)
    child.suspend()
    wait_for(lambda: child.status() == psutil.STATUS_STOPPED)
    return child


def alive(process: psutil.Process) -> list[psutil.Process]:
    return [child for child in process.children() if not has_ended(child)]


def has_ended(process: psutil.Process) -> bool:
    """Whether nothing of it is left, but perhaps an entry that its new parent has not read."""
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def in_flight(pool: ThreadPoolExecutor, model: SubprocessModel) -> Future[Any]:
    """A request that a stopped child does not answer."""
    future = pool.submit(model.predict, TEXTS)
    wait_for(lambda: model.is_asked)
    return future


def test_answers_what_the_inner_loader_answers(model: SubprocessModel, inner: str, embedded_directory: Path) -> None:
    loader: Any = OnnxRuntimeLoader(pack=False) if inner == "onnxruntime" else MappedLoader(linear="stock")
    same = loader.load(embedded_directory)
    assert model.predict(TEXTS) == same.predict(TEXTS)
    assert (model.loaded_by, model.dtype, model.nbytes) == ("subprocess", "float32", same.nbytes)
    assert set(model.phases) == {"fork", "resolve", "weights", "structure", "tokenizer"}
    same.close()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"linear": "stock"}, "'dtype: bfloat16' and 'linear' need 'inner: mapped'"),
        ({"dtype": "bfloat16"}, "'dtype: bfloat16' and 'linear' need 'inner: mapped'"),
        ({"dtype": "int8", "pack": False}, "'dtype: int8' always packs weights"),
        ({"inner": "mapped", "dtype": "int8"}, "'dtype: int8' and 'pack' need 'inner: onnxruntime'"),
        ({"inner": "mapped", "pack": True}, "'dtype: int8' and 'pack' need 'inner: onnxruntime'"),
    ],
)
def test_options_that_the_inner_loader_does_not_have_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        SubprocessLoader(**options)


def test_packed_and_quantized_weights_are_made_before_a_child_is_asked(embedded_directory: Path) -> None:
    loader = SubprocessLoader(dtype="int8", deadline=2)
    model = loader.load(embedded_directory)
    assert (model.loaded_by, model.dtype) == ("subprocess", "int8")
    assert model.nbytes == loader.size(embedded_directory)
    assert labels(model) == LABELS
    model.close()


CONVERTED = """
import sys
from pathlib import Path
from core.loaders.subprocess.loader import SubprocessLoader
model = SubprocessLoader(deadline=2).load(Path(sys.argv[1]))
print(model.loaded_by, len(model.predict(["a good film"])))
"""


@pytest.mark.slow
def test_a_conversion_is_no_part_of_a_childs_deadline(tmp_path: Path) -> None:
    directory = build(tmp_path / "model", "bert")
    done = run_python("-c", CONVERTED, str(directory), variables={"RESIDENCY_CACHE": str(tmp_path / "cache")})
    assert done.stdout == "subprocess 1\n", done.stderr
    assert any((tmp_path / "cache" / "onnx").glob("graph-*"))


def test_what_cannot_be_converted_is_loaded_by_mapped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """In a child of the other fork server: the one for graphs stays without torch."""
    directory = build(tmp_path / "model", "roberta")
    phobert(directory)
    expected = MappedLoader().load(directory).predict(TEXTS)
    loader = SubprocessLoader()
    for _ in range(2):
        model = loader.load(directory)
        assert (model.loaded_by, model.dtype) == ("mapped", "float32")
        for answer, wanted in zip(model.predict(TEXTS), expected, strict=True):  # computed by another number of threads
            assert answer.label == wanted.label
            assert answer.score == pytest.approx(wanted.score, abs=1e-5)
        model.close()
    [warning] = [record.getMessage() for record in caplog.records if "uses 'mapped'" in record.getMessage()]
    assert "written in pure Python" in warning
    assert libraries(children.fork_server("mapped")) & {"libtorch_cpu.so"}
    assert not libraries(children.fork_server("onnxruntime")) & {"libtorch_cpu.so"}


def libraries(server: ForkServer) -> set[str]:
    """The files' names that the process has mapped."""
    return {Path(each.path).name for each in psutil.Process(server.pid).memory_maps()}


def test_the_fork_server_for_graphs_imports_neither_torch_nor_transformers() -> None:
    script = (
        f"import importlib, sys; [importlib.import_module(name) for name in {PRELOAD['onnxruntime']}];"
        " print('onnxruntime' in sys.modules, {'torch', 'transformers'} & set(sys.modules))"
    )
    done = run_python("-c", script)
    assert done.stdout == "True set()\n", done.stderr


def test_closing_ends_the_process(loader: SubprocessLoader, embedded_directory: Path) -> None:
    model = loader.load(embedded_directory)
    pid = model.pid
    assert pid is not None
    process = psutil.Process(pid)
    model.close()
    assert has_ended(process)
    model.close()
    wait_for(lambda: not psutil.pid_exists(pid))  # not even an entry is left
    with pytest.raises(RuntimeError, match="closed"):
        model.predict(TEXTS)


def answered(keeper: Keeper, *requests: str) -> list[Answer]:
    """One after the other."""

    async def ask() -> list[Answer]:
        with ThreadPoolExecutor(1) as compute:
            dispatcher = Dispatcher(keeper, compute)
            return [await dispatcher.predict(model_id, TEXTS, SECONDS) for model_id in requests]

    return asyncio.run(ask())


def kill_latest(inner: str) -> None:
    """Kill the child that was started last."""
    child = max(alive(psutil.Process(children.fork_server(inner).pid)), key=lambda child: child.create_time())
    handle = os.pidfd_open(child.pid)  # readable once all of its threads have ended: the first may be a zombie before
    child.kill()
    wait_for(lambda: bool(select([handle], [], [], 0)[0]))
    os.close(handle)


def test_one_that_dies_while_idle_is_replaced_before_anybody_notices(
    loader: SubprocessLoader, inner: str, embedded_directory: Path
) -> None:
    keeper = keeper_of(Persistent(), loader, embedded_directory)
    host = keeper.host
    [before] = keeper.residents()
    [warm] = answered(keeper, embedded_directory.name)
    kill_latest(inner)
    [cold] = answered(keeper, embedded_directory.name)
    assert [label for label, _ in cold.results] == LABELS
    assert (host.loads, host.unloads, host.crashes) == (2, 1, 1)
    assert [event.reason for event in host.history(embedded_directory.name)] == ["crash", "crash", "preload"]
    [after] = keeper.residents()
    assert after.loaded_at > before.loaded_at
    assert (warm.cold, warm.load, dict(warm.phases)) == (False, 0, {})
    assert cold.cold
    assert cold.load > cold.phases["fork"] > 0
    assert cold.inference > 0
    keeper.close()
    assert (host.loads, host.unloads, keeper.residents()) == (2, 2, [])


def test_one_that_cannot_be_replaced_is_not_counted_as_resident(
    loader: SubprocessLoader, inner: str, tmp_path: Path
) -> None:
    directory = checkpoint_in(tmp_path / "a")
    keeper = keeper_of(Persistent(), loader, directory)
    kill_latest(inner)
    config = (directory / "config.json").read_bytes()
    (directory / "config.json").unlink()
    for _ in range(2):
        with pytest.raises(LoadFailed):
            answered(keeper, "a")
    assert keeper.residents() == []
    assert (keeper.host.loads, keeper.host.unloads) == (1, 1)
    (directory / "config.json").write_bytes(config)
    wait_for(lambda: _answers(keeper))  # a failure is remembered, for a short time
    keeper.close()
    assert (keeper.host.loads, keeper.host.unloads, keeper.host.crashes) == (2, 2, 1)


def _answers(keeper: Keeper) -> bool:
    with suppress(LoadFailed):
        return [label for label, _ in answered(keeper, "a")[0].results] == LABELS
    return False


def test_one_that_is_killed_fails_its_request_in_flight_only(model: SubprocessModel) -> None:
    child = stop(model)
    with ThreadPoolExecutor(1) as pool:
        waiting = in_flight(pool, model)
        killed = monotonic()
        child.kill()
        with pytest.raises(ModelCrashed, match="was ended by SIGKILL before it answered"):
            waiting.result(SECONDS)
        assert monotonic() - killed < SECONDS / 2  # and not at the deadline, two minutes later
    with pytest.raises(ModelGone):
        model.predict(TEXTS)


def test_one_that_hangs_is_ended_at_its_deadline(inner: str, embedded_directory: Path) -> None:
    loader = SubprocessLoader(**OPTIONS[inner], deadline=0.5)
    for texts in (TEXTS, ["more than a socket holds " * 50_000]):
        model = loader.load(embedded_directory)
        child = stop(model)
        with pytest.raises(ModelCrashed, match="no answer within"):
            model.predict(texts)
        assert has_ended(child)
        with pytest.raises(ModelGone):
            model.predict(TEXTS)
        model.close()


def test_one_that_hangs_can_be_closed(model: SubprocessModel) -> None:
    stop(model)
    with ThreadPoolExecutor(1) as pool:
        waiting = in_flight(pool, model)
        model.close()
        with pytest.raises(ModelCrashed):
            waiting.result(SECONDS)


def test_weights_that_shrink_cost_the_child_only(loader: SubprocessLoader, tmp_path: Path) -> None:
    directory = checkpoint_in(tmp_path / "a")
    weights = directory / "model.safetensors"
    whole = weights.resolve()
    weights.unlink()
    shutil.copyfile(whole, weights)
    keeper = keeper_of(LruCached(), loader, directory)
    keeper.load("a")
    os.truncate(weights, 100_000)
    with pytest.raises(ModelCrashed, match="SIGBUS, because its weights vanished or shrank"):
        answered(keeper, "a")
    with pytest.raises(LoadFailed, match="safetensors"):
        answered(keeper, "a")
    shutil.copyfile(whole, weights)
    wait_for(lambda: _answers(keeper))
    keeper.close()


def test_what_fails_in_the_child_keeps_its_traceback(model: SubprocessModel) -> None:
    with pytest.raises(RuntimeError) as failure:
        model.predict([None])  # type: ignore[list-item]
    assert "in numbers" in failure.value.__notes__[0]
    assert labels(model) == LABELS


def test_children_find_imported_what_they_need(model: SubprocessModel, inner: str) -> None:
    needed = {
        "onnxruntime": {"core.loaders.onnxruntime.network", "core.loaders.onnxruntime.tokens"},
        "mapped": {"torch", "transformers.models.bert.modeling_bert"},
    }
    assert needed[inner] <= set(model.preloaded)


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (None, "No module named 'residency_preloaded'"),
        ("raise OSError('a library is missing')", "OSError: a library is missing"),
        (
            "import threading, time; threading.Thread(target=time.sleep, args=(60,), daemon=True).start()",
            "1 threads were started by importing residency_preloaded",
        ),
    ],
)
def test_what_cannot_be_preloaded_is_an_error(
    code: str | None, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if code:
        (tmp_path / "residency_preloaded.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    server = ForkServer(preload=["residency_preloaded"])
    with pytest.raises(RuntimeError, match=sentence):
        server.preloaded()
    server.close()


def test_a_killed_fork_server_is_replaced(
    model: SubprocessModel, loader: SubprocessLoader, inner: str, embedded_directory: Path
) -> None:
    server = children.fork_server(inner)
    child = stop(model)
    with ThreadPoolExecutor(1) as pool:
        waiting = in_flight(pool, model)
        psutil.Process(server.pid).kill()
        with pytest.raises(ModelCrashed):
            waiting.result(SECONDS)
    wait_for(lambda: has_ended(child))
    another = loader.load(embedded_directory)
    assert labels(another) == LABELS
    assert children.fork_server(inner) is not server
    another.close()


def test_a_hanging_fork_server_delays_no_failure_and_is_replaced(
    model: SubprocessModel,
    loader: SubprocessLoader,
    inner: str,
    embedded_directory: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(children, "SPAWN_SECONDS", 0.5)
    server = children.fork_server(inner)
    child = stop(model)
    psutil.Process(server.pid).suspend()
    with ThreadPoolExecutor(1) as pool:
        waiting = in_flight(pool, model)
        killed = monotonic()
        child.kill()
        with pytest.raises(ModelCrashed, match="SIGKILL"):
            waiting.result(SECONDS)
        assert monotonic() - killed < 1
    for _ in range(2):
        another = loader.load(embedded_directory)
        assert labels(another) == LABELS
        another.close()
        assert children.fork_server(inner) is not server
        children.fork_server(inner).close()


def test_an_interrupted_question_has_no_answer_later(model: SubprocessModel) -> None:
    child = stop(model)

    def interrupt(*_: object) -> None:
        raise InterruptedError("by a signal")

    previous = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises((InterruptedError, ModelCrashed)):
            model.predict(TEXTS)
    finally:
        signal.signal(signal.SIGALRM, previous)
    wait_for(lambda: has_ended(child))
    with pytest.raises(ModelGone):
        model.predict(TEXTS[::-1])


def test_a_hanging_model_holds_up_no_other_one(inner: str) -> None:
    with running(settings("lru-cached", inner)) as (server, client):
        for model_id in "ab":
            client.post("/predict-lru-cached", json={"texts": TEXTS, "model": model_id})
        [fork_server] = psutil.Process(server.pid).children()
        hung, _ = sorted(alive(fork_server), key=lambda child: child.create_time())
        hung.suspend()
        wait_for(lambda: hung.status() == psutil.STATUS_STOPPED)
        with ThreadPoolExecutor(1) as pool, connect(server.url, SECONDS) as other:
            waiting = pool.submit(other.post, "/predict-lru-cached", json={"texts": TEXTS, "model": "a"})
            answer = client.post("/predict-lru-cached", json={"texts": TEXTS, "model": "b"})
            assert [p["label"] for p in answer.json()["predictions"]] == LABELS
            assert not waiting.done()
            hung.kill()
            # If its request had not reached the process yet, another process answers it.
            was_asked = waiting.result(SECONDS).status_code == httpx.codes.SERVICE_UNAVAILABLE
            assert was_asked or waiting.result().json()["cold"]
            again = client.post("/predict-lru-cached", json={"texts": TEXTS, "model": "a"})
            assert again.json()["cold"] or not was_asked
            hung = max(alive(fork_server), key=lambda child: child.create_time())
            hung.suspend()
            wait_for(lambda: hung.status() == psutil.STATUS_STOPPED)
            waiting = pool.submit(other.post, "/predict-lru-cached", json={"texts": TEXTS, "model": "a"})
            wait_for(lambda: len(psutil.Process(server.pid).net_connections()) > 2)

            def interrupted() -> bool:
                server.process.send_signal(signal.SIGINT)
                return server.process.poll() is not None

            wait_for(interrupted)  # who presses Ctrl-C again and again waits for no hanging model
            # Its own request is cut off, or still told: by us (503), or by the server that drops it (500).
            if waiting.exception(SECONDS) is None:
                assert waiting.result().is_server_error


def test_a_crash_in_a_load_is_no_failure_to_remember(
    loader: SubprocessLoader, embedded_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint is not to blame: whoever comes next gets a load of his own at once."""
    loader.load(embedded_directory).close()  # what its children share is prepared
    spawn = children.ForkServer.spawn

    def killed(server: children.ForkServer) -> children.Child:
        """A child that ends before it has its order."""
        child = spawn(server)
        child.kill()
        wait_for(child.has_ended)
        return child

    cache = keeper_of(LruCached(), loader, embedded_directory)
    with monkeypatch.context() as patch:
        patch.setattr(children.ForkServer, "spawn", killed)
        with pytest.raises(LoadFailed, match="before it answered"):
            cache.load(embedded_directory.name)
    with cache.lease(embedded_directory.name) as lent:
        assert labels(lent.model) == LABELS
    cache.close()


HUNG = """
import json, sys
from pathlib import Path
print("imported")
from core.loaders.subprocess.loader import SubprocessLoader
loader = SubprocessLoader(**json.loads(sys.argv[3]))
model = loader.load(Path(sys.argv[1]))
print("hanging", flush=True)
loader.load(Path(sys.argv[2]))
"""


def test_no_process_outlives_its_parent_not_even_in_a_hung_load(inner: str, tmp_path: Path) -> None:
    """The parent is killed while one child is idle and another one hangs, at a lock; `__main__` ran once."""
    directory, half = checkpoint_in(tmp_path / "a"), checkpoint_in(tmp_path / "half")
    tensors = load_file(half / "model.safetensors")
    (half / "model.safetensors").unlink()
    save_file({name: tensor.half() for name, tensor in tensors.items()}, half / "model.safetensors", {"format": "pt"})
    target = converted_directory(half, "float32")
    lock = target.with_name(f"{target.name}.lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)  # which whoever converts the checkpoint waits for
    script = tmp_path / "hung.py"
    script.write_text(HUNG)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(script), str(directory), str(half), json.dumps(OPTIONS[inner])]
    parent = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert [parent.stdout.readline() for _ in range(2)] == ["imported\n", "hanging\n"]
    process = psutil.Process(parent.pid)
    wait_for(lambda: len(process.children(recursive=True)) == 3)  # the fork server, and both
    family = process.children(recursive=True)
    hung = max(family, key=lambda child: child.create_time())
    wait_for(lambda: hung.status() in (psutil.STATUS_SLEEPING, psutil.STATUS_DISK_SLEEP))
    parent.kill()
    parent.wait()
    wait_for(lambda: all(has_ended(process) for process in family))
    assert parent.stdout.read() == ""
    parent.stdout.close()
    lock.close()


def test_a_server_process_needs_no_engine(inner: str) -> None:
    script = (
        "import sys; from core.checkpoints.embedded import embedded_directory; from core.loaders.subprocess.loader"
        f" import SubprocessLoader; loader = SubprocessLoader(**{OPTIONS[inner]});"
        " loader.load(embedded_directory()).predict(['I love it.']);"
        " print({'torch', 'transformers', 'onnxruntime'} & set(sys.modules))"
    )
    done = run_python("-c", script)
    assert done.stdout == "set()\n", done.stderr


def settings(strategy: str, inner: str) -> dict[str, Any]:
    choice = {"strategy": strategy, "loader": {"name": "subprocess", **OPTIONS[inner]}}
    return {"strategies": [choice], "models": {"a": "embedded", "b": "embedded"}}


@pytest.mark.parametrize("kills", [10, pytest.param(200, marks=pytest.mark.slow)])
def test_kills_under_load_fail_only_requests_in_flight(kills: int, inner: str) -> None:
    """Two clients at a time; a random child is killed again and again."""
    outcomes: list[tuple[int, float]] = []
    over = Event()
    with running(settings("persistent", inner)) as (server, client), ThreadPoolExecutor(2) as pool:
        [fork_server] = psutil.Process(server.pid).children()

        def ask(model_id: str) -> None:
            with connect(server.url, SECONDS) as own:
                while not over.is_set():
                    began = monotonic()
                    response = own.post("/predict", json={"texts": TEXTS, "model": model_id})
                    outcomes.append((response.status_code, monotonic() - began))

        clients = [pool.submit(ask, model_id) for model_id in "ab"]
        try:
            for i in range(kills):
                wait_for(lambda: len(alive(fork_server)) > 0)
                random.Random(i).choice(alive(fork_server)).kill()
                enough = len(outcomes) + 3
                wait_for(lambda enough=enough: len(outcomes) >= enough)  # type: ignore[misc]
        finally:
            over.set()
        for future in clients:
            future.result(SECONDS)
        answered = [client.post("/predict", json={"texts": TEXTS, "model": model_id}) for model_id in "ab"]
        [status] = client.get("/strategies").json()["strategies"]
        wait_for(lambda: len(fork_server.children()) == 2)  # no dead one is left unread
    assert [[p["label"] for p in response.json()["predictions"]] for response in answered] == [LABELS] * 2
    failures = [seconds for code, seconds in outcomes if code != httpx.codes.OK]
    assert {code for code, _ in outcomes} <= {httpx.codes.OK, httpx.codes.SERVICE_UNAVAILABLE}
    assert len(failures) <= kills
    assert all(seconds < 1 for seconds in failures)
    assert 0 < status["crashes"] <= kills
    assert status["loads"] == 2 + status["crashes"]


@pytest.mark.slow
def test_two_workers_have_children_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "app.yaml").write_text(json.dumps(settings("persistent", "onnxruntime")))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = ["-m", "uvicorn", "core.app:app", "--port", str(port), "--workers", "2", "--log-level", "warning"]
    server = psutil.Popen(
        [sys.executable, *command], cwd=ROOT, env=os.environ | {"RESIDENCY_CONFIG": str(tmp_path / "app.yaml")}
    )
    try:
        # Two workers, each with a fork server and two children; uvicorn has a resource tracker beside them.
        wait_for(lambda: len(children_of(server, "fork_server")) == 6)
        url = f"http://127.0.0.1:{port}"
        # Each connection is one worker's or the other's.
        wait_for(lambda: all(httpx.get(f"{url}/readyz", trust_env=False).is_success for _ in range(20)))
        for _ in range(20):
            response = httpx.post(f"{url}/predict", json={"texts": TEXTS, "model": "a"}, trust_env=False)
            assert [p["label"] for p in response.json()["predictions"]] == LABELS
        family = server.children(recursive=True)
    finally:
        server.terminate()
        server.wait(SECONDS)
    wait_for(lambda: all(has_ended(process) for process in family))


def children_of(process: psutil.Process, word: str) -> list[psutil.Process]:
    """Those whose command line holds the word."""
    found = []
    for child in process.children(recursive=True):
        with suppress(psutil.Error):
            found += [child] if any(word in argument for argument in child.cmdline()) else []
    return found
