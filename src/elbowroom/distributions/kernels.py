"""Products of sparse rows with an item table, and their gradients, with few temporary tensors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from elbowroom.data.sparse import SparseBatch

PART = 512  # stored values per part, so that their table rows fit into the cache


class OwnLogits(torch.autograd.Function):
    """h table' at the stored values of sparse rows, (..., m), in parts, to avoid a tensor (m, width)."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, table: Tensor, x: SparseBatch) -> Tensor:
        """Logits (..., m) of h (..., n, width), a table (items, width) and rows with m stored values."""
        ctx.save_for_backward(h, table)
        ctx.x = x
        parts = [(h.index_select(-2, row) * table[columns]).sum(-1) for _, row, columns in _parts_of(x)]
        return torch.cat(parts, -1) if parts else h.new_zeros(*h.shape[:-2], 0)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        """Gradients of h and of the table."""
        h, table = ctx.saved_tensors
        h_grad, table_grad = torch.zeros_like(h, dtype=grad.dtype), torch.zeros_like(table)
        for at, row, columns in _parts_of(ctx.x):
            slope = grad[..., at].unsqueeze(-1)
            h_grad.index_add_(-2, row, slope * table[columns])
            own = slope * h.index_select(-2, row)
            table_grad.index_add_(0, columns, own.flatten(0, -3).sum(0).to(table.dtype) if own.dim() > 2 else own)
        return h_grad.to(h.dtype), table_grad, None


def _parts_of(x: SparseBatch) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Iterate over parts of the stored values, with their rows and columns."""
    for start in range(0, len(x.columns), PART):
        at = slice(start, start + PART)
        yield at, x.row[at], x.columns[at]


class ItemKernel(torch.autograd.Function):
    """sum x log softmax(h table' + bias) of sparse rows x; its logits (..., items) are overwritten by the gradient."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, table: Tensor, bias: Tensor, x: SparseBatch) -> Tensor:
        """Terms (..., n) of rows of counts, for h (..., n, width), a table (items, width) and biases (items,)."""
        logits = torch.addmm(bias.to(h.dtype), h.flatten(0, -2), table.to(h.dtype).mT).view(*h.shape[:-1], -1)
        top = logits.float().logsumexp(-1) if logits.dtype == torch.bfloat16 else logits.logsumexp(-1)
        ctx.save_for_backward(h, table)
        ctx.logits, ctx.top, ctx.x = logits, top, x
        return x.by_row(x.values.to(top.dtype) * x.at(logits)) - x.sum().to(top.dtype) * top

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """Gradients of h, the table and the biases."""
        h, table = ctx.saved_tensors
        slope, x, top = ctx.logits, ctx.x, ctx.top
        if slope is None:
            raise RuntimeError("the gradient of an item likelihood can be computed only once: it overwrites the logits")
        ctx.logits = None
        slope = slope.sub_(top.unsqueeze(-1)).exp_().mul_((-grad * x.sum().to(grad.dtype)).unsqueeze(-1))
        own = x.values.to(grad.dtype) * grad.index_select(-1, x.row)
        place = x.row * x.features + x.columns
        slope.flatten(-2).index_add_(-1, place, own.to(slope.dtype))
        flat = slope.flatten(0, -2)
        inner = (flat @ table.to(flat.dtype)).view_as(h).to(h.dtype)
        return inner, (flat.mT @ h.flatten(0, -2).to(flat.dtype)).to(table.dtype), flat.sum(0).to(table.dtype), None
