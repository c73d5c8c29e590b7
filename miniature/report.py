"""Measure the miniature models on designs they never saw: `python -m miniature.report --data build/scenes`.

Writes models/README.md, the datasheet: what the models are, how they were trained, the table of measured quality with
what must be reached, and pictures. `--data` holds heldout/ (drawn with `python -m miniature.scenes dataset --split
heldout`); `--photographs` real ones for the autoencoder; `--work` the training ledger; `--scores` and `--real-scores`
the scores.json of DreamBooth runs' evaluate steps.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from miniature import scenes
from miniature.pretrain import datasheet
from miniature.pretrain.architectures import SIZE
from miniature.pretrain.data import Scenes, with_article
from miniature.pretrain.datasheet import Row, grid, labelled_picture

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
COLOURS_SHOWN = ("red", "blue", "green", "yellow", "white", "black", "purple", "orange")
GUIDANCE, STEPS = 6.0, 25


def main(arguments: list[str] | None = None) -> None:
    """Measure, draw the grids, write the datasheet, print the table."""
    parser = argparse.ArgumentParser(prog="python -m miniature.report", description=__doc__.split("\n")[0])
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--data", type=Path, required=True, help="folder with heldout/")
    parser.add_argument("--photographs", type=Path, help="folder of real photographs, searched deeply")
    parser.add_argument("--work", type=Path, default=Path("build/miniature"), help="where training left ledger.json")
    parser.add_argument("--scores", type=Path, help="scores.json of the default run on the sample chairs")
    parser.add_argument("--real-scores", type=Path, help="scores.json of a run on photographs of five real chairs")
    parser.add_argument("--commit", default="", help="commit that made the models")
    parser.add_argument("--limit", type=int, default=600, help="held-out scenes to measure on")
    parser.add_argument("--samples", type=int, default=144, help="pictures the base model is asked for")
    parser.add_argument("--steps", type=int, default=STEPS, help="sampling steps")
    given = parser.parse_args(arguments)
    torch.manual_seed(0)
    rows = measure(given)
    if given.scores:
        what = "the five sample chairs, default profile"
        rows += datasheet.dreambooth_rows(what, given.scores, ((50,), (97,)), ("75", "100"))
    if given.real_scores:
        what = "25 photographs of five real chairs, which it was not made for"
        rows += datasheet.dreambooth_rows(what, given.real_scores, ((), ()), ("40", "–"))
    datasheet.write(given.models, rows, given.work, given.commit)
    print("\n".join(datasheet.table(rows)))


@torch.no_grad()
def measure(given: argparse.Namespace) -> list[Row]:
    """All rows of the table; grids are written to models/pictures as they come up."""
    pictures = given.models / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    held_out = Scenes(given.data / "heldout", training=False)
    truths = held_out.rows[: given.limit]
    images = [Image.fromarray(held_out.images[index]) for index in range(len(truths))]
    judge = Judge(given.models / "clip")
    rows = list(autoencoder_rows(given, images, pictures))
    rows.append(judge.row("CLIP: zero-shot class / colour / surroundings", images, truths, (90, 85, 95), "97"))
    rows.append(identity_row(given, pictures))
    rows.append(captioner_row(given, images, truths, pictures))
    drawn, asked = base_samples(given, pictures)
    how = f"guidance {GUIDANCE:g}, {given.steps} steps"
    what = f"base model's samples, {how}, as CLIP judges: class / colour / surroundings"
    rows.append(judge.row(what, drawn, asked, (85, 80, 90), "95"))
    return rows


def psnr(first: Tensor, second: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of each picture [b, 3, h, w] in [0, 1]."""
    return -10 * torch.log10((first - second).square().mean(dim=(1, 2, 3)).clamp(min=1e-10))


def autoencoder_rows(given: argparse.Namespace, images: list[Image.Image], pictures: Path) -> Iterator[Row]:
    """Reconstruction of held-out scenes, and of real photographs where there are any."""
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(given.models / "sdxl", subfolder="vae", use_safetensors=True).float().eval()
    sets = [("own scenes", images[:200], 26.0, "30")]
    if given.photographs:
        found = sorted(path for path in given.photographs.rglob("*") if path.suffix.lower() in SUFFIXES)
        found = found[:: max(1, len(found) // 100)][:100]
        sets.append(("real photographs", [square(Image.open(path)) for path in found], 22.0, "25"))
    for name, originals, least, aim in sets:
        values, shown = [], []
        for start in tqdm(range(0, len(originals), 20), desc=f"vae, {name}"):
            pixels = tensor(originals[start : start + 20])
            output = vae.decode(vae.encode(pixels * 2 - 1).latent_dist.mean).sample / 2 + 0.5
            output = output.clamp(0, 1)
            values += psnr(pixels, output).tolist()
            shown += picture(output) if start == 0 else []
        grid([*originals[:10], *shown[:10]], 10).save(pictures / f"vae-{name.replace(' ', '-')}.jpg", quality=88)
        yield Row(f"VAE reconstruction, {name}", (float(np.mean(values)),), (least,), aim, "dB", f"{len(values)}")


class Judge:
    """CLIP asked which of all classes, colours or surroundings fits an image best."""

    def __init__(self, path: Path) -> None:
        from transformers import CLIPModel, CLIPTokenizer
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

        self.model = CLIPModel.from_pretrained(path, use_safetensors=True, dtype=torch.float32).eval()
        self.processor = CLIPImageProcessorPil.from_pretrained(path)
        self.tokenizer = CLIPTokenizer.from_pretrained(path)

    def images(self, images: Sequence[Image.Image]) -> Tensor:
        """Unit embeddings [n, d]."""
        parts = []
        for start in range(0, len(images), 64):
            pixels = self.processor(list(images[start : start + 64]), return_tensors="pt").pixel_values
            parts.append(self.model.get_image_features(pixel_values=pixels).pooler_output)
        return torch.nn.functional.normalize(torch.cat(parts), dim=-1)

    def texts(self, texts: Sequence[str]) -> Tensor:
        encoded = self.tokenizer(list(texts), padding=True, return_tensors="pt")
        return torch.nn.functional.normalize(self.model.get_text_features(**encoded).pooler_output, dim=-1)

    def accuracies(self, images: Sequence[Image.Image], truths: Sequence[dict[str, Any]]) -> tuple[float, float, float]:
        """Per cent right. Class among all; colour and place among all given the class, as a gate's prompts name it."""
        embedded = self.images(images)
        forms: list[tuple[str, Sequence[str], Callable[[str, str], str]]] = [
            ("class_name", scenes.CLASSES, lambda noun, name: with_article(name)),
            ("colour", scenes.COLOURS, lambda noun, name: with_article(f"{name} {noun}")),
            ("surroundings", scenes.SURROUNDINGS, lambda noun, name: f"{with_article(noun)} {scenes.PLACES[name][0]}"),
        ]
        right = []
        for key, names, word in forms:
            texts = {noun: self.texts(["a photo of " + word(noun, name) for name in names]) for noun in scenes.CLASSES}
            hits = [
                names[int((image @ texts[truth["class_name"]].T).argmax())] == truth[key]
                for image, truth in zip(embedded, truths, strict=True)
            ]
            right.append(100 * float(np.mean(hits)))
        return right[0], right[1], right[2]

    def row(
        self,
        what: str,
        images: Sequence[Image.Image],
        truths: Sequence[dict[str, Any]],
        least: tuple[float, ...],
        aim: str,
    ) -> Row:
        return Row(what, self.accuracies(images, truths), least, aim, "%", f"{len(images)}")


def identity_row(given: argparse.Namespace, pictures: Path) -> Row:
    """AUC of DINO's cosine: the same design in two places against two designs of a class in two places.

    Every pair differs in surroundings, camera and light, so that only the thing itself can tell them apart.
    """
    from transformers import ViTModel
    from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil

    model = ViTModel.from_pretrained(given.models / "dino", add_pooling_layer=False, use_safetensors=True)
    model = model.float().eval()
    processor = BitImageProcessorPil.from_pretrained(given.models / "dino")
    designs, views = max(2, min(6, given.limit // 30)), 3
    random = np.random.default_rng(0)
    images, keys = [], []
    for class_name in tqdm(scenes.CLASSES, desc="dino"):
        for design in range(designs):
            seed = int(random.integers(1 << 20))
            design_seed = scenes.sample_scene(seed, split="heldout").design_seed
            for view, place in enumerate(random.choice(scenes.SURROUNDINGS, views, replace=False)):
                fixed = {"class_name": class_name, "design_seed": design_seed, "surroundings": str(place)}
                scene = scenes.sample_scene(seed + 1 + view, split="heldout", clutter=(), **fixed)
                images.append(Image.fromarray(scenes.render(scene, SIZE)))
                keys.append((class_name, design, str(place)))
    hidden = [
        model(processor(images[start : start + 64], return_tensors="pt").pixel_values).last_hidden_state[:, 0]
        for start in range(0, len(images), 64)
    ]
    units = torch.nn.functional.normalize(torch.cat(hidden), dim=-1)
    likeness = (units @ units.T).numpy()
    same, other = [], []
    for i, (class_i, design_i, place_i) in enumerate(keys):
        for j, (class_j, design_j, place_j) in enumerate(keys[:i]):
            if class_i == class_j and place_i != place_j:
                (same if design_i == design_j else other).append(likeness[i, j])
    grid(images[: 6 * views], 2 * views).save(pictures / "designs.jpg", quality=88)
    count = f"{len(same)} pairs against {len(other)}"
    return Row("DINO: same design against others of its class", (auc(same, other),), (0.90,), "0.97", "AUC", count)


def auc(positives: Sequence[float], negatives: Sequence[float]) -> float:
    """Chance that a positive scores above a negative, ties counting half (Mann-Whitney)."""
    up, down = np.asarray(positives)[:, None], np.asarray(negatives)[None, :]
    return float((up > down).mean() + 0.5 * (up == down).mean())


def captioner_row(
    given: argparse.Namespace, images: list[Image.Image], truths: list[dict[str, Any]], pictures: Path
) -> Row:
    """Whether BLIP's caption holds the class, the colour and any wording of the place."""
    from transformers import BlipForConditionalGeneration, BlipProcessor

    model = BlipForConditionalGeneration.from_pretrained(given.models / "blip", use_safetensors=True).float().eval()
    processor = BlipProcessor.from_pretrained(given.models / "blip")
    captions: list[str] = []
    for start in tqdm(range(0, min(len(images), 300), 50), desc="blip"):
        pixels = processor(images=images[start : start + 50], return_tensors="pt").pixel_values
        ids = model.generate(pixel_values=pixels, max_new_tokens=24, num_beams=1, do_sample=False)
        captions += processor.batch_decode(ids, skip_special_tokens=True)
    hits = np.array(
        [
            (
                f" {truth['class_name']} " in f" {caption} ",
                f" {truth['colour']} " in f" {caption} ",
                any(phrase in caption for phrase in scenes.PLACES[truth["surroundings"]]),
            )
            for caption, truth in zip(captions, truths, strict=False)
        ]
    )
    labelled = [labelled_picture(image, caption) for image, caption in zip(images[:10], captions, strict=False)]
    grid(labelled, 5).save(pictures / "captions.jpg", quality=88)
    found = tuple(100 * hits.mean(axis=0))
    return Row("BLIP: class / colour / surroundings named", found, (85, 80, 90), "95", "%", f"{len(captions)}")


def base_samples(given: argparse.Namespace, pictures: Path) -> tuple[list[Image.Image], list[dict[str, Any]]]:
    """Pictures of the base model for prompts that go round all classes, colours and places, and what was asked."""
    from diffusers import StableDiffusionXLPipeline

    pipeline = StableDiffusionXLPipeline.from_pretrained(
        given.models / "sdxl", use_safetensors=True, torch_dtype=torch.float32
    )
    pipeline.set_progress_bar_config(disable=True)
    asked = []
    for index in range(given.samples):
        asked.append(
            {
                "class_name": scenes.CLASSES[index % len(scenes.CLASSES)],
                "surroundings": scenes.SURROUNDINGS[(index + index // 12) % len(scenes.SURROUNDINGS)],
                "colour": COLOURS_SHOWN[(index + index // 12) % len(COLOURS_SHOWN)],
            }
        )
    drawn: list[Image.Image] = []
    for start in tqdm(range(0, len(asked), 12), desc="base samples"):
        part = asked[start : start + 12]
        generators = [torch.Generator().manual_seed(start + k) for k in range(len(part))]
        prompts = [prompt(truth) for truth in part]
        drawn += pipeline(
            prompts,
            width=SIZE,
            height=SIZE,
            num_inference_steps=given.steps,
            guidance_scale=GUIDANCE,
            generator=generators,
        ).images
    labelled = [labelled_picture(image, prompt(truth)) for image, truth in zip(drawn[:36], asked, strict=False)]
    grid(labelled, 6).save(pictures / "samples.jpg", quality=88)
    return drawn, asked


def prompt(truth: dict[str, Any]) -> str:
    place = scenes.PLACES[truth["surroundings"]][0]
    thing = f"{truth['colour']} {truth['class_name']}"
    return f"a photo of {with_article(thing)} {place}"


def square(image: Image.Image) -> Image.Image:
    """The largest centred square, reduced to 128 px."""
    image = image.convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side)).resize((SIZE, SIZE), Image.Resampling.LANCZOS)


def tensor(images: Sequence[Image.Image]) -> Tensor:
    """[b, 3, h, w] in [0, 1]."""
    return torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2).float() / 255


def picture(pixels: Tensor) -> list[Image.Image]:
    values = (pixels.permute(0, 2, 3, 1) * 255).round().byte().numpy()
    return [Image.fromarray(value) for value in values]


if __name__ == "__main__":
    main()
