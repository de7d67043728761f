"""The grammar behind the sample task: short reviews whose opinion follows from how they are built.

An opinion is -1 (negative), 0 (neutral) or 1 (positive). Every sentence is a tree, and each node works out its opinion
from those of its parts:

* `Clause`: "the soup was not bad". The adjective sets the opinion, a negator turns it round, an intensifier leaves it.
* `Claim`: "the lying cook denied that ...". The verb may turn the opinion round, then the speaker's character counts:
  liars mean the opposite, flatterers' praise and grumblers' complaints say nothing (neutral). Claims nest, and their
  order matters: what a flatterer says of a liar's words is not what a liar says of a flatterer's.
* `Pair`: two parts and a connective, at most one pair per sentence. Some connectives let the second part win ("but"),
  some the first ("although"), and "and" adds them up. Without a comma the pair lies inside the claims before it, with a
  comma outside.
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
    """Draws a sentence: one pair at most, and the deeper its claims, the less often."""
    depth = random.choices(range(len(_DEPTH_WEIGHTS)), _DEPTH_WEIGHTS)[0]
    pair = random.random() * (depth + 1)
    if pair < 0.2:
        return _claims(random, depth, Pair(_clause(random), random.choice(_CONNECTIVES), _clause(random)))
    first = _claims(random, depth, _clause(random))
    if pair > 0.4:
        return first
    second = _claims(random, random.choice((0, 0, 1)), _clause(random))
    return Pair(first, random.choice(_CONNECTIVES), second, comma=True)


def vocabulary() -> list[str]:
    """Every word and sign the grammar can write, in alphabetical order."""
    phrases = (*ADJECTIVES, *NOUNS, *NEGATORS, *INTENSIFIERS, *SPEAKERS, *_CHARACTERS, *VERBS, *CONNECTIVES)
    words = {word for phrase in phrases for word in phrase.split()}
    return sorted(words | {"the", "was", "that", ".", ","})


# Where every word stood by every label equally often, a deep model would long find nothing to start learning from. So
# what turns an opinion round is the rarer choice, and rarer still with blame: as in real reviews, "not good" is commoner
# than "not bad", and praise is what gets denied.
_DEPTH_WEIGHTS = (50, 25, 13, 8, 4)
_NEGATED = {-1: 0.15, 0: 0.2, 1: 0.4}
_DENIED = {-1: 0.12, 0: 0.2, 1: 0.35}
_CHARACTERS = {"": 50, **dict.fromkeys(HONEST, 4), **dict.fromkeys((*LIARS, *FLATTERERS, *GRUMBLERS), 4)}
_DEGREES = (*("" for _ in INTENSIFIERS), *INTENSIFIERS)
_AFFIRMATIONS = tuple(verb for verb, sign in VERBS.items() if sign > 0)
_DENIALS = tuple(verb for verb, sign in VERBS.items() if sign < 0)
_CONNECTIVES = tuple(CONNECTIVES)
_BY_OPINION = {-1: BLAME, 0: NEITHER, 1: PRAISE}
_BY_OPINION_WEIGHTS = {sign: tuple(1 / (4 + rank) for rank in range(len(words))) for sign, words in _BY_OPINION.items()}


def _claims(random: Random, depth: int, node: Node) -> Node:
    """Claims within claims around a clause or a pair of clauses."""
    for _ in range(depth):
        character = random.choices(tuple(_CHARACTERS), tuple(_CHARACTERS.values()))[0]
        verbs = _DENIALS if random.random() < _DENIED[node.opinion] else _AFFIRMATIONS
        node = Claim(character, random.choice(SPEAKERS), random.choice(verbs), node)
    return node


def _clause(random: Random) -> Clause:
    opinion = random.choices((-1, 0, 1), (40, 12, 48))[0]
    adjective = random.choices(_BY_OPINION[opinion], _BY_OPINION_WEIGHTS[opinion])[0]
    degree = random.choice(NEGATORS) if random.random() < _NEGATED[opinion] else random.choice(_DEGREES)
    return Clause(random.choice(NOUNS), degree, adjective)
