"""What a trial sends for a text or a request, and what it reads from the answers of each task."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.bench.asking import Asking
from core.bench.first_answers import FirstAnswers
from core.bench.requests import Requests
from core.bench.tasks import task_of
from core.config.choices import LoaderChoice
from core.errors import TrialFailed
from core.plugins import load_plugins
from core.tasks.table import TASKS

LOADER = LoaderChoice(name="transformers")


def asking(folder: Path) -> Asking:
    """Three models, one for each task."""
    tasks = {"embedder": TASKS["embed"], "scorer": TASKS["score"], "classifier": TASKS["classify"]}
    return Asking("/predict-on-demand", ("a", "b"), (), tasks, FirstAnswers(folder))


def answer(result: object) -> list[tuple[float, bytes]]:
    return [(1.0, json.dumps({"results": [result], "cold": True}).encode())]


def test_texts_go_to_the_route_of_the_task(tmp_path: Path) -> None:
    ask = asking(tmp_path)
    assert ask.request("classifier", 1)[0] == "/predict-on-demand"
    path, body = ask.request("embedder", 1)
    assert (path, json.loads(body)) == ("/tasks/embed", {"items": ["b"], "model": "embedder"})
    path, body = ask.request("scorer", 0)
    [item] = json.loads(body)["items"]
    assert (path, len(item)) == ("/tasks/score", 2)


def test_results_are_as_far_from_the_first_as_the_task_says(tmp_path: Path) -> None:
    ask, headers = asking(tmp_path), {"Server-Timing": "queue;dur=1, load;dur=2"}
    first = ask.reply("embedder", 0, 200, answer([1.0, 0.0]), headers)
    assert first == {"status": 200, "cold": True, "apart": 0, "timing": {"queue": 1, "load": 2}}
    assert ask.reply("embedder", 0, 200, answer([2.0, 0.001]), headers)["apart"] < 1
    assert ask.reply("embedder", 0, 200, answer([0.0, 1.0]), headers)["apart"] > 1
    assert ask.reply("embedder", 1, 200, answer([0.0, 1.0]), headers)["apart"] == 0
    assert ask.reply("scorer", 0, 200, answer(0.5), headers)["apart"] == 0
    assert ask.reply("scorer", 0, 200, answer(0.9), headers)["apart"] > 1
    with pytest.raises(TrialFailed, match="malformed"):
        ask.reply("scorer", 0, 200, [(1.0, b'{"results": []}')], headers)
    other = [(1.0, b'{"error": {"message": "Too long."}}')]
    assert ask.reply("scorer", 0, 400, other, headers) == {"status": 400, "error": "Too long."}
    assert ask.reply("scorer", 0, 503, [(1.0, b'{"detail": "Full."}')], headers) == {"status": 503, "error": "Full."}


def test_prompts_become_requests_of_a_chat() -> None:
    [message] = Requests.model_validate({"chat": ["Hi"], "max_tokens": 3}).messages
    assert (message.path, message.agree) == ("/v1/chat/completions", True)
    assert json.loads(message.body_for("m")) == {
        "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3, "temperature": 0, "stream": True,
        "stream_options": {"include_usage": True}, "model": "m",
    }  # fmt: skip
    [message] = Requests.model_validate({"chat": ["Hi"], "temperature": 0.7, "stream": False}).messages
    assert (message.agree, "stream" in message.body) == (False, False)


@pytest.mark.parametrize(("head", "task"), [("BertForSequenceClassification", "classify"), ("BertModel", "embed")])
def test_a_model_is_asked_for_what_its_checkpoint_is(tmp_path: Path, head: str, task: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": [head], "model_type": "bert"}))
    assert task_of(load_plugins(), LOADER, tmp_path).name == task
