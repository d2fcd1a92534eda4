"""Vision transformers of the stitching paper: timm's, with a class token, at 32 px (patches of 4) and 224 px (of 16).

Names and keys are timm's: patch_embed, blocks.0, ..., norm, head; blocks pass (n, 65, d) or (n, 197, d) at 224 px.
Hidden layers are four times as wide as the tokens at every size, also where timm's own giants differ.
"""

from timm.models import VisionTransformer
from torch import nn

# Width of a token, blocks, heads.
SHAPES = {
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "medium": (512, 12, 8),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
    "huge": (1280, 32, 16),
    "giant": (1408, 40, 16),
    "gigantic": (1664, 48, 16),
}


def vit_tiny_patch4_32(classes: int, channels: int, image_size: int) -> nn.Module:
    return _vit("tiny", 4, 32, classes, channels)


def vit_small_patch4_32(classes: int, channels: int, image_size: int) -> nn.Module:
    return _vit("small", 4, 32, classes, channels)


def vit_medium_patch4_32(classes: int, channels: int, image_size: int) -> nn.Module:
    return _vit("medium", 4, 32, classes, channels)


def vit_base_patch4_32(classes: int, channels: int, image_size: int) -> nn.Module:
    return _vit("base", 4, 32, classes, channels)


def vit_large_patch4_32(classes: int, channels: int, image_size: int) -> nn.Module:
    return _vit("large", 4, 32, classes, channels)


def vit_huge_patch4_32(classes: int, channels: int, image_size: int) -> nn.Module:
    return _vit("huge", 4, 32, classes, channels)


def vit_giant_patch4_32(classes: int, channels: int, image_size: int) -> nn.Module:
    return _vit("giant", 4, 32, classes, channels)


def vit_gigantic_patch4_32(classes: int, channels: int, image_size: int) -> nn.Module:
    return _vit("gigantic", 4, 32, classes, channels)


def vit_tiny_patch16_224(classes: int, channels: int, image_size: int) -> nn.Module:
    return _vit("tiny", 16, 224, classes, channels)


def vit_small_patch16_224(classes: int, channels: int, image_size: int) -> nn.Module:
    return _vit("small", 16, 224, classes, channels)


def vit_medium_patch16_224(classes: int, channels: int, image_size: int) -> nn.Module:
    return _vit("medium", 16, 224, classes, channels)


def vit_base_patch16_224(classes: int, channels: int, image_size: int) -> nn.Module:
    return _vit("base", 16, 224, classes, channels)


def vit_large_patch16_224(classes: int, channels: int, image_size: int) -> nn.Module:
    return _vit("large", 16, 224, classes, channels)


def vit_huge_patch16_224(classes: int, channels: int, image_size: int) -> nn.Module:
    return _vit("huge", 16, 224, classes, channels)


def vit_giant_patch16_224(classes: int, channels: int, image_size: int) -> nn.Module:
    return _vit("giant", 16, 224, classes, channels)


def vit_gigantic_patch16_224(classes: int, channels: int, image_size: int) -> nn.Module:
    return _vit("gigantic", 16, 224, classes, channels)


def _vit(size: str, patch: int, image_size: int, classes: int, channels: int) -> nn.Module:
    width, depth, heads = SHAPES[size]
    return VisionTransformer(
        img_size=image_size,
        patch_size=patch,
        in_chans=channels,
        num_classes=classes,
        embed_dim=width,
        depth=depth,
        num_heads=heads,
    )
