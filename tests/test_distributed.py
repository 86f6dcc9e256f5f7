"""Shards, agreement and errors between processes; test_interruption.py trains in two."""

import os
import socket
from pathlib import Path

import pytest
import torch
from torch import nn

from capsnet.data.batches import evaluation_batches, training_draws
from capsnet.learning.device import choose_device
from capsnet.learning.distributed import Distributed, init_distributed
from capsnet.learning.resume import SavedState
from capsnet.learning.training import Progress, Trainer
from capsnet.nn.compact import CompactCapsNet
from tests.training import SHIFTED, TASK, make_digits, make_model, make_trainer


def test_a_batch_that_cannot_be_sharded_is_refused():
    with pytest.raises(ValueError, match=r"batch of 4 images .* batch_size that 3 divides"):
        Distributed(rank=0, size=3).shard(torch.zeros(4))


def test_more_processes_than_gpus_is_a_line(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setenv("LOCAL_RANK", "4")
    with pytest.raises(ValueError, match=r"has 4 .* none for process 4: .* --nproc-per-node 4"):
        choose_device()


def in_two_processes(function, *arguments) -> None:
    """Call it with the rank, the arguments and a port."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(function, (*arguments, port), nprocs=2)


def join(rank: int, port: int):
    """Join the other of two processes."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}
    os.environ |= {"MASTER_PORT": str(port)}
    return init_distributed(torch.device("cpu"))


def load_state(rank: int, folder: Path, port: int) -> None:
    """One of two processes, each with a folder of its own for states; only rank 0 has a state."""
    torch.manual_seed(rank)
    model = nn.Linear(2, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    with join(rank, port) as distributed:
        trainer = Trainer(model, optimizer, compose=None, compute_losses=None, learning_rate=None)
        trainer.distributed = distributed
        trainer.progress = Progress(step=7 if rank == 0 else 0)
        saved = SavedState(folder / str(rank), "mnist", {}, every=0)
        saved.save_if_due(trainer)
        saved.load(trainer)
        found = distributed.gather([(trainer.progress.step, model.weight.detach())])
        distributed.agree("steps", trainer.progress.step)
        with pytest.raises(ValueError, match="the processes have different ranks: give all"):
            distributed.agree("ranks", distributed.rank)
    (one, first), (other, second) = found
    assert one == other == 7 and torch.equal(first, second)


def test_machines_that_share_no_disk_resume_from_the_same_state(tmp_path):
    in_two_processes(load_state, tmp_path)
    assert not (tmp_path / "1").exists()


def train_compact(rank: int, port: int) -> None:
    """One of two processes. Their shards differ, so batch normalization sees other numbers."""
    digits = make_digits()
    with join(rank, port) as distributed:
        trainer = make_trainer(make_model(CompactCapsNet), digits, distributed=distributed)
        draws = training_draws(digits, range(4), seed=1, batch_size=8, **SHIFTED)

        def examples(last: bool):
            return evaluation_batches(digits, seed=0, num_examples=20, batch_size=5, **TASK)

        [record] = trainer.fit(
            draws,
            num_steps=4,
            num_intervals=1,
            validation_batches=examples,
            train_eval_batches=examples,
        )
        state = distributed.gather([trainer.model.state_dict()])
        assert record.validation_error == record.training_error
        errors = distributed.gather([(record.loss, record.validation_error)])
    assert errors[0] == errors[1]
    assert all(torch.equal(state[0][name], state[1][name]) for name in state[0])


def test_processes_share_batch_statistics():
    """After training all have the same weights and running statistics, those of rank 0."""
    in_two_processes(train_compact)
