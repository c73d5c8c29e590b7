"""What a fleet costs beside its subjects' own work, and how far it goes.

    python -m benchmarks.fleet --subjects 20 --workers 2 --separate 2     the real recipe, miniature models (an hour)
    python -m benchmarks.fleet --simulated 1000                           subjects whose training sleeps
    python -m benchmarks.fleet --writers 1,2,4,8                          at once, on one database file

Subjects: photographs of `data/`, mirrored and lightened, so that each is another one. The fleet's wall time is set
beside the time of the steps that it ran, cards included, what all share counted once; `--separate` runs so many of the
subjects once more, each in a process and a store of its own, and compares their adapters' bytes. Simulated: the tests'
small shop, whose recipe takes milliseconds and one nap; what is over is scheduling, the engine and MLflow.
Writers: processes that log as a subject's run does; from where errors come, or a run takes twice as long as alone, a
database file is not the place. Results are numbers, in benchmarks/results/fleet.json.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from PIL import Image, ImageEnhance, ImageOps

from personalize.files import write_json
from personalize.fleet.record import SUBJECT
from personalize.fleet.worker import LOG
from personalize.recipe.tracking import STEP
from tests.checkout import clone

PROJECT = Path(__file__).resolve().parents[1]
RESULTS = PROJECT / "benchmarks" / "results" / "fleet.json"
SHOP = PROJECT / "tests" / "fleet" / "shop"
NAP_S = 0.5
SMALL = {"max_train_steps": "20", "VALIDATION_EVERY": "20", "PRIOR_IMAGES": "4", "SEEDS_PER_PROMPT": "1"}
SMALL |= {"EVALUATION_STEPS": "2", "until": "evaluate"}

WRITER = """
import sys, time, mlflow
from mlflow.entities import Metric, Param, RunTag
uri, experiment, count = sys.argv[1:]
client, failed, took = mlflow.MlflowClient(uri), 0, []
for number in range(int(count)):
    began = time.monotonic()
    try:
        run = client.create_run(experiment, tags={f"recipe.tag{n}": "x" * 40 for n in range(20)}).info.run_id
        client.log_batch(run, params=[Param(f"p{n}", "1") for n in range(80)])
        for step in range(20):
            client.log_batch(run, metrics=[Metric(f"m{n}", 1.0, 0, step) for n in range(5)])
        for n in range(10):
            client.set_tag(run, f"late{n}", "x")
        client.search_runs([experiment], "tags.`recipe.tag1` = 'none'", max_results=50)
        client.set_terminated(run)
    except Exception as error:
        failed += 1
        print(type(error).__name__, str(error)[:120], file=sys.stderr)
    took.append(time.monotonic() - began)
print(failed, sum(took) / len(took))
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet", description=__doc__.split("\n\n")[0])
    parser.add_argument("--subjects", type=int, default=0, help="small subjects of the real recipe")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--separate", type=int, default=2, help="of those, how many once more, each alone")
    parser.add_argument("--simulated", type=int, default=0, help="subjects whose training sleeps")
    parser.add_argument("--writers", default="", help="numbers of processes with commas between")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    found: dict[str, Any] = json.loads(given.out.read_text()) if given.out.is_file() else {}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        if given.subjects:
            found["subjects"] = subjects(place / "subjects", given.subjects, given.workers, given.separate)
        if given.simulated:
            found["simulated"] = simulated(place / "simulated", given.simulated, given.workers)
        if given.writers:
            found["writers"] = writers(place / "writers", [int(word) for word in given.writers.split(",")])
    write_json(given.out, found)
    print(json.dumps(found, indent=1))


def subjects(place: Path, count: int, workers: int, separate: int) -> dict[str, Any]:
    """The real recipe: wall time beside the subjects' own work, and beside runs of their own."""
    catalogue = photographed(place, count)
    settings = [word for name, value in SMALL.items() if name != "until" for word in (f"--{name}", value)]
    options = ["--set", f"fleet.catalogue={catalogue}", "--set", f"fleet.workers={workers}"]
    options += ["--set", f"fleet.until={SMALL['until']}"]
    environment = store(place / "fleet")
    wall, said, memory = timed(["run", "--step", "fleet", *options, *settings], cloned(place / "fleet"), environment)
    own, shared = worked(environment)
    digests = adapters(environment)
    alone = []
    for name, (noun, token, folder) in list(rows(catalogue))[:separate]:
        environment = store(place / name)
        asked = ["--data", folder, "--token", token, "--class_noun", noun, "--until", SMALL["until"]]
        words = ["run", *asked, *settings]
        took, _, _ = timed(words, cloned(place / name), environment | {"OMP_NUM_THREADS": "1"})
        alone.append({"seconds": took, "same_adapter": adapters(environment)[token] == digests[token]})
    mean = sum(each["seconds"] for each in alone) / max(1, len(alone))
    return {
        "count": count,
        "workers": workers,
        "wall_seconds": wall,
        "own_work_seconds": own,
        "shared_seconds": shared,
        "wall_times_workers_over_own_work": wall * workers / (own + shared),
        "separate_seconds_each": mean,
        "separate_runs_over_fleet": mean * count / (wall * workers),
        "same_adapters": all(each["same_adapter"] for each in alone),
        "driver_and_workers_megabytes": memory,
        "last_words": said.splitlines()[-3:],
    }


def simulated(place: Path, count: int, workers: int) -> dict[str, Any]:
    """The shop's recipe with a nap for training: what is over is overhead."""
    project = place / "shop"
    shutil.copytree(SHOP, project, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("steps/fleet.py", "steps/cards/fleet.py"):
        shutil.copy(PROJECT / name, project / name)
    with (place / "products.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["token", "class_noun", "photographs"])
        for number in range(count):
            folder = place / "photographs" / str(number)
            folder.mkdir(parents=True)
            for shade in range(3):
                Image.new("RGB", (8, 8), (number % 256, number // 256, shade)).save(folder / f"{shade}.png")
            table.writerow([f"tok{number}m", ("chair", "sofa", "lamp")[number % 3], f"photographs/{number}"])
    environment = store(place / "store")
    options = ["--set", f"fleet.catalogue={place / 'products.csv'}", "--set", f"fleet.workers={workers}"]
    wall, _, memory = timed(["run", "--step", "fleet", *options, "--learn.naps", str(NAP_S)], project, environment)
    again, _, _ = timed(["run", "--step", "fleet", *options, "--learn.naps", str(NAP_S)], project, environment)
    planned, _, _ = timed(
        ["run", "--step", "fleet", *options, "--set", "fleet.plan=true", "--learn.naps", "0.6"], project, environment
    )
    return {
        "count": count,
        "workers": workers,
        "nap_seconds": NAP_S,
        "wall_seconds": wall,
        "overhead_seconds_a_subject": (wall * workers - count * NAP_S) / count,
        "again_all_done_seconds": again,
        "plan_all_anew_seconds": planned,
        "megabytes": memory,
        "database_megabytes": (place / "store" / "mlflow.db").stat().st_size / 1e6,
        "card_megabytes": max(path.stat().st_size for path in (place / "store").rglob("card.html")) / 1e6,
    }


def writers(place: Path, counts: Sequence[int], runs: int = 12) -> list[dict[str, Any]]:
    """How long a subject's logging takes where so many do it at once, and how often it fails."""
    import mlflow

    found = []
    for count in counts:
        environment = store(place / str(count))
        uri = environment["MLFLOW_TRACKING_URI"]
        experiment = mlflow.MlflowClient(uri).create_experiment("writers", (place / str(count) / "a").as_uri())
        words = [sys.executable, "-c", WRITER, uri, experiment, str(runs)]
        started = [
            subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for _ in range(count)
        ]
        answers = [process.communicate() for process in started]
        told = [out.split() for out, _ in answers]
        errors = sorted({line for _, err in answers for line in err.splitlines() if "Exception" in line})[:2]
        found.append(
            {
                "writers": count,
                "seconds_a_run": sum(float(seconds) for _, seconds in told) / count,
                "failed": sum(int(failed) for failed, _ in told) / (count * runs),
                "errors": errors,
            }
        )
        print(found[-1], flush=True)
    return found


def photographed(place: Path, count: int) -> Path:
    """A catalogue of `count` subjects made from those of `data/`."""
    folders = sorted(path for path in (PROJECT / "data").glob("*/*") if path.is_dir())
    place.mkdir(parents=True)
    with (place / "products.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["token", "class_noun", "photographs"])
        for number in range(count):
            source, turn = folders[number % len(folders)], number // len(folders)
            token, target = f"{source.name}{'abcdefghij'[turn]}", place / "photographs" / str(number)
            target.mkdir(parents=True)
            for photograph in sorted(source.glob("*.[jp][pn]g")):
                with Image.open(photograph) as opened:
                    image = ImageOps.mirror(opened.convert("RGB")) if turn % 2 else opened.convert("RGB")
                    ImageEnhance.Brightness(image).enhance(1 - 0.05 * turn).save(target / f"{photograph.stem}.png")
            table.writerow([token, source.parent.name, str(target)])
    return place / "products.csv"


def cloned(place: Path) -> Path:
    """The project with nothing built in it: no class images, no drawings of the base."""
    root = clone(place / "project")
    for name in ("data", "models"):
        (root / name).symlink_to(PROJECT / name)
    return root


def rows(catalogue: Path) -> Iterator[tuple[str, tuple[str, str, str]]]:
    with catalogue.open(newline="") as file:
        for number, row in enumerate(csv.DictReader(file)):
            yield str(number), (row["class_noun"], row["token"], row["photographs"])


def store(place: Path) -> dict[str, str]:
    """The environment with an empty tracking store of its own."""
    import mlflow

    place.mkdir(parents=True)
    uri = f"sqlite:///{place / 'mlflow.db'}"
    experiment = mlflow.MlflowClient(uri).create_experiment("fleet", (place / "artifacts").as_uri())
    kept = {name: text for name, text in os.environ.items() if not name.startswith("MLFLOW_")}
    return kept | {"MLFLOW_TRACKING_URI": uri, "MLFLOW_EXPERIMENT_ID": experiment}


def timed(words: Sequence[str], project: Path, environment: dict[str, str]) -> tuple[float, str, dict[str, float]]:
    """Seconds, what was printed, and the most memory that driver and workers held. Raises where the command fails."""
    began = time.monotonic()
    command = [sys.executable, "-m", "personalize.recipe", *words]
    there = environment | {"PYTHONPATH": f"{project}:{PROJECT}"}
    process = subprocess.Popen(
        command, cwd=project, env=there, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    with watched(process.pid) as most:
        said = process.communicate()[0]
    if process.returncode:
        raise RuntimeError(said[-4000:])
    return round(time.monotonic() - began, 1), said, dict(most)


@contextmanager
def watched(pid: int) -> Iterator[dict[str, float]]:
    """The most megabytes that a process and its workers have held; of the workers, early and late too."""
    ended, most = threading.Event(), {"driver": 0.0, "worker": 0.0}

    def look() -> None:
        while not ended.wait(1.0):
            try:
                driver = psutil.Process(pid)
                most["driver"] = max(most["driver"], driver.memory_info().rss / 1e6)
                for each in driver.children(recursive=True):
                    if each.cmdline()[:1] and "carry_out" in each.cmdline()[0]:
                        most["worker"] = max(most["worker"], each.memory_info().rss / 1e6)
            except (psutil.Error, IndexError):
                continue

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield most
    finally:
        ended.set()
        thread.join()


def steps(environment: dict[str, str]) -> list[Any]:
    import mlflow

    client = mlflow.MlflowClient(environment["MLFLOW_TRACKING_URI"])
    found = client.search_runs(
        [environment["MLFLOW_EXPERIMENT_ID"]], "attributes.status = 'FINISHED'", max_results=5000
    )
    return [run for run in found if run.data.tags.get(STEP) not in (None, "fleet")]


def worked(environment: dict[str, str]) -> tuple[float, float]:
    """Seconds of the subjects' own steps, cards included, and of those that they share (prior), as their logs say."""
    import mlflow

    client = mlflow.MlflowClient(environment["MLFLOW_TRACKING_URI"])
    own = shared = 0.0
    for project in client.search_runs(
        [environment["MLFLOW_EXPERIMENT_ID"]], f"tags.`{SUBJECT}` != ''", max_results=5000
    ):
        if STEP in project.data.tags:
            continue
        said = mlflow.artifacts.load_text(f"{project.info.artifact_uri}/{LOG}")
        for name, seconds in re.findall(r"^  (\w+) done in ([\d.]+) s$", said, flags=re.MULTILINE):
            if name == "prior":
                shared += float(seconds)
            else:
                own += float(seconds)
    return round(own, 1), round(shared, 1)


def adapters(environment: dict[str, str]) -> dict[str, str]:
    """The digest of what train made, by token."""
    import mlflow

    client, found = mlflow.MlflowClient(environment["MLFLOW_TRACKING_URI"]), {}
    for run in steps(environment):
        if run.data.tags[STEP] == "train":
            parent = client.get_run(run.data.tags["mlflow.parentRunId"])
            found[parent.data.params["ingest.token"]] = run.data.tags["recipe.outputs.digest"]
    return found


if __name__ == "__main__":
    main()
