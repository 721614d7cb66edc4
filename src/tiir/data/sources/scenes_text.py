"""Captions of Scenes pictures, as five annotators would write them, and the faults some of them have."""

from __future__ import annotations

from tiir.data.sources.scenes_draw import KINDS

__all__ = ["ANNOTATORS", "FAULTS", "Caption", "Facts", "write_caption"]

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
_CONTENT = (
    sorted(
        {
            word
            for phrases in (
                *NOUNS.values(),
                *ADJECTIVES.values(),
                *SPOTS.values(),
                *WHERE.values(),
                *KINDS_COLOURS,
            )
            for phrase in phrases
            for part in phrase.split()
            for word in ((part,) if phrase in SAME_PLURAL else (part, part + "s"))
            if len(word) >= 4
        }
    )
    if (KINDS_COLOURS := [tuple(kind.colours) for kind in KINDS.values()])
    else []
)
