"""MXFP4, the format of the gpt-oss release: 4-bit floats in blocks of 32 with a shared power-of-two scale."""

import torch

VALUES = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
BLOCK = 32


def quantize(weight):
    """Packs `weight` [..., in] into blocks [..., in/32, 16] and scales [..., in/32], both uint8."""
    blocks = weight.float().unflatten(-1, (-1, BLOCK))
    largest = blocks.abs().amax(-1).clamp_min(2.0**-120)
    # The block's largest value falls in [4, 8), and rounds to at most 6, the format's maximum.
    exponent = torch.floor(torch.log2(largest)) - 2
    scaled = blocks / torch.exp2(exponent)[..., None]
    nearest = (scaled.abs()[..., None] - VALUES).abs().argmin(-1)
    codes = nearest + 8 * (scaled < 0)
    packed = codes[..., 0::2] | (codes[..., 1::2] << 4)  # the even element is the low nibble
    return packed.to(torch.uint8), (exponent + 127).to(torch.uint8)


def dequantize(blocks, scales):
    """Unpacks blocks and scales into f32 values [..., in]."""
    table = torch.cat([VALUES, -VALUES])
    codes = torch.stack([blocks & 15, blocks >> 4], dim=-1).flatten(-2).long()
    return (table[codes] * torch.exp2(scales.float() - 127)[..., None]).flatten(-2)
