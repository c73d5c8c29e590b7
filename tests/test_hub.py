"""One place says where a model lies, which it is and what it runs on."""

from pathlib import Path

import pytest
import torch

from personalize import hub

COMMIT = "462165984030d82259a11f4367a4eed129e94a7b"


def test_a_folder_is_known_by_its_content_and_a_repository_by_its_commit(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    before = hub.identity(tmp_path / "model")
    (tmp_path / "model").rename(tmp_path / "moved")
    assert hub.identity(tmp_path / "moved", "ignored") == before
    (tmp_path / "moved" / "config.json").write_text("{ }")
    assert hub.identity(tmp_path / "moved") != before
    assert hub.identity("someone/model", COMMIT) == f"someone/model@{COMMIT}"
    assert hub.label("someone/model", COMMIT) == "someone/model@46216598"
    assert hub.label("models/sdxl", "") == "models/sdxl"


@pytest.mark.parametrize("revision", [None, "", "main", COMMIT[:12], COMMIT.upper(), COMMIT + "0"])
def test_a_repository_without_a_commit_is_refused(revision: str | None) -> None:
    with pytest.raises(ValueError, match=r"40-digit commit as DINO_REVISION"):
        hub.source("someone/dino", revision, "DINO", "DINO_REVISION")


def test_a_folder_and_a_pinned_repository_are_told_to_from_pretrained(tmp_path: Path) -> None:
    here = hub.source(tmp_path, None, "DINO", "DINO_REVISION")
    assert here == {"pretrained_model_name_or_path": str(tmp_path), "local_files_only": True}
    there = hub.source("someone/dino", COMMIT, "DINO", "DINO_REVISION")
    assert there == {"pretrained_model_name_or_path": "someone/dino", "revision": COMMIT}
    with pytest.raises(ValueError, match="no DINO model at"):
        hub.source(tmp_path / "nowhere", COMMIT, "DINO", "DINO_REVISION")


def test_auto_takes_the_best_device_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for cuda, mps, device in ((False, False, "cpu"), (False, True, "mps"), (True, True, "cuda")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda cuda=cuda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda mps=mps: mps)
        assert hub.resolve_device("auto").type == device


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_absent_is_said(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match=f"device: {device} was asked for"):
        hub.resolve_device(device)


def test_quiet_puts_the_loaders_logs_back_as_they_were() -> None:
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    with hub.quiet("transformers"):
        assert not logging.is_progress_bar_enabled()
        assert logging.get_verbosity() == logging.ERROR
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
