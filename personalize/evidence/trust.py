"""The trust policy: whose results and whose approvals count, and what may be promoted. It stands in the profile."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from personalize.evidence import keys
from personalize.evidence.statement import Statement, short

KeyId = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
OWN: Literal["own"] = "own"
ANYONE: Literal["anyone"] = "anyone"


class Trust(BaseModel):
    """Keys are named by their ids (64 hexadecimal digits, which `-e verify` shows); `own` is this machine's key."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    makers: tuple[Literal["anyone", "own"] | KeyId, ...] = Field(
        default=(ANYONE,), description="Whose results are reused, registered and promoted: key ids, own, or anyone"
    )
    approvers: tuple[Literal["own"] | KeyId, ...] = Field(
        default=(OWN,), description="Whose approval counts: key ids, own"
    )
    four_eyes: bool = Field(
        default=False, description="Whether who trained a model may not approve it; makers then names keys"
    )
    unsigned: bool = Field(default=False, description="Whether results and approvals that nobody signed count")
    dirty: bool = Field(default=False, description="Whether what uncommitted code made may be promoted and deployed")
    differing: bool = Field(default=False, description="Whether a run that `reproduce` found to differ may be promoted")
    key: str = Field(
        default="", description="Private key to sign with (PEM); empty is the user's own, off signs nothing"
    )

    @model_validator(mode="after")
    def _who_trained_can_be_known(self) -> Self:
        if self.four_eyes and ANYONE in self.makers:
            raise ValueError(
                "four_eyes needs makers that are named (key ids, own): while anyone's results count, whoever trains "
                "may sign with a new key and approve with the old one"
            )
        return self

    def against_maker(self, key: str) -> str:
        """Why a result signed with this key does not count; empty where it does."""
        if not key:
            return "" if self.takes_unsigned else "is unsigned"
        if ANYONE in self.makers or key in self._ids(self.makers):
            return ""
        return f"is signed with key {key}, whose results do not count here (trust.makers names those that do)"

    def against_approver(self, key: str, trainer: str) -> str:
        """Why an approval signed with this key does not count. trainer: the key that the training is signed with."""
        if not self.may_approve(key):
            signed = f"signed with key {key}, which may not approve here; trust.approvers names who may"
            return f"the approval is {signed if key else 'unsigned'}"
        if self.four_eyes and (not key or not trainer):
            return "four eyes are asked for (trust.four_eyes), and training and approval are not both signed"
        if self.four_eyes and key == trainer:
            return f"four eyes are asked for (trust.four_eyes), and {short(key)} both trained and approved"
        return ""

    def may_approve(self, key: str) -> bool:
        """Whether this key is one of the approvers', whoever trained."""
        return key in self._ids(self.approvers) if key else self.takes_unsigned

    @property
    def takes_unsigned(self) -> bool:
        """Said by the policy, or because nothing is signed on this machine."""
        return self.unsigned or not keys.own_id(self.key)

    def resolved(self) -> Resolved:
        """The same policy as another machine can read it, with this machine's key by its id."""
        said = {
            "makers": self._ids(self.makers),
            "approvers": self._ids(self.approvers),
            "unsigned": self.takes_unsigned,
        }
        return Resolved(**{**self.model_dump(exclude={"key"}), **said})

    def _ids(self, names: tuple[str, ...]) -> list[str]:
        ids = [keys.own_id(self.key) if name == OWN else name for name in names]
        return [name for name in ids if name]


class Resolved(Trust):
    """A policy that has come from elsewhere, to a server: no key there is its own, and none is made."""

    makers: tuple[Literal["anyone"] | KeyId, ...] = ()
    approvers: tuple[KeyId, ...] = ()

    @property
    def takes_unsigned(self) -> bool:
        """Said by the policy, and by nothing else."""
        return self.unsigned


def signed_by(statement: Statement) -> str:
    """`signed with key 3f9c12ab01de`, `unsigned`."""
    return f"signed with {short(statement.key)}" if statement.key else "unsigned"
