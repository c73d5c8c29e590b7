"""Pretrains the miniature models on the drawn world; `python -m miniature.pretrain --help` is the manual."""


def random_models(path, seed: int = 0) -> None:
    """Write sdxl/, clip/, dino/ and blip/ with random weights under `path`; see `architectures.random_models`."""
    from .architectures import random_models as write

    write(path, seed)


__all__ = ["random_models"]
