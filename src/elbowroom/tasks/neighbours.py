"""What the neighbours of a history's items say: a filter over the graph of users and items."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from elbowroom.data.interactions import normalised, ones_of

LEAST = 1e-4  # of what the filter says, where it says nothing
AT_ONCE = 2**22  # users times histories that are held at once, if everybody had something in common


class Neighbours:
    """Log-scores of items by who has what, for histories; `weight` says how much they count beside the model.

    With R = D_u^-1/2 X D_i^-1/2, the interactions X normalised by the users' and items' numbers of them, a history x
    becomes x R'R / sqrt(n): the linear filter of GF-CF (Shen et al. 2021). A model that codes a user in a few hundred
    numbers knows what kind of things go together; this knows which two things do, however rare they are. The sum of
    log-scores is a product of experts (Hinton 2002): what both find likely comes first.
    """

    def __init__(self, matrix: Any, weight: float) -> None:
        self.weight = weight
        self.rows, _ = normalised(matrix)
        self.columns = self.rows.T.tocsr()

    def __call__(self, histories: Any) -> Tensor:
        """What is added to the logits (n, items) of CSR histories (n, items); that of a row depends on it alone."""
        size_of_each = np.maximum(np.diff(histories.indptr), 1).astype(np.float32)
        seen = sparse.diags(size_of_each**-0.5).tocsr() @ ones_of(histories)
        size = max(1, AT_ONCE // max(1, self.rows.shape[0]))
        found = np.empty(seen.shape, np.float32)
        for start in range(0, seen.shape[0], size):
            (seen[start : start + size] @ self.columns @ self.rows).toarray(out=found[start : start + size])
        return torch.from_numpy(found).add_(LEAST).log_().mul_(self.weight)
