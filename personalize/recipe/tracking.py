"""The tracking server as the cache: finding finished work, fetching what it made. Imports MLflow when first needed."""

import contextlib
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from personalize import files
from personalize.egress import has_secret, without_secrets
from personalize.evidence.statement import EvidenceError, Statement
from personalize.evidence.trust import Trust
from personalize.recipe import provenance
from personalize.recipe.config import Profile
from personalize.recipe.errors import RecipeError
from personalize.recipe.fingerprint import Components
from personalize.recipe.patience import tell_when_waiting

STEP = "recipe.step"
"""Tag of a step's run: which step."""
STEPS = "recipe.step."
"""Begins the tags of a project run that say of each step how it came to its result, and by which run: `ran <id>`."""
BROKEN = "recipe.outputs.broken"
"""Tag of a run on a server whose outputs were fetched and found to be others than it made: it is reused no more."""
PROBE_SECONDS = 3.0
AWAY = (502, 503, 504)
"""What a proxy answers for a server that is not there, and a server that is starting or going down."""
DOWNLOADS = Path("build/recipe/inputs")


@dataclass(frozen=True)
class StepRun:
    """An earlier run of a step. datasets, models: MLflow's own records of what it was given and what it registered.

    active: nobody has deleted it.
    """

    run_id: str
    status: str
    started: float
    artifact_uri: str
    experiment_id: str
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    datasets: tuple[Any, ...] = ()
    models: tuple[Any, ...] = ()
    active: bool = True

    @property
    def step(self) -> str:
        """Empty for a project run, which is none."""
        return self.tags.get(STEP, "")

    @property
    def digest(self) -> str:
        """Of what it made. A run that does not say is unlike every other."""
        return self.tags.get("recipe.outputs.digest") or f"run {self.run_id}"

    @property
    def folder(self) -> Path | None:
        """The run's artifacts, where they lie on this machine."""
        parts = urlsplit(self.artifact_uri)
        if parts.scheme not in ("", "file"):
            return None
        from mlflow.utils.file_utils import local_file_uri_to_path

        return Path(local_file_uri_to_path(self.artifact_uri))

    def ago(self) -> str:
        """How long ago it started: `just now`, `5 min ago`, `3 days ago`."""
        seconds = time.time() - self.started
        for size, unit in ((86400, "day"), (3600, "hour"), (60, "min")):
            if seconds >= size:
                count = int(seconds // size)
                return f"{count} {unit}{'s' if count > 1 and unit != 'min' else ''} ago"
        return "just now"


class Store:
    """Runs of steps in the experiments that are searched. trust: whose results are reused."""

    def __init__(
        self, client: Any, experiment_id: str, searched: list[str], root: Path, trust: Trust | None = None
    ) -> None:
        self.client = client
        self.experiment_id = experiment_id
        self.searched = searched
        self.root = root
        self.trust = trust or Trust()

    def with_fingerprint(self, fingerprint: str) -> list[StepRun]:
        """Every try at exactly this work, newest first; not what was made again to be compared with it."""
        found = self._search(f"tags.`recipe.fingerprint` = '{fingerprint}'", 50)
        return [past for past in found if "reproduces" not in past.tags]

    def latest(self, recipe: str, step: str, finished: bool = True) -> StepRun | None:
        """The newest run of a step, whatever it was made from."""
        found = self._search(_of_step(recipe, step) + (" AND attributes.status = 'FINISHED'" if finished else ""), 1)
        return found[0] if found else None

    def by_id(self, run_id: str) -> StepRun | None:
        """The run of that id, or None where there is none."""
        from mlflow.exceptions import MlflowException

        try:
            return self.step_run(self.client.get_run(run_id))
        except MlflowException:
            return None

    def of_step(self, recipe: str, step: str) -> list[StepRun]:
        """All runs of a step, newest first."""
        return self._search(_of_step(recipe, step), 1000)

    def nested(self, past: StepRun) -> list[StepRun]:
        """The runs that hang under a run, as a sweep's trials do."""
        return self._search(f"tags.`mlflow.parentRunId` = '{past.run_id}'", 1000)

    def doubt(self, past: StepRun) -> str:
        """Why the result of a finished run cannot be used; empty where it can.

        Outputs on this machine are read and compared; those of a server are when they are fetched (`outputs`).
        """
        if said := past.tags.get(BROKEN):
            return f"run {past.run_id[:8]} is not as it was made: {said}"
        if not self._present(past):
            return f"the outputs of run {past.run_id[:8]} are gone"
        try:
            statement = self.statement(past)
            said = provenance.apart(statement, past.tags.get("recipe.fingerprint", ""), past.digest)
            said = said or self.trust.against_maker(statement.key)
            if not said and past.folder is not None:
                changed = _first(provenance.changed(statement, past.folder / "outputs"))
                said = f"is not as it was made: {changed}" if changed else ""
        except (EvidenceError, OSError) as error:
            said = f"has {error}"
        return f"run {past.run_id[:8]} {said}" if said else ""

    def statement(self, past: StepRun) -> Statement:
        """What a run says of itself, its signature checked. Raises EvidenceError in words that follow `it has`."""
        try:
            text = self.artifact(past, provenance.NAME).read_text(encoding="utf-8")
        except Exception as error:  # a server that does not answer, an artifact that is not there
            raise EvidenceError("no statement of what it made") from error
        return provenance.parse(text)

    def digest_of(self, past: StepRun, names: Collection[str]) -> str:
        """Of a few of the files that a run made, by its statement; of all it made where that does not say."""
        try:
            made = self.statement(past).subjects
        except EvidenceError:
            return past.digest
        return files.value_digest({name: made.get(name, "") for name in names})

    def _present(self, past: StepRun) -> bool:
        expected = int(past.tags.get("recipe.outputs.files", "-1"))
        if past.folder is not None:
            outputs = past.folder / "outputs"
            return sum(len(names) for _, _, names in os.walk(outputs)) == expected
        names = {name for name in past.tags.get("recipe.outputs", "").split("/") if name}
        if not names:
            return expected == 0
        try:
            listed = {Path(item.path).name for item in self.client.list_artifacts(past.run_id, "outputs")}
        except Exception:  # whatever a foreign artifact store raises, its outputs cannot be used
            return False
        return names <= listed

    def components(self, past: StepRun) -> Components | None:
        """What a run was made from, or None where it does not say."""
        try:
            return Components.from_json(self.artifact(past, "fingerprint.json").read_text(encoding="utf-8"))
        except Exception:  # a missing, foreign or older artifact costs only the words of the reason
            return None

    def artifact(self, past: StepRun, name: str) -> Path:
        """One artifact file, downloaded only where it does not lie on this machine."""
        if past.folder is not None:
            return past.folder / name
        from mlflow.artifacts import download_artifacts

        target = self.root / DOWNLOADS / past.run_id
        target.mkdir(parents=True, exist_ok=True)
        return Path(download_artifacts(run_id=past.run_id, artifact_path=name, dst_path=str(target)))

    def outputs(self, past: StepRun) -> Path:
        """The outputs folder of a finished run, each file as it was made.

        Raises RecipeError where it cannot be fetched whole, or something in it was changed since.
        """
        folder = self.place(past)
        try:
            statement = self.statement(past)
            changed = provenance.changed(statement, folder)
            if changed and past.folder is None:  # what was fetched once may be what is broken
                shutil.rmtree(folder, ignore_errors=True)
                changed = provenance.changed(statement, self.place(past))
        except EvidenceError as error:
            raise RecipeError(f"the outputs of run {past.run_id} cannot be used: it has {error}") from error
        if changed:
            if past.folder is None:
                shutil.rmtree(folder, ignore_errors=True)
                with contextlib.suppress(Exception):  # whoever may not write there is told again
                    self.client.set_tag(past.run_id, BROKEN, _first(changed)[:500])
            raise RecipeError(
                f"the outputs of run {past.run_id} are not as they were made: {_first(changed)}. Nothing is made from "
                "them; the same command again makes them anew"
            )
        return folder

    def place(self, past: StepRun) -> Path:
        """The outputs folder as it is, to be looked at and not to make anything from. Raises RecipeError as above."""
        return past.folder / "outputs" if past.folder is not None else self._fetched(past)

    def _fetched(self, past: StepRun) -> Path:
        kept = self.root / DOWNLOADS / past.run_id / "outputs"
        if kept.is_dir():
            return kept
        from mlflow.artifacts import download_artifacts

        try:
            with files.whole(kept, first_wins=True) as part, tempfile.TemporaryDirectory(dir=part.parent) as staged:
                if past.tags.get("recipe.outputs.files") != "0":
                    download_artifacts(run_id=past.run_id, artifact_path="outputs", dst_path=staged)
                Path(staged, "outputs").mkdir(exist_ok=True)
                Path(staged, "outputs").rename(part)
        except Exception as error:
            raise RecipeError(f"the outputs of run {past.run_id} cannot be fetched: {error}") from error
        return kept

    def log_batch(self, run_id: str, params: list[Any], tags: list[Any]) -> None:
        """Params a hundred at a time, as the server takes them; secrets are put out."""
        params = [type(each)(each.key, without_secrets(each.value)) for each in params]
        tags = [type(each)(each.key, without_secrets(each.value)) for each in tags]
        for start in range(0, max(len(params), 1), 100):
            self.client.log_batch(run_id, params=params[start : start + 100], tags=tags if start == 0 else [])

    def log_text(self, run_id: str, text: str, name: str, sifted: bool = False) -> None:
        """Text as an artifact, whatever is in it; secrets are put out, unless it was `sifted` for them."""
        text = text if sifted else without_secrets(text)
        self.client.log_text(run_id, text.encode("utf-8", "replace").decode("utf-8"), name)

    def name_plan(self, said: str) -> None:
        """Name the run that `mlflow run` opened for a plan, which runs nothing, and give it the plan's words.

        Deleting it would be tidier, but `mlflow run` ends every run of its own and fails where it is deleted.
        """
        run_id = os.environ.get("MLFLOW_RUN_ID")
        if not run_id or (run := self.client.get_run(run_id)).data.tags.get("mlflow.source.type") != "PROJECT":
            return  # no run, or somebody's own
        refuse_logged_secrets(run_id, run.data.params)
        self.client.update_run(run_id, name="plan")
        said = without_secrets(said)
        self.client.set_tag(run_id, "recipe.plan", said[:4000])
        self.client.set_tag(run_id, "mlflow.note.content", f"Only planned; nothing was run.\n\n```\n{said[:4000]}\n```")

    def step_run(self, run: Any) -> StepRun:
        """Our view of an MLflow run."""
        info = run.info
        started = (info.start_time or 0) / 1000
        return StepRun(
            info.run_id,
            info.status,
            started,
            info.artifact_uri,
            info.experiment_id,
            dict(run.data.tags),
            dict(run.data.metrics),
            tuple(run.inputs.dataset_inputs) if run.inputs else (),
            tuple(run.outputs.model_outputs) if run.outputs else (),
            info.lifecycle_stage == "active",
        )

    def projects(self, recipe: str, target: str) -> Iterator[Any]:
        """All project runs up to a step as MLflow has them, newest first."""
        condition = f"tags.`recipe.target` = '{_quoted(target)}' AND tags.`recipe.name` = '{_quoted(recipe)}'"
        token, order = None, ["attributes.start_time DESC"]
        while True:
            page = self.client.search_runs(self.searched, condition, max_results=1000, order_by=order, page_token=token)
            yield from page
            if not (token := page.token):
                return

    def _search(self, condition: str, most: int) -> list[StepRun]:
        runs = self.client.search_runs(
            self.searched, condition, max_results=most, order_by=["attributes.start_time DESC"]
        )
        return [self.step_run(run) for run in runs]


def _first(said: list[str]) -> str:
    """The first of them, and how many more there are."""
    return said[0] + (f", and {len(said) - 1} more" if len(said) > 1 else "") if said else ""


def refuse_logged_secrets(run_id: str, params: Mapping[str, str]) -> None:
    """Raises RecipeError where `mlflow run` has logged a secret as a parameter, which nobody can take back."""
    if told := next((name for name, text in sorted(params.items()) if has_secret(text)), ""):
        raise RecipeError(
            f"-P {told}: looks like a secret, and `mlflow run` has logged it in run {run_id}. Delete that run "
            f"(mlflow runs delete --run-id {run_id}, then mlflow gc) and have the secret replaced; "
            f"`python -m personalize.recipe run --{told} ...` takes such a value and logs none of it"
        )


def _of_step(recipe: str, step: str) -> str:
    return f"tags.`{STEP}` = '{step}' AND tags.`recipe.name` = '{_quoted(recipe)}'"


def _quoted(text: str) -> str:
    return text.replace("'", "")


def registry_beside(tracking_uri: str, registry_uri: str) -> str:
    """The registry of the same workspace: `databricks://NAME` and `databricks-uc` are `databricks-uc://NAME`."""
    scheme, _, name = tracking_uri.partition("://")
    same = scheme == "databricks" and registry_uri == "databricks-uc" and name
    return f"{registry_uri}://{name}" if same else registry_uri


def used(tags: Mapping[str, str]) -> dict[str, str]:
    """The runs whose results a project run used, made by it or reused, by step: what its tags say."""
    told = {tag.removeprefix(STEPS): words.partition(" ") for tag, words in tags.items() if tag.startswith(STEPS)}
    return {step: run_id for step, (how, _, run_id) in told.items() if how in ("ran", "reused")}


def absolute(uri: str, root: Path) -> str:
    """The address of a store for a process in another folder. root: the folder that a relative one starts from."""
    if uri.startswith("sqlite:///") and not uri.startswith("sqlite:////"):
        return f"sqlite:///{(root / uri.removeprefix('sqlite:///')).resolve()}"
    if "://" not in uri and not uri.startswith(("databricks", "file:")):
        return str((root / uri).resolve())
    return uri


def connect(profile: Profile, root: Path, create: bool, trust: Trust | None = None) -> Store:
    """The store of the experiment that runs go to. create: make the profile's experiment where it does not exist yet.

    Under `mlflow run`, or inside an active run, that run's experiment is used, and otherwise the one that the
    environment names (MLFLOW_EXPERIMENT_NAME or _ID), before the profile's; the profile's is searched as well.
    Raises RecipeError where the server does not answer or is not the one that the profile requires.
    """
    probe(os.environ.get("MLFLOW_TRACKING_URI", ""))
    import mlflow
    from mlflow.exceptions import MlflowException
    from mlflow.tracking.fluent import _get_experiment_id

    uri = mlflow.get_tracking_uri()
    probe(uri)
    greet(uri)
    tell_when_waiting(uri)
    wanted = str(profile.requires.get("tracking_uri") or "")
    if wanted and not uri.startswith(wanted):
        place = profile.place(("requires", "tracking_uri"))
        raise RecipeError(
            f"{place}: profile '{profile.name}' needs tracking URI {wanted}, not {uri}; "
            f"set MLFLOW_TRACKING_URI={wanted}"
        )
    if registry := profile.model_registry.get("registry_uri"):
        mlflow.set_registry_uri(registry_beside(uri, str(registry)))
    _keep_private(uri, root)
    client = mlflow.MlflowClient()
    name = str(profile.experiment.get("name") or "")
    try:
        named = client.get_experiment_by_name(name) if name else None
        if run_id := os.environ.get("MLFLOW_RUN_ID"):
            current = client.get_run(run_id).info.experiment_id
            os.environ.pop("MLFLOW_EXPERIMENT_NAME", None)  # --experiment-name has overruled it
        elif active := mlflow.active_run():
            current = active.info.experiment_id
        elif os.environ.get("MLFLOW_EXPERIMENT_ID") or os.environ.get("MLFLOW_EXPERIMENT_NAME"):
            current = str(_get_experiment_id())
        elif named is not None:
            current = named.experiment_id
        elif name and create:
            current = client.create_experiment(name, profile.experiment.get("artifact_location"))
        else:
            current = str(_get_experiment_id())
    except MlflowException as error:
        raise RecipeError(f"the tracking store {uri} cannot be used: {error.message}") from error
    searched = list(dict.fromkeys([current, *([named.experiment_id] if named is not None else [])]))
    return Store(client, current, searched, root, trust)


def _keep_private(uri: str, root: Path) -> None:
    """The runs that MLflow keeps in the project's own folder, and what is made of them, are their owner's alone."""
    database = root / uri.removeprefix("sqlite:///")
    if uri.startswith("sqlite:///") and database.resolve().is_relative_to(root.resolve()):
        with contextlib.suppress(OSError):
            database.touch(mode=0o600)  # MLflow would make them so that everybody may read
            (root / "mlruns").mkdir(mode=0o700, exist_ok=True)
            (root / "build").mkdir(mode=0o700, exist_ok=True)
        for suffix in ("", "-wal", "-shm", "-journal"):
            files.keep_private(f"{database}{suffix}")
    for folder in ("mlruns", "mlartifacts", "build"):
        files.keep_private(root / folder)


def refuse_unanswered(uri: str) -> None:
    """For `mlflow run`, before it asks the server: what is wrong, as an error that it prints without a traceback.

    Raises ExecutionException.
    """
    from mlflow.exceptions import ExecutionException

    try:
        probe(uri)
        greet(uri)
    except RecipeError as error:
        raise ExecutionException(str(error)) from error


def probe(uri: str) -> None:
    """Knock once, instead of waiting through minutes of retries. Raises RecipeError where nobody answers."""
    parts = urlsplit(uri)
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or os.environ.get("https_proxy")
        or os.environ.get("HTTPS_PROXY")
    ):
        return
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname, port), timeout=PROBE_SECONDS).close()
    except OSError as error:
        raise RecipeError(
            f"no tracking server answers at {uri} ({error}); start it (mlflow server --port {port}), "
            "or unset MLFLOW_TRACKING_URI to keep runs in this folder"
        ) from error


def greet(uri: str, tries: int = 3) -> None:
    """Ask an http tracking server one thing, without MLflow's two minutes of retries.

    Raises RecipeError where it lets nobody in, where what stands before it says that it is away, or where it is no
    MLflow server. A single error within it does not count: it may be well the next moment.
    """
    if urlsplit(uri).scheme not in ("http", "https"):
        return
    import requests
    from mlflow.exceptions import MlflowException
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    for left in reversed(range(tries)):
        try:
            answer = http_request(
                get_default_host_creds(uri),
                "/api/2.0/mlflow/experiments/search",
                "POST",
                max_retries=0,
                timeout=30,
                raise_on_status=False,
                json={"max_results": 1},
            )
            status, found = answer.status_code, f"it answers {answer.status_code} {answer.reason or ''}".strip()
        except (requests.RequestException, MlflowException) as error:
            status, found = 503, without_secrets(str(error))
        if status not in AWAY or not left:
            break
        time.sleep(1.0)
    if status in (401, 403):
        raise RecipeError(
            f"the tracking server at {uri} does not let you in ({found}); set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
        )
    if status in AWAY:
        raise RecipeError(
            f"the tracking server at {uri} is away ({found}); try again in a minute, or unset MLFLOW_TRACKING_URI to "
            "keep runs in this folder"
        )
    if status == 404:
        raise RecipeError(f"no MLflow server is at {uri} ({found}); put MLFLOW_TRACKING_URI right")
