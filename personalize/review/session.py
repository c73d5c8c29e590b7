"""One evaluation under review: what its pages ask, and the only place that changes anything."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from personalize.cards.links import parts
from personalize.review import agreement, approval
from personalize.review.approval import ApprovalError, Evidence
from personalize.review.pairs import Material, Shown, order_for
from personalize.review.votes import CHOICES, Book, Vote, digest

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner

LOOK_AGAIN_S = 30.0
SHARE_OF_TIME = 0.05
"""Whether all is as it was is asked no oftener than that, and takes no more than this share of the time."""
LONGEST_S = 600.0
"""A pair that lay open for longer was left alone, so that its seconds say nothing."""
MOST_PIXELS = 1024


class Changed(ApprovalError):
    """What a page was made from is not what there is now; nothing was kept."""


@dataclass
class Session:
    """verdict: of the gates, recomputed; notice: says what people should know now, such as a newer challenger.

    asked_at: when the last page was answered, on the monotonic clock; signer: the key that a decision is signed with.
    """

    title: str
    material: Material
    evidence: Evidence
    book: Book
    verdict: str
    reasons: Sequence[str]
    notice: Callable[[], str] = lambda: ""
    decision: dict[str, Any] | None = None
    signer: CryptoSigner | None = None
    decided_here: threading.Event = field(default_factory=threading.Event)
    asked_at: float = 0.0
    _orders: dict[str, list[Shown]] = field(default_factory=dict)
    _look_again: float = 0.0
    _changed: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    # What is asked.

    def order(self, voter: str) -> list[Shown]:
        key = voter.casefold()
        if key not in self._orders:
            self._orders[key] = order_for(voter, self.material)
        return self._orders[key]

    def next_for(self, voter: str) -> tuple[Shown | None, int, int]:
        """The first pair that the voter has not answered (None when all are), how many are, and of how many."""
        order = self.order(voter)
        answered = [self.book.has(voter, shown.pair.id) for shown in order]
        waiting = next((shown for shown, done in zip(order, answered, strict=True) if not done), None)
        return waiting, sum(answered), len(order)

    def shown(self, voter: str, pair: str) -> Shown | None:
        return next((shown for shown in self.order(voter) if shown.pair.id == pair), None)

    def picture(self, voter: str, pair: str, which: str) -> bytes | None:
        """`left`, `right` or the number of a reference photograph of a pair, as WebP without any of its file's data."""
        shown = self.shown(voter, pair)
        if shown is None:
            return None
        if which in ("left", "right"):
            return encoded(getattr(shown, which).path)
        references = shown.pair.references
        return encoded(references[int(which)]) if which.isdecimal() and int(which) < len(references) else None

    # What people say.

    def vote(self, voter: str, pair: str, choice: str, key: str, seconds: float | None) -> bool:
        """Keep a vote at once; False where this voter's first answer to the pair stands.

        Raises Changed where the page belongs to another evaluation, to one that has changed, or voting is closed.
        """
        self._refuse_stale(key)
        if self.decided_here.is_set():
            raise Changed(
                "A decision has been made and voting is closed. Your earlier votes are counted; this one is not."
            )
        shown = self.shown(voter, pair)
        if shown is None or choice not in CHOICES:
            raise Changed("That pair is not in this review. Nothing was counted.")
        asked, at = shown.pair, datetime.now(UTC).isoformat(timespec="milliseconds")
        return self.book.add(
            Vote(
                voter=voter,
                pair=asked.id,
                kind=asked.kind,
                subject=asked.token,
                prompt=asked.prompt,
                seed=asked.seed,
                left=shown.left.what,
                right=shown.right.what,
                choice=choice,
                worth=shown.worth(choice),
                at=at,
                seconds=seconds if seconds is not None and 0 <= seconds <= LONGEST_S else None,
                evaluation=self.evidence.key,
            )
        )

    def counted(self) -> tuple[list[Vote], int]:
        """The votes on this evaluation's pairs, and how many there are on others (against an earlier champion, say)."""
        votes = self.book.votes()
        known = {shown.pair.id for shown in self.order("")}
        here = [vote for vote in votes if vote.evaluation == self.evidence.key and vote.pair in known]
        return here, len(votes) - len(here)

    def results(self) -> dict[str, Any]:
        votes, elsewhere = self.counted()
        return {**agreement.summary(votes), "elsewhere": elsewhere, "has_champion": bool(self.material.champion)}

    def decide(self, decision: approval.Decision, by: str, reason: str, key: str, votes_seen: str) -> dict[str, Any]:
        """Keep a decision. Raises ApprovalError: nobody or no reason, gates that did not pass; Changed: look again."""
        self._refuse_stale(key, now=True)
        if decision == "approved" and self.verdict != "passed":
            raise ApprovalError(
                f"The gates say {self.verdict}, and an approval does not stand in for them; only a rejection is kept."
            )
        with self._lock:
            if not self.book.deliver():
                raise ApprovalError(
                    f"{len(self.book.waiting)} votes have not reached MLflow yet; they are safe in {self.book.folder}. "
                    "Try again when it answers."
                )
            now = approval.gather(self.evidence.run_id, self.evidence.card.address, self._train_run)
            if now.votes_sha256 != votes_seen:
                raise Changed("Votes have come since this page was made. Look at the results again, then decide.")
            self.decision = approval.decide(now, decision, by, reason, "review page", self.signer)
            self.decided_here.set()
        return self.decision

    def votes_digest(self) -> str:
        """Of the votes as they lie on this disk, which is what a page shows."""
        return digest(list(self.book.folder.glob("*.json")))

    @property
    def _train_run(self) -> str:
        return parts(self.evidence.model.address)[0]

    def _refuse_stale(self, key: str, now: bool = False) -> None:
        if key != self.evidence.key:
            raise Changed(
                "This page was made for another model or another evaluation than the one under review now. Nothing was "
                "counted; what you answered there before is kept with it."
            )
        begun = time.monotonic()
        if now or begun >= self._look_again:
            papers = approval.papers(self.evidence.run_id, self.evidence.card.address, self._train_run)
            self._changed = approval.changes(asdict(self.evidence), papers)
            took = time.monotonic() - begun  # a large model in a far store is not fetched for every vote
            self._look_again = begun + max(LOOK_AGAIN_S, took / SHARE_OF_TIME)
        if changed := self._changed:
            raise Changed(
                f"The evaluation has changed since this review began: {'; '.join(changed)}. Nothing was counted; "
                "start the review again."
            )


def encoded(path: Path) -> bytes:
    """A picture for the page: at most `MOST_PIXELS` a side, every file alike, so that nothing but the picture tells."""
    from PIL import Image, ImageOps

    with Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened).convert("RGB")
    image.thumbnail((MOST_PIXELS, MOST_PIXELS), Image.Resampling.LANCZOS)
    clean, buffer = Image.new("RGB", image.size), io.BytesIO()
    clean.paste(image)
    clean.save(buffer, "WEBP", quality=95, method=2)
    return buffer.getvalue()
