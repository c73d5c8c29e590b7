"""Sets of questions by name: {category: {name: text}}, after the categories of DreamBooth (Ruiz et al. 2023, Sec. 4.1).

Intervals are about prompts: 16 prompts of 2 seeds tell more than 8 of 12. The first third of each category is what the
profiles ask at first; the rest is asked where the verdict is undecided then, and is longer than any paper's.
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
    "mirror": "a photo of a {token_noun} on top of a mirror",
    "water's edge": "a photo of a {token_noun} beside a lake at sunset",
    "bamboo forest": "a photo of a {token_noun} in a bamboo forest",
    "pine forest": "a photo of a {token_noun} among tall pine trees",
    "riverbank": "a photo of a {token_noun} on the bank of a river",
    "rocks": "a photo of a {token_noun} on bare rocks by the sea",
    "pier": "a photo of a {token_noun} on a wooden pier",
    "sand dunes": "a photo of a {token_noun} on top of a sand dune",
    "ice": "a photo of a {token_noun} on a frozen lake",
    "rain": "a photo of a {token_noun} on a wet pavement in the rain",
    "fog": "a photo of a {token_noun} in a field in thick fog",
    "moss": "a photo of a {token_noun} on moss between roots",
    "ferns": "a photo of a {token_noun} among ferns",
    "lavender": "a photo of a {token_noun} in a field of lavender",
    "tulips": "a photo of a {token_noun} between rows of tulips",
    "vineyard": "a photo of a {token_noun} in a vineyard",
    "orchard": "a photo of a {token_noun} under apple trees in blossom",
    "farm": "a photo of a {token_noun} in front of a red barn",
    "gravel": "a photo of a {token_noun} on a gravel path",
    "stepping stones": "a photo of a {token_noun} on stepping stones",
    "bridge": "a photo of a {token_noun} on a stone bridge",
    "stairs": "a photo of a {token_noun} on stone stairs",
    "market": "a photo of a {token_noun} in a market full of fruit",
    "railway platform": "a photo of a {token_noun} on the platform of a railway station",
    "parking lot": "a photo of a {token_noun} on an empty parking lot",
    "rooftop": "a photo of a {token_noun} on a rooftop above a city",
    "garden wall": "a photo of a {token_noun} in front of an ivy-covered wall",
    "brick wall": "a photo of a {token_noun} in front of a brick wall",
    "white background": "a photo of a {token_noun} in front of a white background",
    "grey background": "a photo of a {token_noun} in front of a plain grey background",
    "marble floor": "a photo of a {token_noun} on a marble floor",
    "tiles": "a photo of a {token_noun} on black and white tiles",
    "concrete": "a photo of a {token_noun} on a concrete floor",
    "library": "a photo of a {token_noun} in a library",
    "living room": "a photo of a {token_noun} in a living room beside a window",
    "bedroom": "a photo of a {token_noun} in a bedroom",
    "bathroom": "a photo of a {token_noun} in a tiled bathroom",
    "office": "a photo of a {token_noun} in an office",
}
_VIEWS = {
    "from above": "a photo of a {token_noun} seen from above",
    "close-up": "a close-up photo of a {token_noun}",
    "at night": "a photo of a {token_noun} at night under a street lamp",
    "from below": "a photo of a {token_noun} seen from below",
    "from far": "a photo of a {token_noun} seen from far away in a wide landscape",
    "from the side": "a photo of a {token_noun} seen from the side",
    "morning light": "a photo of a {token_noun} in soft morning light",
    "harsh sun": "a photo of a {token_noun} in harsh midday sun with a hard shadow",
    "candlelight": "a photo of a {token_noun} by candlelight",
}
_COLOURS = {
    colour: f"a photo of a {colour} {{token_noun}}" for colour in ("red", "purple", "green", "blue", "yellow", "black")
}
_STYLES = {
    "watercolour": "a watercolour painting of a {token_noun}",
    "pencil": "a pencil drawing of a {token_noun}",
    "oil": "an oil painting of a {token_noun}",
}

OBJECTS: Prompts = {
    "place": _PLACES,
    "view": _VIEWS,
    "colour": _COLOURS,
    "material": {
        "shiny": "a photo of a shiny {token_noun}",
        "wet": "a photo of a wet {token_noun}",
        "transparent": "a photo of a transparent {token_noun} made of glass",
        "rusty": "a photo of a rusty {token_noun}",
        "dusty": "a photo of a dusty {token_noun}",
        "snow-covered": "a photo of a {token_noun} covered with snow",
    },
    "style": _STYLES,
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
        "raincoat": "a photo of a {token_noun} wearing a yellow raincoat",
        "bow tie": "a photo of a {token_noun} wearing a bow tie",
        "sunglasses": "a photo of a {token_noun} wearing sunglasses",
        "crown": "a photo of a {token_noun} wearing a golden crown",
        "sailor": "a photo of a {token_noun} in a sailor outfit",
        "astronaut": "a photo of a {token_noun} in an astronaut suit",
        "knitted jumper": "a photo of a {token_noun} wearing a knitted jumper",
        "straw hat": "a photo of a {token_noun} wearing a straw hat",
        "cape": "a photo of a {token_noun} wearing a red cape",
        "headphones": "a photo of a {token_noun} wearing headphones",
    },
    "colour": _COLOURS,
    "style": _STYLES,
}
_MINIATURE: Prompts = {  # eight places that the miniature models know, three wordings each; training asks for others
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
MINIATURE: Prompts = {
    category: named
    | {
        f"{name}, {word}": text.replace("a photo of", f"a {word} of")
        for word in ("picture", "photograph")
        for name, text in named.items()
    }
    for category, named in _MINIATURE.items()
}

SETS: dict[str, Prompts] = {"objects": OBJECTS, "animals": ANIMALS, "miniature": MINIATURE}
