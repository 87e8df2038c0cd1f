"""Muon for the layers' matrices and AdamW for the rest, on float32 copies of the bfloat16 weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

MATRIX_RATE, OTHER_RATE = 0.02, 0.004
MATRIX_DECAY, MOMENTUM = 0.02, 0.95
WARM_UP_STEPS = 60
FLAT_SHARE = 0.25  # of the run, before the rate falls


def rate(step: int, done: float) -> float:
    """The share of the full learning rate at a step, when `done` (0 to 1) of the run is over."""
    fall = 1.0 if done < FLAT_SHARE else max(0.0, 1 - (done - FLAT_SHARE) / (1 - FLAT_SHARE))
    return min(1.0, (step + 1) / WARM_UP_STEPS) * max(fall, 0.005)


def orthogonalized(matrices: Tensor) -> Tensor:
    """The nearest orthogonal matrices, roughly: five Newton-Schulz steps on [count, rows, columns].

    Keller Jordan's Muon (https://kellerjordan.github.io/posts/muon/), with all layers' matrices at once.
    """
    x = matrices.bfloat16()
    if wide := x.shape[1] > x.shape[2]:
        x = x.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return x.mT if wide else x


class Muon:
    """Momentum steps of orthogonal direction, for equally shaped matrices together."""

    def __init__(self, matrices: dict[str, Tensor]) -> None:
        shapes: dict[torch.Size, dict[str, Tensor]] = {}
        for name, matrix in matrices.items():
            shapes.setdefault(matrix.shape, {})[name] = matrix
        self.groups = [list(group.values()) for group in shapes.values()]
        self.momenta = [torch.zeros(len(group), *group[0].shape) for group in self.groups]
        self.momenta = [m.to(group[0].device) for m, group in zip(self.momenta, self.groups, strict=True)]

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """One update from the matrices' gradients."""
        for group, momentum in zip(self.groups, self.momenta, strict=True):
            gradient = torch.stack([_gradient(matrix) for matrix in group])
            momentum.lerp_(gradient, 1 - MOMENTUM)
            direction = orthogonalized(gradient.lerp_(momentum, MOMENTUM))
            rows, columns = direction.shape[1:]
            scale = learning_rate * max(1.0, rows / columns) ** 0.5
            for matrix, towards in zip(group, direction.unbind(), strict=True):
                matrix.mul_(1 - learning_rate * MATRIX_DECAY).add_(towards, alpha=-scale)


def _gradient(parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


class Optimizer:
    """Steps float32 copies and writes them back to the network, which computes in bfloat16."""

    def __init__(self, network: nn.Module) -> None:
        self.named = dict(network.named_parameters())
        self.copies = {name: p.detach().float().clone().requires_grad_() for name, p in self.named.items()}
        is_matrix = {name: copy.dim() == 2 and "embedding" not in name for name, copy in self.copies.items()}
        self.muon = Muon({name: copy for name, copy in self.copies.items() if is_matrix[name]})
        self.others = [copy for name, copy in self.copies.items() if not is_matrix[name]]
        self.adam = torch.optim.AdamW(self.others, lr=OTHER_RATE, betas=(0.9, 0.95), weight_decay=0.0, fused=True)

    def step(self, share: float) -> None:
        """One update from the network's gradients at a share of the full rates; clears the gradients."""
        for name, parameter in self.named.items():
            self.copies[name].grad = parameter.grad.float() if parameter.grad is not None else None
            parameter.grad = None
        torch.nn.utils.clip_grad_norm_(self.others, 1.0)
        self.muon.step(MATRIX_RATE * share)
        for group in self.adam.param_groups:
            group["lr"] = OTHER_RATE * share
        self.adam.step()
        self._write_back()

    @torch.no_grad()
    def _write_back(self) -> None:
        for name, parameter in self.named.items():
            parameter.copy_(self.copies[name])

    def state(self) -> dict[str, Any]:
        """Everything needed to go on."""
        return {"copies": self.copies, "momenta": self.muon.momenta, "adam": self.adam.state_dict()}

    @torch.no_grad()
    def load(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        copies: dict[str, Tensor] = state["copies"]
        for name, copy in self.copies.items():
            copy.copy_(copies[name])
        for momentum, saved in zip(self.muon.momenta, state["momenta"], strict=True):
            momentum.copy_(saved)
        self.adam.load_state_dict(state["adam"])
        self._write_back()
