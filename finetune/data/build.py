"""A build: one source in, one dataset out, stage by stage; what the command ``build`` does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from echo_agent.errors import DataError
from echo_agent.finetune.data.card import About
from echo_agent.finetune.data.chat_models import load_chat_model
from echo_agent.finetune.data.completions import Completions
from echo_agent.finetune.data.grammar import ReasoningStyle
from echo_agent.finetune.data.grammar.composer import FAMILIES, GrammarSettings
from echo_agent.finetune.data.mixing import SceneSettings
from echo_agent.finetune.data.needs_audio import needs_audio
from echo_agent.finetune.data.question_sets import QuestionSet, by_split, finish, questions_of, split_of
from echo_agent.finetune.data.records import Record, Sample
from echo_agent.finetune.data.sources import Form, records_of
from echo_agent.finetune.data.stages import Progress, run_stage
from echo_agent.finetune.data.verdict import asked_samples, review
from echo_agent.finetune.data.writer import WriterSettings, write_questions

FEW = 300
"""Samples below which nothing can be said about what is answered without the audio."""
DESCRIPTION = {
    Form.CLIPS: "Scenes mixed from labelled clips, with exact ground truth, and questions about them.",
    Form.BANK: "Scenes mixed from a sound bank, with exact ground truth, and questions about them.",
}
PER_RECORD, MOST_WRITTEN = 4, 20
"""Questions per recording that a language model is asked for, and the most."""
RECORDS = "records"
"""Name of the stage that holds the records of a build."""


class BuildOptions(BaseModel):
    """What is asked for on the command line."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    form: Form
    audio: Path | None = None
    questions: int = 1000
    families: tuple[str, ...] = ()
    writer: str = ""
    """``provider:model`` of a language model that writes the questions; the grammar where empty."""
    reviewer: str = ""
    """``provider:model`` of a language model that judges the questions."""
    listener: str = ""
    """Model that notes what it hears, for the writer and the reviewer."""
    base_url: str = ""
    """Server of writer and reviewer."""
    reasoning: ReasoningStyle = "sentences"
    open_share: float = 0.2
    rl_share: float = 0.3
    keep_blind: bool = False
    embed: bool = False
    seed: int = 0
    workers: int = 1
    command: str = ""


def build(
    source: Path,
    out: Path,
    options: BuildOptions,
    *,
    report: Callable[[str], None],
    progress: Callable[[str], Progress],
) -> Path:
    """Build a dataset; returns its folder.

    Raises:
        DataError: The source cannot be used, the folder was begun with other options, or the disk is full.
    """
    unknown = set(options.families) - set(FAMILIES)
    if unknown:
        raise DataError(
            f"--families: there is no {', '.join(sorted(unknown))}; there are {', '.join(FAMILIES)}"
        )
    records = records_of(
        source,
        out,
        options.form,
        audio=options.audio,
        questions=options.questions,
        settings=SceneSettings(),
        seed=options.seed,
        workers=options.workers,
        report=report,
        progress=progress,
    )
    rows = [record.model_dump(mode="json") for record in records]
    run_stage(out, RECORDS, ["all"], lambda _: rows, settings={"records": [record.id for record in records]})
    grammar = GrammarSettings(
        seed=options.seed,
        families=options.families or FAMILIES,
        reasoning=options.reasoning,
        open_share=options.open_share,
        rl_share=options.rl_share,
    )
    notes = _notes(records, out, options, report, progress)
    samples: list[Sample] = []
    mixed = options.form in (Form.CLIPS, Form.BANK)
    most = options.questions if mixed else None
    for split, some in ({} if options.writer else _parts(records)).items():
        wording = grammar.model_copy(update={"wording": "test"}) if split == "test" else grammar
        wanted = None if most is None else max(1, round(most * len(some) / len(records)))
        samples += questions_of(out, QuestionSet(split, some, wording, wanted), report)
    if options.writer:
        chat = _completions(options.writer, out, options)
        per = max(1, round(options.questions / len(records))) if mixed else PER_RECORD
        settings = WriterSettings(questions=min(per, MOST_WRITTEN), seed=options.seed)
        written = write_questions(
            records, out, chat, settings, notes=notes, split=split_of, progress=progress("writing")
        )
        report(f"{options.writer}: {written.report()}")
        samples += questions_of(
            out, QuestionSet("written", records, grammar, samples=written.samples), report
        )
    own, skipped = asked_samples(records, split_of)
    if skipped:
        report(f"{len(skipped)} questions of the source cannot be used (first: {': '.join(skipped[0])})")
    if own:
        samples += questions_of(out, QuestionSet("asked", records, grammar, samples=own), report)
    if options.reviewer:
        chat = _completions(options.reviewer, out, options)
        known = {record.id: record for record in records}
        judged = review(samples, known, out, chat, notes=notes, progress=progress("reviewing"))
        report(f"{options.reviewer}: {judged.report()}")
        samples = list(judged.kept)
    splits = by_split(samples)
    splits = _thinned(splits, options, report)
    about = About(
        name=out.resolve().name,
        description=DESCRIPTION.get(
            options.form, f"Questions about the recordings of {source.name} ({options.form})."
        ),
        command=options.command,
        seed=options.seed,
    )
    return finish(out, splits, records, about, embed=options.embed)


def _notes(
    records: Sequence[Record],
    out: Path,
    options: BuildOptions,
    report: Callable[[str], None],
    progress: Callable[[str], Progress],
) -> dict[str, dict[str, str]]:
    """What a listening model notes about the recordings; nothing where none was named."""
    if not options.listener:
        return {}
    from echo_agent import EchoAgent
    from echo_agent.finetune.data.describe import describe

    with EchoAgent.from_pretrained(options.listener) as agent:
        found = describe(records, out, agent, progress=progress("listening"))
    report(f"{options.listener}: {found.report()}")
    return found.notes


def _completions(name: str, out: Path, options: BuildOptions) -> Completions:
    """A language model whose replies are kept in the folder of the build."""
    server = {"base_url": options.base_url} if options.base_url else {}
    return Completions(load_chat_model(name, **server), name, out / "calls", settings=server)


def _parts(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Records by split: each is asked its share of the questions."""
    parts: dict[str, list[Record]] = {}
    for record in records:
        parts.setdefault(split_of(record), []).append(record)
    return parts


def _thinned(
    splits: dict[str, list[Sample]], options: BuildOptions, report: Callable[[str], None]
) -> dict[str, list[Sample]]:
    """The splits without what can be answered without the audio."""
    if options.keep_blind:
        return splits
    everything = [sample for rows in splits.values() for sample in rows]
    if len(everything) < FEW:
        report(f"needs audio: not checked, {len(everything)} questions are too few to learn anything from")
        return splits
    kept, dropped = needs_audio(everything, seed=options.seed)
    report(f"needs audio: {len(dropped)} of {len(everything)} questions dropped")
    return by_split(kept)
