"""One thread for torch: the networks of the tests are tiny, and threads that wait for one another
cost more than they compute.
"""

import torch

torch.set_num_threads(1)

LONG = (
    "test_pipeline.py",
    "test_interruption.py",
    "test_any_images.py",
    "test_every_run.py",
)


def pytest_collection_modifyitems(items):
    """The files that take longest first, so that two processes end at about the same time."""
    order = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path.name, len(LONG)))
