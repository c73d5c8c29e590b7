"""The pages of a review, as an ASGI application: a name, pairs to vote on, results and a decision, the card.

They work without scripts (a script adds the arrow keys), load nothing from elsewhere, and every form says which
evaluation it was made for. Who somebody is: the name given once on this machine, or, behind a platform that signs
people in, the header it sends; it is believed only where `signed_in_by` names it, since anybody can send one.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

import jinja2
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from personalize.cards.page import POLICY as CARD_POLICY
from personalize.review import approval
from personalize.review.agreement import CHECKS_THAT_TELL
from personalize.review.approval import ApprovalError
from personalize.review.session import Changed, Session
from personalize.review.votes import tidy_name

TEMPLATES = Path(__file__).with_name("templates")
POLICY = (
    "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
NAME, WEEK_S = "reviewer", 7 * 86400
MOST_BYTES = 16_384


def application(session: Session, hosts: list[str], signed_in_by: str = "") -> Starlette:
    """The app of one review. hosts: names it answers to (`*` for all). signed_in_by: header with a person's name."""
    pages = Pages(session, signed_in_by)
    app = Starlette(
        routes=[
            Route("/", pages.start),
            Route("/", pages.enter, methods=["POST"]),
            Route("/vote", pages.vote),
            Route("/vote", pages.voted, methods=["POST"]),
            Route("/pictures/{pair}/{which}", pages.picture),
            Route("/results", pages.results),
            Route("/results", pages.decided, methods=["POST"]),
            Route("/card", pages.card),
            Route("/review.css", _asset("review.css", "text/css")),
            Route("/review.js", _asset("review.js", "text/javascript")),
            Route("/favicon.ico", lambda request: Response(status_code=204)),
        ],
        exception_handlers={404: pages.lost, Changed: pages.changed},
    )
    app.add_middleware(BaseHTTPMiddleware, dispatch=pages.guarded)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)
    return app


def _from_here(request: Request) -> bool:
    """Browsers say where a form came from; what says nothing is no browser, and has no cookie to abuse."""
    if site := request.headers.get("sec-fetch-site"):
        return site in ("same-origin", "none")
    origin = request.headers.get("origin")
    hosts = (request.headers.get("host"), request.headers.get("x-forwarded-host"))
    return origin is None or urlsplit(origin).netloc in hosts


def _asset(name: str, kind: str) -> Callable[[Request], Response]:
    def asset(request: Request) -> Response:
        return Response((TEMPLATES / name).read_bytes(), media_type=kind)

    return asset


async def _form(request: Request) -> dict[str, str]:
    """The fields of a form, the last value of each. Raises Changed where it is too long or unreadable."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BYTES:
            raise Changed("That is too long to be a form of this page. Nothing was changed.")
    try:
        fields = parse_qs(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=20)
    except ValueError as error:
        raise Changed("That form cannot be read. Nothing was changed.") from error
    return {name: values[-1] for name, values in fields.items()}


class Pages:
    """What each address answers."""

    def __init__(self, session: Session, signed_in_by: str) -> None:
        self.session = session
        self.signed_in_by = signed_in_by
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(TEMPLATES),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.template = environment.get_template

    async def guarded(self, request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        """Forms from other sites are refused; every answer says what its page may do."""
        if request.method == "POST" and not _from_here(request):
            return PlainTextResponse("This form was sent from another site. Nothing was changed.", 403)
        response = await answer(request)
        response.headers.setdefault("Content-Security-Policy", POLICY)
        response.headers.setdefault("Cache-Control", "no-store")
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "same-origin"
        self.session.asked_at = time.monotonic()
        return response

    # Who.

    def voter(self, request: Request) -> str:
        """The person's name, empty where it is not known."""
        if self.signed_in_by:
            return tidy_name(request.headers.get(self.signed_in_by, ""))
        return tidy_name(unquote(request.cookies.get(NAME, "")))

    def page(self, request: Request, name: str, status: int = 200, **content: Any) -> Response:
        session = self.session
        text = self.template(f"{name}.html.j2").render(
            title=session.title,
            voter=self.voter(request),
            signed_in=bool(self.signed_in_by),
            key=session.evidence.key,
            notice=session.notice(),
            decision=session.decision,
            waiting=len(session.book.waiting),
            at=request.url.path,
            **content,
        )
        return HTMLResponse(text, status)

    # Pages.

    def start(self, request: Request) -> Response:
        total = len(self.session.order(""))
        return self.page(request, "start", verdict=self.session.verdict, total=total, checks=CHECKS_THAT_TELL)

    async def enter(self, request: Request) -> Response:
        name = tidy_name((await _form(request)).get("name", ""))
        response = RedirectResponse("/vote" if name else "/", 303)
        if name and not self.signed_in_by:
            response.set_cookie(NAME, quote(name), max_age=WEEK_S, httponly=True, samesite="strict")
        return response

    def vote(self, request: Request) -> Response:
        voter = self.voter(request)
        if not voter:
            return self._unknown(request)
        if self.session.decided_here.is_set():
            return self.page(
                request, "message", heading="Voting is closed", text="A decision has been made.", status=200
            )
        shown, done, total = self.session.next_for(voter)
        if shown is None:
            text = f"You have answered all {total} pairs. Thank you."
            return self.page(request, "message", heading="That was the last pair", text=text)
        again = "again" in request.query_params
        return self.page(request, "vote", shown=shown, done=done, total=total, again=again, now=int(time.time() * 1000))

    async def voted(self, request: Request) -> Response:
        form = await _form(request)
        voter = self.voter(request)
        if not voter:
            return await run_in_threadpool(self._unknown, request)
        pair, choice, key = (form.get(name, "") for name in ("pair", "choice", "key"))
        new = await run_in_threadpool(
            self.session.vote, voter, pair, choice, key, _seconds_since(form.get("shown", ""))
        )
        return RedirectResponse("/vote" if new else "/vote?again", 303)

    def picture(self, request: Request) -> Response:
        pair, which = request.path_params["pair"], request.path_params["which"]
        voter = self.voter(request)
        content = self.session.picture(voter, pair, which) if voter else None
        if content is None:
            return PlainTextResponse("There is no such picture in this review.", 404)
        return Response(content, media_type="image/webp", headers={"Cache-Control": "private, max-age=600"})

    def results(self, request: Request) -> Response:
        return self._results(request)

    async def decided(self, request: Request) -> Response:
        form = await _form(request)
        by = self.voter(request) if self.signed_in_by else form.get("by", "")
        decision: approval.Decision = "approved" if form.get("decision") == "approve" else "rejected"
        try:
            if form.get("decision") not in ("approve", "reject"):
                raise ApprovalError("say which: approve or reject")
            arguments = by, form.get("reason", ""), form.get("key", ""), form.get("votes", "")
            await run_in_threadpool(self.session.decide, decision, *arguments)
        except ApprovalError as error:
            status = 409 if isinstance(error, Changed) else 400
            return await run_in_threadpool(self._results, request, status, str(error), by, form.get("reason", ""))
        return RedirectResponse("/results", 303)

    def card(self, request: Request) -> Response:
        """The card, byte for byte as its digest says, under its own policy."""
        content = approval.content(self.session.evidence.card.address, "evaluation card")
        return Response(content, media_type="text/html", headers={"Content-Security-Policy": CARD_POLICY})

    def _results(
        self, request: Request, status: int = 200, complaint: str = "", by: str = "", reason: str = ""
    ) -> Response:
        session = self.session
        session.book.fetch()
        return self.page(
            request,
            "results",
            status,
            found=session.results(),
            verdict=session.verdict,
            reasons=session.reasons,
            evidence=session.evidence,
            votes=session.votes_digest(),
            complaint=complaint[:1].upper() + complaint[1:],
            by=by or self.voter(request),
            reason=reason,
        )

    # What went wrong.

    def _unknown(self, request: Request) -> Response:
        """Nobody's vote is none: ask for the name."""
        if self.signed_in_by:
            text = f"The platform did not say who you are (header {self.signed_in_by}). Nothing was counted."
            return self.page(request, "message", 401, heading="Who are you?", text=text)
        return RedirectResponse("/", 303)

    def lost(self, request: Request, error: Exception) -> Response:
        return self.page(request, "message", 404, heading="There is no such page", text="The review is one step back.")

    def changed(self, request: Request, error: Exception) -> Response:
        return self.page(request, "message", 409, heading="This page is out of date", text=str(error))


def _seconds_since(shown: str) -> float | None:
    return round(time.time() - int(shown) / 1000, 1) if shown.isdecimal() and len(shown) < 16 else None
