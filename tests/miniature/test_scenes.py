"""The small world: deterministic to the byte, balanced, honest in its captions, and with designs that stay unseen."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from miniature.scenes import (
    CLASSES,
    COLOURS,
    MATERIALS,
    PLACES,
    SURROUNDINGS,
    caption,
    from_truth,
    is_held_out,
    objects,
    render,
    sample_scene,
    truth,
)
from miniature.scenes.drawn import DESIGNS
from miniature.scenes.photographs import VIEWS, photograph_scene, write_photographs
from miniature.scenes.render import world

ROOT = Path(__file__).parents[2]


def test_the_same_seed_gives_the_same_bytes_in_another_process() -> None:
    program = (
        "import hashlib; from miniature.scenes import *\n"
        "print(hashlib.sha256(b''.join(render(sample_scene(k), 48, 2).tobytes() for k in range(6))).hexdigest())"
    )
    there = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    here = hashlib.sha256(b"".join(render(sample_scene(k), 48, 2).tobytes() for k in range(6))).hexdigest()
    assert there.stdout.strip() == here


def test_truth_and_captions_of_a_seed_never_change() -> None:
    scene = sample_scene(7)
    told = json.dumps([truth(scene), [caption(scene, k) for k in range(4)]], sort_keys=True)
    assert (
        hashlib.sha256(told.encode()).hexdigest() == "4f2a6ac9689058c64fc8de1aa1cd5f65a7b4a826650c4e86467864ff5447c93d"
    )


def test_training_scenes_never_show_a_held_out_design() -> None:
    for seed in range(3000):
        scene = sample_scene(seed)
        assert not is_held_out(scene.design_seed)
        assert not any(is_held_out(thing.design_seed) for thing in scene.clutter)


def test_held_out_scenes_show_only_held_out_designs() -> None:
    for seed in range(500):
        scene = sample_scene(seed, "heldout")
        assert is_held_out(scene.design_seed)
        assert all(is_held_out(thing.design_seed) for thing in scene.clutter)


def test_the_sample_photographs_show_five_designs_that_sampling_never_reaches() -> None:
    scenes = [photograph_scene(design, view) for design in range(len(DESIGNS)) for view in range(VIEWS)]
    designs = {scene.design_seed for scene in scenes}
    assert len(scenes) == 25
    assert len(designs) == 5
    assert all(is_held_out(seed) for seed in designs)
    sampled = {sample_scene(seed, "heldout").design_seed for seed in range(2000)}
    assert not designs & sampled
    for design in range(len(DESIGNS)):
        assert len({photograph_scene(design, view).surroundings for view in range(VIEWS)}) == VIEWS


def test_classes_colours_and_surroundings_are_balanced() -> None:
    scenes = [sample_scene(seed) for seed in range(6000)]
    for field, names in (("class_name", CLASSES), ("colour", COLOURS), ("surroundings", SURROUNDINGS)):
        counts = Counter(getattr(scene, field) for scene in scenes)
        assert set(counts) == set(names)
        fair = len(scenes) / len(names)
        assert min(counts.values()) > 0.8 * fair
        assert max(counts.values()) < 1.2 * fair
    assert min(Counter(scene.material for scene in scenes).values()) > 0.1 * len(scenes)


def test_a_caption_names_the_class_and_nothing_untrue() -> None:
    spoken: Counter[str] = Counter()
    for seed in range(1500):
        scene = sample_scene(seed)
        text = caption(scene, seed % 5)
        words = text.replace(",", "").split()
        assert scene.class_name in words
        assert not (set(CLASSES) - {scene.class_name}) & set(words)
        place = max((p for phrases in PLACES.values() for p in phrases if p in text), key=len, default="")
        assert place == "" or place in PLACES[scene.surroundings]
        rest = text.replace(place, "").replace(",", "").split() if place else words
        assert set(rest) & set(COLOURS) <= {scene.colour, scene.accent}
        if "legs" not in rest:
            assert set(rest) & set(COLOURS) <= {scene.colour}
        materials = {"wooden": "wood"}
        named = {materials.get(word, word) for word in rest} & set(MATERIALS)
        assert named <= {scene.material}
        patterns = {"striped", "checked", "dotted", "tufted"} & set(rest)
        assert patterns <= {scene.pattern}
        spoken.update({"colour": scene.colour in rest, "material": bool(named), "place": bool(place)})
    assert 0.5 < spoken["colour"] / 1500 < 0.8
    assert 0.2 < spoken["material"] / 1500 < 0.5
    assert 0.5 < spoken["place"] / 1500 < 0.8


def test_captions_of_one_scene_vary() -> None:
    scene = sample_scene(11)
    assert len({caption(scene, k) for k in range(20)}) > 8


def test_a_design_keeps_its_shape_and_clothes_in_other_surroundings() -> None:
    views = [sample_scene(seed, class_name="chair", design_seed=77) for seed in range(6)]
    assert len({(v.colour, v.accent, v.material, v.pattern) for v in views}) == 1
    bodies = {world(v)[0][: int(world(v)[1][0, 5])].tobytes() for v in views}
    assert len(bodies) == 1
    assert len({render(v, 32).tobytes() for v in views}) == 6


def test_designs_differ_from_each_other() -> None:
    for class_name in CLASSES:
        scenes = [sample_scene(seed, class_name=class_name) for seed in range(12)]
        assert len({world(s)[0].tobytes() for s in scenes}) == 12


def test_the_colour_of_an_object_can_be_seen() -> None:
    for colour, brightest in (("red", 0), ("green", 1), ("blue", 2)):
        scene = sample_scene(
            5, class_name="sofa", colour=colour, material="plastic", pattern="plain", surroundings="studio",
            azimuth=0.0, clutter=(), shift_x=0.0, shift_y=0.0,
        )  # fmt: skip
        middle = render(scene, 64)[26:38, 24:40].reshape(-1, 3).mean(0)
        assert middle.argmax() == brightest
        assert middle[brightest] > 1.3 * np.delete(middle, brightest).max()


def test_the_object_fills_a_good_part_of_the_frame() -> None:
    from miniature.scenes.march import paint

    for seed in range(24):
        scene = sample_scene(seed, clutter=())
        shapes, groups, materials, place, camera = world(scene)
        place[39] = 0.0
        full, empty = np.empty((64, 64, 3), np.uint8), np.empty((64, 64, 3), np.uint8)
        paint(shapes, groups, materials, place, camera, 64, 1, 0, full)
        paint(shapes, np.array([[0.0, -50.0, 0.0, 0.01, 0.0, 0.0]]), materials, place, camera, 64, 1, 0, empty)
        changed = np.abs(full.astype(int) - empty).max(-1) > 12
        rows, columns = np.nonzero(changed.any(1))[0], np.nonzero(changed.any(0))[0]
        span = max(np.ptp(rows), np.ptp(columns)) / 64
        assert span > 0.33, (seed, scene.class_name)


def test_an_unknown_word_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="known: chair, armchair"):
        sample_scene(0, class_name="throne")
    with pytest.raises(ValueError, match="no field"):
        sample_scene(0, weather="rain")
    with pytest.raises(ValueError, match="train or heldout"):
        sample_scene(0, "test")  # type: ignore[arg-type]


def test_photographs_are_written_by_token_with_captions_that_name_their_place(tmp_path: Path) -> None:
    write_photographs(tmp_path, 24, 1)
    for design, drawn in enumerate(DESIGNS):
        for view in range(VIEWS):
            text = (tmp_path / "chair" / drawn.token / f"{view + 1:02d}.txt").read_text(encoding="utf-8")
            place = PLACES[photograph_scene(design, view).surroundings][0]
            assert text == f"a photo of a {drawn.token} chair {place}\n"
    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.jpg"))
    assert len(files) == 25
    assert {Path(name).parts[:2] for name in files} == {("chair", drawn.token) for drawn in DESIGNS}


def test_a_scene_comes_back_from_its_truth() -> None:
    for seed in range(40):
        scene = sample_scene(seed)
        assert from_truth(json.loads(json.dumps(truth(scene)))) == scene


def test_the_map_of_objects_says_where_the_thing_is() -> None:
    """Painted another colour, a picture changes on the thing and nowhere else."""
    fixed = {"class_name": "armchair", "design_seed": 5, "material": "fabric", "pattern": "plain", "clutter": ()}
    scene = sample_scene(3, surroundings="studio", grain=0.0, **fixed)
    red, blue = (render(replace(scene, colour=name, accent=name), 96).astype(int) for name in ("red", "blue"))
    changed, there = np.abs(red - blue).sum(axis=2) > 30, objects(scene, 96) == 1
    assert there.sum() > 500
    assert (changed != there).sum() < 0.02 * there.sum()


def test_the_map_of_objects_names_clutter_in_its_order() -> None:
    scene = next(s for s in map(sample_scene, range(200)) if len(s.clutter) == 2)
    assert set(np.unique(objects(scene, 64))) <= {0, 1, 2, 3}
    assert (objects(replace(scene, clutter=()), 64) <= 1).all()
