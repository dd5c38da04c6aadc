"""Whether a question is in English, the one language that echo-small was taught, told without loading it.

Three things tell: the script; small words of other languages, which hardly any sentence does without; and how many
words the decoder's tokenizer has in one piece, as it has the words of English. What is quoted is not looked at, nor
are names: a question about a Swedish song is English. Doubt is said, and only a clear case keeps a question from the
model.
"""

from __future__ import annotations

import json
import re
import unicodedata
from functools import cache
from typing import Literal

from echo_agent.shipped import SHIPPED, SMALL

Reading = Literal["english", "doubtful", "foreign"]

FEW = 4
"""Words that a question has at least, for one without words of English to be in doubt for that alone."""
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_QUOTED = re.compile(r"\"[^\"]*\"|“[^”]*”|«[^»]*»|(?<!\w)['‘][^'’]*['’](?!\w)")
_ELIDED = re.compile(r"(?:l|d|qu|j|n|c|s|m|t)'[aeéèêiouh]")
"""What French and Italian write together."""

FOREIGN = {
    "German": "der das dem den des ein eine einen einem einer ist sind wie wer wann warum wo wohin welche welcher "
    "welches welchen oft viele und oder nicht kein keine nach vor zuerst zuletzt mit auf für von zu zum zur über es "
    "ich du sie wir ihr er mir mich wird wurde hört hören höre gehört sagt spricht gesagt klingelt bellt gibt sich "
    "noch auch aus bei beim im vom aufnahme geräusch bitte mal ende anfang",
    "French": "le les un une du au aux est sont et ou où qui que quoi quand combien pourquoi comment quel quelle quels "
    "quelles fois dans avec sans sur avant après premier première dernier dernière il elle ils elles je tu nous vous "
    "ce cette ces ne pas y entend entendre dit parle bruit qu'est-ce chien aboie sonne enregistrement moi",
    "Spanish": "el la los las una unos unas es está están qué quién cuándo cuánto cuántos cuántas cuantas cuantos "
    "cuanto dónde cómo cuál que quien cuando donde cual veces y o en con sin por antes después primero último ultimo "
    "se suena oye escucha dice habla hay ladra perro ruido sonido grabación este esta lo le su al del",
    "Italian": "il lo gli una uno è sono che chi cosa quando quanto quante quanti dove perché quale quali volte e di "
    "da nel nella della dello dei delle con senza prima dopo ultimo si sente dice parla suona abbaia rumore suono "
    "questo questa c'è nella registrazione",
    "Portuguese": "os um uma uns umas é são quem quando quanto quantas quantos onde qual quais vezes em com sem por "
    "antes depois primeiro último não se ouve diz fala toca late ruído som gravação este esta isso ao da das dos na "
    "nas nos",
    "Dutch": "het een zijn wat wie wanneer waar waarom welke hoeveel vaak keer en of niet geen naar voor met van op "
    "ik jij je hij zij wij hoor hoort horen gehoord zegt spreekt belt blaft geluid eerst laatst opname er",
    "Swedish": "en ett och eller är var vad vem när varför vilken vilket vilka hur många gånger inte ingen på med av "
    "före efter först sist sista hörs höra säger talar ljud skäller jag du han hon det finns",
    "Danish, Norwegian": "og eller hvad hva hvem hvornår når hvor hvorfor hvilken hvilket hvilke mange gange ganger "
    "ikke ingen på med av af før etter efter først sidst sist høres høre hører siger sier taler lyd gør jeg du han "
    "hun det der som fra",
    "Polish": "jest są czy kto kiedy ile gdzie dlaczego jaki jaka jakie który która które razy i nie na z w przed po "
    "pierwszy ostatni słychać mówi szczeka dźwięk się nagraniu co jak",
    "Czech": "je jsou kdo kdy kolik kolikrát kde proč jaký jaká jaké který která které krát ne na před po první "
    "poslední slyšet říká mluví zvuk se v co jak",
    "Hungarian": "az és vagy ki mi mikor hány hányszor hol miért milyen melyik nem van előtt után első utolsó hallható "
    "mond beszél ugat hang kutya",
    "Finnish": "ja tai on kuka mikä mitä milloin montako monta kuinka kertaa missä miksi ei ennen jälkeen ensin "
    "viimeksi kuuluu sanoo puhuu haukkuu ääni koira",
    "Romanian": "și sau este sunt cine ce când câte cât unde ce ori nu pe cu fără înainte după primul ultimul aude "
    "spune vorbește latră sunet în",
    "Turkish": "ve veya bir mi mı kim ne nedir nerede neden hangi kaç kez kere önce sonra ilk ses duyuluyor diyor "
    "konuşuyor havlıyor var",
    "Indonesian": "dan atau adalah apa siapa kapan berapa kali mana mengapa bagaimana tidak sebelum sesudah setelah "
    "pertama terakhir terdengar kata suara yang di anjing",
}
"""Small words, and what is asked of recordings, by language."""
SHARED = frozenset(
    "a all als am an and are art as at bad bei belt but car chat chi com come comment con dan das data de del den "
    "di dice die dire do dove e el elle en er es est et ex fast fin final for gift gut had han hang hat he hell "
    "her hoe hon i ilk im in is ja ki kim kind la las late les lit log los mal man mate max me men met mi moi mon "
    "na ne no nos not o of on once or os pain pan pas pe per po pour pro quit red rot sale see si sin so sol son "
    "tag tai tan ten to tu um un van var via wand war was wat y".split()
)
"""Words that say nothing: English ones, and parts of names, that other languages have too."""


def reading(text: str) -> Reading:
    """What a question is, from its letters and words."""
    unquoted = _QUOTED.sub(" ", text)
    words = _WORD.findall(unquoted) or _WORD.findall(text)
    letters = [letter for word in words for letter in word if letter.isalpha()]
    if sum(not _is_latin(letter) for letter in letters) > len(letters) / 2:
        return "foreign"
    english = sum(_is_english(word) for word in words)
    foreign = sum(_is_foreign(word) for word in words)
    # A name in the middle of a question is known to no list.
    strange = sum(not _is_known(word) and (place == 0 or word.islower()) for place, word in enumerate(words))
    if (foreign >= 2 and foreign >= 2 * english) or (foreign >= 3 and foreign > english):
        return "foreign"
    if (foreign >= 2 and foreign > english) or (foreign and not english and len(words) > 1):
        return "doubtful"
    return "doubtful" if len(words) >= FEW and 4 * strange > 3 * len(words) else "english"


@cache
def _is_latin(letter: str) -> bool:
    return unicodedata.name(letter, "").startswith(("LATIN", "MODIFIER", "FEMININE", "MASCULINE"))


def _is_english(word: str) -> bool:
    plain = _plain(word)
    return plain not in SHARED and not _is_foreign(word) and _stem(plain) in _english()


def _is_known(word: str) -> bool:
    return _is_english(word) or _plain(word) in SHARED


def _is_foreign(word: str) -> bool:
    plain = _plain(word)
    if _ELIDED.match(plain):
        return True
    if plain in _foreign():
        return plain not in SHARED
    return word.islower() and not word.replace("’", "'").isascii()


def _plain(word: str) -> str:
    return word.lower().replace("’", "'")


def _stem(plain: str) -> str:
    """The word before an apostrophe: what's, dog's."""
    return plain.partition("'")[0]


@cache
def _foreign() -> frozenset[str]:
    return frozenset(word for words in FOREIGN.values() for word in words.split())


@cache
def _english() -> frozenset[str]:
    """Words that the tokenizer of echo-small has in one piece."""
    tokenizer = json.loads((SHIPPED[SMALL] / "tokenizer.json").read_text(encoding="utf-8"))
    pieces = tokenizer["model"]["vocab"]
    return frozenset(piece[1:].lower() for piece in pieces if piece[0] == "Ġ" and piece[1:].isalpha())
