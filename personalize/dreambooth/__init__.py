"""The method: DreamBooth with LoRA on Stable Diffusion XL. Photographs of subjects in, adapters and pictures out."""
