"""llama-swap's files of sixteen shapes become settings, which say what they lack, and are served."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from starlette.testclient import TestClient

from core.app import create_app
from core.config.settings import settings_from_environment
from core.errors import YamlError
from core.imports.llama_swap import read_llama_swap, safe_ids
from tests.helpers.engines import FAKE_ENGINE
from tests.helpers.support import ROOT, run_here, wait_for

FOLDER = ROOT / "tests" / "data" / "llama_swap"
SHAPES = sorted(FOLDER.glob("*.yaml"))
QUICK = {"containers", "fixed-hosts", "pinned-embeddings", "shell-words", "stop-commands", "tags-as-names"}
CHAT = "/v1/chat/completions"
RUNS_ON = "cmd: 'x ${PORT}'"
MODEL = "models: {a: {cmd: 'serve --port ${PORT}'}}\n"


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What the files use in place of real servers."""
    monkeypatch.setenv("PYTHON", sys.executable)
    monkeypatch.setenv("FAKE_ENGINE", str(FAKE_ENGINE))
    monkeypatch.setenv("PIDS", str(tmp_path_factory.mktemp("pids")))
    monkeypatch.setenv("PATH", f"{FOLDER / 'bin'}{os.pathsep}{os.environ['PATH']}")


def import_file(source: Path, output: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    return run_here("import", str(source), "-o", str(output), *flags)


def imported(name: str, folder: Path, *flags: str) -> tuple[dict[str, Any], str, str]:
    """The settings, their text, and what was said of the file, which is imported once."""
    output = folder / f"{'-'.join([name, *flags])}.yaml"
    said = output.with_suffix(".said")
    if not output.exists():
        done = import_file(FOLDER / f"{name}.yaml", output, *flags)
        assert done.returncode == 0, done.stderr
        said.write_text(done.stderr)
    text = output.read_text()
    return yaml.safe_load(text), text, said.read_text()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("imported")


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "swap.yaml"
    path.write_text(text)
    return path


def test_there_are_sixteen_shapes() -> None:
    assert len(SHAPES) == 16


@pytest.mark.parametrize(
    "source",
    [pytest.param(path, marks=[] if path.stem in QUICK else pytest.mark.slow, id=path.stem) for path in SHAPES],
)
def test_every_shape_is_imported_and_served(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every model answers to each of its names, in the file's own words and in ours."""
    output = tmp_path / "app.yaml"
    done = import_file(source, output)
    assert done.returncode == 0, done.stderr
    assert f"serve {output}" in done.stdout
    monkeypatch.setenv("MODELS_OF_NOBODY", "/models")
    monkeypatch.setenv("RESIDENCY_CONFIG", str(output))
    read = read_llama_swap(source, by_memory=False)
    with TestClient(create_app(settings_from_environment())) as client:
        wait_for(lambda: client.get("/readyz").status_code == 200)
        listed = {model["id"] for model in client.get("/v1/models").json()["data"]}
        for model_id, choice in read.models.items():
            for name in (model_id, read.names[model_id], *choice.aliases):
                assert name in listed
                answer = client.post(CHAT, json={"model": name, "messages": []})
                assert answer.status_code == 200, answer.text
                assert answer.json()["path"] == CHAT


def test_what_is_carried_over(folder: Path) -> None:
    settings, text, said = imported("pinned-embeddings", folder)
    assert said == (
        f"{FOLDER}/pinned-embeddings.yaml:26: groups: became 'capacity': of the models that are not pinned, at most 1"
        " stay in memory.\n"
    )
    assert settings["models"]["chat"] == {
        "run": "${PYTHON} ${FAKE_ENGINE} --host 127.0.0.1 --port ${port} -c 8192 -t 8 --jinja -m /models/chat.gguf",
        "within": "90s",
        "aliases": ["gpt-4o-mini"],
    }
    assert " -t 4 " in settings["models"]["coder"]["run"]
    [strategy] = settings["strategies"]
    assert strategy["options"] == {
        "ttl": {"embed": "forever", "reranker": "forever", "chat": "10min", "coder": "10min"},
        "capacity": 3,
        "pin": ["embed", "reranker"],
    }
    assert settings["request_timeout"] == "2min"
    assert "# line 26: groups: became 'capacity'" in text


def test_a_budget_and_a_computed_ttl_take_the_place_of_guesses(folder: Path) -> None:
    settings, text, said = imported("pinned-embeddings", folder, "--memory-budget", "12GiB", "--ttl", "auto")
    assert settings["strategies"][0]["options"] == {
        "ttl": "auto",
        "memory_budget": "12GiB",
        "pin": ["embed", "reranker"],
    }
    assert "as many models stay as fit" in said
    assert "The file said: embed forever, reranker forever, chat 10min, coder 10min." in text


OPTIONS = {
    "fixed-hosts": {"ttl": {"big-vllm": "30min", "small-vllm": "forever"}, "capacity": 1},
    "stop-commands": {"ttl": "5min", "capacity": 1},
    "python-server": {"ttl": "forever"},
    "fixed-ports": {"ttl": {"chat": "15min", "vision": "1min", "hidden-port": "15min"}, "capacity": 1},
    "matrix": {"ttl": "forever", "capacity": 1},
    "preload": {
        "ttl": {"assistant": "forever", "helper": "5min", "night-shift": "5min"},
        "capacity": 1,
        "preload": ["assistant"],
    },
    "routing": {"ttl": "forever", "capacity": 3},
    "anchors": {"ttl": {"one": "5min", "two": "1min", "three": "forever"}, "capacity": 1},
}


@pytest.mark.parametrize(("name", "options"), OPTIONS.items(), ids=OPTIONS)
def test_how_long_and_how_many_models_stay(name: str, options: dict[str, Any], folder: Path) -> None:
    assert imported(name, folder)[0]["strategies"][0]["options"] == options


MODELS = {
    ("fixed-hosts", "big-vllm"): {"ready": "/v1/models", "within": "5min"},
    ("stop-commands", "kept"): {"stop": "control stop kept"},
    ("stop-commands", "killed"): {},
    ("fixed-ports", "hidden-port"): {"port": 18203},
    ("containers", "tts-large"): {"aliases": ["tts:large"], "stop": "docker stop tts"},
    ("containers", "whisper"): {"stop": "docker stop ${model}"},
    ("environment", "second-gpu"): {"environment": {"CUDA_VISIBLE_DEVICES": "1"}},
    ("variants", "thinker"): {"aliases": ["thinker-fast", "gpt-5:latest"]},
    ("shell-words", "other-runner"): {"environment": {"FAKE_HOST": "127.0.0.1:18300", "FAKE_KEEP": "-1"}},
    ("comments", "long-command"): {"within": "15s", "parallel": 2},
    ("tags-as-names", "qwen3.6-27b-2"): {"aliases": ["qwen3.6:27b"]},
    ("tags-as-names", "Qwen3.6-27B"): {"aliases": ["Qwen3.6 27B"]},
    ("tags-as-names", "qwen3.6-27b"): {},
}


@pytest.mark.parametrize(("name", "model"), MODELS, ids=[" ".join(key) for key in MODELS])
def test_the_keys_of_a_model(name: str, model: str, folder: Path) -> None:
    found = imported(name, folder)[0]["models"][model]
    assert {key: value for key, value in found.items() if key != "run"} == MODELS[name, model]


RUNS = {
    ("fixed-hosts", "small-vllm"): "${PYTHON} ${FAKE_ENGINE} --port=${port} --model org/Small-Model",
    ("containers", "tts-large"): "docker run --rm --name tts -p ${port}:8080 ghcr.io/org/tts",
    ("shell-words", "with-env"): "${PYTHON} ${FAKE_ENGINE} --port ${port} --say 'a && b'",
    ("comments", "long-command"): "${PYTHON} ${FAKE_ENGINE} --port ${port} --say 'two words, '\"'\"'quoted'\"'\"' and a"
    " \\ backslash' --alias ${model}",
    ("tags-as-names", "qwen3.6-27b-2"): "${PYTHON} ${FAKE_ENGINE} --port ${port} -m /models/qwen3.6:27b.gguf",
}


@pytest.mark.parametrize(("name", "model"), RUNS, ids=[" ".join(key) for key in RUNS])
def test_the_command_of_a_model(name: str, model: str, folder: Path) -> None:
    assert imported(name, folder)[0]["models"][model]["run"] == RUNS[name, model]


LOST = {  # by shape: the lines, keys and a part of each sentence
    "fixed-hosts": ["5: models.big-vllm.proxy: the port 18121 became", "12: models.small-vllm.proxy: the port 18122"],
    "stop-commands": ["9: models.killed.cmdStop: is left out, because it names ${PID}"],
    "python-server": [
        "5: models.speech-to-text.checkEndpoint: became /v1/models",
        "6: models.speech-to-text.name: is left out",
        "7: models.speech-to-text.description: is left out",
        "8: models.speech-to-text.useModelName: is left out",
    ],
    "environment": [
        "4: models.first-gpu.env[2]: holds the value that its variable has now.",
        "9: models.second-gpu.cmd: uses the variable MODELS_OF_NOBODY, which is not set here",
    ],
    "profiles": [
        "2: logLevel: is left out",
        "8: profiles: are left out",
        "12: peers: are left out",
        "14: apiKeys: are left out: callers are not asked for a key.",
    ],
    "variants": [
        "8: models.thinker.filters: are left out",
        "10: models.thinker.filters.setParamsByID: is left out, so there are no models '${MODEL_ID}:high'",
        "13: models.thinker.metadata: is left out",
        "14: models.thinker.unlisted: is left out",
        "15: models.thinker.sendLoadingState: is left out",
    ],
    "matrix": ["6: matrix: is left out: one model at a time"],
    "anchors": ["2: x-common: is not known here"],
    "preload": ["5: hooks.on_startup.preload[2]: is left out: there is no", "16: models.night-shift.unloadTimeout: is"],
    "comments": [
        "3: sendLoadingState: is left out",
        "14: models.long-command.timeouts: are left out",
        "15: models.long-command.capabilities: are left out",
        "16: models.long-command.new-key-of-next-year: is not known here",
    ],
}


@pytest.mark.parametrize("name", LOST)
def test_what_cannot_be_carried_over_is_said_line_by_line(name: str, folder: Path) -> None:
    """On stderr, and as comments of the new file."""
    _, text, said = imported(name, folder)
    lines = said.splitlines()
    assert len(lines) == len(LOST[name]), said
    for line, beginning in zip(lines, LOST[name], strict=True):
        assert line.startswith(f"{FOLDER}/{name}.yaml:{beginning}"), line
        assert f"# line {line.partition('.yaml:')[2]}" in text


def test_a_container_needs_a_size(folder: Path) -> None:
    settings, _, said = imported("containers", folder)
    sentence = "runs in a container, whose memory cannot be measured: add its size, as in memory: {fixed: 3GiB}."
    for line, name in ((6, "whisper"), (12, "tts:large"), (15, "nameless")):
        assert f"containers.yaml:{line}: models.{name}.cmd: {sentence}" in said
    assert settings["models"]["nameless"] == {
        "run": "docker run --name ${model}-${port} --rm -p ${port}:80 img",
        "stop": "docker stop ${model}-${port}",
    }


WRONG = {
    "- a": "1:1: must be a mapping with the keys models, ",
    "strategies: [persistent]": "has no 'models', so it is not a llama-swap file.",
    "models: {}": "1:1: models: must be a list or a mapping with at least 1 value",
    "models:\n  a: {}": "2:3: models.a.cmd: is required.",
    "models:\n  a: {cmd: ''}": "2:7: models.a.cmd: cannot be split into words: it holds no command.",
    "models:\n  a: {cmd: 'x \"y'}": "2:7: models.a.cmd: cannot be split into words: a quotation is not closed.",
    "models:\n  a: {cmd: x}": "2:7: models.a.cmd: must hold ${PORT}, or 'proxy' must name the port.",
    "models:\n  a: {cmd: x, proxy: 'http://h:y'}": "2:15: models.a.proxy: must be a URL such as http://localhost:8080.",
    "models:\n  a: {cmd: '${b} ${PORT}'}": "2:7: models.a.cmd: there is no macro 'b'; macros: PORT, MODEL_ID.",
    f"macros: {{b: '${{c}}', c: '${{b}}'}}\n{MODEL.replace('serve', '${b}')}": "models.a.cmd: the macro 'b' contains",
    f"macros: {{b: '{'${c}' * 99}', c: '{'x' * 999}'}}\n{MODEL.replace('serve', '${b}')}": "is longer than 10000",
    "models:\n  a: {cmd: x, ttl: soon}": "2:15: models.a.ttl: must be a whole number",
    "models:\n  a: {cmd: x, ttl: 1}\n  a: {cmd: y}": "3:3: the key 'a' was already used in line 2.",
    "models:\n  a: {cmd: 'x ${PORT}', env: [B]}": "models.a.env[0]: must be of the form NAME=value.",
    "models:\n  a: {cmd: 'x ${PORT}', env: ['B=${env.NOT_SET}']}": "models.a.env[0]: the variable NOT_SET is not set.",
    f"{MODEL}groups: {{g: {{members: [b]}}}}": "2:24: groups.g.members[0]: there is no model 'b'.",
    f"{MODEL}groups: {{g: {{members: [a]}}, h: {{members: [a]}}}}": "groups.h.members[0]: 'a' is in the group 'g',",
    f"models:\n  a: {{{RUNS_ON}, aliases: [c]}}\n  b: {{{RUNS_ON}, aliases: [c]}}": "'c' is an alias of 'a', too.",
    f"models:\n  a: {{{RUNS_ON}, aliases: [b]}}\n  b: {{{RUNS_ON}}}": "'b' is the name of another model.",
    "models: *x": "1:9: is not valid YAML: ",
    "a: &a [*a]\n" + MODEL: "1:8: is not valid YAML: ",
    "models: {<<: [1]}": "1:15: models.<<[0]: must be a mapping, or a list of mappings, to merge.",
    "models: !!python/object:os.system {}": "the tag tag:yaml.org,2002:python/object:os.system is not supported",
    MODEL + "x: " + "[" * 99 + "]" * 99: "is nested more than 12 levels deep",
}


@pytest.mark.parametrize("text", WRONG, ids=range(len(WRONG)))
def test_a_wrong_file_is_a_sentence_with_its_line(text: str, tmp_path: Path) -> None:
    path = written(tmp_path, text)
    done = import_file(path, tmp_path / "app.yaml")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {path}:")
    assert done.stderr.count("\n") == 1
    assert WRONG[text] in done.stderr
    assert sorted(tmp_path.iterdir()) == [path]


def test_aliases_of_yaml_do_not_fill_the_memory(tmp_path: Path) -> None:
    levels = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
    with pytest.raises(YamlError, match=r"nested more than 12 levels deep|contains more than 20000 values"):
        read_llama_swap(written(tmp_path, "\n".join(["a0: &a0 x", *levels, MODEL])), by_memory=False)


def test_an_existing_file_stays(tmp_path: Path) -> None:
    (tmp_path / "app.yaml").write_text("mine")
    done = import_file(FOLDER / "matrix.yaml", tmp_path / "app.yaml")
    assert (done.returncode, (tmp_path / "app.yaml").read_text()) == (2, "mine")
    assert "exists already; name another file with --output, or delete it." in done.stderr


def test_ids_are_safe_and_differ() -> None:
    names = ["a:b", "a-b", "a/b", "ä", "ö", "-", "x" * 70, "x" * 71]
    ids = safe_ids(dict.fromkeys(names))
    assert list(ids) == names
    assert len(set(ids.values())) == len(names)
    assert ids["a-b"] == "a-b"
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", each) for each in ids.values())
