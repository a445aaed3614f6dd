"""What a method remembers of every image of the training set, whose number it learns from the data."""

from typing import Any

import torch
from torch import Tensor, nn


class Memory(nn.Module):
    """A tensor that checkpoints hold whatever its size: it takes the size of what is stored or loaded.

    Attributes:
        value: empty at first.
    """

    value: Tensor

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.register_buffer("value", torch.empty(0, dtype=dtype))

    def store(self, value: Tensor) -> None:
        """Remember a copy of `value`."""
        self.value = value.detach().to(self.value.dtype).clone()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        found = state_dict.get(f"{prefix}value")
        if found is not None:
            self.value = torch.empty_like(found, device=self.value.device, dtype=self.value.dtype)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
