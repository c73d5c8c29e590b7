"""Workers: Ray's. It places subjects on machines and cards, starts processes, and tries again when one dies.

    (nothing set)          a Ray of the fleet's own, on this machine, for as long as the fleet runs
    RAY_ADDRESS=host:6379  a cluster: `ray start`, KubeRay, or ray.util.spark on Databricks

One process stays for many subjects, so what it has imported and read is there for the next one.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import os
import signal
import socket
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

from personalize.fleet import record, worker
from personalize.fleet.record import Row
from personalize.fleet.work import Work
from personalize.fleet.worker import Place
from personalize.recipe import RecipeError, machine

T = TypeVar("T")

VERSION = "2.60.0"
RENEWED = 50
"""Subjects after which a process makes way for a fresh one: memory that a library has lost comes back."""
TICK_S = 1.0
FAREWELLS, FAREWELL_S = 3, 10.0
"""Interrupts, and what subjects have after each to mark their runs."""
STORE_BYTES = 80 * 2**20
"""Of shared memory: only rows of text travel through it. Ray takes no less."""
SAME = ("ray", "mlflow", "torch", "diffusers", "transformers", "peft")
"""Packages that every machine must have in one version."""


@dataclass(frozen=True)
class Crew:
    """count: of workers at once; gpus: cards that each has, 0.5 is half a one. elsewhere: some are other machines."""

    count: int
    gpus: float
    elsewhere: bool
    owned: bool


SERVER = "start a tracking server on PostgreSQL (docs/fleet.md) and set MLFLOW_TRACKING_URI"


def check_reaches(crew: Crew, uri: str) -> None:
    """Raises RecipeError where runs and models are kept in a file that some of the workers do not have."""
    if crew.elsewhere and uri.startswith(("sqlite", "file", "/")):
        raise RecipeError(f"runs are kept in {uri}, a file that other machines of the cluster do not have; {SERVER}")


def check_installed() -> None:
    """Raises RecipeError where Ray is not."""
    if importlib.util.find_spec("ray") is None:
        raise RecipeError(f"workers are Ray's, and Ray is not installed: uv pip install ray=={VERSION}")


def _ray() -> Any:
    """Ray, of which nothing is known where it is not installed."""
    return importlib.import_module("ray")


@contextlib.contextmanager
def threads_for(count: int) -> Iterator[None]:
    """Several workers on one machine share its cores, and the plan counts on the same threads as they do.

    Pictures that a CPU draws are the same to the last bit only with as many threads.
    """
    if count < 2 or os.environ.get("OMP_NUM_THREADS") or os.environ.get("RAY_ADDRESS"):
        yield
        return
    os.environ["OMP_NUM_THREADS"] = str(max(1, int(machine.threads()) // count))
    try:
        yield
    finally:
        del os.environ["OMP_NUM_THREADS"]


@contextlib.contextmanager
def crew(count: int, gpus: float | None, root: str, step: str = "fleet") -> Iterator[Crew]:
    """Workers for as long as the block lasts. count: 0 for as many as there is room for; gpus: None for what there is.

    step: whose settings these are, for who reads what is wrong with them.

    Raises RecipeError where the cluster does not answer, is of another version, or lacks what was asked for.
    """
    check_installed()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would tell its makers
    os.environ.setdefault("RAY_task_oom_retries", "3")  # by default it tries for ever
    ray = _ray()

    there = ray.is_initialized()
    address = os.environ.get("RAY_ADDRESS", "")
    if not there:
        _start(address, count)
    try:
        yield _crew(count, gpus, root, step, elsewhere=bool(address) and address != "local", owned=not there)
    finally:
        if not there:
            ray.shutdown()


def _start(address: str, count: int) -> None:
    ray = _ray()

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    before = signal.getsignal(signal.SIGTERM)
    try:
        if address and address != "local":
            _knock(address)
            ray.init(address=address, **quiet)
        else:
            own: dict[str, Any] = {"num_cpus": count} if count else {}
            ray.init(address="local", include_dashboard=False, object_store_memory=STORE_BYTES, **own, **quiet)
    except (ConnectionError, TimeoutError) as error:
        raise RecipeError(
            f"no Ray cluster answers at RAY_ADDRESS={address} ({_first_line(error)}); start it (ray start --head), or "
            "unset RAY_ADDRESS to work on this machine"
        ) from None
    except RuntimeError as error:
        if "ersion mismatch" not in str(error):
            raise
        raise RecipeError(
            f"the Ray cluster at RAY_ADDRESS={address} is of another version than this environment "
            f"(ray {ray.__version__}): {' '.join(str(error).split())}. Install the same on both"
        ) from None
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)  # Ray has its own, which would end the process without a word


def _knock(address: str) -> None:
    """Raises ConnectionError where nobody listens, instead of a minute of tries."""
    parts = urlsplit(address if "://" in address else f"ray://{address}")
    if not parts.hostname or not parts.port:
        return  # auto
    try:
        socket.create_connection((parts.hostname, parts.port), timeout=3).close()
    except OSError as error:
        raise ConnectionError(str(error)) from None


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _crew(count: int, gpus: float | None, root: str, step: str, elsewhere: bool, owned: bool) -> Crew:
    ray = _ray()

    have = ray.cluster_resources()
    cards, cores = float(have.get("GPU", 0)), float(have.get("CPU", 0))
    each = (1.0 if cards else 0.0) if gpus is None else gpus
    if each > cards:
        raise RecipeError(
            f"{step}.gpus={each:g} asks for a GPU a worker, and Ray sees {cards:g} on {_of(ray.nodes())}; "
            f"nvidia-smi says whether the driver is there, {step}.gpus=0 works without"
        )
    room = int(cards / each) if each else (int(cores) if elsewhere else 1)
    wanted = count or max(1, room)
    most = min(int(cards / each) if each else wanted, int(cores))
    if wanted > most:
        raise RecipeError(
            f"workers={wanted} with {each:g} GPU and 1 core each need more than the {cards:g} GPUs and {cores:g} cores "
            f"of {_of(ray.nodes())}: at most {most}"
        )
    if elsewhere:
        _look_at(root)
    return Crew(wanted, each, elsewhere and _others(ray.nodes()), owned)


def _of(nodes: Sequence[dict[str, Any]]) -> str:
    alive = sum(bool(node["Alive"]) for node in nodes)
    return "this machine" if alive == 1 and not os.environ.get("RAY_ADDRESS") else f"{alive} machines"


def _others(nodes: Sequence[dict[str, Any]]) -> bool:
    return len({node["NodeManagerHostname"] for node in nodes if node["Alive"]} - {socket.gethostname()}) > 0


def _look_at(root: str) -> None:
    """Raises RecipeError where a machine of the cluster cannot be a worker."""
    from importlib.metadata import PackageNotFoundError, version

    ray = _ray()

    versions = {}
    for name in SAME:
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    strategies: Any = importlib.import_module("ray.util.scheduling_strategies")
    look = ray.remote(num_cpus=0, max_retries=1)(worker.looks)
    asked = {
        node["NodeManagerHostname"]: look.options(
            scheduling_strategy=strategies.NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(root, versions)
        for node in ray.nodes()
        if node["Alive"]
    }
    said = []
    for name, answer in asked.items():
        try:
            said += [f"{name}: {lack}" for lack in ray.get(answer, timeout=60)]
        except ray.exceptions.TaskUnschedulableError:
            continue  # it was lost meanwhile, and lacks nothing
        except Exception as error:
            said.append(f"{name}: {_first_line(error)}")
    if said:
        raise RecipeError("machines of the cluster cannot carry the recipe out:\n" + "\n".join(said))


def carried_out(works: Sequence[Work], place: Place, crew: Crew, tries: int) -> Generator[Row | None, None, None]:
    """A row for each subject, as they end, and None once a second in which none did.

    tries: a subject whose process dies is tried so often. Where the caller stops early, what runs is stopped: its runs
    are marked, and what had finished stays.
    """
    # what is wrong with a subject is not tried again; a server that was away is
    calls = ((work, (work, place)) for work in works)
    with contextlib.closing(spread(worker.carry_out, calls, crew, tries, [worker.ServerAway])) as every:
        for ended in every:
            yield None if ended is None else _row(ended, tries)


class Lost(Exception):
    """A call has no result, for its process died, as often as it was tried."""


@dataclass(frozen=True)
class Ended(Generic[T]):
    """A call that has ended: `result()` is what it returned, or raises what it raised, or Lost."""

    of: T
    result: Callable[[], Any]


@dataclass(frozen=True)
class Hired:
    """Workers that a step has, in its own folder and environment."""

    crew: Crew
    tries: int
    root: str
    environment: Mapping[str, str]

    def spread(
        self, function: Callable[..., Any], calls: Iterable[tuple[T, tuple[Any, ...]]], renewed: int = RENEWED
    ) -> Iterator[Ended[T]]:
        """As `spread` does it, and nothing in between."""
        there = ((of, (function, self.root, self.environment, *given)) for of, given in calls)
        with contextlib.closing(
            spread(_there, there, self.crew, self.tries, renewed=renewed, name=function.__name__)
        ) as every:
            yield from (ended for ended in every if ended is not None)


@contextlib.contextmanager
def hired(count: int, gpus: float | None, step: str, tries: int) -> Iterator[Hired]:
    """Workers for a step, which know the project's folder, the tracking server and the experiment of its run.

    Raises RecipeError as `crew` does.
    """
    import mlflow

    root, active = str(Path.cwd()), mlflow.active_run()
    with threads_for(count), crew(count, gpus, root, step) as found:
        there = {"MLFLOW_TRACKING_URI": mlflow.get_tracking_uri(), "MLFLOW_REGISTRY_URI": mlflow.get_registry_uri()}
        if not found.elsewhere:
            there["OMP_NUM_THREADS"] = machine.threads()
        if active:
            there["MLFLOW_EXPERIMENT_ID"] = active.info.experiment_id
        yield Hired(found, tries, root, there)


def _there(function: Callable[..., Any], root: str, environment: Mapping[str, str], *given: Any) -> Any:
    """A call in a process of Ray's, which has another folder and environment until now."""
    worker.settle(root, environment)
    return function(*given)


def spread(
    function: Callable[..., Any],
    calls: Iterable[tuple[T, tuple[Any, ...]]],
    crew: Crew,
    tries: int = 1,
    again: Sequence[type[Exception]] = (),
    renewed: int = RENEWED,
    name: str = "",
) -> Generator[Ended[T] | None, None, None]:
    """`function` in the crew's processes, a call for each (what it is of, its arguments); as they end.

    None once a second in which none did. renewed: calls after which a process makes way for a fresh one. name: what Ray
    calls it, where that is not the function's. A call whose process dies, or that raises one of `again`, is tried so
    often. Where the caller stops early, what runs is interrupted, as Ctrl-C would.
    """
    ray = _ray()

    remote = ray.remote(
        num_cpus=1, num_gpus=crew.gpus, max_retries=tries - 1, retry_exceptions=list(again), max_calls=renewed
    )(function).options(name=name or function.__name__)
    waiting = iter(calls)
    flying: dict[Any, T] = {}
    try:
        while True:
            while len(flying) < crew.count and (call := next(waiting, None)) is not None:
                flying[remote.remote(*call[1])] = call[0]
            if not flying:
                return
            ended, _ = ray.wait(list(flying), timeout=TICK_S)
            for reference in ended:
                yield Ended(flying.pop(reference), functools.partial(_got, reference, tries))
            if not ended:
                yield None
    finally:
        _stop(list(flying))


def _row(ended: Ended[Work], tries: int) -> Row:
    """A subject's own row, or one that sets it aside: it has cost so many processes, or the server was away."""
    try:
        row: Row = ended.result()
        return row
    except _ray().exceptions.RayTaskError as error:
        cause = getattr(error, "cause", None) or error
        why = f"{_first_line(cause)} (tried {tries} times)"
    except Lost as error:
        why = str(error)
    return record.blank(ended.of) | {"state": "failed", "why": why}


def _got(reference: Any, tries: int) -> Any:
    """What a call returned. Raises what it raised by itself, and Lost where its process died."""
    known = _ray().exceptions
    try:
        return _ray().get(reference)
    except known.RayTaskError:
        raise
    except known.WorkerCrashedError as error:
        why = f"the process that worked on it died, {tries} times: it is set aside ({_first_line(error)})"
    except known.OutOfMemoryError:
        why = "the machine ran out of memory each time that it was tried; fewer workers, or more memory"
    except known.RayError as error:
        why = f"{type(error).__name__}: {_first_line(error)}"
    raise Lost(why)


def _stop(references: list[Any]) -> None:
    """Ray interrupts what runs, as Ctrl-C would; each subject's runs are marked as killed by its own process.

    An interrupt can be lost, in a process that is about to start its subject for one, so it is sent again, with time
    between for the marking. Whoever has not ended after the last is killed.
    """
    for _ in range(FAREWELLS):
        if not references:
            return
        _cancel(references, force=False)
        _, references = _ray().wait(references, num_returns=len(references), timeout=FAREWELL_S)
    _cancel(references, force=True)


def _cancel(references: Sequence[Any], force: bool) -> None:
    for reference in references:
        with contextlib.suppress(Exception):
            _ray().cancel(reference, force=force, recursive=False)
