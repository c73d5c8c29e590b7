# Databricks notebook source
# MAGIC %md
# MAGIC # Preprocessing
# MAGIC
# MAGIC Photographs in, clean captioned photographs out. Each subject is a folder `<class noun>/<token>/`; the token
# MAGIC is an invented word that the model is to learn. Nothing in your folder is changed.

# COMMAND ----------

# MAGIC %pip uninstall --quiet --yes torchvision torchaudio
# MAGIC %pip install --quiet --no-deps --require-hashes -r ../requirements-torch.lock -r ../requirements.lock
# MAGIC %restart_python

# COMMAND ----------

from _notebook import recipe

r = recipe()
r.run("ingest")

# COMMAND ----------

# MAGIC %md
# MAGIC What could not be used is on the card, with the reason. The captions come next: what a caption says of the
# MAGIC surroundings, the token need not learn.

# COMMAND ----------

r.run("caption")

# COMMAND ----------

r.get_artifact("caption/metadata.jsonl").read_text().splitlines()[:5]
