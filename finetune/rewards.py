"""Rewards of reinforcement learning: what one rollout of a policy that can listen again is worth, and why.

A rollout is the assistant's turn ``<think>... <seg>12.4, 15.0</seg> [crop] ... </think><answer>...</answer>``; a family
that was taught no tags around its thought writes it without them. Each
reward is a pure function of one :class:`Judged` and knows nothing of the group that GRPO compares it with; a recipe
weighs them (:class:`~echo_agent.finetune.config.RewardConfig`, whose fields are the names in :data:`REWARDS`).

*format*, *accuracy*, *confidence*, *relisten* and *consistency* are those of Echo (arXiv 2602.11909), second stage of
training, after the reward of the released code (``multiturn_rl_6``: the sum of format, confidence, re-listening and
consistency). Where ours differs, its docstring says so. Echo rewards listening whenever the answer is right, whether
listening helped or not; *overlap*, *price* and *counterfactual*, which are ours, distinguish the two.

Whether something was heard again is read from ``asked``, never from the text: a call that was refused, or that came
after the budget was used up, does not count. Times are seconds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from echo_agent.answers import ANSWER, ANSWER_END, extract_answer
from echo_agent.dialects import SEG, SEG_END, THINK, THINK_END
from echo_agent.scores import overlap

if TYPE_CHECKING:
    from echo_agent.families.base import Family

FULL = 0.5
"""Largest reward for format, accuracy and re-listening each (Echo)."""
FAULT_LIMIT = 5
"""Most faults of consistency that are counted, a tenth each (Echo)."""


@dataclass(frozen=True)
class Judged:
    """What a reward looks at: one rollout, and what is known of its question."""

    text: str
    """The assistant's whole turn, without audio: calls and what the tool wrote are included."""
    correct: bool
    forced: bool
    """It was asked for its answer because a budget was used up."""
    confidence: float | None
    """Probability (0 to 1) of the first token of the answer if it is right; if it is wrong, of the first token at which
    the answer that was written diverges from the right one. None where none was written, or where it is not known."""
    asked: tuple[tuple[float, float], ...]
    """Spans that were heard again, in seconds on the recording, in order; calls that brought nothing are left out."""
    seconds_heard: float
    """Seconds of audio that were heard again."""
    gold_spans: tuple[tuple[float, float], ...]
    """Where the answer can be heard; may be empty."""
    correct_without: bool | None
    """Right when the same run is answered without any crop; None where that was not run."""
    tags: tuple[str, ...] = (THINK, THINK_END, ANSWER, ANSWER_END)
    """The tags of a whole turn, in order, as the family writes it."""


Reward = Callable[[Judged], float]


def turn_tags(family: Family) -> tuple[str, ...]:
    """The tags of a whole turn, in order, as a family writes it."""
    return tuple(_TAGS.findall(family.written(f"{THINK}{THINK_END}{ANSWER}{ANSWER_END}")))


def well_formed(judged: Judged) -> bool:
    """Whether a turn has one thought and then one answer: each tag once, in order, and the answer not empty."""
    written = tuple(_TAGS.findall(judged.text))
    return written == judged.tags and extract_answer(judged.text) is not None


def format_reward(judged: Judged) -> float:
    """Paid for a turn that is well-formed.

    Source: Echo, reward of the released code. That counts blocks; here the tags must also be in order, each of them
    once, and the answer must not be empty. Who wrote a tag does not matter: a forced answer is paid if the turn is
    well-formed with the tags that the tool wrote to ask for it.

    Returns:
        0 or 0.5.
    """
    return FULL if well_formed(judged) else 0.0


def accuracy_reward(judged: Judged) -> float:
    """Paid for a right answer in a well-formed turn.

    Source: Echo, the flat score of the released code in validation, which pays nothing for an ill-formed turn either.

    Returns:
        0 or 0.5.
    """
    return FULL if judged.correct and well_formed(judged) else 0.0


def confidence_reward(judged: Judged) -> float:
    """Accuracy shaped by confidence ``c`` like a Brier score: being sure pays if right and costs if wrong.

    Right: ``0.5 (1 - (c - 1)^2)``. Wrong: ``-0.5 c^2``. Ill-formed turns: 0. An answer that is none of the choices is
    wrong like any other, as in Echo: if it cost nothing, an unsure policy would learn to write nonsense.

    Source: Echo, the score that the released code trains with.

    Returns:
        -0.5 to 0.5: at least 0 if right, at most 0 if wrong.

    Raises:
        ValueError: The answer is right and its confidence is not known. The flat score in its place would reward
            that most. A wrong answer whose confidence is not known costs nothing.
    """
    if not well_formed(judged):
        return 0.0
    if judged.correct:
        if judged.confidence is None:
            raise ValueError(
                "the reward 'confidence' needs the probability of the answer's first token, and for a right answer it "
                "is None: keep log-probabilities of what is sampled, or weigh 'accuracy' in place of 'confidence'"
            )
        return FULL * (1 - (judged.confidence - 1) ** 2)
    return 0.0 if judged.confidence is None else -FULL * judged.confidence**2


def relisten_reward(judged: Judged) -> float:
    """Paid for having heard something again, if the answer is right and the turn well-formed.

    Source: Echo, reward of the released code. There it equals the accuracy score wherever that is positive, shaped by
    confidence in training, and a call in the text is enough; here it is flat, and something must have been heard.

    Returns:
        0 or 0.5.
    """
    return accuracy_reward(judged) if judged.asked else 0.0


def consistency_reward(judged: Judged) -> float:
    """Costs a tenth for each call after which the sentence does not continue: upper case or another tag follows.

    White space is skipped first, and so is an observation in brackets that the tool wrote after the call. The tag may
    be the next call or the end of the reasoning, even if the tool wrote it because a budget was used up. A call at the
    very end of the text is no fault. In the turns dialect a call ends the turn, so there are no faults.

    Source: Echo, reward of the released code. That looks at the very next character, so that a space hides the fault,
    passes over malformed calls, and misses the second of two calls in a row.

    Returns:
        -0.5 to 0, in tenths.
    """
    following = (judged.text[call.end() : call.end() + 1] for call in _CALLS.finditer(judged.text))
    faults = sum(character == "<" or character.isupper() for character in following)
    return -min(faults, FAULT_LIMIT) / 10


def overlap_reward(judged: Judged) -> float:
    """Intersection over union, in seconds, of what was heard again and where the answer can be heard.

    It rewards pointing, whether the answer is right or not. 0 if nothing was heard again, or no gold spans are known.

    Source: ours; the measure is the ``gold_iou`` of our scores (:func:`echo_agent.scores.overlap`).

    Returns:
        0 to 1.
    """
    if not judged.gold_spans:
        return 0.0
    _, iou = overlap(judged.asked, judged.gold_spans)
    return iou


def price_reward(judged: Judged) -> float:
    """What listening costs: minus the seconds of audio that were heard again, so that its weight is a price per second.

    A price by share of the recording would make listening almost free in a long one.

    Source: ours.

    Returns:
        At most 0, without a lower bound.
    """
    return -judged.seconds_heard


def counterfactual_reward(judged: Judged) -> float:
    """Paid if listening made the difference: right with what was heard again, and wrong without it.

    0 if nothing was heard again, if it is right both ways, or if the run without crops was not made
    (:func:`needs_counterfactual` says for which rollouts it is needed).

    Source: ours; related to the Differential Reward of AuTAgent (arXiv 2602.13685), where a tool is rewarded only by
    its net gain over no tool.

    Returns:
        0 or 1.
    """
    return 1.0 if needs_counterfactual(judged) and judged.correct_without is False else 0.0


REWARDS: dict[str, Reward] = {
    "format": format_reward,
    "accuracy": accuracy_reward,
    "confidence": confidence_reward,
    "relisten": relisten_reward,
    "consistency": consistency_reward,
    "overlap": overlap_reward,
    "price": price_reward,
    "counterfactual": counterfactual_reward,
}
"""Every reward, by its name in a recipe."""


def total(judged: Judged, weights: Mapping[str, float]) -> float:
    """Weighted sum of rewards; one whose weight is 0 is not computed."""
    return sum((weight * REWARDS[name](judged) for name, weight in weights.items() if weight), start=0.0)


def needs_counterfactual(judged: Judged) -> bool:
    """Whether a rollout has to be answered once more without its crops: it listened, and it was right."""
    return bool(judged.asked) and judged.correct


def repeats(asked: Sequence[tuple[float, float]]) -> int:
    """How many spans overlap an earlier one by at least half of the shorter of the two; for the log."""
    return sum(any(_repeats(span, before) for before in asked[:i]) for i, span in enumerate(asked))


def _repeats(span: tuple[float, float], before: tuple[float, float]) -> bool:
    """Whether two spans share at least half of the shorter one."""
    (start, end), (first, last) = span, before
    return 2 * (min(end, last) - max(start, first)) >= min(end - start, last - first)


_TAGS = re.compile("|".join(map(re.escape, (THINK, THINK_END, ANSWER, ANSWER_END))))
_OBSERVATION = r"\((?:[^()]|\([^()]*\))*\)"
_CALLS = re.compile(rf"{re.escape(SEG)}.*?{re.escape(SEG_END)}\s*(?:{_OBSERVATION}\s*)?", re.DOTALL)
"""A call and what is skipped after it. An observation may quote brackets that the policy wrote."""
