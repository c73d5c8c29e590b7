"""Sets of questions by name: {category: {name: text}}, after the categories of DreamBooth (Ruiz et al. 2023, Sec. 4.1).

Intervals are about prompts, so each set has at least 24: 16 prompts of 2 seeds tell more than 8 of 12.
"""

from __future__ import annotations

Prompts = dict[str, dict[str, str]]

_PLACES = {
    "jungle": "a photo of a {token_noun} in the jungle",
    "snow": "a photo of a {token_noun} in the snow",
    "beach": "a photo of a {token_noun} on the beach",
    "cobblestones": "a photo of a {token_noun} on a cobblestone street",
    "pink fabric": "a photo of a {token_noun} on top of pink fabric",
    "wooden floor": "a photo of a {token_noun} on a wooden floor",
    "city": "a photo of a {token_noun} with a city in the background",
    "mountains": "a photo of a {token_noun} with mountains in the background",
    "blue house": "a photo of a {token_noun} in front of a blue house",
    "rug": "a photo of a {token_noun} on a purple rug",
    "wheat field": "a photo of a {token_noun} in a wheat field",
    "autumn": "a photo of a {token_noun} among autumn leaves",
    "desert": "a photo of a {token_noun} in the desert",
    "meadow": "a photo of a {token_noun} on green grass with sunflowers around it",
    "kitchen": "a photo of a {token_noun} in a bright kitchen",
    "museum": "a photo of a {token_noun} in a museum",
    "crowded street": "a photo of a {token_noun} on the sidewalk of a crowded street",
    "water's edge": "a photo of a {token_noun} beside a lake at sunset",
}
_VIEWS = {
    "from above": "a photo of a {token_noun} seen from above",
    "close-up": "a close-up photo of a {token_noun}",
    "at night": "a photo of a {token_noun} at night under a street lamp",
}

OBJECTS: Prompts = {
    "place": {**_PLACES, "mirror": "a photo of a {token_noun} on top of a mirror"},
    "view": _VIEWS,
    "colour": {"red": "a photo of a red {token_noun}", "purple": "a photo of a purple {token_noun}"},
    "material": {"shiny": "a photo of a shiny {token_noun}", "wet": "a photo of a wet {token_noun}"},
    "style": {"watercolour": "a watercolour painting of a {token_noun}"},
}
ANIMALS: Prompts = {
    "place": _PLACES,
    "view": _VIEWS,
    "clothes": {
        "red hat": "a photo of a {token_noun} wearing a red hat",
        "santa hat": "a photo of a {token_noun} wearing a santa hat",
        "rainbow scarf": "a photo of a {token_noun} wearing a rainbow scarf",
        "black hat": "a photo of a {token_noun} wearing a black top hat and a monocle",
        "chef": "a photo of a {token_noun} in a chef outfit",
        "firefighter": "a photo of a {token_noun} in a firefighter outfit",
        "police": "a photo of a {token_noun} in a police outfit",
        "glasses": "a photo of a {token_noun} wearing pink glasses",
        "shirt": "a photo of a {token_noun} wearing a yellow shirt",
        "wizard": "a photo of a {token_noun} in a purple wizard outfit",
    },
    "colour": {"red": "a photo of a red {token_noun}", "purple": "a photo of a purple {token_noun}"},
    "style": {"watercolour": "a watercolour painting of a {token_noun}"},
}
MINIATURE: Prompts = {  # eight places that the miniature models know, three wordings each; training asks for others
    "outdoors": {
        "beach": "a photo of a {token_noun} on the beach",
        "sandy beach": "a photo of a {token_noun} on a sandy beach",
        "sea": "a photo of a {token_noun} on the beach by the sea",
        "snow": "a photo of a {token_noun} in the snow",
        "deep snow": "a photo of a {token_noun} in deep snow",
        "snowy landscape": "a photo of a {token_noun} in a snowy landscape",
        "grass": "a photo of a {token_noun} on green grass",
        "lawn": "a photo of a {token_noun} on a lawn",
        "meadow": "a photo of a {token_noun} in a green meadow",
        "forest": "a photo of a {token_noun} in a forest",
        "woods": "a photo of a {token_noun} in the woods",
        "trees": "a photo of a {token_noun} between the trees of a forest",
        "desert": "a photo of a {token_noun} in the desert",
        "desert sand": "a photo of a {token_noun} on desert sand",
        "dunes": "a photo of a {token_noun} among the dunes",
        "city": "a photo of a {token_noun} with a city in the background",
        "city street": "a photo of a {token_noun} on a city street",
        "tall buildings": "a photo of a {token_noun} in front of tall buildings",
    },
    "indoors": {
        "wooden floor": "a photo of a {token_noun} on a wooden floor",
        "on top of wood": "a photo of a {token_noun} on top of a wooden floor",
        "room": "a photo of a {token_noun} in a room with a wooden floor",
        "living room": "a photo of a {token_noun} in a living room",
        "cosy living room": "a photo of a {token_noun} in a cosy living room",
        "inside": "a photo of a {token_noun} inside a living room",
    },
}

SETS: dict[str, Prompts] = {"objects": OBJECTS, "animals": ANIMALS, "miniature": MINIATURE}
