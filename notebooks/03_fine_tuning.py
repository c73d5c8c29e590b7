# Databricks notebook source
# MAGIC %md
# MAGIC # Fine-tuning
# MAGIC
# MAGIC One LoRA adapter for all subjects. Class images are drawn first, so that a chair stays a chair; what is kept
# MAGIC of the training is the checkpoint most like the photographs that still hears the rest of the prompt. What is
# MAGIC done already is not run again.

# COMMAND ----------

# MAGIC %pip uninstall --quiet --yes torchvision torchaudio
# MAGIC %pip install --quiet --no-deps --require-hashes -r ../requirements-torch.lock -r ../requirements.lock
# MAGIC %restart_python

# COMMAND ----------

from _notebook import recipe

r = recipe()
print(r.plan())

# COMMAND ----------

r.run("train")

# COMMAND ----------

# MAGIC %md
# MAGIC ## Is it good?
# MAGIC
# MAGIC Base and tuned model draw the same prompts from the same seeds. The card is what a design team judges; its
# MAGIC gates are what promotion asks for.

# COMMAND ----------

r.run("evaluate")
