"""An untrained but audible adapter for tests that need one and do not care what it says."""

from pathlib import Path


def random_adapter(sdxl: Path, folder: Path, rank: int = 4, alpha: float = 2.0, seed: int = 0) -> Path:
    """Writes `pytorch_lora_weights.safetensors` with random weights (both halves, so it does change pictures)."""
    import torch
    from diffusers import StableDiffusionXLPipeline
    from diffusers.training_utils import _collate_lora_metadata
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    from personalize.dreambooth.backbone import load_pipeline

    unet = load_pipeline(sdxl, device="cpu").unet
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=alpha, target_modules=["to_q", "to_k", "to_v", "to_out.0"]))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in unet.named_parameters():
            if "lora_" in name:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.3)
    folder.mkdir(parents=True, exist_ok=True)
    StableDiffusionXLPipeline.save_lora_weights(
        folder,
        unet_lora_layers=get_peft_model_state_dict(unet),
        **_collate_lora_metadata({"unet": unet}),
    )
    return folder
