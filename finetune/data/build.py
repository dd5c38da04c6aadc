"""A build: one source in, one dataset out, stage by stage; what the command ``build`` does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from echo_agent.errors import DataError
from echo_agent.finetune.data.card import About
from echo_agent.finetune.data.llm.chat_models import load_chat_model
from echo_agent.finetune.data.llm.completions import Completions
from echo_agent.finetune.data.llm.judge import asked_samples, review
from echo_agent.finetune.data.llm.writer import WriterSettings, write_questions
from echo_agent.finetune.data.pipeline import QuestionSet, by_split, finish, questions_of, split_of
from echo_agent.finetune.data.questions import ReasoningStyle
from echo_agent.finetune.data.questions.blind_baseline import needs_audio
from echo_agent.finetune.data.questions.composer import CATEGORIES, GrammarSettings
from echo_agent.finetune.data.records import Record, Sample
from echo_agent.finetune.data.scenes.mixer import SceneSettings
from echo_agent.finetune.data.sources import Form, records_of
from echo_agent.finetune.data.stages import Progress, content_hash, run_stage
from echo_agent.finetune.data.tally import ANSWERED_BLIND, Tally
from echo_agent.locks import locked_folder

FEW = 300
"""Samples below which nothing can be said about what is answered without the audio."""
DESCRIPTION = {
    Form.CLIPS: "Scenes mixed from labelled clips, with exact ground truth, and questions about them.",
    Form.BANK: "Scenes mixed from a sound bank, with exact ground truth, and questions about them.",
}
MIXED = tuple(DESCRIPTION)
"""Sources that scenes are mixed from."""
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
    categories: tuple[str, ...] = ()
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
        DataError: The source cannot be used, the folder was begun with other options or is in use by another
            process, or the disk is full.
    """
    unknown = set(options.categories) - set(CATEGORIES)
    if unknown:
        raise DataError(
            f"--categories: there is no {', '.join(sorted(unknown))}; there are {', '.join(CATEGORIES)}"
        )
    with locked_folder(out):
        return _build(source, out, options, report, progress)


def _build(
    source: Path,
    out: Path,
    options: BuildOptions,
    report: Callable[[str], None],
    progress: Callable[[str], Progress],
) -> Path:
    """Build in a folder that is kept from others."""
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
    content = {"records": content_hash(record.model_dump_json() for record in records)}
    run_stage(out, RECORDS, ["all"], lambda _: rows, settings=content)
    tally = Tally()
    samples = _asked(records, out, options, tally, report, progress)
    splits = _thinned(by_split(samples), options, tally, report)
    about = About(
        name=out.resolve().name,
        description=DESCRIPTION.get(
            options.form, f"Questions about the recordings of {source.name} ({options.form})."
        ),
        command=options.command,
        seed=options.seed,
    )
    return finish(out, splits, records, about, tally, report=report, embed=options.embed)


def _asked(
    records: Sequence[Record],
    out: Path,
    options: BuildOptions,
    tally: Tally,
    report: Callable[[str], None],
    progress: Callable[[str], Progress],
) -> list[Sample]:
    """All questions: composed or written, and those that the source brings; judged where there is a reviewer."""
    grammar = GrammarSettings(
        seed=options.seed,
        categories=options.categories or CATEGORIES,
        reasoning=options.reasoning,
        open_share=options.open_share,
        rl_share=options.rl_share,
    )
    notes = _notes(records, out, options, report, progress)
    sets = (
        [_written(records, out, options, grammar, notes, report, progress)]
        if options.writer
        else _composed(records, options, grammar)
    )
    own, skipped = asked_samples(records, split_of)
    if skipped:
        tally.compose(len(skipped))
        tally.leave_out("of the source that cannot be used", len(skipped))
        report(f"{len(skipped)} questions of the source cannot be used (first: {': '.join(skipped[0])})")
    if own:
        sets.append(QuestionSet("asked", records, grammar, samples=own))
    samples = [sample for which in sets for sample in questions_of(out, which, tally, report=report)]
    if not options.reviewer:
        return samples
    chat = _completions(options.reviewer, out, options)
    known = {record.id: record for record in records}
    judged = review(samples, known, out, chat, notes=notes, progress=progress("reviewing"))
    report(f"{options.reviewer}: {judged.report()}")
    tally.leave_out("found wanting by the reviewer", len(judged.dropped))
    tally.leave_out("that the reviewer did not judge", len(judged.unjudged))
    return list(judged.kept)


def _composed(
    records: Sequence[Record], options: BuildOptions, grammar: GrammarSettings
) -> list[QuestionSet]:
    """What the grammar is to ask: a set for each split, with its share of the questions where scenes are mixed."""
    most = options.questions if options.form in MIXED else None
    sets = []
    for split, some in _parts(records).items():
        wording = grammar.model_copy(update={"wording": "test"}) if split == "test" else grammar
        wanted = None if most is None else max(1, round(most * len(some) / len(records)))
        sets.append(QuestionSet(split, some, wording, wanted))
    return sets


def _written(
    records: Sequence[Record],
    out: Path,
    options: BuildOptions,
    grammar: GrammarSettings,
    notes: dict[str, dict[str, str]],
    report: Callable[[str], None],
    progress: Callable[[str], Progress],
) -> QuestionSet:
    """What a language model asks."""
    chat = _completions(options.writer, out, options)
    per = max(1, round(options.questions / len(records))) if options.form in MIXED else PER_RECORD
    settings = WriterSettings(questions=min(per, MOST_WRITTEN), seed=options.seed)
    written = write_questions(
        records, out, chat, settings, notes=notes, split=split_of, progress=progress("writing")
    )
    report(f"{options.writer}: {written.report()}")
    return QuestionSet("written", records, grammar, samples=written.samples)


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
    from echo_agent.finetune.data.llm.captions import describe

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
    splits: dict[str, list[Sample]], options: BuildOptions, tally: Tally, report: Callable[[str], None]
) -> dict[str, list[Sample]]:
    """The splits without what can be answered without the audio."""
    if options.keep_blind:
        return splits
    everything = [sample for rows in splits.values() for sample in rows]
    if len(everything) < FEW:
        report(f"needs audio: not checked, {len(everything)} questions are too few to learn anything from")
        return splits
    kept, dropped = needs_audio(everything, seed=options.seed)
    tally.leave_out(ANSWERED_BLIND, len(dropped))
    report(f"needs audio: {len(dropped)} of {len(everything)} questions dropped")
    return by_split(kept)
