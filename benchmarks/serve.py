"""Serving speed: our endpoint beside others that serve the same base and adapter, in one run, as ratios.

    python -m benchmarks.serve --before <commit> --out benchmarks/results/serve.json
    python -m benchmarks.serve --only adapters       # a hundred adapters through a bounded cache: benchmarks.adapters
    python -m benchmarks.serve --only ours           # without the others: one client, eight, and eight beside bad ones

Beside ours: a pyfunc like the solution accelerator's (one row, a raw array), MLflow's own diffusers flavor, and this
project at an earlier commit; and the pipeline alone in a process of its own, without any server. All servers are up
during the whole run and idle but one; each round measures all of them, and a ratio is the median of the rounds' ratios,
so that what else a machine does strikes all alike. Work is equal: as many steps, the same size, guidance and adapter
(rank 32 on all layers, random weights, as the local profile's). Clients ask again as soon as they are answered.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from benchmarks.bad_callers import beside
from personalize.serving.http import answers, opener
from personalize.serving.local import LocalEndpoint
from personalize.serving.ports import free_port

PROJECT = Path(__file__).resolve().parents[1]
SIDE = 128
BAD = 3
"""Bad callers beside eight good ones."""
SUBJECT = "bcnchr chair"
PLACES = ("on the beach", "in a kitchen", "in the snow", "in a studio", "on a dirt road", "in a forest", "at night", "")

LOG_MODEL = """
import sys, mlflow, pandas as pd
from pathlib import Path
from personalize.dreambooth.sampling import Sampling
from personalize.serving import package
from personalize.serving.request import Defaults
base, adapter, store, steps = sys.argv[1:]
mlflow.set_tracking_uri(f"sqlite:///{store}/mlflow.db")
mlflow.set_experiment(experiment_id=mlflow.create_experiment("serve", artifact_location=f"{store}/artifacts"))
with mlflow.start_run():
    info = package.log(Path(base), Path(adapter), input_example=pd.DataFrame([{"prompt": "a chair", "seed": 0.0}]),
                       device="cpu", defaults=Defaults(Sampling(steps=int(steps), width=128, height=128)))
print("AT", mlflow.artifacts.download_artifacts(info.model_uri, dst_path=f"{store}/model"))
"""

PIPELINE = """
import json, sys, time
from personalize.dreambooth.denoising import Denoising
from personalize.dreambooth.sampling import Sampling, load_pipeline, sample
base, adapter, other, steps, side = sys.argv[1:]
sampling = Sampling(steps=int(steps), width=int(side), height=int(side))
pipe = load_pipeline(base, device="cpu", lora=adapter)
rows = Denoising(load_pipeline(base, device="cpu"))
one, two = (rows.adapters.load(file, name) for name, file in (("one", adapter), ("two", other)))

def drawn(voices):
    begun = [rows.begin("a photo of a chair", seed, sampling, voice) for seed, voice in enumerate(voices)]
    while begun[0].left:
        rows.step(begun)
    rows.finish(begun)

work = {
    "pipeline": lambda n: [sample(pipe, ["a photo of a chair"], [seed], sampling) for seed in range(n)],
    "eight at once": lambda n: sample(pipe, ["a photo of a chair"] * 8, list(range(8)), sampling),
    "one adapter": lambda n: drawn([(one, 1.0)] * 8),
    "two adapters": lambda n: drawn([(one, 1.0), (two, 1.0)] * 4),
    "no adapter": lambda n: drawn([(None, 0.0)] * 8),
}
sample(pipe, ["a photo of a chair"], [0], Sampling(steps=1, width=int(side), height=int(side)))
print("READY", flush=True)
for line in sys.stdin:
    what, n = json.loads(line)
    begun = time.perf_counter()
    work[what](n)
    print("TOOK", time.perf_counter() - begun, flush=True)
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve", description=__doc__.split("\n\n")[0])
    parser.add_argument("--before", help="a commit of this project to compare with")
    parser.add_argument("--base", type=Path, default=PROJECT / "models" / "sdxl", help="an SDXL folder")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, help="OMP_NUM_THREADS of everybody; the machine's cores if not given")
    parser.add_argument("--only", choices=["adapters", "ours"], help="measure this alone")
    parser.add_argument("--adapters", type=int, default=100, help="adapters that go through the cache")
    parser.add_argument("--adapter-rank", type=int, default=128, help="their rank, on all layers")
    parser.add_argument("--adapter-memory", type=int, default=500, help="megabytes of them that are held")
    parser.add_argument("--requests", type=int, default=300, help="pictures that are asked for of them")
    parser.add_argument("--out", type=Path, help="write the numbers here as JSON")
    options = parser.parse_args()
    if options.threads:
        os.environ["OMP_NUM_THREADS"] = str(options.threads)
    loads = [os.getloadavg()[0]]
    if options.only == "adapters":
        report({"adapters": measured_adapters(options), "machine": machine(options, loads)}, options.out)
        return
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        work = Path(folder)
        adapters = [make_adapter(options.base, work / name, seed) for seed, name in enumerate(("one", "two"))]
        models = make_models(options, work, adapters[0], stack)
        pipeline = stack.enter_context(own_pipeline(options, adapters))
        servers = {who: stack.enter_context(served(command, work / f"{who}.log")) for who, command in models.items()}
        urls = {who: url for who, (url, _) in servers.items()}
        for who, url in urls.items():
            load(url, bodies(who, 2), clients=1, pictures=1)
        rounds = []
        for number in range(options.rounds):
            found = one_round(options, urls, pipeline)
            found["memory_gb"] = {who: round(memory() / 1e9, 2) for who, (_, memory) in servers.items()}
            rounds.append(found)
            loads.append(os.getloadavg()[0])
            print(f"round {number + 1}: {json.dumps(found)}", flush=True)
    result = {
        "what": {"steps": options.steps, "side": SIDE, "guidance_scale": 5.0, "adapter": "rank 32, all layers"},
        "machine": machine(options, loads),
        "before": options.before,
        "ratios": ratios(rounds),
        "rounds": rounds,
        **({} if options.only else {"adapters": measured_adapters(options)}),
    }
    print(json.dumps(result["ratios"], indent=1))
    report(result, options.out)


def report(result: dict[str, Any], out: Path | None) -> None:
    """The numbers, on the terminal and in a file."""
    if "adapters" in result:
        print(json.dumps(result["adapters"], indent=1))
    if out:
        out.write_text(json.dumps(result, indent=1) + "\n")


def measured_adapters(options: Any) -> dict[str, Any]:
    """See `benchmarks.adapters`. One step and small pictures: what is measured is loading, not drawing."""
    import torch

    from benchmarks.adapters import measure
    from personalize.dreambooth.sampling import Sampling

    if options.threads:
        torch.set_num_threads(options.threads)
    sampling, limit = Sampling(steps=2, width=SIDE, height=SIDE), options.adapter_memory * 1_000_000
    return measure(
        options.base, options.adapters, limit, options.adapter_rank, options.requests, sampling, 2 * options.rounds + 1
    )


def machine(options: Any, loads: list[float]) -> dict[str, Any]:
    """What it was measured on."""
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": options.threads or os.cpu_count(),
        "load_average": loads,
        "note": "A load average over the cores says that the machine was shared: ratios are what counts.",
    }


def make_adapter(base: Path, folder: Path, seed: int) -> Path:
    """An untrained adapter of the local profile's shape, loud enough to be seen."""
    import torch

    from personalize.dreambooth import lora
    from personalize.dreambooth.backbone import load_pipeline
    from personalize.photographs.prompts import Subject, save_subjects

    folder.mkdir()
    parts = {"unet": load_pipeline(base, device="cpu").unet}
    generator = torch.Generator().manual_seed(seed)
    for weight in lora.add(parts, lora.LoraSpec(rank=32, alpha=32, targets="all"), seed).values():
        weight.data += torch.randn(weight.shape, generator=generator) * 0.005
    lora.save(folder, parts)
    save_subjects(folder, [Subject("bcnchr", "chair")])
    return folder


def make_models(options: Any, work: Path, adapter: Path, stack: contextlib.ExitStack) -> dict[str, list[str]]:
    """The command that serves each contender; `{port}` is left to be filled in."""
    import mlflow

    def logged(checkout: Path, name: str) -> Path:
        (work / name).mkdir()
        arguments = [str(options.base.resolve()), str(adapter), str(work / name), str(options.steps)]
        done = subprocess.run(
            [sys.executable, "-c", LOG_MODEL, *arguments],
            cwd=checkout, env={**os.environ, "PYTHONPATH": str(checkout)},
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        return Path(next(line for line in done.stdout.splitlines() if line.startswith("AT "))[3:])

    def serve(path: Path) -> list[str]:
        return [
            *(sys.executable, "-m", "mlflow", "models", "serve", "-m", str(path), "-h", "127.0.0.1", "-p", "{port}"),
            *("--timeout", "900", "--env-manager", "local"),
        ]

    commands = {"ours": LocalEndpoint("x", timeout_s=900)._command(str(logged(PROJECT, "ours")))}
    if options.only == "ours":
        return commands
    if options.before:
        checkout = work / "checkout"
        subprocess.run(["git", "worktree", "add", "--detach", checkout, options.before], cwd=PROJECT, check=True)
        stack.callback(subprocess.run, ["git", "worktree", "remove", "--force", checkout], cwd=PROJECT, check=True)
        commands["before"] = serve(logged(checkout, "before"))
    mlflow.pyfunc.save_model(
        work / "accelerator",
        python_model=str(PROJECT / "benchmarks" / "accelerator.py"),
        artifacts={"base": str(options.base.resolve()), "adapter": str(adapter)},
        pip_requirements=[],
    )
    commands["accelerator"] = serve(work / "accelerator")
    mlflow.diffusers.save_model(
        adapter_path=str(adapter / "pytorch_lora_weights.safetensors"),
        path=str(work / "flavor"),
        base_model=str(options.base.resolve()),
        pip_requirements=[],
    )
    commands["diffusers flavor"] = serve(work / "flavor")
    return commands


@contextlib.contextmanager
def served(command: list[str], log: Path) -> Iterator[tuple[str, Callable[[], int]]]:
    """A server that answers: its address, and the bytes that it and its children hold. Ended on the way out."""
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", os.defpath)])
    with open(log, "w") as written:
        process = subprocess.Popen(
            [part.replace("{port}", str(port)) for part in command],
            cwd=log.parent, env=environment, stdout=written, stderr=written, process_group=0,
        )  # fmt: skip
    try:
        while not answers(f"http://127.0.0.1:{port}/health"):
            if process.poll() is not None:
                raise SystemExit(f"{log.stem} ended:\n{log.read_text()[-3000:]}")
            time.sleep(0.5)
        top = psutil.Process(process.pid)
        yield (
            f"http://127.0.0.1:{port}",
            lambda: sum(one.memory_info().rss for one in [top, *top.children(recursive=True)]),
        )
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 15)
        process.wait()


@contextlib.contextmanager
def own_pipeline(options: Any, adapters: list[Path]) -> Iterator[Callable[[str, int], float]]:
    """Seconds that a job takes in a process without a server; see PIPELINE."""
    arguments = [str(options.base), *map(str, adapters), str(options.steps), str(SIDE)]
    with subprocess.Popen(
        [sys.executable, "-c", PIPELINE, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        cwd=PROJECT, env={**os.environ, "PYTHONPATH": str(PROJECT)},
    ) as child:  # fmt: skip
        assert child.stdin
        assert child.stdout
        while "READY" not in (line := child.stdout.readline()):
            if not line:
                raise SystemExit("the pipeline could not be loaded")

        def took(what: str, n: int = 1) -> float:
            print(json.dumps([what, n]), file=child.stdin, flush=True)
            return float(child.stdout.readline().split()[1])  # type: ignore[union-attr]

        yield took
        child.stdin.close()


def bodies(who: str, steps: int, mixed: bool = False) -> Callable[[int], dict[str, Any]]:
    """The request number i, as this contender takes it."""

    def body(i: int) -> dict[str, Any]:
        prompt = f"a photo of a {SUBJECT} {PLACES[i % len(PLACES)]}".strip()
        if who == "diffusers flavor":
            params = {"num_inference_steps": steps, "guidance_scale": 5.0, "width": SIDE, "height": SIDE}
            return {"dataframe_records": [{"prompt": prompt}], "params": params}
        row: dict[str, Any] = {"prompt": prompt, "num_inference_steps": steps}
        if who in ("ours", "before"):
            row |= {"seed": i, "guidance_scale": 5.0, "adapter_scale": float(i % 2) if mixed else 1.0}
        return {"dataframe_records": [row]}

    return body


def load(url: str, body: Callable[[int], dict[str, Any]], clients: int, pictures: int) -> dict[str, Any]:
    """`clients` ask for `pictures` in all, one a request, each again as soon as it is answered."""
    numbers, lock = iter(range(pictures)), threading.Lock()
    seconds: list[float] = []
    queued: list[float] = []
    failed = 0

    def client() -> None:
        nonlocal failed
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            data = json.dumps(body(number)).encode()
            begun = time.perf_counter()
            try:
                request = urllib.request.Request(f"{url}/invocations", data, {"Content-Type": "application/json"})
                with opener().open(request, timeout=900) as answer:
                    text = answer.read()
            except (urllib.error.HTTPError, OSError):
                failed += 1
                continue
            seconds.append(time.perf_counter() - begun)
            if b'"queue_ms"' in text:
                queued.append(json.loads(text)["predictions"][0]["queue_ms"] / 1000)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - begun
    found: dict[str, Any] = {"pictures_per_s": round(len(seconds) / took, 4), "failed": failed}
    if len(seconds) > 1:
        cuts = statistics.quantiles(seconds, n=20, method="inclusive")
        found |= {"p50_s": round(statistics.median(seconds), 3), "p95_s": round(cuts[18], 3)}
    if queued:
        found["queued_p50_s"] = round(statistics.median(queued), 3)
    return found


def one_round(options: Any, urls: dict[str, str], pipeline: Callable[[str, int], float]) -> dict[str, Any]:
    """Everything once, what is compared next to each other."""
    steps = options.steps
    found: dict[str, Any] = {"pipeline": round(4 / pipeline("pipeline", 4), 4)}
    found["ours, 1 client"] = load(urls["ours"], bodies("ours", steps), 1, 4)
    found["pipeline again"] = round(4 / pipeline("pipeline", 4), 4)
    for who in [who for who in urls if who != "ours"]:
        found[f"{who}, 1 client"] = load(urls[who], bodies(who, steps), 1, 2)
    for who, url in urls.items():
        found[f"{who}, 8 clients"] = load(url, bodies(who, steps), 8, 16 if who == "ours" else 8)
    with beside(urls["ours"].removeprefix("http://"), f"a photo of a {SUBJECT}", BAD) as wrong:
        found["ours beside bad ones, 8 clients"] = load(urls["ours"], bodies("ours", steps), 8, 16)
    found["ours again, 8 clients"] = load(urls["ours"], bodies("ours", steps), 8, 16)
    found["bad ones, answered wrongly"] = wrong
    found["ours mixed, 8 clients"] = load(urls["ours"], bodies("ours", steps, mixed=True), 8, 16)
    found["ours, 64 clients"] = load(urls["ours"], bodies("ours", steps), 64, 64)
    for what in ("eight at once", "no adapter", "one adapter", "two adapters"):
        found[what] = round(8 / pipeline(what, 1), 4)
    return found


def ratios(rounds: list[dict[str, Any]]) -> dict[str, float]:
    """The median over the rounds of how many times faster ours is, and of what mixing costs."""

    def speed(round_: dict[str, Any], key: str) -> float:
        value = round_[key]
        return float(value["pictures_per_s"] if isinstance(value, dict) else value)

    def p95(round_: dict[str, Any], key: str) -> float:
        return float(round_[key]["p95_s"])

    def median(over: str, under: tuple[str, ...], of: Callable[[dict[str, Any], str], float] = speed) -> float:
        each = [of(one, over) / statistics.mean(of(one, key) for key in under) for one in rounds]
        return round(statistics.median(each), 2)

    keys, around = set(rounds[0]), ("ours, 8 clients", "ours again, 8 clients")
    found = {
        "p95 beside bad callers over without": median("ours beside bad ones, 8 clients", around, p95),
        "one client, of the pipeline's own speed": median("ours, 1 client", ("pipeline", "pipeline again")),
        "64 clients over 8": median("ours, 64 clients", ("ours, 8 clients",)),
        "mixed strengths over one": median("ours mixed, 8 clients", ("ours, 8 clients",)),
        "two adapters in a batch over one": median("two adapters", ("one adapter",)),
    }
    for who in ("accelerator", "diffusers flavor", "before"):
        for clients in ("1 client", "8 clients"):
            if f"{who}, {clients}" in keys and all(speed(one, f"{who}, {clients}") for one in rounds):
                found[f"{clients}, times {who}"] = median(f"ours, {clients}", (f"{who}, {clients}",))
    return found


if __name__ == "__main__":
    main()
