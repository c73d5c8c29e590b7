"""What a Databricks runtime gives the SDK: the host, and headers with the job's token of the moment."""

import json
import os
import urllib.request


def init_runtime_native_auth():
    host = os.environ["EMULATED_HOST"]

    def headers():
        with urllib.request.urlopen(f"{host}/runtime-token/{os.environ['EMULATED_RUN']}") as answer:
            return {"Authorization": f"Bearer {json.load(answer)['access_token']}"}

    return host, headers
