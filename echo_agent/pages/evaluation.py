"""The report of an evaluation as one page: scores, controls, costs, groups, runs to listen to, and how to repeat it."""

from __future__ import annotations

import html
from collections.abc import Sequence
from string import Template
from typing import Any

from echo_agent.audio.player import PLAYER
from echo_agent.benchmarks.benchmark import Benchmark
from echo_agent.pages import tables
from echo_agent.pages.charts import cost_chart, differences_chart, legend, scores_chart
from echo_agent.pages.examples import SHOWN, by_control, changed, example
from echo_agent.provenance import given_command, versions_of
from echo_agent.rows import Question
from echo_agent.scores import Outcome

PACKAGES = ("echo-agent", "torch", "transformers", "langgraph", "langchain-core", "soundfile", "numpy")
"""Whose versions a page names."""
FAULTS = 50
"""Most rows that could not be asked that a page lists."""


def page(
    benchmark: Benchmark, questions: Sequence[Question], outcomes: Sequence[Outcome], summary: dict[str, Any]
) -> str:
    """The page, as HTML; whatever comes from outside is escaped."""
    controls = summary["controls"]
    runs = by_control(outcomes, list(controls), summary["seed"])
    return _PAGE.substitute(
        title=html.escape(f"{benchmark.title}, {summary['model']}"),
        headline=_headline(benchmark, summary),
        legend=legend(list(controls)),
        scores=scores_chart(controls, summary["chance"]),
        scores_table=_table(tables.scores_table(summary)),
        differences=_differences(summary),
        tokens=cost_chart(controls, "audio_tokens", "audio tokens of the run"),
        seconds=cost_chart(controls, "seconds_heard", "seconds heard again"),
        groups="".join(_group(summary, kind) for kind in tables.kinds(summary)),
        examples=_examples(questions, runs),
        notes=html.escape(tables.notes(summary)),
        faults=_faults(summary),
        repeat=_repeat(benchmark, summary),
        player=PLAYER,
    )


def _headline(benchmark: Benchmark, summary: dict[str, Any]) -> str:
    """The first control's score in a sentence, and what listening again is worth."""
    control, score = next(iter(summary["controls"].items()))
    strict = score["strict"]
    if strict["accuracy"] is None:
        return (
            f"{summary['rows']} questions of {html.escape(benchmark.title)} were asked; none can be scored."
        )
    low, high = strict["interval"]
    said = (
        f"<b>{100 * strict['accuracy']:.1f} %</b> right ({100 * low:.1f} to {100 * high:.1f}) of "
        f"{strict['n']} questions, {'listening again' if control == 'on' else html.escape(control)}."
    )
    for apart in summary["differences"]:
        if apart["other"] == "off":
            said += (
                f" Listening again is worth <b>{apart['points']:+.1f}</b> points "
                f"({apart['low']:+.1f} to {apart['high']:+.1f})."
            )
        if apart["other"] == "no-audio":
            blind = summary["controls"]["no-audio"]["strict"]["accuracy"]
            said += f" Without any sound: {100 * blind:.1f} %."
    return said


def _differences(summary: dict[str, Any]) -> str:
    if not summary["differences"]:
        return '<p class="soft">Only one control was asked.</p>'
    return differences_chart(summary["differences"]) + _table(tables.differences_table(summary))


def _group(summary: dict[str, Any], kind: str) -> str:
    """Strict scores of the groups of one kind, and how often the policy listened there."""
    shown = _table(tables.group_table(summary, kind))
    listened = summary["controls"].get("on", {}).get("groups", {}).get(kind)
    if listened:
        rows = [
            [
                name,
                tables.share(group["listened"]),
                tables.number(group["relistens"], 2),
                tables.number(group["seconds_heard"], 1),
            ]
            for name, group in listened.items()
        ]
        head = [kind.replace("_", "-"), "listened again", "re-listens", "s heard again"]
        shown += f"<details><summary>how it listened</summary>{_table(tables.Table(head, rows))}</details>"
    return shown


def _examples(questions: Sequence[Question], runs: dict[str, dict[str, Any]]) -> str:
    """Runs that were mended and spoiled; a word where on and off were not both asked."""
    if not {"on", "off"} <= runs.keys():
        return '<p class="soft">These need the controls on and off.</p>'
    shown = ""
    for title, right, wrong in (
        ("Mended: right when it listens again, wrong when it may not", "on", "off"),
        ("Spoiled: wrong when it listens again, right when it may not", "off", "on"),
    ):
        found = changed(questions, runs, right, wrong)
        shown += f"<h3>{title} <small>{len(found)} questions</small></h3>"
        shown += "".join(example(question, runs) for question in found[:SHOWN])
    return shown


def _faults(summary: dict[str, Any]) -> str:
    """Rows that could not be asked, and runs that could not be made."""
    faults = [*summary["left_out"], *summary["failed"]]
    if not faults:
        return ""
    more = f"<li>and {len(faults) - FAULTS} more</li>" if len(faults) > FAULTS else ""
    return f"<ul>{''.join(f'<li>{html.escape(fault)}</li>' for fault in faults[:FAULTS])}{more}</ul>"


def _repeat(benchmark: Benchmark, summary: dict[str, Any]) -> str:
    """Everything that is needed to repeat it."""
    packages = ", ".join(f"{name} {version}" for name, version in versions_of(PACKAGES).items())
    facts = {
        "command": f"<code>{html.escape(given_command())}</code>",
        "model": html.escape(summary["made_by"]),
        "questions": f"{html.escape(summary['benchmark'])} {html.escape(summary['split'] or '')} "
        f"(hash {summary['questions_hash']}); layout and rule: {html.escape(benchmark.origin)}",
        "packages": html.escape(packages),
    }
    if summary["judge"]:
        judge = summary["judge"]
        facts["judge"] = html.escape(
            f"{judge['model']}: {judge['calls']} calls, {judge['from_disk']} from disk"
        )
    return "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts.items())


def _table(table: tables.Table) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        texts = (
            html.escape(cell).replace(" to ", "&nbsp;to&nbsp;") for cell in cells
        )  # no break in an interval
        return f"<tr>{''.join(f'<{tag}>{text}</{tag}>' for text in texts)}</tr>"

    return f"<table>{line(table.head, 'th')}{''.join(line(row, 'td') for row in table.rows)}</table>"


_PAGE = Template("""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>$title</title>
<style>
:root { --ink: #1d2529; --soft: #64727a; --line: #dfe5e8; --gold: #4b8b5a; --asked: #1f6f8b; --wrong: #c8553d; }
body { max-width: 58rem; margin: 2.5rem auto 5rem; padding: 0 1.2rem; color: var(--ink); background: #fff;
  font: 16px/1.55 system-ui, sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 .6rem; padding-bottom: .3rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.4rem 0 .5rem; }
h3 small, .soft, details { color: var(--soft); font-weight: 400; }
.headline { font-size: 1.1rem; margin: 0 0 1rem; }
p.legend i { font-style: normal; margin-right: 1.1rem; white-space: nowrap; }
p.legend i::before { content: "■ "; color: var(--c); }
table { border-collapse: collapse; font-size: .86rem; margin: .8rem 0 1.2rem; width: 100%;
  font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; }
.groups td:nth-child(n+3) { white-space: normal; min-width: 6.8rem; line-height: 1.25; }
th, td { text-align: right; white-space: nowrap; padding: .25rem .6rem .25rem 0; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
th { color: var(--soft); font-weight: 500; vertical-align: bottom; }
svg { width: 100%; height: auto; display: block; font: 13px system-ui, sans-serif; fill: var(--ink); }
svg .soft { fill: var(--soft); font-size: 11px; }
svg .grid { stroke: var(--line); }
svg .chance { stroke: var(--soft); stroke-dasharray: 3 3; }
svg.sound { height: 64px; background: #f6f8f9; border-radius: .3rem; }
svg .wave { stroke: #8b99a1; stroke-width: 1.6; fill: none; }
svg rect.gold { fill: #4b8b5a55; } svg rect.asked { fill: #1f6f8b44; }
.two { display: grid; grid-template-columns: 1fr 1fr; gap: 1.5rem; }
@media (max-width: 40rem) { .two { grid-template-columns: 1fr; } }
section { border: 1px solid var(--line); border-radius: .5rem; padding: .4rem 1rem .8rem; margin: .8rem 0; }
section ul { list-style: none; padding: 0; margin: 0 0 .6rem; display: flex; flex-wrap: wrap; gap: .2rem 1.4rem; }
section li::before { content: "○ "; } section li.right::before { content: "● "; color: var(--gold); }
section li.right { font-weight: 600; }
table.answers { width: auto; margin: .5rem 0; } table.answers td { text-align: left; border: 0; padding: 0 1rem 0 0; }
b.right { color: var(--gold); } b.wrong { color: var(--wrong); }
audio { height: 2.2rem; margin-top: .5rem; width: 100%; }
button { font: inherit; font-size: .85rem; border: 1px solid; border-radius: .3rem; background: none; cursor: pointer;
  padding: .05rem .5rem; margin: .1rem 0; }
button.gold { color: var(--gold); } button.asked { color: var(--asked); }
dt { color: var(--soft); margin-top: .5rem; } dd { margin: 0; overflow-wrap: anywhere; }
</style>
<h1>$title</h1>
<p class="headline">$headline</p>
<p class="legend">$legend</p>
<h2>Scores</h2>
$scores
<div class="scroll">$scores_table</div>
<p class="soft">$notes</p>
$faults
<h2>What the controls say</h2>
<p>The same questions and seeds, asked again with one thing changed: <b>off</b> may not listen again; <b>wrong-crop</b>
hears another place than it asked for, <b>silence</b> nothing, <b>oracle</b> the right place; <b>no-audio</b> has a
silent recording. Points are those of <i>on</i> over each, question by question.</p>
<div class="scroll">$differences</div>
<h2>What answers cost</h2>
<p>The share of all questions, in percent, that is answered right by runs that cost at most so much.</p>
<div class="two"><div>$tokens</div><div>$seconds</div></div>
<h2>Where</h2>
<p class="soft">The strict score by group, in percent, with 95 % intervals.</p>
<div class="scroll groups">$groups</div>
<h2>Runs to listen to</h2>
$examples
<h2>To repeat it</h2>
<dl>$repeat</dl>
<script>$player</script>
</html>
""")
