"""What is public, and that neither importing the package nor asking for help loads anything heavy."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

HEAVY = "torch transformers torchaudio langgraph langchain_core trl peft datasets pyarrow matplotlib".split()

PUBLIC = {
    "echo_agent": [
        "AudioRef",
        "Budget",
        "ChatAgent",
        "ChatLALM",
        "EchoAgent",
        "EchoAgentError",
        "EchoResult",
        "HearingMiddleware",
        "ListeningContext",
        "Recording",
        "RecordingStore",
        "RelistenRecord",
        "SamplingParams",
        "TorchEngine",
        "Trajectory",
        "Transform",
        "VLLMEngine",
        "audio_block",
        "build_listening_graph",
        "initial_state",
        "load_family",
        "make_relisten",
    ],
    "echo_agent.engine": ["Finish", "Generation", "SamplingParams", "Timings", "TorchEngine", "VLLMEngine"],
    "echo_agent.graphs": [
        "Budget",
        "ListeningContext",
        "ListeningInput",
        "ListeningOutput",
        "ListeningState",
        "build_listening_graph",
        "checkpoint_serializer",
        "initial_state",
    ],
    "echo_agent.tools": [
        "DEFAULT_LIMITS",
        "Heard",
        "RelistenArgs",
        "Reply",
        "audio_message",
        "check_call",
        "hearable",
        "make_relisten",
        "not_heard",
        "resolve_span",
    ],
}


@pytest.mark.parametrize("module", PUBLIC)
def test_exported_members(module: str) -> None:
    """A change of this list is a change of the interface: it belongs into the changelog."""
    package = importlib.import_module(module)
    assert sorted(package.__all__) == PUBLIC[module]
    assert all(getattr(package, name) is not None for name in package.__all__)
    with pytest.raises(AttributeError):
        package.nothing_of_this_name  # noqa: B018


@pytest.mark.parametrize(
    "code",
    [
        "import echo_agent",
        "from echo_agent.cli import main; main(['--help'])",
        "from echo_agent.cli import main; main(['ask', '--help'])",
        "from echo_agent.cli import main; main(['eval', '--help'])",
        "from echo_agent.cli import main; main(['serve', '--help'])",
        "from echo_agent.cli import main; main(['studio', '--host', '0.0.0.0'])",
        "from echo_agent.cli import main; main(['--version'])",
        "from echo_agent.cli import main; main(['models', '--json'])",
        "from echo_agent.cli import main; main(['ask', 'none.wav', 'What?'])",
        "from echo_agent.cli import main; main(['mcp', '--help'])",
        "from echo_agent.cli import main; main(['mcp', 'none'])",
        "import echo_agent.langgraph_server",
    ],
)
def test_light(code: str) -> None:
    """These load no torch, transformers or the like."""
    code += f"; import sys; print('LOADED', *[name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1].strip() == "LOADED", done.stderr


def test_help_loads_little() -> None:
    """A third of a second of CPU is the goal (benchmarks/overhead.py measures it); modules are counted, not time."""
    code = "import sys; from echo_agent.cli import main; main(['--help']); print(len(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout.splitlines()[-1]) < 400
