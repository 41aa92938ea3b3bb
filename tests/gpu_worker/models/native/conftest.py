import pytest
import torch

from ponder_worker.models.native.library import library


@pytest.fixture(scope="session")
def compiler() -> None:
    """Skip a test where the C code cannot be compiled."""
    if library(torch.float32) is None:
        pytest.skip("no C compiler")
