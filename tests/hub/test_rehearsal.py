"""The gpu profile's whole recipe through the hub's double at toy width; `make rehearse` does it at SDXL's own."""

from pathlib import Path

import pytest
import torch

from tests.hub import rehearsal


@pytest.mark.slow
@pytest.mark.end_to_end
def test_the_gpu_profile_goes_from_a_bare_machine_to_a_picture_from_the_registry(tmp_path: Path) -> None:
    goes_through(tmp_path)


@pytest.mark.gpu
@pytest.mark.end_to_end
@pytest.mark.skipif(not torch.cuda.is_available(), reason="NO GPU: the gpu profile was not seen on one")
def test_the_gpu_profile_goes_all_the_way_on_a_card(tmp_path: Path) -> None:
    goes_through(tmp_path, "--device", "cuda")


def goes_through(tmp_path: Path, *words: str) -> None:
    found = rehearsal.main(["--tiny", "--out", str(tmp_path / "rehearsal.json"), *words])
    assert set(found["peak_memory_gb"]) == {*rehearsal.STEPS, "a picture from the registry"}
    assert min(found["peak_memory_gb"].values()) > 0.1
    assert all(found["fetched"].values())
    assert (tmp_path / "rehearsal.json").is_file()
