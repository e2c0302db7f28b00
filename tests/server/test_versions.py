"""A server tells which version of a model it has, and changes it under all strategies at one moment."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

import httpx
import pytest

from core.bench.client import connect
from core.checkpoints.checkpoint import sha256
from tests.helpers.architectures import build
from tests.helpers.support import FAKES, ROOT, SECONDS, running, wait_for

LABELS = str(ROOT / "tests" / "helpers" / "label_loader.py")
TOKEN = "a token of the tests"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
ROUTES = {
    "persistent": "/predict",
    "lru-cached": "/predict-lru-cached",
    "keep-alive": "/predict-keep-alive",
    "on-demand": "/predict-on-demand",
}
TEXT = {"text": "a good film"}


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two versions of a model, whose labels tell them apart, and one that cannot answer."""
    folder = tmp_path_factory.mktemp("releases")
    made = []
    for name in ("v1", "v2"):
        labels = {i: f"{name} {i}" for i in range(3)}
        made.append(build(folder / name, "bert", id2label=labels, label2id={v: k for k, v in labels.items()}))
    broken = shutil.copytree(made[0], folder / "broken")
    (broken / "tokenizer.json").unlink()
    return [*made, broken]


def lead(link: Path, directory: Path) -> None:
    """Switch the link, as a deployment does: at one moment."""
    fresh = link.with_name("fresh")
    fresh.symlink_to(directory)
    fresh.replace(link)


@contextmanager
def serving(link: Path, loader: Any = "label", **more: Any) -> Iterator[httpx.Client]:
    strategies = [{"strategy": name, "loader": loader} for name in ROUTES]
    settings = {"models": {"m": str(link)}, "strategies": strategies, "token": TOKEN, "plugins": [LABELS]} | more
    with running(settings) as (_, client):
        yield client


class Told(NamedTuple):
    began: float
    ended: float
    version: str
    label: str


def ask(client: httpx.Client, route: str) -> Told:
    began = time.monotonic()
    response = client.post(route, json=TEXT)
    ended = time.monotonic()
    assert response.status_code == 200, response.text
    label = response.json()["predictions"][0]["label"]
    return Told(began, ended, response.headers["x-model-version"], label)


def load(client: httpx.Client, strategy: str = "persistent") -> httpx.Response:
    return client.post("/models/m/load", json={"strategy": strategy}, headers=BEARER)


def cache_name(directory: Path) -> str:
    return f"sha256:{sha256(directory)[:16]}"


@pytest.mark.parametrize("loader", ["label", "mapped", "subprocess"])
def test_all_strategies_change_at_one_moment_without_a_failed_request(
    loader: str, releases: list[Path], tmp_path: Path
) -> None:
    one, two, _ = releases
    link = tmp_path / "current"
    link.symlink_to(one)
    over = Event()
    with serving(link, loader) as client:
        url = str(client.base_url)

        def hammer(route: str) -> list[Told]:
            with connect(url, SECONDS) as own:
                answers = []
                while not over.is_set():
                    answers.append(ask(own, route))
                return [*answers, ask(own, route)]

        with ThreadPoolExecutor(len(ROUTES)) as pool:
            hammering = [pool.submit(hammer, route) for route in ROUTES.values()]
            try:
                for route in ROUTES.values():
                    assert ask(client, route).label.startswith("v1")
                lead(link, two)
                assert load(client).status_code == 200
                for route in ROUTES.values():
                    assert ask(client, route).label.startswith("v2")
            finally:
                over.set()
            told = [answer for each in hammering for answer in each.result(SECONDS)]
        names = {cache_name(one): "v1", cache_name(two): "v2"}
        assert all(answer.label.startswith(names[answer.version]) for answer in told)
        first_of_two = min(answer.ended for answer in told if answer.version == cache_name(two))
        assert all(answer.version == cache_name(two) for answer in told if answer.began > first_of_two)
        [persistent, *_] = client.get("/strategies").json()["strategies"]
        assert [model["model"] for model in persistent["resident"]] == ["m"]
        history = client.get("/residency").json()["strategies"][0]["models"][0]["history"]
        assert ("unload", "removed") in [(event["event"], event["reason"]) for event in history]


def test_a_load_for_a_request_finds_the_change_as_well(releases: list[Path], tmp_path: Path) -> None:
    link = tmp_path / "current"
    link.symlink_to(releases[0])
    with serving(link) as client:
        assert ask(client, ROUTES["persistent"]).label.startswith("v1")
        lead(link, releases[1])
        assert ask(client, ROUTES["on-demand"]).label.startswith("v2")
        assert ask(client, ROUTES["persistent"]).label.startswith("v2")


def test_a_version_that_cannot_answer_leaves_the_older_one(releases: list[Path], tmp_path: Path) -> None:
    one, _, broken = releases
    link = tmp_path / "current"
    link.symlink_to(one)
    with serving(link) as client:
        before = [ask(client, route) for route in ROUTES.values()]
        lead(link, broken)
        refused = load(client)
        assert refused.status_code == 503
        assert "tokenizer" in refused.json()["detail"]
        assert str(tmp_path) not in refused.text
        again = [ask(client, route) for route in ROUTES.values()]
        assert [answer.version for answer in again] == [answer.version for answer in before]
        assert client.get("/readyz").json()["unavailable"] == []
        assert client.get("/v2/models/m/ready").status_code == 200
        shutil.rmtree(link, ignore_errors=True)
        link.unlink()
        assert load(client).status_code == 503
        assert ask(client, ROUTES["on-demand"]).label.startswith("v1")


def test_a_version_that_cannot_answer_is_tried_once(releases: list[Path], tmp_path: Path) -> None:
    one, _, broken = releases
    tried = shutil.copytree(broken, tmp_path / "tried")
    loads = tmp_path / "loads"
    loads.touch()
    link = tmp_path / "current"
    link.symlink_to(one)
    with serving(link, strategies=[{"strategy": "on-demand", "loader": "label"}]) as client:
        assert ask(client, ROUTES["on-demand"]).label.startswith("v1")
        lead(link, tried)
        for _ in range(3):
            assert ask(client, ROUTES["on-demand"]).label.startswith("v1")
        assert loads.read_text() == "load\n"
        assert load(client, "on-demand").status_code == 503  # by hand, it is tried again
        assert loads.read_text() == "load\n" * 2


def test_a_folder_that_is_renamed_beneath_a_server_gives_no_two_versions(releases: list[Path], tmp_path: Path) -> None:
    folder = shutil.copytree(releases[0], tmp_path / "model")
    with serving(folder) as client:
        for route in ROUTES.values():
            assert ask(client, route).label.startswith("v1")
        folder.rename(tmp_path / "old")
        shutil.copytree(releases[1], tmp_path / "new").rename(folder)
        labels = [ask(client, route).label[:2] for route in reversed(ROUTES.values())]
        assert labels == ["v2"] * len(ROUTES)


def test_says_everywhere_which_version_it_has(releases: list[Path], tmp_path: Path) -> None:
    revision = "0123456789abcdef0123456789abcdef01234567"
    snapshot = tmp_path / "models--org--name" / "snapshots" / revision
    shutil.copytree(releases[0], snapshot)
    digest = sha256(snapshot)
    with serving(snapshot) as client:
        version = {"sha256": digest, "revision": revision}
        for strategy in client.get("/residency").json()["strategies"]:
            assert [model["version"] for model in strategy["models"]] == [version]
        assert client.get("/v2/models/m").json()["parameters"] == version
        assert ask(client, ROUTES["on-demand"]).version == f"sha256:{digest[:16]}"
        infer = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["x"]}]}
        assert client.post("/v2/models/m/infer", json=infer).headers["x-model-version"] == f"sha256:{digest[:16]}"
        line = f'residency_model_info{{model="m",revision="{revision}",sha256="{digest}"}} 1.0'
        assert line in client.get("/metrics").text


@pytest.mark.slow
def test_one_bad_checkpoint_of_many_keeps_no_other_from_being_served(releases: list[Path], tmp_path: Path) -> None:
    """Found at the start, when the model is loaded, or when it is probed; whether a strategy preloads it or not."""
    good, _, no_tokenizer = releases
    no_weights = shutil.copytree(good, tmp_path / "no weights")
    (no_weights / "model.safetensors").unlink()
    odd_labels = shutil.copytree(good, tmp_path / "odd labels")
    config = json.loads((good / "config.json").read_text())
    (odd_labels / "config.json").write_text(json.dumps(config | {"id2label": {"5": "a"}}))
    models = {
        "good": str(good),
        "gone": str(tmp_path / "gone"),
        "no-weights": str(no_weights),
        "odd-labels": str(odd_labels),
        "no-tokenizer": str(no_tokenizer),
    }
    strategies = ["lru-cached", "persistent", "on-demand"]
    with running({"models": models, "strategies": strategies}) as (_, client):
        wait_for(lambda: client.get("/readyz").json()["checked"])
        ready = client.get("/readyz")
        assert ready.status_code == 200
        told = {(each["model"], each["strategy"]): each["reason"] for each in ready.json()["unavailable"]}
        at_start = {("gone", None), ("no-weights", None), ("odd-labels", None)}
        assert set(told) == at_start | {("no-tokenizer", name) for name in strategies}
        assert "no checkpoint directory" in told["gone", None]
        assert "Only safetensors" in told["no-weights", None]
        assert "id2label" in told["odd-labels", None]
        assert "tokenizer.json" in told["no-tokenizer", "lru-cached"]
        assert str(tmp_path) not in ready.text
        for name in strategies:
            for model in models:
                answer = client.post(ROUTES[name], json=TEXT | {"model": model})
                assert answer.status_code == (200 if model == "good" else 503), answer.text
                assert model == "good" or answer.headers["retry-after"]
        assert client.get("/v2/models/good/ready").status_code == 200
        assert client.get("/v2/models/no-tokenizer/ready").status_code == 503
        assert client.get("/healthz").status_code == 200


def test_a_model_that_was_missing_is_served_once_it_is_there(releases: list[Path], tmp_path: Path) -> None:
    late = tmp_path / "late"
    models = {"good": str(releases[0]), "late": str(late)}
    settings = {"models": models, "strategies": [{"strategy": "lru-cached", "loader": "label"}], "plugins": [LABELS]}
    with running(settings | {"token": TOKEN}) as (_, client):
        assert [each["model"] for each in client.get("/readyz").json()["unavailable"]] == ["late"]
        shutil.copytree(releases[1], late)
        loaded = client.post("/models/late/load", json={"strategy": "lru-cached"}, headers=BEARER)
        assert loaded.status_code == 200, loaded.text
        assert client.post(ROUTES["lru-cached"], json=TEXT | {"model": "late"}).status_code == 200
        assert client.get("/readyz").json()["unavailable"] == []


def test_readiness_waits_only_for_what_is_preloaded(releases: list[Path], tmp_path: Path) -> None:
    """A load that hangs, of a model that nobody has asked for, keeps nobody waiting."""
    slow = shutil.copytree(releases[0], tmp_path / "slow")
    os.mkfifo(slow / "gate")
    settings = {"models": {"slow": str(slow)}, "strategies": [{"strategy": "lru-cached", "loader": "fake"}]}
    with running(settings | {"plugins": [FAKES]}) as (_, client):
        assert client.get("/readyz").status_code == 200
        assert client.get("/readyz").json()["checked"] is False
        with (slow / "gate").open("wb"):
            (slow / "gate").unlink()
        wait_for(lambda: client.get("/readyz").json()["checked"])
