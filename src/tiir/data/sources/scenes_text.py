"""Captions of Scenes pictures, as five annotators would write them, and the faults some of them have."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from random import Random

from tiir.data.sources.scenes_world import COLOURS, KINDS, Group, Scene

__all__ = ["ANNOTATORS", "CONTENT", "FAULTS", "SEVERAL", "Caption", "Facts", "slips", "write_caption"]

ANNOTATORS = 5
FAULTS = {"typo": 0.06, "underspecified": 0.04, "abstract": 0.025, "wrong colour": 0.04}  # share of captions
SEVERAL = 3  # pictures that an underspecified caption fits at least

Fact = tuple[str, str, object]
Said = dict[str, list[str]]  # for each kind that is mentioned, which of its details

NOUNS = {
    "house": ("house", "home", "cottage"),
    "tree": ("tree",),
    "car": ("car", "automobile"),
    "ball": ("ball", "beachball"),
    "flower": ("flower", "blossom"),
    "tent": ("tent",),
    "mushroom": ("mushroom", "toadstool"),
    "cat": ("cat", "kitten"),
    "boat": ("boat", "sailboat", "ship"),
    "fish": ("fish",),
    "duck": ("duck",),
    "sun": ("sun",),
    "moon": ("moon",),
    "star": ("star",),
    "kite": ("kite",),
    "bird": ("bird",),
    "balloon": ("balloon", "hot air balloon"),
    "cloud": ("cloud",),
    "plane": ("plane", "airplane", "aircraft"),
}
SAME_PLURAL = ("fish", "aircraft")
ADJECTIVES = {
    "red": ("red", "scarlet"),
    "yellow": ("yellow", "golden"),
    "purple": ("purple", "violet"),
    "small": ("small", "little", "tiny"),
    "big": ("big", "large", "huge"),
}
NUMBERS = {2: ("two", "2", "a pair of"), 3: ("three", "3", "a trio of")}
SPOTS = {
    "left": ("on the left", "to the left", "on the left side"),
    "middle": ("in the middle", "in the centre", "halfway across"),
    "right": ("on the right", "to the right", "on the right side"),
}
WHERE = {
    "grass": ("in a meadow", "on the grass", "in a green field"),
    "sea": ("at sea", "by the ocean", "on the water"),
    "snow": ("in the snow", "on a snowy day", "in winter"),
    "sand": ("in the desert", "on the sand", "on a sandy plain"),
    "night": ("at night", "under a dark sky", "after dark"),
    "road": ("by the road", "on the street", "on an empty road"),
}
ABSTRACT = [
    f"{start} {mood}{end}"
    for start in ("a moment of", "the feeling of", "nothing but", "a little")
    for mood in ("peace", "joy", "freedom", "longing", "harmony", "wonder", "hope", "calm")
    for end in ("", " that stays with you", " for everyone", " before it all changes")
]
_PHRASES = [*NOUNS.values(), *ADJECTIVES.values(), *SPOTS.values(), *WHERE.values(), tuple(COLOURS)]
_LONG = {part for phrases in _PHRASES for phrase in phrases for part in phrase.split() if len(part) >= 4}
_PLURALS = {f"{word}s" for words in NOUNS.values() for word in words if len(word) >= 4 and " " not in word}
_PLAIN = "side halfway across after under dark huge home homes plain sand fishs aircrafts"
CONTENT = (_LONG | _PLURALS) - set(_PLAIN.split())
_KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_ONE_SLIP_AWAY = (  # words that are one slip away from a content word
    "balk bals bid bids  birr birrs brid back lack bleu blur blu bat bats boa boas boar boars boast bot bots clod clou "
    "center desserts dessert dick dicks dock filed fied gass grads hose hoses housed housse kit kits kited kie kire larger lager "
    "let loft mon mono monos mons moo moor moos muddle nigh nought punk pin ponk pane panes plan plans planed riad rad rod "
    "scarlett shop shops sip sips sow stat stats tsar tsars sari ten tens tet tee tees treed tre whit whiter"
)
_REAL = frozenset(_ONE_SLIP_AWAY.split())


@dataclass(frozen=True)
class Caption:
    """A caption, and what is wrong with it.

    Args:
        text: what the annotator wrote.
        fault: "none" or one of `FAULTS`.
        detail: "wrong->right" word for "typo" and "wrong colour", else "".
        claims: the facts it states (before a typo or a wrong colour got in).
    """

    text: str
    fault: str
    detail: str
    claims: tuple[Fact, ...]


class Facts:
    """Which pictures of a split show what, to tell whether a wording fits one of them or several.

    Example:
        >>> from tiir.data.sources.scenes_world import sample_scene
        >>> scenes = [sample_scene(Random(0))]
        >>> Facts(scenes).fits([("backdrop", "", scenes[0].backdrop)])
        1
    """

    def __init__(self, scenes: Sequence[Scene]) -> None:
        self._pictures: dict[Fact, int] = {}  # one bit a picture
        for i, scene in enumerate(scenes):
            for fact in _facts(scene):
                self._pictures[fact] = self._pictures.get(fact, 0) | 1 << i

    def fits(self, claims: Iterable[Fact]) -> int:
        """Number of pictures of which all claims are true."""
        return reduce(int.__and__, (self._pictures.get(claim, 0) for claim in claims)).bit_count()


def _facts(scene: Scene) -> Iterator[Fact]:
    # Kinds do not repeat within a picture, so facts about one kind are facts about one group.
    yield ("backdrop", "", scene.backdrop)
    for group in scene.groups:
        for detail in ("count", "colour", "size", "place"):
            yield (group.kind, detail, getattr(group, detail))
        yield ("any", "colour", group.colour)
        yield ("any", "sky", KINDS[group.kind].sky)


def write_caption(rng: Random, annotator: int, scene: Scene, facts: Facts) -> Caption:
    """One annotator's caption of a picture.

    It says enough to fit no other picture of the split (unless one shows all that this one does, and more), or
    has the fault of being underspecified or abstract. Faults come at the rates of `FAULTS`.

    Args:
        rng: decides what is said, the words and the fault.
        annotator: 0 to 4: plain, by place, terse, telling, counting.
        scene: the picture.
        facts: of all pictures of the split.
    """
    fault = rng.choices(["none", *FAULTS], [1 - sum(FAULTS.values()), *FAULTS.values()])[0]
    if fault == "abstract":
        return Caption(rng.choice(ABSTRACT), fault, "", ())
    if fault == "underspecified" and (vague := _vague(rng, scene, facts)):
        return Caption(vague[0], fault, "", vague[1])
    said, backdrop = _choose(rng, annotator, scene, facts, need_colour=fault == "wrong colour")
    claims = tuple(_claims(scene, said, backdrop))
    colours = {group.kind: group.colour for group in scene.groups}
    if fault == "wrong colour":
        kind = rng.choice([kind for kind in said if "colour" in said[kind]])
        right = colours[kind]
        wrong = colours[kind] = rng.choice([colour for colour in KINDS[kind].colours if colour != right])
        text = _say(rng, annotator, scene, said, backdrop, colours, synonyms=False)
        return Caption(text, fault, f"{wrong}->{right}", claims)
    text = _say(rng, annotator, scene, said, backdrop, colours)
    detail = ""
    if fault == "typo":
        text, detail = _slip(rng, text)
    return Caption(text, "typo" if detail else "none", detail, claims)


def _claims(scene: Scene, said: Said, backdrop: bool) -> Iterator[Fact]:
    for group in scene.groups:
        if group.kind in said:
            for detail in ("count", *said[group.kind]):
                yield (group.kind, detail, getattr(group, detail))
    if backdrop:
        yield ("backdrop", "", scene.backdrop)


_LIKES: tuple[dict[str, float], ...] = (  # how likely each annotator mentions a detail of a thing
    {"colour": 0.8, "size": 0.3},
    {"place": 0.8, "colour": 0.4},
    {"colour": 0.8},
    {"colour": 0.5, "size": 0.2},
    {"colour": 0.6, "place": 0.2},
)


def _choose(
    rng: Random, annotator: int, scene: Scene, facts: Facts, *, need_colour: bool
) -> tuple[Said, bool]:
    # What this annotator cares about, then further details in any order until it fits one picture only.
    kinds = [group.kind for group in scene.groups]
    rng.shuffle(kinds)
    details = ("size", "colour", "place")
    said = {
        kind: [detail for detail in details if rng.random() < _LIKES[annotator].get(detail, 0.05)]
        for kind in kinds[: rng.choice((1, 2, 2, 3))]
    }
    if need_colour and "colour" not in said[kinds[0]]:
        said[kinds[0]].append("colour")
    backdrop = rng.random() < (0.7 if annotator == 3 else 0.4)
    more = [(kind, detail) for kind in kinds for detail in details if detail not in said.get(kind, ())]
    more.append(("", "backdrop"))
    rng.shuffle(more)
    while more and facts.fits(_claims(scene, said, backdrop)) > 1:
        kind, detail = more.pop()
        if kind:
            said.setdefault(kind, []).append(detail)
        else:
            backdrop = True
    return said, backdrop


def _vague(rng: Random, scene: Scene, facts: Facts) -> tuple[str, tuple[Fact, ...]] | None:
    group = rng.choice(scene.groups)
    thing, where = _thing(rng, group), rng.choice(WHERE[scene.backdrop])
    count: Fact = (group.kind, "count", group.count)
    backdrop: Fact = ("backdrop", "", scene.backdrop)
    wordings = [
        (f"a picture of {thing}", (count,)),
        (f"{thing} {where}", (count, backdrop)),
        (f"something {group.colour} {where}", (("any", "colour", group.colour), backdrop)),
        (f"a few things {where}", (backdrop,)),
    ]
    if KINDS[group.kind].sky:
        wordings.append((f"something up in the air {where}", (("any", "sky", True), backdrop)))
    rng.shuffle(wordings)
    return next((wording for wording in wordings if facts.fits(wording[1]) >= SEVERAL), None)


def _thing(
    rng: Random,
    group: Group,
    details: Sequence[str] = (),
    colour: str = "",
    *,
    article: bool = True,
    synonyms: bool = True,
) -> str:
    # Such as "two small red birds"; an annotator uses the plain word more often than its synonyms.
    noun = rng.choice((NOUNS[group.kind][0], *NOUNS[group.kind]))
    words = [rng.choice(ADJECTIVES[group.size])] if "size" in details else []
    if "colour" in details:
        words.append(rng.choice((colour, *ADJECTIVES.get(colour, ()))) if synonyms else colour)
    if group.count > 1:
        plain = NUMBERS[group.count][0]
        noun += "" if noun in SAME_PLURAL else "s"
        return " ".join([rng.choice((plain, *NUMBERS[group.count])), *words, noun])
    words.append(noun)
    if article:
        words.insert(0, "an" if words[0][0] in "aeiou" else "a")
    return " ".join(words)


def _say(
    rng: Random,
    annotator: int,
    scene: Scene,
    said: Said,
    backdrop: bool,
    colours: dict[str, str],
    *,
    synonyms: bool = True,
) -> str:
    groups = {group.kind: group for group in scene.groups}
    where = rng.choice(WHERE[scene.backdrop]) if backdrop else ""
    parts = []
    for kind, details in said.items():
        thing = _thing(rng, groups[kind], details, colours[kind], article=annotator != 2, synonyms=synonyms)
        spot = rng.choice(SPOTS[groups[kind].place]) if "place" in details else ""
        verb = "there is" if groups[kind].count == 1 else "there are"
        by_place = spot and annotator == 1
        parts.append(f"{spot} {verb} {thing}" if by_place else f"{thing} {spot}".strip())
    listed = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    if annotator == 0:
        text = f"{listed} {where}"
    elif annotator == 1:
        text = f"{where}, {listed}." if where else f"{listed}."
    elif annotator == 2:
        return ", ".join([*parts, where] if where else parts)
    elif annotator == 3:
        text = f"{rng.choice(('someone drew', 'you can see', 'look,', 'a drawing with'))} {listed} {where}"
    else:
        text = f"{rng.choice(('I see', 'I count', 'this picture has'))} {listed} {where}".rstrip() + "."
    text = text.strip()
    return text[0].upper() + text[1:]


def slips(word: str) -> list[str]:
    """What a slip of the finger makes of a word: letters swapped, dropped, doubled, a neighbouring key.

    Example:
        >>> {"hosue", "huse", "houuse", "hoise"} <= set(slips("house")), "hose" in slips("house")
        (True, False)
    """
    made = set()
    for i in range(1, len(word)):  # the first letter is mostly right
        made.add(word[:i] + word[i + 1 :])
        made.add(word[:i] + word[i] + word[i:])
        made.add(word[: i - 1] + word[i] + word[i - 1] + word[i + 1 :])
        for row in _KEYS:
            if (at := row.find(word[i])) >= 0:
                made |= {word[:i] + key + word[i + 1 :] for key in row[max(at - 1, 0) : at + 2]}
    return sorted(made - {word} - CONTENT - _REAL)


def _slip(rng: Random, text: str) -> tuple[str, str]:
    found = [match for match in re.finditer("[A-Za-z]+", text) if match[0].lower() in CONTENT]
    if not found:
        return text, ""
    match = rng.choice(found)
    right = match[0].lower()
    wrong = rng.choice(slips(right))
    shown = wrong.capitalize() if match[0][0].isupper() else wrong
    return text[: match.start()] + shown + text[match.end() :], f"{wrong}->{right}"
