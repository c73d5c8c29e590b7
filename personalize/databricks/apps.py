"""Databricks Apps: where the platform wants an app to listen, and how it says who is there.

Sources: https://docs.databricks.com/aws/en/dev-tools/databricks-apps/app-runtime and .../http-headers: the port is in
DATABRICKS_APP_PORT, and the reverse proxy, through which alone an app is reached, sends X-Forwarded-Email of whoever
has signed in.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

SIGNED_IN = "X-Forwarded-Email"


@dataclass(frozen=True)
class AppPlace:
    """host and port to listen on; signed_in_by: the header that names a person."""

    host: str
    port: int
    signed_in_by: str = SIGNED_IN


def app_place() -> AppPlace | None:
    """Where this process should listen as an app, or None where it is none. Raises ValueError for no port."""
    port = os.environ.get("DATABRICKS_APP_PORT", "")
    if not port:
        return None
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"DATABRICKS_APP_PORT is a port between 1 and 65535, not {port!r}")
    return AppPlace("0.0.0.0", int(port))
