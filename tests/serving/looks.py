"""Safety checks for the tests; they travel with the model as a file of the project does."""

from PIL.Image import Image


def look(picture: Image, prompt: str) -> str:
    """Finds what the prompt says is there; fails, or gives no text, where it says so."""
    assert picture.size == (64, 64)
    if "failing" in prompt:
        raise RuntimeError("the judge is out")
    return 7 if "numbers" in prompt else "wicked" if "wicked" in prompt else ""  # type: ignore[return-value]


NO_FUNCTION = 7
