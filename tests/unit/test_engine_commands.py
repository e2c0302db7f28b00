"""What an engine is told, and what is known of it before it starts: words, files, ports, and wrong settings."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from core.config.engines import EngineChoice
from core.config.settings import settings_from_environment
from core.errors import EngineFailed, YamlError
from core.loaders.run import leftovers
from core.loaders.run.commands import check_program, words
from core.loaders.run.guarded import MAX_LINE, _Lines, _Rate, _shown
from core.loaders.run.ports import free_port, is_open, listeners, sockets_of
from core.loaders.run.sizes import Peak, named_files

VALUES = {"port": "5800", "model": "chat", "HOME": "/home/a b", "EMPTY": ""}


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("serve --port ${port} -m ${HOME}/q.gguf", ["serve", "--port", "5800", "-m", "/home/a b/q.gguf"]),
        ("run --name ${model} -p 127.0.0.1:${port}:8000", ["run", "--name", "chat", "-p", "127.0.0.1:5800:8000"]),
        ("serve 'a b' \"c d\" e\\ f", ["serve", "a b", "c d", "e f"]),
        ("serve $${port} $port $(id) `id`", ["serve", "${port}", "$port", "$(id)", "`id`"]),
        ("serve ; & | > *", ["serve", ";", "&", "|", ">", "*"]),
        ("serve ${EMPTY}", ["serve", ""]),
        ("serve \\\n  -m a\n  -c 1\n", ["serve", "-m", "a", "-c", "1"]),
    ],
)
def test_words_are_split_and_macros_replaced_without_a_shell(command: str, expected: list[str]) -> None:
    assert words(command, VALUES) == expected


def test_a_variable_that_is_not_set_is_named() -> None:
    with pytest.raises(EngineFailed, match=r"has \$\{MODELS\}, but no variable of that name is set"):
        words("serve -m ${MODELS}/q.gguf", VALUES)


def test_a_program_that_is_not_installed_is_named(tmp_path: Path) -> None:
    (tmp_path / "serve").touch(0o755)
    check_program(["serve"], {"PATH": str(tmp_path)})
    with pytest.raises(EngineFailed, match="there is no program 'no-such-server'"):
        check_program(["no-such-server"], {"PATH": str(tmp_path)})


def write(path: Path, nbytes: int) -> Path:
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as file:
        file.truncate(nbytes)
    return path


def test_the_files_that_a_command_names(tmp_path: Path) -> None:
    weights, small = write(tmp_path / "q.gguf", 10), write(tmp_path / "notes.txt", 10)
    large = write(tmp_path / "weights.bin", 2 << 20)
    shards = [write(tmp_path / f"big-0000{i}-of-00002.gguf", 100 * i) for i in (1, 2)]
    folder = tmp_path / "checkpoint"
    inside = write(folder / "model.safetensors", 7)
    write(folder / "config.json", 1)
    command = ["serve", "-m", str(weights), f"--draft={large}", str(small), str(shards[0]), str(folder), str(weights)]
    found = {file.path: file.nbytes for file in named_files([str(large), *command[1:]])}
    assert found == {str(weights): 10, str(large): 2 << 20, str(shards[0]): 100, str(shards[1]): 200, str(inside): 7}
    assert list(named_files(["serve", "x" * 5000, "a\0b", "--flag", ""])) == []


def test_the_peak_of_the_last_time_is_kept_by_command_and_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESIDENCY_CACHE", str(tmp_path / "cache"))
    weights = write(tmp_path / "q.gguf", 1000)
    command = ["serve", "-m", str(weights)]
    peak = Peak(command, {})
    assert (peak.recall(), peak.guess()) == (None, 1000)
    for nbytes in (5000, 4000, 9000, 9001):
        peak.note(nbytes)
    assert Peak(command, {}).recall() == 9000  # a growth of less than a twentieth is not worth a file
    assert Peak([*command, "--ctx"], {}).recall() is None
    assert Peak(command, {"LAYERS": "9"}).recall() is None
    Peak(command, {}).note(3000)  # the next process needs less
    assert Peak(command, {}).recall() == 3000
    write(weights, 2000)
    assert Peak(command, {}).recall() is None


@pytest.mark.parametrize(("address", "host"), [("127.0.0.1", "127.0.0.1"), ("", "127.0.0.1"), ("::1", "[::1]")])
def test_who_listens_on_a_port(address: str, host: str) -> None:
    port = free_port()
    assert not is_open(port)
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as sock:
        sock.bind((address, port))
        assert listeners(port) == []
        sock.listen()
        [listener] = listeners(port)
        assert is_open(port)
        assert listener.host == host
        assert listener.inode in sockets_of([os.getpid()])
        assert listener.inode not in sockets_of([os.getppid(), 1 << 22])
        if ":" not in address:
            assert free_port() != port


def test_output_is_split_into_lines_of_bounded_length() -> None:
    lines = _Lines()
    assert lines.split(b"one\ntw") == [b"one"]
    assert lines.split(b"o\n\n") == [b"two", b""]
    assert [len(line) for line in lines.split(b"x" * (2 * MAX_LINE + 1))] == [MAX_LINE, MAX_LINE, 1]
    assert lines.split(b"no end") == []
    assert (lines.take_rest(), lines.rest) == (b"no end", b"")
    assert _shown(b"a\tb\xff\x1b[0m\r") == "a b\ufffd [0m"


def test_lines_over_the_rate_are_counted() -> None:
    rate = _Rate(3)
    allowed = [rate.allow(2) for _ in range(5)]
    assert sum(allowed) in (3, 6)  # a second may end in between
    assert rate.left_out == 10 - sum(allowed)


def test_the_run_file_of_a_server_that_runs_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESIDENCY_CACHE", str(tmp_path))
    stopped: list[str] = []
    monkeypatch.setattr(leftovers, "run_stop", lambda model_id, *_: stopped.append(model_id))
    run_file = leftovers.RunFile("speech", ["stop", "it"], {})
    [path] = (tmp_path / "engines").iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    leftovers.stop_leftovers()
    assert (stopped, path.exists()) == ([], True)
    assert run_file._file is not None
    run_file._file.close()  # as the kernel does when its server is killed
    leftovers.stop_leftovers()
    assert (stopped, path.exists()) == (["speech"], False)
    (tmp_path / "engines" / "torn.json").write_text('{"model": "x", "st')
    leftovers.stop_leftovers()
    assert (stopped, list((tmp_path / "engines").iterdir())) == (["speech"], [])


def test_a_cache_that_cannot_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("RESIDENCY_CACHE", str(tmp_path / "file"))
    with pytest.raises(EngineFailed, match="Set RESIDENCY_CACHE to a writable folder"):
        leftovers.RunFile("speech", ["stop"], {})


WRONG = {
    "{run: 'x ${port}', redy: /h}": "models.chat.redy: is not a known key; allowed: run, port, ready, within",
    "{run: 'x $${port}'}": r"models.chat: 'run' must contain \${port}",
    '{run: "x \\0", port: 1}': r"models.chat.run: must be a command without a zero byte",
    "{run: x, port: 1, environment: {A=B: x}}": r"models.chat.environment.*: must be the name of a variable, not 'A=B'",
    '{run: x, port: 1, environment: {A: "\\0"}}': r"models.chat.environment.A: must be text without a zero byte",
    "{run: x}": r"models.chat: 'run' must contain \${port}, or 'port' must say on which port it listens",
    "{ready: /h}": "models.chat.run: is required",
    "{run: ''}": "models.chat.run: must be a text of at least 1 character",
    "{run: ' ', port: 1}": "models.chat.run: must be a command, such as 'llama-server --port",
    "{run: 'x ${port} \"a'}": "models.chat.run: must be a command whose quotes are all closed",
    "{run: 'x ${port}', ready: health}": "models.chat.ready: must be a path such as /health, not 'health'",
    "{run: 'x ${port}', memory: lots}": r"models.chat.memory: must be a size, such as 512MiB \(got 'lots'\)",
    "{run: 'x ${port}', memory: []}": "models.chat.memory: must be a size such as 1.5GiB, or a mapping such as {fixed",
    "{run: 'x ${port}', memory: {fixed: 3Gib, a: 1}}": "models.chat.memory.",
    "{run: 'x ${port}', within: soon}": "models.chat.within: must be a duration such as",
    "{run: 'x ${port}', aliases: gpt}": r"models.chat.aliases: must be a list, such as \[a, b\]",
    "{run: 'x ${port}', environment: {A: 0}}": "models.chat.environment.A: must be text, such as '12', in quotes",
    "{run: 'x ${port}', port: 0}": "models.chat.port: must be at least 1",
    "[a]": "models.chat: must be a reference such as 'embedded', or a mapping with 'run'",
}


@pytest.fixture
def settings_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], object]:
    def read(chat: str) -> object:
        path = tmp_path / "app.yaml"
        path.write_text(f"models:\n  chat: {chat}\n")
        monkeypatch.setenv("RESIDENCY_CONFIG", str(path))
        return settings_from_environment().models["chat"]

    return read


@pytest.mark.parametrize("chat", WRONG)
def test_a_wrong_engine_is_one_error_that_names_its_key(settings_of: Callable[[str], object], chat: str) -> None:
    with pytest.raises(YamlError, match=WRONG[chat]) as caught:
        settings_of(chat)
    assert ", or text" not in str(caught.value)


def test_a_good_engine(settings_of: Callable[[str], object]) -> None:
    choice = settings_of(
        "{run: 'serve ${port}', memory: {fixed: 1GiB}, aliases: ['qwen3:4b'], within: 2min, stop: 'halt ${model}'}"
    )
    assert isinstance(choice, EngineChoice)
    assert (choice.fixed_bytes, choice.declared_bytes, choice.within) == (1 << 30, 1 << 30, 120)
    assert settings_of("embedded") == "embedded"


def test_what_a_running_server_depends_on_is_its_identity() -> None:
    one = EngineChoice(run="serve ${port}")
    same = EngineChoice.model_validate({"run": "serve ${port}", "aliases": ["a"], "parallel": 3, "memory": 1 << 20})
    assert one.identity == same.identity
    for change in ({"run": "serve -x ${port}"}, {"environment": {"A": "1"}}, {"memory": {"fixed": 5}}, {"port": 5}):
        assert EngineChoice.model_validate({"run": "serve ${port}", **change}).identity != one.identity
