"""What the hub's repositories hold at the commits of profiles/gpu.yaml, by name.

SDXL 1.0 (its last commit, 30 October 2023) and BLIP large: as their pages listed them in June 2025. CLIP ViT-B/32 and
DINO ViT-S/16: what clients have fetched from main, and the `model.safetensors` of the conversion that is pinned; no
listing of that very commit was at hand. DINOv2 base, Qwen3-VL 2B and CLIPSeg: the files that transformers reads, as
clients have fetched them.
"""

from collections.abc import Sequence

import numpy as np

SDXL = """
.gitattributes 01.png LICENSE.md README.md comparison.png model_index.json pipeline.png
scheduler/scheduler_config.json sd_xl_base_1.0.safetensors sd_xl_base_1.0_0.9vae.safetensors
sd_xl_offset_example-lora_1.0.safetensors text_encoder/config.json text_encoder/flax_model.msgpack
text_encoder/model.fp16.safetensors text_encoder/model.onnx text_encoder/model.safetensors
text_encoder/openvino_model.bin text_encoder/openvino_model.xml text_encoder_2/config.json
text_encoder_2/flax_model.msgpack text_encoder_2/model.fp16.safetensors text_encoder_2/model.onnx
text_encoder_2/model.onnx_data text_encoder_2/model.safetensors text_encoder_2/openvino_model.bin
text_encoder_2/openvino_model.xml tokenizer/merges.txt tokenizer/special_tokens_map.json
tokenizer/tokenizer_config.json tokenizer/vocab.json tokenizer_2/merges.txt tokenizer_2/special_tokens_map.json
tokenizer_2/tokenizer_config.json tokenizer_2/vocab.json unet/config.json unet/diffusion_flax_model.msgpack
unet/diffusion_pytorch_model.fp16.safetensors unet/diffusion_pytorch_model.safetensors unet/model.onnx
unet/model.onnx_data unet/openvino_model.bin unet/openvino_model.xml vae/config.json
vae/diffusion_flax_model.msgpack vae/diffusion_pytorch_model.fp16.safetensors
vae/diffusion_pytorch_model.safetensors vae_1_0/config.json vae_1_0/diffusion_pytorch_model.fp16.safetensors
vae_1_0/diffusion_pytorch_model.safetensors vae_decoder/config.json vae_decoder/model.onnx
vae_decoder/openvino_model.bin vae_decoder/openvino_model.xml vae_encoder/config.json vae_encoder/model.onnx
vae_encoder/openvino_model.bin vae_encoder/openvino_model.xml
""".split()  # noqa: SIM905

BLIP = """
.gitattributes README.md config.json model.safetensors preprocessor_config.json pytorch_model.bin
special_tokens_map.json tf_model.h5 tokenizer.json tokenizer_config.json vocab.txt
""".split()  # noqa: SIM905

CLIP = """
.gitattributes README.md config.json flax_model.msgpack merges.txt model.safetensors preprocessor_config.json
pytorch_model.bin special_tokens_map.json tf_model.h5 tokenizer.json tokenizer_config.json vocab.json
""".split()  # noqa: SIM905

DINO = """
.gitattributes README.md config.json model.safetensors preprocessor_config.json pytorch_model.bin
""".split()  # noqa: SIM905

DINOV2 = """
.gitattributes README.md config.json model.safetensors preprocessor_config.json pytorch_model.bin
""".split()  # noqa: SIM905

CHAT = """
.gitattributes README.md chat_template.json config.json generation_config.json merges.txt model.safetensors
preprocessor_config.json tokenizer.json tokenizer_config.json video_preprocessor_config.json vocab.json
""".split()  # noqa: SIM905

CLIPSEG = """
.gitattributes README.md config.json merges.txt model.safetensors preprocessor_config.json pytorch_model.bin
special_tokens_map.json tokenizer_config.json vocab.json
""".split()  # noqa: SIM905


def clutter(names: Sequence[str], size: int = 3000) -> dict[str, bytes]:
    """Every file of a listing with bytes of its own; a configuration says nothing."""
    return {
        name: b"{}" if name.endswith(".json") else np.random.default_rng(i).bytes(size) for i, name in enumerate(names)
    }
