import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Small networks gain nothing from more threads, and lose much where others run beside them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
