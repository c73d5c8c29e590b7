"""What is given as photographs and cannot be any is refused in words."""

import pytest

from personalize.photographs.source import identity
from personalize.photographs.unpacking import Refused


@pytest.mark.parametrize("data", ["x" * 5000, "a\0b", "~nobody-has-this-name/photographs", "nowhere"])
def test_a_path_that_can_be_none_is_named(data: str) -> None:
    with pytest.raises(Refused, match=r"cannot be a path|does not exist"):
        identity(data)
