"""The typed configuration a step declares."""

import types
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator


class StepConfig(BaseModel):
    """Base of every step's `Config`: unknown keys are errors, values are frozen, numbers are finite.

    A key that changes how a step runs and not what it makes (a device, a timeout, a folder whose content `sources`
    already digests) stays out of the fingerprint: `Field(..., json_schema_extra={"affects_result": False})`.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=(), validate_default=True
    )

    @field_validator("*", mode="before")
    @classmethod
    def _a_yes_is_not_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and info.field_name is not None:
            kinds = _kinds(cls.model_fields[info.field_name].annotation)
            if bool not in kinds and kinds & {int, float}:
                raise ValueError(f"needs a number, not {str(value).lower()}")
        return value

    @classmethod
    def result_keys(cls) -> tuple[str, ...]:
        """The keys whose values count in the fingerprint."""
        return tuple(name for name, field in cls.model_fields.items() if _affects_result(field.json_schema_extra))


def _affects_result(extra: Any) -> bool:
    return not (isinstance(extra, dict) and extra.get("affects_result") is False)


def _kinds(annotation: Any) -> set[Any]:
    if get_origin(annotation) in (Union, types.UnionType):
        return set().union(*(_kinds(part) for part in get_args(annotation)))
    return {annotation}
