"""What all tests share."""

import pytest
import torch


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Let initialisers, which draw from the global generator, give a test the same weights alone and in any order."""
    torch.manual_seed(0)
