"""Muon for the layers' matrices and AdamW for the rest, on float32 copies of the bfloat16 weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

MATRIX_RATE, OTHER_RATE = 0.02, 0.004
WARM_UP_STEPS = 60
FLAT_SHARE = 0.25  # of the run, before the rate falls


def rate(step: int, done: float) -> float:
    """The share of the full learning rate at a step, when `done` (0 to 1) of the run is over."""
    fall = 1.0 if done < FLAT_SHARE else max(0.0, 1 - (done - FLAT_SHARE) / (1 - FLAT_SHARE))
    return min(1.0, (step + 1) / WARM_UP_STEPS) * max(fall, 0.005)


class Optimizer:
    """Steps float32 copies and writes them back to the network, which computes in bfloat16."""

    def __init__(self, network: nn.Module) -> None:
        self.named = dict(network.named_parameters())
        self.copies = {name: p.detach().float().clone().requires_grad_() for name, p in self.named.items()}
        matrices = [copy for name, copy in self.copies.items() if copy.dim() == 2 and "embedding" not in name]
        others = [copy for name, copy in self.copies.items() if copy.dim() != 2 or "embedding" in name]
        self.muon = torch.optim.Muon(matrices, lr=MATRIX_RATE, weight_decay=0.02, momentum=0.95)
        self.adam = torch.optim.AdamW(others, lr=OTHER_RATE, betas=(0.9, 0.95), weight_decay=0.0)

    def step(self, share: float) -> None:
        """One update from the network's gradients at a share of the full rates; clears the gradients."""
        for name, parameter in self.named.items():
            self.copies[name].grad = parameter.grad.float() if parameter.grad is not None else None
            parameter.grad = None
        torch.nn.utils.clip_grad_norm_(self.copies.values(), 1.0)
        for optimizer, full in ((self.muon, MATRIX_RATE), (self.adam, OTHER_RATE)):
            for group in optimizer.param_groups:
                group["lr"] = full * share
            optimizer.step()  # type: ignore[no-untyped-call]
        self._write_back()

    @torch.no_grad()
    def _write_back(self) -> None:
        for name, parameter in self.named.items():
            parameter.copy_(self.copies[name])

    def state(self) -> dict[str, Any]:
        """Everything needed to go on."""
        return {"copies": self.copies, "muon": self.muon.state_dict(), "adam": self.adam.state_dict()}

    @torch.no_grad()
    def load(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        copies: dict[str, Tensor] = state["copies"]
        for name, copy in self.copies.items():
            copy.copy_(copies[name])
        self.muon.load_state_dict(state["muon"])
        self.adam.load_state_dict(state["adam"])
        self._write_back()
