"""Adapters for the CLIP and SAM families."""

from loading import Adapter

ADAPTERS: dict[str, Adapter] = {}
