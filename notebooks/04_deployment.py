# Databricks notebook source
# MAGIC %md
# MAGIC # Deployment
# MAGIC
# MAGIC The trained model is registered with its card, a person approves it, and an endpoint serves it once it has
# MAGIC painted a picture as asked. What served before serves until then.

# COMMAND ----------

# MAGIC %pip uninstall --quiet --yes torchvision torchaudio
# MAGIC %pip install --quiet --no-deps --require-hashes -r ../requirements-torch.lock -r ../requirements.lock
# MAGIC %restart_python

# COMMAND ----------

from _notebook import recipe, widget

r = recipe()
r.run("register")

# COMMAND ----------

# MAGIC %md
# MAGIC ## Approve
# MAGIC
# MAGIC Who approves, and why, is kept on the version. Without both, or with a gate that failed, this cell says what
# MAGIC is missing.

# COMMAND ----------

approval = {"promote.approved_by": widget("approved_by", ""), "promote.reason": widget("reason", "")}
recipe(approval).run("promote")

# COMMAND ----------

recipe().run("deploy")

# COMMAND ----------

prompt = widget("prompt", "a photo of a chair on the beach")
recipe({"deploy.action": "query", "deploy.prompt": prompt}).run("deploy")
