"""A Databricks workspace on loopback, for the unmodified SDK and MLflow clients.

It keeps the rules that Databricks documents, so that breaking one fails here as it would there; each rule names where
it is from. One file a service: `identity`, `catalog`, `files`, `registry`, `jobs`, `serving`; `server` speaks HTTP and
breaks down on request (`Workspace.faults`). `docs` below stands for docs.databricks.com, `SDK` for databricks-sdk
0.156, `cli` for the Databricks CLI's own test server (databricks/cli, libs/testserver).
"""

from tests.workspace.errors import Refused
from tests.workspace.identity import ME, TOKEN
from tests.workspace.server import Fault, Workspace, emulated

__all__ = ["ME", "TOKEN", "Fault", "Refused", "Workspace", "emulated"]
