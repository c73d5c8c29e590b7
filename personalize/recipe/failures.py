"""What went wrong in a step, and what to try, in words."""

import errno
import shlex
from collections.abc import Mapping


def say(error: BaseException) -> str:
    """The error in words for a person: what the step said where it said it well, else with the error's kind."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"the disk is full ({error.filename or 'while writing'})"
    if isinstance(error, SystemExit):
        return f"the step ended the process (exit {error.code})"
    text = str(error).strip()
    if isinstance(error, ValueError | OSError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def advice(error: BaseException, step: str, profile: str, overrides: Mapping[str, str]) -> str:
    """What to try next, with all that was asked for on the command line."""
    asked = "".join(f" -P {shlex.quote(f'{name}={value}')}" for name, value in overrides.items())
    again = f"mlflow run . --env-manager local -e {step} -P profile={profile}{asked}"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"Free some space, then {again}; finished steps are kept and not run again."
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return f"Lower the batch size or the resolution of this step, then {again}."
    if isinstance(error, KeyboardInterrupt):
        return f"To go on from here: {again}; finished steps are kept and not run again."
    return f"Put right what is named above, then {again}; finished steps are kept and not run again."
