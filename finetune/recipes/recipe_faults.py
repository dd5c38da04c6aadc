"""What is wrong with a recipe, in our words: which key, where it was given, what is expected, and the nearest key.

pydantic finds the faults; what it says of them is for programmers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

SHOWN = 5
"""Most faults that one error lists."""
EXPECTED = {
    "int": "a whole number is expected",
    "float": "a number is expected",
    "finite_number": "a finite number is expected",
    "bool": "true or false is expected",
    "string": "a text is expected",
    "tuple": "a list is expected, such as [a, b]",
    "model": "keys are expected below it",
    "dict": "keys are expected below it",
    "mapping": "keys are expected below it",
    "invalid_key": "a word is expected as a key",
}
"""What is expected, by how the name of pydantic's error begins."""
BOUNDS = {
    "greater_than_equal": "at least {ge:.10g}",
    "greater_than": "more than {gt:.10g}",
    "less_than_equal": "at most {le:.10g}",
    "less_than": "less than {lt:.10g}",
}


def keys_of(recipe: type[BaseModel], above: str = "") -> dict[str, FieldInfo]:
    """All keys of a kind of recipe, those that have keys below them left out: ``optimiser.steps`` and so on."""
    found: dict[str, FieldInfo] = {}
    for name, field in recipe.model_fields.items():
        inner = _model_in(field.annotation)
        found |= keys_of(inner, f"{above}{name}.") if inner else {f"{above}{name}": field}
    return found


def faults_of(
    error: ValidationError, name: str, overrides: Sequence[str], recipes: Mapping[str, type[BaseModel]]
) -> str:
    """The faults of a recipe in one line.

    Args:
        error: What pydantic found.
        name: Of the recipe, or its file.
        overrides: What was given by ``--set``: a fault of one of these is said to be of it.
        recipes: The kinds of recipes, by stage.
    """
    said: dict[str, list[str]] = {}
    for problem in error.errors(include_url=False)[:SHOWN]:
        stage, *path = problem["loc"] or ("",)
        key = ".".join(str(part) for part in path)
        given = next((text for text in reversed(overrides) if _concerns(text, key)), "")
        fault = _fault(problem, plain(key), given.partition("=")[0] or key, str(stage), recipes)
        where = f"--set {plain(given)}" if given else _with_overrides(name, fault, overrides)
        said.setdefault(where, []).append(fault)
    return "; ".join(f"{where}: {'; '.join(faults)}" for where, faults in said.items())


def plain(text: str, longest: int = 100) -> str:
    """A text from outside for one line: what cannot be printed is escaped, and what is long is cut."""
    text = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text[: longest + 1])
    return text if len(text) <= longest else f"{text[:longest]}..."


def shown(value: Any) -> str:
    """A value of a recipe, short."""
    if value is None:
        return "nothing"
    if isinstance(value, str):
        return f"'{plain(value, 40)}'"
    if isinstance(value, (bool, float)):
        return str(value).lower() if isinstance(value, bool) else str(value)
    if isinstance(value, int):
        return str(value) if abs(value) < 10**30 else "a number of more than thirty digits"
    return {dict: "a mapping", list: "a list", tuple: "a list"}.get(type(value), f"a {type(value).__name__}")


def _concerns(override: str, key: str) -> bool:
    """Whether a fault at a key is of an override: of its key, of one below, or of one above that is not known."""
    given = override.partition("=")[0]
    return bool(key) and (given == key or key.startswith(f"{given}.") or given.startswith(f"{key}."))


def _with_overrides(name: str, fault: str, overrides: Sequence[str]) -> str:
    """The recipe, with those overrides whose keys a fault of several keys names."""
    named = [plain(text) for text in overrides if text.partition("=")[0] in fault]
    return f"{name} with --set {' --set '.join(named)}" if named else name


def _fault(problem: Any, key: str, wanted: str, stage: str, recipes: Mapping[str, type[BaseModel]]) -> str:
    kind, value, context = problem["type"], problem["input"], problem.get("ctx", {})
    if kind == "value_error":  # of ours
        text = str(context["error"])
    elif kind.startswith("union_tag"):
        given = value.get("stage") if isinstance(value, Mapping) else value
        text = f"stage: {shown(given)} is not one of {', '.join(repr(name) for name in recipes)}"
    elif kind == "missing":
        text = "it is missing, and has no default"
    elif kind == "extra_forbidden":
        text = f"there is no such key{_nearest(plain(wanted), stage, recipes)}"
    elif kind == "literal_error":
        text = f"{shown(value)} is not one of {str(context['expected']).replace(' or ', ', ')}"
    elif kind in BOUNDS:
        text = f"{BOUNDS[kind].format(**context)} is expected, not {shown(value)}"
    elif kind == "string_too_short":
        text = "it is empty"
    else:
        expected = next((words for start, words in EXPECTED.items() if kind.startswith(start)), "")
        text = f"{expected}, not {shown(value)}" if expected else f"{shown(value)} cannot stand here"
    return text if not key or text.startswith(f"{key}: ") else f"{key}: {text}"


def _nearest(key: str, stage: str, recipes: Mapping[str, type[BaseModel]]) -> str:
    """What may have been meant by a key that does not exist, as the end of a sentence."""
    recipe, known = recipes[stage], list(keys_of(recipes[stage]))
    part, _, last = key.rpartition(".")
    top = key.partition(".")[0]
    for other, fields in recipes.items():
        if top not in recipe.model_fields and top in fields.model_fields:
            return f" in a recipe of the stage {stage}; it is one of the stage {other}"
    lasts = {path: path.rpartition(".")[2] for path in known}
    inside = [path for path in known if part and path.startswith(f"{part}.")]
    near = [path for path in known if lasts[path] == last]
    near = near or [path for path in inside if lasts[path] in get_close_matches(last, lasts.values(), 1, 0.6)]
    if not inside:
        near = near or get_close_matches(key, known if part else [*known, *recipe.model_fields], 1, 0.7)
        near = near or [
            path for path in known if lasts[path] in get_close_matches(last, lasts.values(), 1, 0.6)
        ]
    if near:
        return f"; did you mean {' or '.join(near[:3])}?"
    return f"; there are {', '.join(inside or recipe.model_fields)}"


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model that a field holds, or may hold."""
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None
