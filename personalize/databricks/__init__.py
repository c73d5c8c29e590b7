"""Databricks: the only place that imports `databricks.sdk`.

- `serving`: an endpoint on Model Serving. `mlflow run . -e deploy -P profile=databricks`
- `volumes`: folders to and from Unity Catalog volumes, for photographs and base models.
- `backend`: `mlflow run . --backend databricks-jobs --backend-config cluster.json` runs the project as a job.

Credentials come from where the Databricks SDK looks: `DATABRICKS_HOST` and `DATABRICKS_TOKEN`, a service principal's
`DATABRICKS_CLIENT_ID` and `DATABRICKS_CLIENT_SECRET`, a profile of ~/.databrickscfg, or the workspace one runs in.
Nothing here has been tried against a real workspace by its tests: they speak through the unmodified SDK and MLflow
clients to `tests/workspace`, which enforces the rules that Databricks documents.
"""
