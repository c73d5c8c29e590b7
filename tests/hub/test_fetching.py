"""The gpu profile's models come from a hub laid out like the real one: what is needed and no more, whatever happens."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load, save

from benchmarks import sdxl
from personalize.dreambooth import backbone, lora
from tests.hub import listings
from tests.hub.listings import clutter
from tests.hub.server import Hub, Repository, serving, sha256

PROJECT = Path(__file__).resolve().parents[2]
PROFILE = yaml.safe_load((PROJECT / "profiles" / "gpu.yaml").read_text())
BASE, COMMIT = PROFILE["BASE_MODEL"], PROFILE["BASE_REVISION"]
TOKEN = "hf_" + "q" * 34
FETCH = "from personalize.dreambooth import backbone; print(backbone.local_folder(*sys.argv[1:]))"
TOKENIZERS = "from personalize.dreambooth import backbone; backbone.load_tokenizers(*sys.argv[1:])"


def halved(weights: bytes) -> bytes:
    return save({name: tensor.half() for name, tensor in load(weights).items()}, {"format": "pt"})


@pytest.fixture(scope="session")
def stable_diffusion_xl(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """The pinned commit's files: real configurations at toy width, random weights in both precisions, and clutter."""
    folder = sdxl.write(tmp_path_factory.mktemp("sdxl"), sdxl.TINY, torch.float32)
    made = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for tokenizer in ("tokenizer", "tokenizer_2"):  # as in 2023: vocabulary and merges, no tokenizer.json
        made.pop(f"{tokenizer}/tokenizer.json")
        made[f"{tokenizer}/special_tokens_map.json"] = b"{}"
    encoder = load(made["text_encoder/model.safetensors"])
    named = {lora.clip_path(name): tensor for name, tensor in encoder.items()}
    made["text_encoder/model.safetensors"] = save(named, {"format": "pt"})
    for name in [name for name in made if name.endswith(".safetensors")]:
        made[name.replace(".safetensors", ".fp16.safetensors")] = halved(made[name])
    assert set(made) <= set(listings.SDXL), set(made) - set(listings.SDXL)
    return Repository(COMMIT, clutter(listings.SDXL) | made)


@pytest.fixture
def hub(stable_diffusion_xl: Repository) -> Iterator[Hub]:
    with serving({BASE: stable_diffusion_xl}) as running:
        yield running


@pytest.fixture
def ask(hub: Hub, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs Python that fetches, in a process of its own, as a step is: the cache lasts from one call to the next."""

    def ask(code: str, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "TRANSFORMERS_"))}
        own = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "cache"), "PYTHONPATH": str(PROJECT), **variables}
        command = [sys.executable, "-c", f"import sys\n{code}", *words]
        return subprocess.run(
            command, cwd=tmp_path, env=inherited | own, capture_output=True, text=True, timeout=300, check=False
        )

    return ask


def said(done: subprocess.CompletedProcess[str]) -> str:
    """The last line of a failure: the message."""
    assert done.returncode != 0, done.stdout
    return done.stderr.strip().splitlines()[-1]


def needed(half: bool) -> set[str]:
    ends = (".json", ".txt", ".fp16.safetensors" if half else "model.safetensors")
    found = {name for name in listings.SDXL if name.split("/")[0] in backbone.NEEDED_FILES and name.endswith(ends)}
    return {name for name in found if half or ".fp16" not in name} | {"model_index.json"}


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_one_precision_in_safetensors_is_fetched_and_nothing_else(hub: Hub, ask, dtype: str) -> None:
    done = ask(FETCH, BASE, COMMIT, dtype)
    assert done.returncode == 0, done.stderr[-2000:]
    folder = Path(done.stdout.strip())
    files, fetched = hub.repositories[BASE].files, hub.fetched(BASE)
    assert {files[name] for name in fetched} == {files[name] for name in needed(dtype == "bfloat16")}
    assert fetched == {name: len(files[name]) for name in fetched}  # each once; equal files are fetched as one
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == needed(
        dtype == "bfloat16"
    )
    assert set(backbone.files(folder)) == needed(dtype == "bfloat16")  # what is packed for serving
    assert backbone.load_pipeline(folder, device="cpu").unet.dtype == torch.float32

    hub.log.clear()
    assert ask(FETCH, BASE, COMMIT, dtype).stdout == done.stdout
    assert hub.fetched(BASE) == {}


def test_captions_need_no_weights(hub: Hub, ask) -> None:
    done = ask(TOKENIZERS, BASE, COMMIT)
    assert done.returncode == 0, done.stderr[-2000:]
    assert hub.fetched(BASE).keys() <= {name for name in listings.SDXL if name.startswith("tokenizer")}


UNET = "unet/diffusion_pytorch_model.fp16.safetensors"


def test_a_line_that_goes_dead_is_taken_up_where_it_ended(hub: Hub, ask) -> None:
    """In silence, from what huggingface_hub has written: whole blocks of 10 MB."""
    weights = save({"weight": torch.arange(8_000_000, dtype=torch.int32)})
    hub.repositories[BASE] = Repository(COMMIT, {**hub.repositories[BASE].files, UNET: weights})
    hub.cut[sha256(weights)] = 21_000_000
    done = ask(FETCH, BASE, COMMIT, "float16")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    first, second = [answer for answer in hub.log if answer.path == f"/store/{sha256(weights)}"]
    assert (first.range, first.sent) == ("", 21_000_000)
    start = int(second.range.removeprefix("bytes=").removesuffix("-"))
    assert 10_000_000 <= start <= 21_000_000
    assert second.sent == len(weights) - start
    assert (Path(done.stdout.strip()) / UNET).read_bytes() == weights


def test_after_an_interruption_only_what_is_missing_is_fetched(hub: Hub, ask) -> None:
    weights = sha256(hub.repositories[BASE].files[UNET])
    hub.fault = lambda method, path: 500 if path == f"/store/{weights}" else None
    assert "files that came whole are kept" in said(ask(FETCH, BASE, COMMIT, "float16"))
    before = hub.fetched(BASE)
    assert before
    assert UNET not in before
    hub.fault = lambda method, path: None
    hub.log.clear()
    done = ask(FETCH, BASE, COMMIT, "float16")
    assert done.returncode == 0, done.stderr[-2000:]
    assert UNET in hub.fetched(BASE)
    assert not hub.fetched(BASE).keys() & before.keys()


@pytest.mark.parametrize("status", [429, 503])
def test_a_hub_that_is_busy_once_is_asked_again_in_silence(hub: Hub, ask, status: int) -> None:
    refused: set[str] = set()

    def once(method: str, path: str) -> int | None:
        may_refuse = "/tree/" in path or (status == 429 and path.startswith("/store/"))
        if not may_refuse or path in refused:
            return None
        refused.add(path)
        return status

    hub.fault = once
    done = ask(FETCH, BASE, COMMIT, "float16")
    assert refused
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_hub_that_stays_busy_is_one_clear_message(hub: Hub, ask) -> None:
    hub.fault = lambda method, path: 503 if path.startswith("/store/") else None
    message = said(ask(FETCH, BASE, COMMIT, "float16"))
    assert f"base model '{BASE}' at {COMMIT[:12]} could not be fetched" in message
    assert "HTTP 503. Try again later: files that came whole are kept" in message


@pytest.mark.parametrize("token", ["", "hf_" + "w" * 34])
def test_a_gated_model_says_how_to_be_let_in(hub: Hub, ask, token: str) -> None:
    """401 for nobody, 403 for somebody who has not accepted the licence."""
    hub.repositories[BASE] = Repository(COMMIT, hub.repositories[BASE].files, token=TOKEN)
    message = said(ask(FETCH, BASE, COMMIT, "float16", **({"HF_TOKEN": token} if token else {})))
    assert "it is gated. Accept its licence on its page and set HF_TOKEN" in message
    assert hub.fetched(BASE) == {}
    assert {answer.status for answer in hub.log if BASE in answer.path} == {403 if token else 401}


def test_a_token_opens_a_gated_model_and_is_told_to_nobody_else(hub: Hub, ask) -> None:
    hub.repositories[BASE] = Repository(COMMIT, hub.repositories[BASE].files, token=TOKEN)
    done = ask(FETCH, BASE, COMMIT, "float16", HF_TOKEN=TOKEN, HF_HUB_VERBOSITY="debug")
    assert done.returncode == 0, done.stderr[-2000:]
    assert TOKEN not in done.stdout + done.stderr
    assert all(answer.authorised for answer in hub.log if BASE in answer.path)
    assert not any(answer.authorised for answer in hub.log if answer.path.startswith("/store/"))


@pytest.mark.parametrize(
    ("model", "commit", "message"),
    [
        (BASE, "0" * 40, "it has no such commit"),
        ("stabilityai/no-such-model", COMMIT, "there is no such model, or it is private"),
    ],
)
def test_a_wrong_name_or_commit_is_said(hub: Hub, ask, model: str, commit: str, message: str) -> None:
    assert message in said(ask(FETCH, model, commit, "float16"))


def test_what_a_model_lacks_is_named(hub: Hub, ask) -> None:
    files = {k: v for k, v in hub.repositories[BASE].files.items() if not k.startswith("vae/diffusion_pytorch_model")}
    hub.repositories[BASE] = Repository(COMMIT, files)
    assert "it lacks: vae/diffusion_pytorch_model.safetensors" in said(ask(FETCH, BASE, COMMIT, "float16"))


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_offline_a_warm_cache_is_enough_and_a_cold_one_says_so(hub: Hub, ask, dtype: str) -> None:
    assert "HF_HUB_OFFLINE is set" in said(ask(FETCH, BASE, COMMIT, dtype, HF_HUB_OFFLINE="1"))
    online = ask(FETCH, BASE, COMMIT, dtype)
    hub.log.clear()
    offline = ask(FETCH, BASE, COMMIT, dtype, HF_HUB_OFFLINE="1")
    assert offline.stdout == online.stdout != "", offline.stderr[-2000:]
    assert hub.log == []


def test_offline_the_other_precision_will_do(hub: Hub, ask) -> None:
    assert ask(FETCH, BASE, COMMIT, "float32").returncode == 0
    assert ask(FETCH, BASE, COMMIT, "bfloat16", HF_HUB_OFFLINE="1").returncode == 0


JUDGES = """
from personalize.evaluation import judges
from personalize.photographs.blip import BlipCaptioner
BlipCaptioner(sys.argv[1], sys.argv[2], "cpu")
configs = [judges.JudgeConfig(name=n, model=m, revision=r) for n, m, r in zip(*[iter(sys.argv[3:])] * 3)]
judges.load(configs, "cpu")
"""


def test_judges_and_captioner_fetch_safetensors_and_no_pickle(tiny_models: Path, hub: Hub, ask) -> None:
    named = {judge["name"]: judge for judge in PROFILE["JUDGES"]}
    of = {
        PROFILE["BLIP_MODEL"]: (PROFILE["BLIP_REVISION"], listings.BLIP, "blip"),
        named["clip"]["model"]: (named["clip"]["revision"], listings.CLIP, "clip"),
        named["dino"]["model"]: (named["dino"]["revision"], listings.DINO, "dino"),
    }
    for name, (commit, listing, folder) in of.items():
        made = {path.name: path.read_bytes() for path in (tiny_models / folder).iterdir() if path.name in listing}
        hub.repositories[name] = Repository(commit, clutter(listing) | made)
        assert "model.safetensors" in made
    words = [PROFILE["BLIP_MODEL"], PROFILE["BLIP_REVISION"]]
    for name in ("clip", "dino"):
        words += [name, named[name]["model"], named[name]["revision"]]
    done = ask(JUDGES, *words, HF_TOKEN=TOKEN)
    assert done.returncode == 0, done.stderr[-3000:]
    for name in of:
        fetched = set(hub.fetched(name))
        assert "model.safetensors" in fetched
        assert not {path for path in fetched if path.endswith((".bin", ".h5", ".msgpack", ".png"))}
    assert TOKEN not in done.stdout + done.stderr
    asked = {answer.path for answer in hub.log if "/resolve/" in answer.path}
    commits = {path.split("/resolve/")[1].split("/")[0] for path in asked}
    assert commits == {commit for commit, _, _ in of.values()}
