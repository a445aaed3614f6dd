"""Networks: backbones by name, heads, a small convnet and a Vision Transformer to read."""

from sslcourse.nn.backbones import backbone
from sslcourse.nn.convnet import ConvNet
from sslcourse.nn.heads import projection_head
from sslcourse.nn.vit import ViT

__all__ = ["ConvNet", "ViT", "backbone", "projection_head"]
