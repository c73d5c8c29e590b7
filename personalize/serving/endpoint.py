"""An endpoint: a model version behind an address that turns a prompt into a picture.

What every target (a process on this machine, Databricks Model Serving) has in common: where a version's files are, what
a request looks like, what counts as an answer, and the command a person may paste. A target is an `Endpoint`.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import shlex
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from personalize.evidence.statement import EvidenceError
from personalize.files import whole, write_text
from personalize.serving.checking import check_folder
from personalize.serving.encoding import SUFFIX
from personalize.serving.registry import ModelVersion

if TYPE_CHECKING:
    from PIL import Image


class EndpointError(ValueError):
    """An endpoint could not be deployed, reached or stopped; the message says which, why and the way out."""


@dataclass(frozen=True)
class Status:
    """What an endpoint is doing.

    `state` is one of `serving`, `starting` (up, not answering yet), `restarting` (its process ended and will be started
    again), `failed` (it should serve and does not) and `stopped`.
    """

    name: str
    target: str
    state: str
    url: str = ""
    model: str = ""
    version: str = ""
    uri: str = ""
    uptime_s: float | None = None
    pid: int | None = None
    restarts: int = 0
    log: str = ""
    note: str = ""
    trial: Prediction | None = field(default=None, repr=False, compare=False)

    def as_dict(self) -> dict[str, Any]:
        """The facts that are known, for `endpoint.json` and the card."""
        facts = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "trial"}
        return {key: value for key, value in facts.items() if value not in ("", None, 0)}


@dataclass(frozen=True)
class Prediction:
    """One row of an endpoint's answer: a picture, as the file it came as, and what the row said of it."""

    data: bytes
    format: str
    width: int
    height: int
    facts: dict[str, Any]

    @property
    def suffix(self) -> str:
        """Of a file that holds the picture as it came."""
        return SUFFIX.get(self.format, f".{self.format}")

    def open(self) -> Image.Image:
        """The decoded picture."""
        from PIL import Image

        return Image.open(io.BytesIO(self.data))


class Endpoint(Protocol):
    """A place where a model version can be served under a name."""

    @property
    def name(self) -> str:
        """The name by which it is found again."""
        ...

    def deploy(self, model: ModelVersion, smoke: Mapping[str, Any]) -> Status:
        """Serve this version; return when it answered the smoke request. What served before serves until then."""
        ...

    def status(self) -> Status:
        """What the endpoint is doing now."""
        ...

    def stop(self) -> Status:
        """Stop serving and free what was used. Stopping what is stopped is no error."""
        ...

    def query(self, request: Mapping[str, Any]) -> list[Prediction]:
        """Ask for pictures: `prompt` and whatever else the model's signature names."""
        ...

    def body(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The JSON body that `query` sends."""
        ...

    @property
    def token_variable(self) -> str:
        """The environment variable with the access token that a caller needs; empty where none is asked for."""
        ...


def fetch_files(model: ModelVersion, store: Path) -> Path:
    """The model's files on this disk: where they lie already, or downloaded once to `store/<version>/`.

    Raises:
        EndpointError: they cannot be had, or are not those that the model's own statement names.
    """
    folder = _fetched(model, store)
    try:
        wrong = check_folder(folder)
    except EvidenceError as error:
        raise EndpointError(f"{model} is not used: it has {error}.") from error
    if wrong:
        shutil.rmtree(store / (model.version or model.name), ignore_errors=True)  # a copy may be what is broken
        raise EndpointError(f"{model} is not used, it is not as it was registered: {'; '.join(wrong[:3])} ({folder}).")
    return folder


def _fetched(model: ModelVersion, store: Path) -> Path:
    from mlflow import MlflowClient
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException
    from mlflow.utils.file_utils import local_file_uri_to_path

    try:
        source = (
            MlflowClient().get_model_version_download_uri(model.name, model.version) if model.version else model.uri
        )
        here = Path(local_file_uri_to_path(source))
        if (here / "MLmodel").is_file():
            return here.resolve()
        kept, mark = store / (model.version or model.name), store / f"{model.version or model.name}.source"
        if not (model.version and kept.is_dir() and mark.is_file() and mark.read_text() == source):
            mark.unlink(missing_ok=True)
            with whole(kept) as part:
                part.mkdir()
                download_artifacts(artifact_uri=model.uri, dst_path=str(part))
            write_text(mark, source)
        return kept.resolve()
    except (MlflowException, OSError) as error:
        raise EndpointError(f"The files of {model} cannot be had from {model.uri}: {error}") from error


def payload(request: Mapping[str, Any], columns: set[str], params: set[str]) -> dict[str, Any]:
    """The body of a scoring request: each value as a column of the one row, or as a parameter, as the signature says.

    Values that are None are left out, so the model's own default holds.

    Raises:
        EndpointError: the model has no input of that name.
    """
    asked = {key: value for key, value in request.items() if value is not None}
    unknown = sorted(set(asked) - columns - params)
    if unknown:
        raise EndpointError(f"The model takes no `{unknown[0]}`; it takes {', '.join(sorted(columns | params))}.")
    body: dict[str, Any] = {"dataframe_records": [{key: value for key, value in asked.items() if key in columns}]}
    extra = {key: value for key, value in asked.items() if key not in columns}
    return {**body, "params": extra} if extra else body


def inputs_of(model: str | Path) -> tuple[set[str], set[str]]:
    """The names of a model's input columns and parameters, from its signature; `model` is a folder or an address."""
    from mlflow.models import Model

    signature = Model.load(str(model)).signature
    if signature is None:
        raise EndpointError(f"The model at {model} has no signature, so nobody can know what it takes. Register it.")
    columns = set(signature.inputs.input_names()) if signature.inputs else set()
    return columns, {param.name for param in signature.params} if signature.params else set()


def example_of(model: str | Path) -> tuple[set[str], dict[str, Any]]:
    """The names a model takes, and the first row of the example it was saved with (empty when it has none)."""
    from mlflow.models import Model

    columns, params = inputs_of(model)
    example: dict[str, Any] = {}
    frame: Any = Model.load(str(model)).load_input_example(str(model))
    if hasattr(frame, "to_dict"):
        rows = frame.to_dict("records")
        example = {key: value for key, value in rows[0].items() if value == value and value is not None} if rows else {}
    return columns | params, example


def predictions(answer: Any) -> list[Prediction]:
    """The pictures in a scoring answer: a row each, with clean base64 in `image` and the encoding in `format`.

    Raises:
        EndpointError: the answer has no rows, a row reports an error, or what it holds is not a whole picture.
    """
    from PIL import Image, UnidentifiedImageError

    rows = answer.get("predictions") if isinstance(answer, dict) else None
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise EndpointError(f"The endpoint answered without pictures: {json.dumps(answer)[:300]}")
    found = []
    for row in rows:
        if row.get("error"):
            raise EndpointError(f"The endpoint could not draw this: {row['error']}")
        if not row.get("image") and row.get("safety"):
            raise EndpointError(f"The endpoint drew this and does not send it ({row['safety']})")
        try:
            data = base64.b64decode(row["image"], validate=True)
            with Image.open(io.BytesIO(data)) as image:
                image.load()
                width, height = image.size
                encoding = (image.format or "").lower()
        except (KeyError, TypeError, binascii.Error, UnidentifiedImageError, OSError) as error:
            raise EndpointError(f"The endpoint answered with something that is not a picture: {error!r}") from error
        facts = {key: value for key, value in row.items() if key != "image"}
        found.append(Prediction(data, encoding, width, height, facts))
    return found


def check_smoke(ask: Callable[[Mapping[str, Any]], list[Prediction]], request: Mapping[str, Any]) -> Prediction:
    """Send one request and look at the answer: exactly one picture, whole, of the size asked for.

    Raises:
        EndpointError: it is not.
    """
    answer = ask(request)
    if len(answer) != 1:
        raise EndpointError(f"The smoke request asked for one picture and got {len(answer)}.")
    picture = answer[0]
    for side, got in (("width", picture.width), ("height", picture.height)):
        if request.get(side) not in (None, got):
            raise EndpointError(f"The smoke request asked for a {side} of {request[side]} pixels and got {got}.")
    return picture


def curl_line(url: str, body: Mapping[str, Any], *, token: str = "", here: bool = True, output: str = "picture") -> str:
    """A command to paste into a POSIX shell: sends `body` and writes the picture to `<output>.<format>`.

    token: the environment variable with the access token, where one is asked for; here: the server is on this machine.
    """
    header = f' -H "Authorization: Bearer ${token}"' if token else ""
    header += " --noproxy '*'" if here else ""
    script = (
        "import base64, json, sys; answer = json.load(sys.stdin); "
        'row = answer["predictions"][0] if "predictions" in answer else sys.exit(answer.get("message", answer)); '
        f'name = "{output}." + row["format"].lower(); open(name, "wb").write(base64.b64decode(row["image"])); '
        "print(name)"
    )
    data = shlex.quote(json.dumps(body, ensure_ascii=False))
    return (
        f"curl -sS {shlex.quote(url)}{header} -H 'Content-Type: application/json' -d {data} | "
        f"python3 -c {shlex.quote(script)}"
    )
