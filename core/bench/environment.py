"""The environment of a run: machine, processor, threads, versions of packages, commit."""

from __future__ import annotations

import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from ..results.environment import Environment
from ..results.records import Machine
from ..system.threads import cores, forward_threads

FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimd", "bf16", "sve")
PACKAGES = (
    "residency",
    "onnxruntime",
    "openvino",
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "fastapi",
    "uvicorn",
    "uvloop",
    "httpx",
    "aiohttp",
    "numpy",
)


def describe_machine(number: int) -> Machine:
    """The record that this machine runs the round of that number, from 0."""
    return Machine(round=number, name=platform.node(), environment=describe_environment())


def describe_environment() -> Environment:
    """The environment of this process."""
    cpuinfo = _read(Path("/proc/cpuinfo"))
    model = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    flags = set(cpuinfo.split())
    return Environment(
        machine=platform.platform(),
        processor=model[1] if model else platform.processor(),
        processor_features=[feature for feature in FEATURES if feature in flags],
        cores=cores(),
        memory_mib=psutil.virtual_memory().total >> 20,
        python=platform.python_version(),
        torch_threads=forward_threads(),
        versions={name: _version(name) for name in PACKAGES},
        commit=_commit(),
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The checkout's commit, with `+` if it has uncommitted changes; None outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        git = ["git", "-C", str(root)]
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        changes = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit.stdout.strip() + ("+" if changes.stdout.strip() else "")


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
