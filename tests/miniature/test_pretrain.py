"""Pretraining: resumable to the byte, fair between judge and judged, blind to held-out designs."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from transformers import CLIPVisionConfig, CLIPVisionModel, ViTConfig, ViTModel

from miniature import scenes
from miniature.pretrain import architectures, blip, clip, dino, latents, loop, patches, text, unet, vae
from miniature.pretrain.__main__ import main
from miniature.pretrain.contrast import facet_loss
from miniature.pretrain.data import FACETS, Scenes, caption, generator, with_rare_word, wording
from miniature.pretrain.loop import Options, learning_rate
from miniature.pretrain.tokens import blip_tokenizer, world_words, write_clip_tokenizer
from miniature.scenes.dataset import scene_chunk

COUNT = 18


def write_dataset(path: Path, split: str, count: int = COUNT, first: int = 0) -> None:
    """A folder as `python -m miniature.scenes dataset` writes it, with real truth and noise for pictures."""
    path.mkdir(parents=True)
    np.save(path / "images.npy", np.random.default_rng(0).integers(0, 256, (count, 128, 128, 3), dtype=np.uint8))
    drawn = [scenes.sample_scene(seed, split) for seed in range(first, first + count)]
    rows = [{**scenes.truth(scene), "captions": [scenes.caption(scene, k) for k in range(4)]} for scene in drawn]
    (path / "truth.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (path / "progress.json").write_text(json.dumps({"count": count, "done": count}))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data")
    write_dataset(path / "train", "train")
    write_dataset(path / "judge", "train", first=COUNT)
    write_dataset(path / "textures", "train")
    write_dataset(path / "heldout", "heldout")
    return path


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """work/ and models/ after `all` for one step, by the command a user types."""
    path = tmp_path_factory.mktemp("trained")
    where = ["--data", str(data), "--work", str(path / "work"), "--out", str(path / "models")]
    main(["all", *where, "--steps", "1", "--batch", "2", "--preset", "cpu"])
    return path


@pytest.mark.slow
def test_one_command_trains_every_model_and_writes_what_the_libraries_load(trained: Path) -> None:
    from diffusers import StableDiffusionXLPipeline
    from transformers import BlipForConditionalGeneration, CLIPModel, ViTModel

    models = trained / "models"
    pipeline = StableDiffusionXLPipeline.from_pretrained(models / "sdxl", use_safetensors=True)
    facts = json.loads((trained / "work" / "latents.json").read_text())
    assert pipeline.vae.config.scaling_factor == facts["scaling_factor"]
    for kind, name in ((CLIPModel, "clip"), (ViTModel, "dino"), (BlipForConditionalGeneration, "blip")):
        assert kind.from_pretrained(models / name, use_safetensors=True).dtype == torch.float32


@pytest.mark.slow
def test_the_run_is_in_mlflow_with_a_nested_run_for_each_stage(trained: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{trained / 'work' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("miniature")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"pretrain all", "vae", "text", "letters", "latents", "decoder", "unet", "clip", "dino", "blip"}
    assert runs["unet"].data.metrics["final/steps"] == 1


SLOW = pytest.mark.slow  # one loop trains them all; the first two show that it goes on


@pytest.mark.parametrize(
    "module",
    [vae, text, pytest.param(clip, marks=SLOW), pytest.param(dino, marks=SLOW), pytest.param(blip, marks=SLOW)],
    ids=lambda module: module.__name__.split(".")[-1],
)
@pytest.mark.slow
def test_a_killed_training_goes_on_as_if_it_had_not_been(module, data: Path, tmp_path: Path, monkeypatch) -> None:
    name = module.__name__.split(".")[-1]
    options = Options(data=data, work=tmp_path / "whole", out=tmp_path, steps=3, batch=2, checkpoint_seconds=0)
    module.train(options)
    killed = Options(data=data, work=tmp_path / "killed", out=tmp_path, steps=3, batch=2, checkpoint_seconds=0)
    calls = []

    def rate_then_die(*given: float) -> float:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return learning_rate(*given)

    monkeypatch.setattr(loop, "learning_rate", rate_then_die)
    with pytest.raises(KeyboardInterrupt):
        module.train(killed)
    monkeypatch.setattr(loop, "learning_rate", learning_rate)
    module.train(killed)
    whole = torch.load(tmp_path / "whole" / f"{name}.pt", weights_only=True)
    resumed = torch.load(tmp_path / "killed" / f"{name}.pt", weights_only=True)
    assert resumed["step"] == whole["step"] == 3
    for key, state in whole["networks"].items():
        for parameter, value in state.items():
            assert torch.equal(value, resumed["networks"][key][parameter]), f"{key}.{parameter}"


@pytest.mark.slow
def test_a_larger_budget_continues_a_finished_training(trained: Path, data: Path) -> None:
    options = Options(data=data, work=trained / "work", out=trained / "models", steps=2, batch=2)
    assert unet.train(options)["steps"] == 2
    assert unet.train(options)["steps"] == 2


@pytest.mark.slow
def test_a_stage_may_begin_from_published_weights(trained: Path, data: Path, tmp_path: Path) -> None:
    options = Options(data=data, work=tmp_path, out=tmp_path, steps=0, start=trained / "models")
    published = ViTModel.from_pretrained(trained / "models" / "dino", add_pooling_layer=False)
    begun = loop.begin(architectures.dino(), options, "dino", "dino")
    for name, value in published.state_dict().items():
        assert torch.equal(value, begun.state_dict()[name]), name
    wider = ViTModel(ViTConfig(**{**published.config.to_dict(), "intermediate_size": 64}), add_pooling_layer=False)
    with pytest.raises(ValueError, match="not \\(64"):
        loop.begin(wider, options, "dino", "dino")


@pytest.mark.slow
def test_a_unet_may_go_on_with_the_published_words(trained: Path, data: Path, tmp_path: Path) -> None:
    published = Options(data=data, work=trained / "work", out=tmp_path)
    begun = Options(data=data, work=tmp_path, out=tmp_path, start=trained / "models")
    said = ["a photo of a red chair on the beach"]
    for there, here in zip(unet.Prompts(published)(said), unet.Prompts(begun)(said), strict=True):
        torch.testing.assert_close(here, there, rtol=0, atol=2e-2)  # published in half precision


def test_weights_of_other_patches_are_resampled(tmp_path: Path) -> None:
    """On a picture of one colour every patch says the same, whatever its size; corners keep their positions."""

    def tower(patch: int) -> ViTModel:
        shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        return ViTModel(ViTConfig(**shape, image_size=128, patch_size=patch), add_pooling_layer=False)

    torch.manual_seed(0)
    coarse = tower(16)
    torch.nn.init.normal_(coarse.embeddings.position_embeddings)
    coarse.save_pretrained(tmp_path / "vit")
    fine = loop.begin(tower(8), Options(data=tmp_path, work=tmp_path, out=tmp_path, start=tmp_path), "vit", "vit")
    plain = torch.full((1, 3, 128, 128), 0.7)
    before, after = (vit.embeddings.patch_embeddings(plain)[0, 0] for vit in (coarse, fine))
    torch.testing.assert_close(before, after, rtol=1e-4, atol=1e-5)
    places = fine.embeddings.position_embeddings[0]
    assert torch.equal(places[:2], coarse.embeddings.position_embeddings[0, :2])
    assert places.shape == (257, 16)


def test_the_judge_is_told_what_stands_where_and_its_map_moves_with_the_picture(data: Path) -> None:
    judge = Scenes(data / "judge")
    drawn = np.arange(len(judge))
    pixels, objects = patches.pictures(judge, drawn, 8, generator(0, 0))
    assert pixels.shape == (COUNT, 3, 128, 128)
    assert objects.shape == (COUNT, 256)
    still = torch.from_numpy(np.stack([scenes.objects(scenes.from_truth(judge.rows[row]), 16) for row in drawn]))
    same = [
        (there.view(16, 16)[1:-1, 1:-1] == unmoved[1:-1, 1:-1]).float().mean()
        for there, unmoved in zip(objects, still, strict=True)
    ]
    assert min(same) < 1  # mirrored or shifted, at least one of them
    head = patches.PatchHead(8)
    told = head.targets([judge.rows[row] for row in drawn], objects)
    for row, there, classes in zip(drawn, objects, told["class_name"], strict=True):
        assert set(classes[there == 1].tolist()) == {scenes.CLASSES.index(judge.rows[row]["class_name"])}
        assert set(classes[there == 0].tolist()) <= {len(scenes.CLASSES)}


def test_a_tower_that_sees_all_patches_gives_what_the_model_gives() -> None:
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    model = CLIPVisionModel(CLIPVisionConfig(**shape, image_size=32, patch_size=8)).eval()
    tower = getattr(model, "vision_model", model)
    pixels = torch.randn(2, 3, 32, 32)
    tokens, seen = patches.seen_in_part(tower, pixels, 1.0, np.random.default_rng(0))
    assert seen.sort(dim=1).values.tolist() == [list(range(16))] * 2
    torch.testing.assert_close(tokens[:, 0], model(pixel_values=pixels).pooler_output, rtol=1e-4, atol=1e-5)
    part, few = patches.seen_in_part(tower, pixels, 0.25, np.random.default_rng(0))
    assert part.shape == (2, 1 + 4, 32)
    assert few.shape == (2, 4)


@pytest.mark.slow
def test_the_captioner_begins_by_seeing_what_clip_sees(data: Path, tmp_path: Path) -> None:
    options = Options(data=data, work=tmp_path, out=tmp_path, steps=1, batch=2)
    clip.train(options)
    judge = architectures.clip(write_clip_tokenizer(tmp_path / "words", world_words()))
    judge.load_state_dict(loop.trained(options, "clip")["clip"])
    captioner = architectures.blip(blip_tokenizer(world_words()))
    pixels = blip.normalise_for_both(Scenes(data / "train").pixels(np.arange(COUNT)))

    def likeness() -> float:
        with torch.no_grad():
            (ours, _), (theirs, _) = (
                patches.seen_in_part(tower.eval(), pixels, 1.0, np.random.default_rng(0))
                for tower in (captioner.vision_model, judge.vision_model)
            )
        return float(torch.cosine_similarity(ours, theirs, dim=-1).mean())

    assert abs(likeness()) < 0.5
    blip.see_as_clip(captioner.vision_model, options, pixels)
    assert likeness() > 0.9


def test_designs_held_out_are_refused(data: Path) -> None:
    with pytest.raises(ValueError, match="held-out designs"):
        Scenes(data / "heldout")
    assert len(Scenes(data / "heldout", training=False)) == COUNT


@pytest.mark.slow
def test_the_judges_learn_from_pictures_the_judged_never_see(data: Path, tmp_path: Path, monkeypatch) -> None:
    read = []
    opened = Scenes.__init__
    monkeypatch.setattr(
        Scenes, "__init__", lambda self, path, *more: read.append(path.name) or opened(self, path, *more)
    )
    for module, folders in ((clip, {"judge"}), (dino, {"judge"}), (text, {"train"}), (blip, {"train"})):
        read.clear()
        module.train(Options(data=data, work=tmp_path, out=tmp_path, steps=1, batch=2))
        assert set(read) == folders


def test_neighbouring_views_show_one_design_in_its_own_dress() -> None:
    _, rows = scene_chunk(0, 4, 16, 1, "train", 1, views=2)
    own = ("class_name", "design_seed", "colour", "accent", "material", "pattern")
    assert [rows[0][key] for key in own] == [rows[1][key] for key in own]
    assert rows[0]["azimuth"] != rows[1]["azimuth"]
    assert rows[0]["design_seed"] != rows[2]["design_seed"]


def test_designs_of_a_batch_are_distinct_and_first_of_their_rows(data: Path) -> None:
    rows = dino.draw_designs(Scenes(data / "judge"), generator(0, 0), 4)
    assert len(set(rows)) == len(rows) > 0
    assert not (rows % 2).any()


def test_a_caption_states_the_facts_it_names_and_no_others(data: Path) -> None:
    row = Scenes(data / "train").rows[0]
    stated = text.facts_of(row, wording(row, "whole"))
    assert stated[1] == 1 + scenes.COLOURS.index(row["colour"])
    assert stated[4] == 1 + scenes.SURROUNDINGS.index(row["surroundings"])
    assert text.facts_of(row, wording(row, "class"))[1:] == [0, 0, 0, 0]


def test_a_rare_word_stands_before_the_class(data: Path) -> None:
    row = Scenes(data / "train").rows[0]
    said = with_rare_word(wording(row, "class"), row, generator(0, 0), share=1.0)
    before, word, noun = said.rsplit(" ", 2)
    assert noun == row["class_name"]
    assert before.startswith("a photo of a")
    assert not set(word) & set("aeiou")


@pytest.mark.slow
def test_tuning_the_decoder_leaves_the_latents_true(trained: Path, data: Path) -> None:
    options = Options(data=data, work=trained / "work", out=trained / "models", steps=1)
    first, tuned = (
        torch.load(trained / "work" / f"{name}.pt", weights_only=True)["networks"]["vae"] for name in ("vae", "decoder")
    )
    changed = {key.split(".")[0] for key, value in first.items() if not torch.equal(value, tuned[key])}
    assert changed == {"decoder", "post_quant_conv"}
    assert torch.equal(vae.load(options).decoder.conv_in.weight, tuned["decoder.conv_in.weight"])


@pytest.mark.parametrize("stages", [["decoder"], ["decoder", "latents", "unet"]])
@pytest.mark.slow
def test_published_weights_go_on_without_moving_the_encoder(
    stages: list[str], trained: Path, data: Path, tmp_path: Path
) -> None:
    published, out = trained / "models", tmp_path / "models"
    where = ["--data", str(data), "--work", str(tmp_path), "--out", str(out), "--start", str(published)]
    main([*stages, *where, "--steps", "2", "--batch", "2", "--preset", "cpu"])
    before, after = (
        AutoencoderKL.from_pretrained(folder / "sdxl" / "vae", use_safetensors=True) for folder in (published, out)
    )
    changed = {
        key.split(".")[0]
        for (key, old), new in zip(before.state_dict().items(), after.state_dict().values(), strict=True)
        if not torch.equal(old, new)
    }
    assert changed == {"decoder", "post_quant_conv"}
    written, kept = (json.loads((folder / "sdxl/vae/config.json").read_text()) for folder in (out, published))
    assert written == kept
    assert sorted(path.name for path in (out / "sdxl" / "vae").iterdir()) == sorted(
        path.name for path in (published / "sdxl" / "vae").iterdir()
    )


def test_telling_made_up_words_apart_changes_no_other_caption(data: Path, tmp_path: Path) -> None:
    options = Options(data=data, work=tmp_path, out=tmp_path, steps=2, batch=4)
    text.train(options)
    before = unet.Prompts(options)
    assert text.train_letters(Options(data=data, work=tmp_path, out=tmp_path, steps=12, batch=4))["steps"] == 12
    after = unet.Prompts(options)
    known, made_up = "a photo of a red chair on the beach", "a photo of a bcnchr chair on the beach"
    assert torch.equal(before([known])[0], after([known])[0])

    def apart(prompts: unet.Prompts) -> float:
        states, _ = prompts([made_up, made_up.replace("bcnchr", "wnqchr")])
        return float((states[0] - states[1]).norm() / states.norm())

    assert apart(after) > 1.2 * apart(before)


def test_latents_need_an_autoencoder_first(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"miniature\.pretrain vae"):
        latents.cache(Options(data=data, work=tmp_path, out=tmp_path, steps=1))


def test_the_learning_rate_depends_on_the_share_of_the_budget_alone() -> None:
    in_steps = Options(data=Path(), work=Path(), out=Path(), steps=200)
    in_minutes = Options(data=Path(), work=Path(), out=Path(), minutes=2)
    assert in_steps.fraction(100, 9e9) == in_minutes.fraction(7, 60) == 0.5
    rates = [learning_rate(1.0, fraction) for fraction in np.linspace(0, 1, 101)]
    assert rates[3] == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.01)
    assert all(later <= earlier for earlier, later in pairwise(rates[3:]))


def test_captions_name_only_what_is_true(data: Path) -> None:
    rows = Scenes(data / "train").rows
    random = generator(0, 0)
    for row in rows:
        for words in (caption(row, random), wording(row, "whole"), blip.spoken(row)):
            assert row["class_name"] in words
            assert not any(
                f" {colour} {row['class_name']}" in words for colour in scenes.COLOURS if colour != row["colour"]
            )
        assert row["colour"] in blip.spoken(row)
        assert scenes.PLACES[row["surroundings"]][0] in blip.spoken(row)


def test_equal_captions_in_a_batch_are_not_pushed_apart() -> None:
    space = torch.eye(4)
    names = {"a chair": space[0], "a lamp": space[1]}
    facets = {name: ["a chair", "a chair", "a lamp"] for name in FACETS}
    images = torch.stack([space[0], space[0], space[1]])
    loss, accuracies = facet_loss(
        images, lambda texts: torch.stack([names[t] for t in texts]), facets, torch.tensor(50.0)
    )
    swapped, _ = facet_loss(
        images.flip(0), lambda texts: torch.stack([names[t] for t in texts]), facets, torch.tensor(50.0)
    )
    assert set(accuracies.values()) == {1.0}
    assert loss < 0.5 < swapped


def test_min_snr_weights_noise_prediction_as_its_paper_says() -> None:
    snr = torch.tensor([0.1, 5.0, 50.0])
    assert torch.allclose(unet.min_snr_weights(snr / (1 + snr)), torch.tensor([1.0, 1.0, 0.1]), atol=1e-4)


def test_an_empty_folder_says_how_to_fill_it(tmp_path: Path) -> None:
    write_dataset(tmp_path / "train", "train", 1)
    (tmp_path / "train" / "progress.json").write_text('{"count": 1, "done": 0}')
    with pytest.raises(ValueError, match=r"miniature\.scenes dataset"):
        Scenes(tmp_path / "train")


def test_the_command_says_what_it_lacks(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["vae", "--data", str(data)])
    assert "--minutes" in capsys.readouterr().err


def test_dino_crops_are_normalised_and_of_the_size_asked() -> None:
    pixels = torch.full((3, 3, 128, 128), 128, dtype=torch.uint8)
    small = dino.crop(pixels, generator(0, 0), 64, (0.1, 0.4))
    assert small.shape == (3, 3, 64, 64)
    assert small.abs().max() < 1.5
