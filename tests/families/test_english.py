"""Other languages are told from English, and English as people write it is never taken for another."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from echo_agent.families.english import FOREIGN, SHARED, reading

ROOT = Path(__file__).parents[2]

QUESTIONS = {
    "German": [
        "Wie oft bellt der Hund?",
        "Was hört man am Ende?",
        "Wer spricht zuerst, der Mann oder die Frau?",
        "Wie heißt der Mann, der hier anruft, und was will er?",
    ],
    "French": ["Combien de fois le chien aboie-t-il ?", "Qu'est-ce qu'on entend à la fin ?", "Qui parle ?"]
    + ["Comment s'appelle l'homme ?"],
    "Spanish": [
        "¿Cuántas veces ladra el perro?",
        "que se oye despues de la campana",
        "¿Quién está hablando?",
    ],
    "Italian": ["Quante volte abbaia il cane?", "Che cosa si sente alla fine?", "A che ora è la riunione?"],
    "Portuguese": ["Quantas vezes o cachorro late?", "O que se ouve no final?", "Quem está falando?"],
    "Dutch": ["Hoe vaak blaft de hond?", "Wat hoor je na de bel?", "Wie spreekt het eerst?"],
    "Swedish": ["Hur många gånger skäller hunden?", "Vad hörs efter klockan?"],
    "Danish": ["Hvor mange gange gør hunden?", "Hvad hører man til sidst?"],
    "Norwegian": ["Hvor mange ganger bjeffer hunden?", "Hva hører du etter klokken?"],
    "Polish": ["Ile razy szczeka pies?", "Co słychać na nagraniu?"],
    "Czech": ["Kolikrát zaštěká pes?", "Co je slyšet na konci?"],
    "Hungarian": ["Hányszor ugat a kutya?", "Ki beszél először?"],
    "Finnish": ["Kuinka monta kertaa koira haukkuu?", "Mitä kuuluu kellon jälkeen?"],
    "Romanian": ["De câte ori latră câinele?", "Ce se aude la sfârșit?"],
    "Turkish": ["Köpek kaç kez havlıyor?", "Zilden sonra ne duyuluyor?"],
    "Indonesian": ["Berapa kali anjing itu menggonggong?", "Apa yang terdengar di akhir?"],
    "Vietnamese": ["Con chó sủa bao nhiêu lần?", "Ai đang nói chuyện?"],
    "Russian": ["Сколько раз лает собака?", "Что слышно в конце?"],
    "Ukrainian": ["Скільки разів гавкає собака?"],
    "Greek": ["Πόσες φορές γαβγίζει ο σκύλος;"],
    "Arabic": ["كم مرة ينبح الكلب؟"],
    "Hebrew": ["כמה פעמים הכלב נובח?"],
    "Chinese": ["狗叫了几次？", "最后听到什么?"],
    "Japanese": ["犬は何回吠えますか？"],
    "Korean": ["개가 몇 번 짖나요?"],
    "Hindi": ["कुत्ता कितनी बार भौंकता है?"],
    "Thai": ["สุนัขเห่ากี่ครั้ง"],
}

ENGLISH = [
    "How many times does the dog bark?",
    "wich animl is herd furst, teh dgo or hte cta",
    "who iz callin",
    "dog?",
    "What is the phone number: 555 0194 or 555 0149?",
    "0:52 to 1:45",
    "Does Giuseppe call Anna-Lena before José and Zoë arrive at the café?",
    "Where do Jürgen Müller and Frau Schröder meet, in München or in Köln?",
    "Is it Rio de Janeiro, São Paulo, or Santiago de Compostela?",
    "Who sings “La vie en rose”?",
    "What does 'wie geht es dir' mean?",
    'does the man say "¿dónde está la biblioteca?" twice',
    "Which of these is it: El Niño, La Niña?",
    "d'you hear the siren, or what's that noise at the end of it",
    "Whose dog's barking, Ann's or the O'Briens'?",
    "was it a man on the tape, or a hat in the sand",
    "beep count",
    "PLEASE TELL ME WHAT COMES LAST",
    "the naïve fiancé's résumé, is it mentioned?",
    "quel horreur, what on earth is that racket",
    "Does she say c'est la vie at the end?",
    "Where does m'lady's bell ring, and is it t'other one?",
]


@pytest.mark.parametrize("language", QUESTIONS)
def test_a_question_in_another_language_is_foreign(language: str) -> None:
    assert {question: reading(question) for question in QUESTIONS[language]} == dict.fromkeys(
        QUESTIONS[language], "foreign"
    )


@pytest.mark.parametrize("question", ENGLISH)
def test_english_as_people_write_it_is_english(question: str) -> None:
    assert reading(question) == "english"


@pytest.mark.parametrize(
    "question", ["Mbwa anabweka mara ngapi?", "Hversu oft geltir hundurinn?", "wer hustet"]
)
def test_what_is_hardly_english_is_in_doubt(question: str) -> None:
    assert reading(question) in ("doubtful", "foreign")


def written(node: Any) -> Iterator[str]:
    """All texts of a file."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict):
        for value in node.values():
            yield from written(value)
    elif isinstance(node, list):
        for value in node:
            yield from written(value)


def wordings() -> list[str]:
    """What is asked in training and tests, and said in recordings, the places for names filled."""
    found: list[str] = []
    for path in sorted((ROOT / "finetune/data/natural").glob("*.yaml")):
        found += written(yaml.safe_load(path.read_text("utf-8")))
    found = [re.sub(r"\{\w+\}", "the dog", text) for text in found]
    for path in sorted((ROOT / "examples").glob("*.jsonl")):
        found += [json.loads(line)["question"] for line in path.read_text("utf-8").splitlines()]
    return found


def test_no_wording_that_people_wrote_is_taken_for_another_language() -> None:
    texts = wordings()
    assert len(texts) > 5000
    assert {text: found for text in texts if (found := reading(text)) != "english"} == {}


def test_a_word_that_stands_for_another_language_is_no_english_one() -> None:
    asked = {word for text in wordings() for word in re.findall(r"[a-z']+", text.lower())}
    marks = {word for words in FOREIGN.values() for word in words.split()} - SHARED
    assert sorted(marks & asked) == []
