"""Who asks: personal tokens, service principals (OAuth M2M), users signed in with the CLI, a job's own credentials.

Rules: an unknown or expired token is 403 `Invalid access token` (docs/api/azure/... error codes; seen in SDK error
tests); an OAuth token lasts an hour (docs/dev-tools/auth/oauth-m2m), here as long as `lasts_s` says.
"""

from __future__ import annotations

import base64
import secrets
import time
import urllib.parse
from typing import Any

from tests.workspace.errors import Refused

TOKEN = "emulated-token"
ME = "me@example.com"
GROUPS = {ME: ["users", "designers"]}


class Identity:
    def __init__(self) -> None:
        self.tokens: dict[str, tuple[str, float]] = {TOKEN: (ME, float("inf"))}
        self.principals = {"client-1": ("secret-1", "robot@example.com")}
        self.lasts_s = 3600.0
        self.issued = 0

    def issue(self, principal: str, lasts_s: float | None = None) -> dict[str, Any]:
        """A new OAuth token."""
        lasts = self.lasts_s if lasts_s is None else lasts_s
        token = f"oauth-{secrets.token_hex(8)}"
        self.tokens[token] = (principal, time.time() + lasts)
        self.issued += 1
        return {"access_token": token, "token_type": "Bearer", "expires_in": max(int(lasts), 1)}

    def who(self, header: str | None) -> str:
        principal, until = self.tokens.get((header or "").removeprefix("Bearer "), ("", 0.0))
        if time.time() > until:
            raise Refused(403, "PERMISSION_DENIED", "Invalid access token.")
        return principal

    def oauth(self, path: str, host: str, header: str, data: bytes) -> dict[str, Any]:
        """docs/dev-tools/auth/oauth-m2m: the endpoints that the SDK finds under /oidc."""
        if path.endswith("oauth-authorization-server"):
            return {"authorization_endpoint": f"{host}/oidc/v1/authorize", "token_endpoint": f"{host}/oidc/v1/token"}
        asked = dict(urllib.parse.parse_qsl(data.decode()))
        client, _, secret = base64.b64decode(header.removeprefix("Basic ")).decode().partition(":")
        known, principal = self.principals.get(client, ("", ""))
        if asked.get("grant_type") != "client_credentials" or not known or secret != known:
            raise Refused(401, "invalid_client", "Client authentication failed")
        return self.issue(principal)

    def me(self, principal: str) -> dict[str, Any]:
        groups = [{"display": group} for group in GROUPS.get(principal, ["users"])]
        return {"id": "1", "userName": principal, "groups": groups}
