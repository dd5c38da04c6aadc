"""The task of Inspect: the questions, answers and scores of ``echo-agent eval``."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from echo_agent.agent import EchoAgent
from echo_agent.benchmarks.echobench import of_file
from echo_agent.benchmarks.summary import summarised
from echo_agent.errors import QuestionError
from echo_agent.evaluation import evaluate
from echo_agent.results_file import Results
from echo_agent.rows import read_rows

pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"  # Inspect leaves streams of its own open
)
EXAMPLES = Path(__file__).parents[1] / "examples" / "questions.jsonl"


@pytest.mark.slow
def test_where_inspect_is_missing_it_is_said_how_to_get_it() -> None:
    code = (
        "import sys; sys.modules['inspect_ai'] = None\n"
        "from echo_agent.errors import MissingExtraError\n"
        "try:\n    import echo_agent.inspect_tasks\nexcept MissingExtraError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == 'tasks of Inspect need: pip install "echo-agent[inspect]"\n', done.stderr


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module, where it can be had; logs go aside."""
    pytest.importorskip("inspect_ai", reason='it needs the extra "inspect"')
    from echo_agent import inspect_tasks

    monkeypatch.setenv("INSPECT_LOG_DIR", str(tmp_path / "logs"))
    return inspect_tasks


def test_a_task_gives_the_scores_of_eval(tasks: Any) -> None:
    from inspect_ai import eval as run

    rows = read_rows(EXAMPLES)[:3]
    task = tasks.listening(str(EXAMPLES), control="off", model="echo-nano", device="cpu")
    (log,) = run(task, model="mockllm/model", sample_id=[row.id for row in rows], display="none")
    assert log.status == "success", log.error
    results = Results(None)
    with EchoAgent.from_pretrained("echo-nano", "cpu") as agent:
        assert not asyncio.run(evaluate(agent, rows, results, controls=["off"]))
    outcomes = list(results.outcomes.values())
    scores = summarised(of_file(str(EXAMPLES)), rows, outcomes, ["off"])["controls"]["off"]
    (found,) = log.results.scores
    assert found.name == "strict"
    assert found.metrics["accuracy"].value == pytest.approx(scores["strict"]["accuracy"])
    (official,) = (one.value for name, one in found.metrics.items() if name.endswith("official"))
    assert official == pytest.approx(scores["official"]["accuracy"])
    by_id = {outcome.id: outcome for outcome in outcomes}
    for sample in log.samples:
        (score,) = sample.scores.values()
        assert score.answer == by_id[sample.id].answer and score.value == int(by_id[sample.id].correct)


def test_a_row_that_cannot_be_run_counts_as_wrong(tasks: Any, tmp_path: Path) -> None:
    from inspect_ai import eval as run

    (tmp_path / "a.flac").write_bytes(b"no sound")
    (tmp_path / "broken.flac").write_bytes(b"no sound")
    path = tmp_path / "questions.jsonl"
    path.write_text(
        '{"id": "a", "audio": "broken.flac", "question": "What?", "choices": ["x", "y"], "answer": "x"}\n'
    )
    task = tasks.listening(str(path), model="echo-nano", device="cpu")
    (log,) = run(task, model="mockllm/model", display="none")
    assert log.status == "success", log.error
    assert log.results.scores[0].metrics["accuracy"].value == 0.0
    (score,) = log.samples[0].scores.values()
    assert "broken.flac" in score.explanation


def test_what_cannot_be_asked_is_said(tasks: Any, tmp_path: Path) -> None:
    (tmp_path / "a.flac").write_bytes(b"no sound")
    (tmp_path / "broken.flac").write_bytes(b"no sound")
    path = tmp_path / "questions.jsonl"
    path.write_text(
        '{"id": "a", "audio": "a.flac", "question": "What?", "choices": ["x", "y"], "answer": "x"}\n'
    )
    with pytest.raises(QuestionError, match="oracle"):
        tasks.listening(str(path), control="oracle")
    with pytest.raises(QuestionError, match="louder"):
        tasks.listening(str(path), control="louder")
