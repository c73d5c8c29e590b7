# Databricks notebook source
# MAGIC %md
# MAGIC # Introduction
# MAGIC
# MAGIC A model that has read the internet knows what a chair is; it does not know *your* chair. This notebook asks
# MAGIC the base model for a picture, so that you see what it knows before it is taught anything. The next ones read
# MAGIC your photographs, fine-tune the model on them (DreamBooth + LoRA), and serve it.
# MAGIC
# MAGIC Open the folder as a Git folder on a cluster with a GPU. The first cell installs what `requirements.lock`
# MAGIC pins; `profile` and `overrides` are widgets: `{"SEED": 1, "train.rank": 8}` is what `-P` gives on the command
# MAGIC line.

# COMMAND ----------

# MAGIC %pip uninstall --quiet --yes torchvision torchaudio
# MAGIC %pip install --quiet --no-deps --require-hashes -r ../requirements-torch.lock -r ../requirements.lock
# MAGIC %restart_python

# COMMAND ----------

from _notebook import recipe, widget

r = recipe()
print(r.describe())

# COMMAND ----------

# MAGIC %md
# MAGIC ## What the base model draws
# MAGIC
# MAGIC No photograph has been read yet. The same prompt is asked of the tuned model in the last notebook.

# COMMAND ----------

prompt = widget("prompt", "a photo of a chair on the beach")
recipe({"generate.model": "base", "generate.prompt": prompt}).run("generate")
