"""Databricks: the only place that imports `databricks.sdk`.

- `workspace`, `sign_in`, `renewal`: the way in, its first words, and credentials that child processes renew.
- `setup`, `volumes`: catalog, schema and volume; folders to and from volumes. `mlflow run . -e setup`
- `uploads`, `registration`: large files, and the versions that they make, gone on with where they were cut.
- `backend`, `compute`, `snapshot`, `driver`, `job`: the project as a job. `mlflow run . -b databricks-jobs`
- `preflight`, `governance`: what a job would not find, and may not do, said before compute is started.
- `serving`, `entities`, `readiness`, `request_logs`: an endpoint on Model Serving. `mlflow run . -e deploy`
- `deployment_job`: Evaluation, Approval_Check, Deployment. `mlflow run . -e deployment_job`

docs/databricks.md tells it to users, and what was never checked on a real workspace.
Nothing here has been tried against a real workspace by its tests: they speak through the unmodified SDK and MLflow
clients to `tests/workspace`, which enforces the rules that Databricks documents.
"""
