"""Deploy: put a model version behind an endpoint, or ask, look at or stop the one there is.   gives: endpoint.json

    mlflow run . -e deploy                                       serve the champion, after it painted a picture as asked
    mlflow run . -e deploy -P action=query -P prompt="..."       a picture in output/
    mlflow run . -e deploy -P action=status | stop | rollback | delete

What is served is decided in the registry, by the alias `champion`, and not by what this checkout last trained; only as
a part of `main until=deploy` (`model` empty) does it follow the version that promote has just made the champion. What
nobody has approved is not served, by its number neither, nor what is not the same to the byte, nor a version that
another has taken the place of, until `promote` has gone back to it (docs/evidence.md); `-P deploy.trial=true` tries it
on this machine all the same. The old version answers until the new one has proved itself; if it does not, nothing
changes for callers.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from personalize.cards import command
from personalize.evidence import keys
from personalize.evidence.chain import broken
from personalize.evidence.trust import Trust
from personalize.files import free_path, read_json, write_bytes, write_json
from personalize.recipe import Inputs, RecipeError, StepConfig
from steps.evidence import approval_of, chain_of, place_of

if TYPE_CHECKING:
    from personalize.serving.endpoint import Endpoint, Prediction, Status
    from personalize.serving.registry import ModelVersion

NEEDS = ("promote",)
REUSE = False
ACTS = True


class Config(StepConfig):
    action: Literal["deploy", "status", "stop", "delete", "query", "rollback"] = Field(
        "deploy", description="What to do"
    )
    target: Literal["local", "databricks"] = Field(
        "local", description="Where to serve: a background process of this machine, or Databricks Model Serving"
    )
    name: str = Field("personalize", pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$", description="The endpoint's name")
    model: str = Field(
        "personalize",
        description="A registered model (its champion is meant) or a models:/ address; empty is what promote promoted",
    )
    prompt: str = Field(
        "", description="What to paint, for action=query and for the trial picture (there: the model's example)"
    )
    seed: int | None = Field(None, ge=0, le=2**32 - 1, description="Seed of the picture; none lets the model choose")
    width: int | None = Field(None, ge=8, description="Width of the picture in pixels; none is the model's own")
    height: int | None = Field(None, ge=8, description="Height of the picture in pixels; none is the model's own")
    folder: str = Field("build/endpoints", description="local: folder for the endpoint's state and logs", min_length=1)
    output: str = Field("output", description="Folder that action=query writes pictures to")
    timeout: int = Field(300, ge=1, description="Seconds after which a request is given up")
    startup_timeout: int = Field(1800, ge=1, description="local: seconds a version may take until it answers")

    trial: bool = Field(False, description="local: serve what nobody approved, to 127.0.0.1 alone, to look at it")
    trust: Trust = Field(Trust(), description="The trust policy: whose results and approvals count")

    adapters: list[str] = Field(
        [], description="Registered models whose approved versions it draws with as well, by the row's model_version"
    )
    adapter_memory: int = Field(500, ge=1, description="Megabytes of their adapters that are held")
    base_model: str = Field(
        "", description="local: folder of the base for versions that refer to one; empty: where the version says"
    )

    host: str = Field(
        "127.0.0.1", description="local: address to listen on; 127.0.0.1 is reached from this machine only"
    )
    port: int = Field(0, ge=0, le=65535, description="local: port; 0 keeps the endpoint's port, or takes a free one")
    workers: int = Field(1, ge=1, description="local: server processes, each with its own copy of the model")
    env_manager: Literal["local", "uv", "virtualenv", "conda"] = Field(
        "local", description="local: serve from this environment, or build the one that the model asks for"
    )

    cloud: Literal["aws", "azure", "gcp"] = Field("aws", description="databricks: decides which GPUs there are")
    workload_type: str = Field(
        "",
        description="databricks: CPU, GPU_SMALL, GPU_MEDIUM ...; empty takes the cloud's smallest GPU that fits SDXL",
    )
    workload_size: Literal["Small", "Medium", "Large"] = Field(
        "Small", description="databricks: requests at a time: 4, 8-16 or 16-64"
    )
    scale_to_zero: bool = Field(True, description="databricks: release the GPU when nobody asks; the next one waits")
    keep_previous: bool = Field(True, description="databricks: keep the outgoing version at 0 % traffic, for rollback")
    min_concurrency: int = Field(
        0,
        ge=0,
        multiple_of=4,
        description="databricks: least requests at a time, with max_concurrency instead of a size",
    )
    max_concurrency: int = Field(0, ge=0, multiple_of=4, description="databricks: most requests at a time")
    traffic: int = Field(
        100, ge=1, le=100, description="databricks: percent for the new version; again for all, rollback for none"
    )
    patience: int = Field(
        0, ge=0, description="databricks: seconds of silence after which a version is given up; 0 is Databricks' limit"
    )
    inference_table: str = Field(
        "", pattern=r"^([^.]+\.[^.]+)?$", description="databricks: catalog.schema to log requests in"
    )
    environment: dict[str, str] = Field(
        {}, description="databricks: environment variables of the served model; {{secrets/scope/key}} for a secret"
    )
    can_query: list[str] = Field([], description="databricks: users, groups and service principals who may ask")
    tags: dict[str, str] = Field({}, description="databricks: tags of the endpoint, for budgets and the like")
    budget_policy: str = Field("", description="databricks: id of the budget policy of a new endpoint")

    @model_validator(mode="after")
    def _concurrency_has_both_ends(self) -> Config:
        if bool(self.min_concurrency) != bool(self.max_concurrency) or self.min_concurrency > self.max_concurrency:
            raise ValueError("min_concurrency and max_concurrency go together, the smaller first")
        return self

    @model_validator(mode="after")
    def _a_trial_stays_here(self) -> Config:
        if self.trial and (self.target != "local" or self.host != "127.0.0.1"):
            raise ValueError("trial serves what nobody approved, so it takes target local and host 127.0.0.1 alone")
        return self


def needs(config: Config) -> tuple[str, ...]:
    """The registry has what is served; only an empty `model` asks for the steps before."""
    return () if config.model or config.action != "deploy" else NEEDS


def check(config: Config) -> None:
    """Before anything is trained: the workspace has such an endpoint, or would take one, and from us.

    Raises:
        EndpointError: it does not; the message says what is wrong and the way out.
    """
    if config.action == "deploy" and config.target == "databricks":
        endpoint: Any = endpoint_for(config)
        endpoint.check()


def run(config: Config, inputs: Inputs, outputs: Path) -> None:
    """Do what `config.action` says and leave what is known of the endpoint in endpoint.json, its pictures beside it.

    Raises:
        RecipeError: no prompt to query with, or nothing to roll back to.
        EndpointError: the endpoint did not do what was asked; what served before still serves.
    """
    endpoint = endpoint_for(config)
    ask = ""
    pictures: list[dict[str, Any]] = []
    if config.action == "deploy":
        status, ask, pictures = deploy(config, inputs, endpoint, outputs)
    elif config.action == "query":
        pictures = query(config, endpoint, outputs)
        status = endpoint.status()
    elif config.action == "rollback":
        status = rollback(endpoint)
    elif config.action == "delete":
        status = getattr(endpoint, "delete", endpoint.stop)()  # a local endpoint is nothing but its process
    else:
        status = endpoint.stop() if config.action == "stop" else endpoint.status()
    print("\n".join(f"{key:>12}  {value}" for key, value in labelled(status.as_dict()).items()), flush=True)
    write_json(outputs / "endpoint.json", {**status.as_dict(), **({"ask": ask} if ask else {})})
    write_json(outputs / "pictures.json", pictures)


def deploy(
    config: Config, inputs: Inputs, endpoint: Endpoint, outputs: Path
) -> tuple[Status, str, list[dict[str, Any]]]:
    """Serve the version that is meant now; also the command that asks it from a shell, and its trial picture's row."""
    from personalize.serving.endpoint import curl_line

    version = find_version(config, inputs)
    endpoint = told(config, endpoint, approved(config, version))
    print(f"deploying {version} to the {config.target} endpoint {config.name!r}", flush=True)
    request = trial_request(config, version)
    status = endpoint.deploy(version, request)
    trial = [keep(status.trial, str(request.get("prompt", "")), outputs, "trial")] if status.trial else []
    line = curl_line(
        f"{status.url}/invocations",
        endpoint.body(request),
        token=endpoint.token_variable,
        here=config.target == "local",
    )
    print(f"\nAsk for a picture from any shell:\n\n{line}\n", flush=True)
    return status, line, trial


def approved(config: Config, version: ModelVersion) -> str:
    """The id of the key that the model is signed with, empty where it is unsigned.

    Raises:
        RecipeError: something in it is not as it was approved, or nobody has approved it and it is no trial.
    """
    if config.trial:
        return _look(version)
    if not version.version:
        raise RecipeError(
            f"{version} is in no registry, so nobody can have approved it. Nothing was deployed; -P deploy.trial=true "
            "serves it on this machine alone, to look at it."
        )
    chain = chain_of(version.name, version.version, config.trust)
    _, approval = approval_of(chain, config.trust)
    _, place = place_of(chain, version.name, version.version, config.trust)
    if missing := broken([*chain.links, approval, place]):
        raise RecipeError(
            f"{version} cannot be deployed: {'; '.join(missing)}. Nothing was deployed, and what served before serves "
            "on; -P deploy.trial=true serves what nobody approved on this machine alone, to look at it."
        )
    print(f"approved by {approval.words}", flush=True)
    if chain.dirty:
        print(f"DIRTY: {chain.dirty}; nobody can make this model again from a commit", flush=True)
    return chain.statement.key if chain.statement else ""


def _look(version: ModelVersion) -> str:
    """A trial takes what nobody approved, and a model without a statement, but none that was changed."""
    from personalize.evidence.statement import EvidenceError
    from personalize.serving.checking import check_model

    print(f"TRIAL: nobody needs to have approved {version}; it is served on this machine alone", flush=True)
    try:
        statement, wrong = check_model(version)
    except EvidenceError as error:
        print(f"unsigned: it has {error}", flush=True)
        return ""
    if wrong:
        raise RecipeError(f"{version} cannot be tried: it is not as it was registered: {'; '.join(wrong[:3])}.")
    return statement.key


def told(config: Config, endpoint: Endpoint, key: str) -> Endpoint:
    """The endpoint, with what its server is to know.

    It takes only a model that this key has signed, and looks whenever it starts; of other versions only what the trust
    policy lets through. On this machine its pictures are signed with the key that this policy names.
    """
    import mlflow

    from personalize.evidence.package import TRUSTED
    from personalize.recipe.tracking import absolute
    from personalize.serving import adapters, base, versions

    said = {TRUSTED: key} if key else {}
    if config.adapters:
        said |= {
            versions.NAMES: ",".join(config.adapters),
            versions.POLICY: config.trust.resolved().model_dump_json(),
            adapters.SETTING: str(config.adapter_memory * 1_000_000),
        }
    if config.target == "local":
        if own := keys.named(config.trust.key):
            said[keys.SETTING] = own
        if config.adapters:
            said |= {"MLFLOW_TRACKING_URI": absolute(str(mlflow.get_tracking_uri()), Path.cwd())}
            said |= {"MLFLOW_REGISTRY_URI": absolute(str(mlflow.get_registry_uri()), Path.cwd())}
            said |= {"MLFLOW_HTTP_REQUEST_TIMEOUT": "20", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}  # a caller waits
        if Path(config.base_model).is_dir() and config.base_model:
            said[base.SETTING] = str(Path(config.base_model).resolve())
    known: Any = endpoint
    return replace(known, environment={**said, **known.environment, **({TRUSTED: key} if key else {})})


def query(config: Config, endpoint: Endpoint, outputs: Path) -> list[dict[str, Any]]:
    """Ask for `config.prompt`; the picture lands in the output folder, and in the run."""
    from personalize.serving.encoding import file_stem

    if not config.prompt.strip():
        raise RecipeError('There is nothing to paint: add a prompt, -P prompt="a photo of a ... chair on the beach".')
    request = {"prompt": config.prompt, "seed": config.seed, "width": config.width, "height": config.height}
    rows = []
    for picture in endpoint.query(request):
        stem = file_stem(config.prompt, picture.facts.get("seed", config.seed))
        path = free_path(config.output, stem, picture.suffix)
        write_bytes(path, picture.data)
        print(path, flush=True)
        rows.append({"file": str(path), **keep(picture, config.prompt, outputs, path.stem)})
    return rows


def keep(picture: Prediction, prompt: str, outputs: Path, stem: str) -> dict[str, Any]:
    """The picture's bytes as they came, and its row of pictures.json: name, prompt, and what the answer said of it."""
    path = outputs / f"{stem}{picture.suffix}"
    write_bytes(path, picture.data)
    return {"file_name": path.name, "prompt": prompt, "facts": picture.facts}


def rollback(endpoint: Endpoint) -> Status:
    """Give the traffic back to the version that served before, where the target kept it."""
    back = getattr(endpoint, "rollback", None)
    if back is None:
        raise RecipeError(
            "A local endpoint keeps no earlier version running. Make the one you want the champion again, then deploy: "
            f"{command('promote', version='<version>', rollback=True, approved_by='...', reason='...')}"
        )
    status: Status = back()
    return status


def endpoint_for(config: Config) -> Endpoint:
    """The endpoint that the configuration describes."""
    if config.target == "databricks":
        from personalize.databricks.serving import DatabricksEndpoint

        return DatabricksEndpoint(
            config.name,
            cloud=config.cloud,
            workload_type=config.workload_type,
            workload_size=config.workload_size,
            scale_to_zero=config.scale_to_zero,
            concurrency=(config.min_concurrency, config.max_concurrency) if config.max_concurrency else None,
            traffic=config.traffic,
            keep_previous=config.keep_previous,
            inference_table=config.inference_table,
            environment=config.environment,
            can_query=tuple(config.can_query),
            tags=config.tags,
            budget_policy_id=config.budget_policy,
            timeout_s=config.timeout,
            patience_s=config.patience,
            report=tell_progress,
        )
    from personalize.serving.app import TOKEN
    from personalize.serving.local import LocalEndpoint

    return LocalEndpoint(
        config.name,
        root=Path(config.folder),
        host=config.host,
        port=config.port,
        workers=config.workers,
        env_manager=config.env_manager,
        timeout_s=config.timeout,
        startup_timeout_s=config.startup_timeout,
        token=os.environ.get(TOKEN, ""),
        report=tell_progress,
    )


def find_version(config: Config, inputs: Inputs) -> ModelVersion:
    """The version that `config.model` means now, or the one that promote has just promoted."""
    from mlflow.exceptions import MlflowException

    from personalize.serving.endpoint import EndpointError
    from personalize.serving.registry import RegistryError, resolve

    address = model_address(config.model or str(read_json(inputs["promote"].path / "promotion.json")["uri"]))
    try:
        return resolve(address)
    except (RegistryError, MlflowException) as error:
        name = address.removeprefix("models:/").partition("@")[0].partition("/")[0]
        promote = command("promote", approved_by="...", reason="...")
        raise EndpointError(
            f"There is nothing to deploy at {address}: {error} Promote a registered version first (`{promote}`), or "
            f"name a version: -P deploy.model=models:/{name}/1."
        ) from error


def model_address(model: str) -> str:
    """`personalize` means the champion of that name; an address says itself what it means."""
    return model if ":/" in model or Path(model, "MLmodel").is_file() else f"models:/{model}@champion"


def trial_request(config: Config, version: ModelVersion) -> dict[str, Any]:
    """What the new version must paint before it may serve: the prompt given, or the example it was registered with."""
    from personalize.serving.endpoint import example_of

    known, example = example_of(version.uri)
    asked = {
        "prompt": config.prompt or example.get("prompt") or "a photograph",
        "seed": 0 if config.seed is None else config.seed,
    }
    sized = {"width": config.width or example.get("width"), "height": config.height or example.get("height")}
    return {key: value for key, value in {**asked, **sized}.items() if key in known and value is not None}


def labelled(facts: Mapping[str, Any]) -> dict[str, str]:
    """The facts of an endpoint, for reading."""
    return {"uptime (s)" if key == "uptime_s" else key: str(value) for key, value in facts.items()}


def tell_progress(line: str) -> None:
    """One line of progress, at once."""
    print(line, flush=True)
