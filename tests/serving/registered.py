"""Registered versions that refer to a base, as `register` leaves them, approved or not, without a training."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow

from personalize.evidence import keys, package
from personalize.evidence.statement import PROVENANCE, write
from personalize.files import file_digest, write_json
from personalize.photographs.prompts import Subject, save_subjects
from personalize.review import approval
from personalize.review.approval import Decision

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner


def register(
    place: Path,
    name: str,
    weights: bytes,
    subjects: Sequence[Subject],
    base: Mapping[str, str],
    *,
    decision: Decision | None = "approved",
    verdict: str = "passed",
    dirty: Sequence[str] = (),
    signer: CryptoSigner | None = None,
    approver: CryptoSigner | None = None,
    trainer: CryptoSigner | None = None,
    says_trainer: str = "",
    champion: bool = False,
) -> str:
    """A version in the store in use -> its number. base: sha256 by file; signers are the own key where none is given.

    says_trainer: what the version says of who trained, where that is not so.
    """
    client = mlflow.MlflowClient()
    experiment = mlflow.get_experiment_by_name("registered")
    number = (
        experiment.experiment_id if experiment else client.create_experiment("registered", (place / "runs").as_uri())
    )
    train, evaluate = (client.create_run(number, run_name=step).info.run_id for step in ("train", "evaluate"))
    model = place / f"{name}-{evaluate[:8]}"
    adapter = model / "artifacts" / "adapter"
    adapter.mkdir(parents=True)
    (adapter / "pytorch_lora_weights.safetensors").write_bytes(weights)
    save_subjects(adapter, list(subjects))
    client.log_artifact(train, str(adapter / "pytorch_lora_weights.safetensors"), "outputs/lora")
    made = {"lora/pytorch_lora_weights.safetensors": hashlib.sha256(weights).hexdigest()}
    trainer = trainer or keys.own()
    client.log_text(train, write(made, "https://slsa.dev/provenance/v1", {}, trainer), PROVENANCE)
    client.log_text(evaluate, "<html>the card</html>", "card.html")
    client.log_text(evaluate, json.dumps({"verdict": verdict}), "outputs/scores.json")
    evidence = approval.gather(evaluate, f"runs:/{evaluate}/card.html", train)
    if decision:
        approval.decide(evidence, decision, "a tester", "seen", "a test", approver or keys.own())
    digests = {path.relative_to(model).as_posix(): file_digest(path, "sha256") for path in adapter.iterdir()}
    papers = {package.CARD: evidence.card.sha256, package.SCORES: evidence.scores.sha256}
    said = {
        "config": {
            "fingerprint": f"of {name}",
            "base": {"files": dict(base), "model": "x", "revision": "", "version": ""},
        },
        "packages": [],
        "runs": {"train": train, "evaluate": evaluate},
        "verdict": verdict,
        "code": {"commits": [], "dirty": list(dirty)},
        "trainer": says_trainer or trainer.public_key.keyid,
    }
    (model / package.PLACE).parent.mkdir(parents=True)
    (model / package.PLACE).write_text(write(digests | papers, package.KIND, said, signer or keys.own()))
    write_json(model / "MLmodel", {"artifact_path": "model", "flavors": {}, "evidence": asdict(evidence)})
    if not client.search_registered_models(f"name='{name}'"):
        client.create_registered_model(name)
    tags = {"tokens": ", ".join(subject.token for subject in subjects)}
    version = client.create_model_version(name, model.as_uri(), tags=tags).version
    if champion:
        client.set_registered_model_alias(name, "champion", version)
    return str(version)
