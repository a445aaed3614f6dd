"""Adapters for the family of SAM: MobileSAM, HQ-SAM, FastSAM, Grounded-SAM, matting."""

from loading import Adapter

ADAPTERS: dict[str, Adapter] = {}
