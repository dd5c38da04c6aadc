"""What a training does to a policy: it is asked some questions of the validation split before and after.

The same questions, asked as ``echo-agent eval`` asks them, greedily; so a recipe that makes a policy worse shows it by
itself. Answers are kept in ``validation/before.jsonl`` and ``after.jsonl`` of the run's folder, as they come: what was
broken off is resumed there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from echo_agent.errors import DataError
from echo_agent.finetune.data.dataset import split_names
from echo_agent.finetune.examples import Report, choose_samples, open_recordings
from echo_agent.rows import Row

if TYPE_CHECKING:
    from echo_agent.agent import EchoAgent
    from echo_agent.finetune.training_setup import TrainingSetup
    from echo_agent.scores import Outcome

Stage = Literal["before", "after"]
WORSE = 0.05
"""What right answers may fall by before it is said: some questions come out otherwise by chance."""


def evaluated(setup: TrainingSetup, stage: Stage, features: Path | None = None) -> dict[str, Any] | None:
    """Ask the policy as it is; None where the recipe asks nothing, or the dataset has no validation split.

    With several processes nothing is asked: they would wait for each other.

    Args:
        setup: Whose policy, data and folder.
        stage: Names the file.
        features: Folder of features, as for the training.

    Returns:
        ``questions``, and the shares ``accuracy`` and ``listened``.
    """
    recipe, report = setup.recipe, setup.report
    split = recipe.data.validation
    if not recipe.watch.evaluate or setup.processes > 1:
        return None
    if split in ("", recipe.data.train) or split not in split_names(setup.dataset):
        if stage == "before":
            report("there is no validation split: what training does to the policy is not evaluated")
        return None
    samples = choose_samples(
        setup.dataset, split, recipe.data, seed=recipe.seed, reasoned=False, limit=recipe.watch.evaluate
    )
    samples, _ = open_recordings(setup.dataset, samples, setup.family, setup.store, report)
    rows = [_row(sample, setup.dataset) for sample in samples]
    report(f"{stage} training: asking {len(rows)} questions of {split!r}")
    path = setup.folder.path / "validation" / f"{stage}.jsonl"
    scores = _ask(
        setup, rows, path, (features or setup.dataset / "features") if setup.family.is_frozen else None
    )
    if scores is None:
        report(f"{stage} training: none of them could be asked")
        return None
    found = {"questions": len(rows), "accuracy": scores["accuracy"], "listened": scores["listened"]}
    report(f"{stage} training: {_said(found)}")
    return found


def compared(
    before: Mapping[str, Any] | None, after: Mapping[str, Any] | None, report: Report
) -> dict[str, Any]:
    """Both, for the record of a run; says so where training made the policy worse."""
    if before is None or after is None:
        return {}
    report(f"validation: {_said(before)} before, {_said(after)} after")
    if after["accuracy"] < before["accuracy"] - WORSE:
        report(
            "the policy is worse than the one it began with: use more recordings, a smaller optimiser.learning_rate or "
            "fewer steps (docs/finetune.md, How much data)"
        )
    return {"validation": {"before": dict(before), "after": dict(after)}}


def _ask(setup: TrainingSetup, rows: list[Row], path: Path, features: Path | None) -> dict[str, Any] | None:
    """Scores of the policy on questions, None without answers; answers that another policy gave are thrown away."""
    from echo_agent.agent import EchoAgent
    from echo_agent.scores import summarise

    path.parent.mkdir(exist_ok=True)
    model = setup.family.model
    was_training = model.training
    model.eval()
    try:
        with EchoAgent(setup.family, dialect=setup.dialect.name, features=features) as agent:
            try:
                outcomes = _outcomes(agent, rows, path, setup.recipe.seed)
            except DataError:  # damaged, or of a run that was begun again
                path.unlink()
                outcomes = _outcomes(agent, rows, path, setup.recipe.seed)
    finally:
        model.train(was_training)
    return summarise(rows, outcomes).get("on")


def _outcomes(agent: EchoAgent, rows: list[Row], path: Path, seed: int) -> list[Outcome]:
    from echo_agent.evaluation import Results, evaluate

    results = Results(path)
    try:
        _wait(evaluate(agent, rows, results, seed=seed))
    finally:
        results.close()
    return [outcome for outcome in results.outcomes.values() if outcome.seed == seed]


def _wait(work: Coroutine[Any, Any, Any]) -> None:
    """Run to the end, in a notebook too, where this thread has an event loop already."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(work)
    else:
        with ThreadPoolExecutor(1, "echo-agent-evaluation") as pool:
            pool.submit(asyncio.run, work).result()


def _row(sample: Row, dataset: Path) -> Row:
    """A sample as it is asked."""
    fields = sample.model_dump(include=set(Row.model_fields) - {"line"})
    return Row.model_validate(fields | {"audio": str(dataset / sample.audio)})


def _said(scores: Mapping[str, Any]) -> str:
    return f"{scores['accuracy']:.0%} right, listened in {scores['listened']:.0%}"
