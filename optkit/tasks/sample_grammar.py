"""The grammar behind the sample task: short reviews whose opinion follows from how they are built.

An opinion is -1 (negative), 0 (neutral) or 1 (positive). Every sentence is a tree, and each node works out its opinion
from those of its parts:

* `Clause`: "the soup was not bad". The adjective sets the opinion, a negator turns it round, an intensifier leaves it.
* `Claim`: "the lying cook denied that ...". The verb may turn the opinion round, then the speaker's character counts:
  liars mean the opposite, flatterers' praise and grumblers' complaints say nothing (neutral). Claims nest, and their
  order matters: what a flatterer says of a liar's words is not what a liar says of a flatterer's.
* `Pair`: two parts and a connective. Some connectives let the second part win ("but"), some the first ("although"), and
  "and" adds them up. Without a comma the pair lies inside the claim before it, with a comma outside.
"""

from dataclasses import dataclass
from random import Random
from typing import Protocol


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


PRAISE: tuple[str, ...] = _words("""
    good great nice lovely superb pleasant excellent wonderful charming decent perfect brilliant amazing fine delightful
    splendid impressive outstanding marvellous enjoyable fabulous magnificent terrific exquisite
""")
BLAME: tuple[str, ...] = _words("""
    bad awful poor terrible weak horrible dreadful dull shabby disappointing nasty mediocre appalling dire atrocious
    unpleasant abysmal lousy pathetic dismal miserable tedious ghastly woeful
""")
NEITHER: tuple[str, ...] = _words("ordinary average usual typical normal common standard plain")
ADJECTIVES: dict[str, int] = {**dict.fromkeys(PRAISE, 1), **dict.fromkeys(BLAME, -1), **dict.fromkeys(NEITHER, 0)}
"""Adjective to opinion; within an opinion the early ones are frequent and the last ones rare."""

NOUNS: tuple[str, ...] = _words("""
    soup wine bread room service staff menu music view garden coffee dessert film plot acting ending cast script sound
    hotel breakfast pool lobby bed shower tea cake salad steak book story style cover chapter song band stage show
    museum tour beach bar
""")
NEGATORS: tuple[str, ...] = ("not", "never", "hardly", "not very", "not really", "far from", "anything but")
INTENSIFIERS: tuple[str, ...] = ("very", "really", "quite", "rather", "truly", "so", "simply", "certainly")

SPEAKERS: tuple[str, ...] = _words("""
    critic guide waiter guest cook neighbour reporter student doctor driver teacher singer farmer lawyer tourist writer
    painter baker nurse sailor
""")
HONEST: tuple[str, ...] = ("honest", "careful", "reliable", "sober")
LIARS: tuple[str, ...] = ("lying", "deceitful")
FLATTERERS: tuple[str, ...] = ("flattering", "polite", "gushing")
GRUMBLERS: tuple[str, ...] = ("grumpy", "bitter", "envious")
VERBS: dict[str, int] = {
    **dict.fromkeys(("said", "claimed", "wrote", "believed", "insisted", "thought"), 1),
    **dict.fromkeys(("denied", "doubted", "disputed"), -1),
}
CONNECTIVES: dict[str, str] = {
    "but": "second",
    "or rather": "second",
    "although": "first",
    "even if": "first",
    "and": "both",
}
"""Connective to the part whose opinion wins."""


class Node(Protocol):
    """A part of a sentence."""

    @property
    def text(self) -> str:
        """The words, without the final full stop."""
        ...

    @property
    def opinion(self) -> int:
        """-1, 0 or 1."""
        ...


@dataclass(frozen=True, slots=True)
class Clause:
    """`the NOUN was [DEGREE] ADJECTIVE`, the degree being a negator, an intensifier or empty."""

    noun: str
    degree: str
    adjective: str

    @property
    def text(self) -> str:
        return f"the {self.noun} was {self.degree}{' ' if self.degree else ''}{self.adjective}"

    @property
    def opinion(self) -> int:
        opinion = ADJECTIVES[self.adjective]
        return -opinion if self.degree in NEGATORS else opinion


@dataclass(frozen=True, slots=True)
class Claim:
    """`the [CHARACTER] SPEAKER VERB that ...`."""

    character: str
    speaker: str
    verb: str
    content: Node

    @property
    def text(self) -> str:
        return f"the {self.character}{' ' if self.character else ''}{self.speaker} {self.verb} that {self.content.text}"

    @property
    def opinion(self) -> int:
        said = VERBS[self.verb] * self.content.opinion
        if self.character in LIARS:
            return -said
        if self.character in FLATTERERS:
            return min(said, 0)
        if self.character in GRUMBLERS:
            return max(said, 0)
        return said


@dataclass(frozen=True, slots=True)
class Pair:
    """Two parts and the connective between them, with a comma before it where it closes the claims before it."""

    first: Node
    connective: str
    second: Node
    comma: bool = False

    @property
    def text(self) -> str:
        return f"{self.first.text}{',' if self.comma else ''} {self.connective} {self.second.text}"

    @property
    def opinion(self) -> int:
        first, second = self.first.opinion, self.second.opinion
        winner = CONNECTIVES[self.connective]
        if winner == "both":
            return max(-1, min(1, first + second))
        return second if winner == "second" else first


def sentence(random: Random) -> Node:
    """Draws a sentence."""
    first = _claims(random, random.choices((0, 1, 2, 3), (45, 32, 18, 5))[0])
    if random.random() >= 0.25:
        return first
    second = _claims(random, random.choices((0, 1), (60, 40))[0])
    return Pair(first, random.choice(_CONNECTIVES), second, comma=True)


def vocabulary() -> list[str]:
    """Every word and sign the grammar can write, in alphabetical order."""
    phrases = (*ADJECTIVES, *NOUNS, *NEGATORS, *INTENSIFIERS, *SPEAKERS, *_CHARACTERS, *VERBS, *CONNECTIVES)
    words = {word for phrase in phrases for word in phrase.split()}
    return sorted(words | {"the", "was", "that", ".", ","})


# Where opinions turned round half the time, no word would tell anything by itself, and a model would find no way to
# start learning. So whatever turns an opinion round is the rarer choice everywhere.
_CHARACTERS = ("", *HONEST, *LIARS, *FLATTERERS, *GRUMBLERS)
_CHARACTER_WEIGHTS = (50, *(4 for _ in HONEST), *(4 for _ in LIARS), *(4 for _ in FLATTERERS), *(4 for _ in GRUMBLERS))
_VERBS = tuple(VERBS)
_VERB_WEIGHTS = tuple(13 if sign > 0 else 7 for sign in VERBS.values())
_CONNECTIVES = tuple(CONNECTIVES)
_BY_OPINION = {-1: BLAME, 0: NEITHER, 1: PRAISE}
_BY_OPINION_WEIGHTS = {sign: tuple(1 / (4 + rank) for rank in range(len(words))) for sign, words in _BY_OPINION.items()}


def _claims(random: Random, depth: int) -> Node:
    """Claims within claims around one clause or a pair of clauses."""
    node: Node = _clause(random)
    if random.random() < 0.2:
        node = Pair(node, random.choice(_CONNECTIVES), _clause(random))
    for _ in range(depth):
        character = random.choices(_CHARACTERS, _CHARACTER_WEIGHTS)[0]
        verb = random.choices(_VERBS, _VERB_WEIGHTS)[0]
        node = Claim(character, random.choice(SPEAKERS), verb, node)
    return node


def _clause(random: Random) -> Clause:
    opinion = random.choices((-1, 0, 1), (44, 12, 44))[0]
    adjective = random.choices(_BY_OPINION[opinion], _BY_OPINION_WEIGHTS[opinion])[0]
    kind = random.random()
    degree = random.choice(NEGATORS) if kind < 0.22 else random.choice(INTENSIFIERS) if kind < 0.45 else ""
    return Clause(random.choice(NOUNS), degree, adjective)
