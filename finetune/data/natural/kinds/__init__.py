"""What can be asked about the sounds of a record: kinds of questions, before they are put into words.

A maker looks at a :class:`~.view.View` of a record and returns an :class:`~.view.Idea`, or None where there is no
question of its kind with exactly one right answer: sounds that begin close to each other have no order, sounds that may
go by one name are never set against each other. Kinds are those of ``wordings-train.yaml``.
"""

from __future__ import annotations

from echo_agent.finetune.data.natural.kinds import count, order, what, when
from echo_agent.finetune.data.natural.kinds.view import Maker

MAKERS: dict[str, Maker] = {
    "presence/is": what.presence_is,
    "presence/which": what.presence_which,
    "presence/missing": what.presence_missing,
    "presence/either": what.presence_either,
    "order/first": order.first_of_two("order/first", later=False),
    "order/last": order.first_of_two("order/last", later=True),
    "order/before": order.before,
    "order/next": order.beside("order/next", 1),
    "order/previous": order.beside("order/previous", -1),
    "order/sequence": order.sequence,
    "order/nth": order.nth,
    "between/which": order.between,
    "count/times": count.times,
    "count/hits": count.hits,
    "count/different": count.different,
    "when/start": when.when("when/start", end=False),
    "when/end": when.when("when/end", end=True),
    "when/half": when.part("when/half", ("first half", "second half")),
    "when/part": when.part("when/part", ("beginning", "middle", "end")),
    "when/at": when.at,
    "when/range": when.in_range,
    "duration/how_long": count.how_long,
    "duration/longer": count.longer,
    "loudness/louder": count.louder,
    "repeat/once": count.repeat,
    "kind/which": what.kind_which,
    "kind/any": what.kind_any,
    "scene/where": what.scene,
    "scene/indoor": what.indoors,
    "list/all": what.list_all,
    "describe/summary": what.summary,
    "absent/when": what.absent,
    "unknowable/sounds": what.unknowable,
}
"""Makers by kind."""
