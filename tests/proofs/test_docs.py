"""What the README and docs/ show is run as it stands there, and every page can be found."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from core import hookspecs
from core.bench.experiment import load_experiment
from core.checkpoints.embedded import embedded_directory
from core.cli.commands import commands
from core.config.settings import Settings
from core.config.strict_yaml import read
from core.planning.plan_file import PlanFile
from core.plugins import load_plugins
from core.report.table import NARROW
from tests.helpers.engines import FAKE_ENGINE
from tests.helpers.support import ROOT, SECONDS, read_json, run_python, running, uvicorn, wait_for
from tests.helpers.wheels import minilm

DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text()
MKDOCS = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
PAGES = {path: path.read_text() for path in (ROOT / "README.md", *sorted(DOCS.rglob("*.md")))}
TEXT = "\n".join(PAGES.values())


def blocks(language: str, text: str = TEXT) -> list[str]:
    """Its fenced blocks of that language."""
    return [str(code) for code in re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)]


def block(language: str, start: str) -> str:
    """The fenced block of that language, on whichever page, that begins with `start`; copies of it are allowed."""
    [found] = {code for code in blocks(language) if code.startswith(start)}
    return found


QUESTIONS = {  # YAML that begins with a question, by page and question
    f"{path.relative_to(ROOT)}: {first[2:]}": code
    for path, page in PAGES.items()
    for code in blocks("yaml", page)
    if re.fullmatch(r"# .+\?", first := code.partition("\n")[0])
}


def without_code(page: str) -> str:
    return re.sub(r"^```.*?^```$", "", page, flags=re.DOTALL | re.MULTILINE)


def anchors(page: str) -> set[str]:
    """Of its headings, as GitHub and MkDocs make them."""
    headings = re.findall(r"^#+ +(.+)$", without_code(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    code = block("python", '"""recycled.py"""')
    assert len([line for line in code.splitlines() if line.strip()]) <= 30
    (tmp_path / "recycled.py").write_text(code)
    return tmp_path / "recycled.py"


def test_the_plugin_is_checked(plugin: Path) -> None:
    done = run_python(str(ROOT / "runner.py"), "check", str(plugin))
    assert done.returncode == 0, done.stderr
    assert block("text", "What the strategy recycled pays") in done.stdout


@pytest.mark.slow
def test_the_plugin_is_benchmarked_by_naming_its_file(plugin: Path, tmp_path: Path) -> None:
    (tmp_path / "recycling.yaml").write_text(block("yaml", "# Does recycling"))
    flags = ("--repeats", "1", "--output", str(tmp_path / "out"))
    done = run_python(str(ROOT / "runner.py"), str(tmp_path / "recycling.yaml"), *flags)
    assert done.returncode == 0, done.stderr
    assert f"Running the code of plugin {plugin}" in done.stderr
    [summary] = (tmp_path / "out").rglob("summary.json")
    kept, recycled = read_json(summary)["trials"]
    assert (kept["loads"], recycled["strategy"], recycled["loads"]) == (1, "recycled", 5)  # of 21 uses


def test_the_plugin_is_found_when_it_is_installed(plugin: Path, tmp_path: Path) -> None:
    project = block("toml", "[project]")
    info = tmp_path / "residency_recycled-1.0.dist-info"
    info.mkdir()
    [name], [version] = re.findall(r'^name = "(.*)"$', project, re.M), re.findall(r'^version = "(.*)"$', project, re.M)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    [point] = re.findall(r"\[project\.entry-points\.residency\]\n(.*)\n", project)
    (info / "entry_points.txt").write_text(f"[residency]\n{point.replace(chr(34), '')}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path))
        listed = run_python(str(ROOT / "runner.py"), "plugins").stdout
        assert "recycled (residency-recycled 1.0)\n    Frees a model after a number of uses" in listed
        assert re.search(r"uses +int +default: 100", listed)
        with running({}) as (_, client):
            assert client.post("/predict-recycled", json={"text": "I love it."}).json()["strategy"] == "recycled"


def test_the_experiment_can_be_planned(tmp_path: Path) -> None:
    (tmp_path / "turns.yaml").write_text(block("yaml", "# Does a cache"))
    plan = load_experiment(tmp_path / "turns.yaml")
    assert [trial.label for trial in plan.trials] == ["persistent", "on-demand", "one model"]


def test_the_settings_are_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "app.yaml").write_text(block("yaml", "# app.yaml"))
    monkeypatch.setenv("RESIDENCY_CONFIG", str(tmp_path / "app.yaml"))
    assert list(Settings().models) == ["sentiment", "large"]


def test_the_served_app_answers_the_readmes_curl() -> None:
    serve, curl = block("bash", "uvicorn core.app:app").splitlines()
    loopback = serve.replace("0.0.0.0", "127.0.0.1")
    server = subprocess.Popen(["bash", "-c", f"exec {loopback}"], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        answer = ""

        def answered() -> bool:
            nonlocal answer
            answer = subprocess.run(["bash", "-c", curl], capture_output=True, text=True, check=False).stdout
            return "200 OK" in answer

        wait_for(answered)
        assert '"label":"POSITIVE"' in answer
        assert "server-timing: queue;dur=" in answer
    finally:
        server.terminate()
        _, log = server.communicate(timeout=SECONDS)
    assert "persistent: loaded 'embedded' (onnxruntime, " in log
    assert "persistent: freed 'embedded' after" in log


def test_the_recipe_of_a_roll_out_brings_in_the_new_version(tmp_path: Path) -> None:
    """Run as it stands there, beside the settings that it speaks of."""
    recipe = block("bash", "ln -sfn sentiment")
    for name in ("sentiment-v1", "sentiment-v2"):
        labels = {"0": f"{name} -", "1": f"{name} +"}
        copy = shutil.copytree(embedded_directory(), tmp_path / "models" / name)
        config = read_json(copy / "config.json") | {"id2label": labels}
        (copy / "config.json").write_text(json.dumps(config))
    (tmp_path / "models" / "sentiment").symlink_to("sentiment-v1")
    (tmp_path / "app.yaml").write_text("models: {sentiment: ./models/sentiment}\n")
    token = "a token of the readme"
    variables = {"RESIDENCY_CONFIG": str(tmp_path / "app.yaml"), "RESIDENCY_TOKEN": token}
    with uvicorn(tmp_path / "log", variables=variables) as client:

        def label() -> str:
            return str(client.post("/predict", json={"text": "I love it."}).json()["predictions"][0]["label"])

        assert label() == "sentiment-v1 +"
        here = recipe.replace("localhost:8001", f"{client.base_url.host}:{client.base_url.port}")
        done = subprocess.run(
            ["bash", "-euc", here], cwd=tmp_path, env=os.environ | variables, capture_output=True, text=True, check=True
        )
        assert '"state":"resident"' in done.stdout
        assert label() == "sentiment-v2 +"


def test_the_openai_client_embeds_as_shown() -> None:
    code = block("python", "from openai import OpenAI")
    settings = {"models": {"minilm": str(minilm())}, "strategies": ["persistent", "on-demand"]}
    with running(settings) as (_, client):
        here: dict[str, Any] = {}
        exec(code.replace("http://localhost:8001", str(client.base_url).rstrip("/")), here)
    assert [len(each.embedding) for each in here["answer"].data] == [384, 384]


def test_an_engine_answers_the_curl_as_shown() -> None:
    """With the fake engine in place of llama-server."""
    settings = yaml.safe_load(block("yaml", "# What runs beside a chat model"))
    chat = settings["models"]["chat"]
    chat["run"] = f"{chat['run'].replace('llama-server', f'{sys.executable} {FAKE_ENGINE}')}"
    curl = block("bash", "curl localhost:8001/v1/chat/completions")
    with running(settings) as (_, client):
        here = curl.replace("localhost:8001", f"{client.base_url.host}:{client.base_url.port}")
        done = subprocess.run(["bash", "-c", here], capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)
    assert (answer["path"], json.loads(answer["body"])["model"]) == ("/v1/chat/completions", "gpt-4o-mini")


def test_llama_swap_is_imported_as_shown(tmp_path: Path) -> None:
    shutil.copy(ROOT / "tests" / "data" / "llama_swap" / "pinned-embeddings.yaml", tmp_path / "llama-swap.yaml")
    command = block("bash", "python runner.py import llama-swap.yaml").replace("runner.py", str(ROOT / "runner.py"))
    variables = {"PYTHON": sys.executable, "FAKE_ENGINE": str(FAKE_ENGINE)}
    subprocess.run(["bash", "-c", command], cwd=tmp_path, env=os.environ | variables, capture_output=True, check=True)
    options = yaml.safe_load((tmp_path / "app.yaml").read_text())["strategies"][0]["options"]
    assert (options["ttl"], options["memory_budget"]) == ("auto", "12GiB")


@pytest.mark.parametrize("code", QUESTIONS.values(), ids=QUESTIONS.keys())
@pytest.mark.usefixtures("plugin")
def test_every_yaml_that_begins_with_a_question_is_understood(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a plan, an experiment or settings, whichever it is."""
    path = tmp_path / "question.yaml"
    path.write_text(code)
    document = read(path)
    if "profile" in document.value:
        assert document.validate(PlanFile).profile
    elif {"texts", "requests"} & document.value.keys():
        assert load_experiment(path).trials
    else:
        monkeypatch.setenv("RESIDENCY_CONFIG", str(path))
        assert Settings().models


@pytest.mark.parametrize("start", ["import math", '"""recycled.py"""', '"""optimist.py"""'])
def test_every_plugin_registers(start: str, tmp_path: Path) -> None:
    path = tmp_path / "shown.py"
    path.write_text(block("python", start))
    built_in, plugins = load_plugins(), load_plugins([str(path)])
    new = (plugins.strategies.keys() | plugins.loaders.keys()) - built_in.strategies.keys() - built_in.loaders.keys()
    assert new == {"optimist" if "optimist" in start else "recycled"}


def test_the_readme_is_a_front_page() -> None:
    assert README.count("\n") <= 150
    assert len(README.split()) <= 900
    strategy = block("python", "import math")
    assert strategy in blocks("python", README)
    assert len([line for line in strategy.splitlines() if line.strip()]) <= 12
    rows = [line for line in without_code(README).splitlines() if line.startswith("|")]
    assert rows
    assert max(row.strip("|").count("|") + 1 for row in rows) <= 7


def test_every_page_is_in_the_navigation() -> None:
    pages = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
    assert len(pages) >= 10
    assert sorted(_files(MKDOCS["nav"])) == pages


def test_the_site_holds_what_is_in_docs_only() -> None:
    assert MKDOCS["docs_dir"] == "docs"
    assert MKDOCS["plugins"] == ["search"]  # another one may add pages
    assert not [path for path in DOCS.rglob("*") if not path.resolve().is_relative_to(DOCS)]


def _files(nav: Any) -> Iterator[str]:
    """The paths in a part of MkDocs' navigation."""
    if isinstance(nav, str):
        yield nav
    else:
        for part in nav.values() if isinstance(nav, dict) else nav:
            yield from _files(part)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(PAGES[path])):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        page = (path.parent / name).resolve() if name else path
        assert page.exists(), target
        is_published = path.is_relative_to(DOCS)
        assert not is_published or page.is_relative_to(DOCS), f"{target}: MkDocs knows what is in docs/ only"
        assert not anchor or anchor in anchors(page.read_text()), target


def test_every_hook_experiment_setting_and_flag_is_documented() -> None:
    for name in vars(hookspecs):
        if name.startswith(("register_", "after_")):
            assert f"`{name}`" in TEXT
    for path in (ROOT / "experiments").glob("*.yaml"):
        assert f"`experiments/{path.name}`" in PAGES[DOCS / "experiments.md"]
    for name in Settings.model_fields:
        assert f"| `RESIDENCY_{name.upper()}` |" in PAGES[DOCS / "serving.md"]
    reference = PAGES[DOCS / "command-line.md"]
    for name, command in commands.commands.items():
        assert re.search(rf"^\| `{name}[` ]", reference, re.MULTILINE), name
        for option in (option for parameter in command.params for option in parameter.opts):
            assert not option.startswith("--") or f"| `{option}" in reference, f"{name} {option}"


def test_the_table_is_of_the_present_form() -> None:
    header = next(line for line in README.splitlines() if line.startswith("| strategy") and "p50" in line)
    assert [cell.strip() for cell in header.strip("|").split("|")] == [name.replace("|", " ") for name in NARROW]


def test_pre_commit_and_ci_run_what_the_docs_say() -> None:
    ruff, local = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert re.fullmatch(r"v\d+\.\d+\.\d+", ruff["rev"])
    assert [hook["id"] for hook in ruff["hooks"]] == ["ruff-check", "ruff-format"]
    assert [(hook["entry"], hook["stages"]) for hook in local["hooks"]] == [("mypy", ["manual"])]
    for command in ("ruff check", "ruff format", "mypy", "mkdocs build --strict"):
        assert f"`{command}`" in PAGES[DOCS / "contributing.md"]
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_the_workflow_runs_what_the_readme_and_contributing_say() -> None:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    runs = {name: [step["run"] for step in job["steps"] if "run" in step] for name, job in jobs.items()}
    [tests] = [code for code in blocks("bash", README) if "&& pytest" in code]
    assert runs["tests"][-1] == tests.strip()
    assert runs["lint"][1:] == ["ruff check .", "ruff format --check .", "mypy", "lint-imports"]
    assert runs["docs"][1:] == ["mkdocs build --strict"]
    actions = [step["uses"] for job in jobs.values() for step in job["steps"] if "uses" in step]
    assert all(re.fullmatch(r"actions/[\w-]+@v\d+", action) for action in actions)


def test_probes_and_scrapes_ask_for_what_is_there() -> None:
    probes = yaml.safe_load(block("yaml", "# probes of the container"))
    [job] = yaml.safe_load(block("yaml", "# prometheus.yml"))["scrape_configs"]
    with running({}) as (_, client):
        for path in (*(probe["httpGet"]["path"] for probe in probes.values()), job["metrics_path"]):
            assert client.get(path).status_code == 200


def test_the_unit_stops_later_than_the_server() -> None:
    unit = block("ini", "[Unit]")
    [seconds] = re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    assert int(seconds) > Settings().shutdown_timeout
    [variables] = re.findall(r"^Environment=(.*)$", unit, re.MULTILINE)
    for variable in variables.split():
        assert variable.partition("=")[0] in TEXT.replace(unit, "")
