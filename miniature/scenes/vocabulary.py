"""The words of the small world, and the colours and phrases behind them."""

from __future__ import annotations

RGB = tuple[float, float, float]

CLASSES: tuple[str, ...] = (
    "chair", "armchair", "stool", "sofa", "bench", "table", "lamp", "vase", "bookshelf", "bed", "teapot", "clock",
)  # fmt: skip

PALETTE: dict[str, RGB] = {
    "red": (0.80, 0.07, 0.09),
    "orange": (0.96, 0.47, 0.05),
    "yellow": (0.97, 0.82, 0.10),
    "green": (0.10, 0.52, 0.16),
    "teal": (0.05, 0.62, 0.62),
    "blue": (0.10, 0.25, 0.80),
    "purple": (0.46, 0.16, 0.66),
    "pink": (0.97, 0.52, 0.70),
    "brown": (0.40, 0.22, 0.11),
    "black": (0.09, 0.09, 0.10),
    "white": (0.95, 0.94, 0.92),
    "grey": (0.50, 0.51, 0.53),
}
COLOURS: tuple[str, ...] = tuple(PALETTE)

MATERIALS: tuple[str, ...] = ("plastic", "wood", "metal", "fabric", "velvet")
HARD: tuple[str, ...] = ("plastic", "wood", "metal")
PATTERNS: tuple[str, ...] = ("plain", "striped", "checked", "dotted", "tufted")

# Classes made of hard stuff only; a lamp's cloth is its shade.
MATERIALS_OF: dict[str, tuple[str, ...]] = {
    "table": HARD,
    "vase": HARD,
    "bookshelf": HARD,
    "teapot": HARD,
    "clock": HARD,
}

# Where, in the words of a caption; the first is the plainest.
PLACES: dict[str, tuple[str, ...]] = {
    "beach": ("on the beach", "on a sandy beach", "at the beach", "on the beach by the sea", "on a beach"),
    "snow": ("in the snow", "standing in the snow", "on the snow", "in a snowy landscape", "in deep snow"),
    "grass": ("on green grass", "on the grass", "on a lawn", "in a green meadow", "on a green lawn"),
    "wooden floor": (
        "on a wooden floor", "on top of a wooden floor", "on the wooden floor", "in a room with a wooden floor",
    ),
    "living room": ("in a living room", "in the living room", "in a cosy living room", "inside a living room"),
    "city": (
        "in the city", "with a city in the background", "on a city street", "in front of tall buildings",
        "with a city behind it",
    ),
    "desert": ("in the desert", "on desert sand", "in a sandy desert", "among the dunes", "in the hot desert"),
    "forest": ("in the forest", "in a forest", "in the woods", "in the jungle", "between the trees of a forest"),
    "red rug": ("on a red rug", "on top of a red rug", "on a red carpet", "standing on a red rug"),
    "dirt road": ("on a dirt road", "on top of a dirt road", "on a country road", "on a dirt track"),
    "studio": ("in a studio", "in a photo studio", "on a white background", "against a plain backdrop"),
    "kitchen": ("in a kitchen", "in the kitchen", "on a tiled kitchen floor", "on kitchen tiles"),
}  # fmt: skip
SURROUNDINGS: tuple[str, ...] = tuple(PLACES)
INDOORS: frozenset[str] = frozenset({"wooden floor", "living room", "red rug", "kitchen", "studio"})
