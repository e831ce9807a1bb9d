"""Data sets that come with the package."""

from __future__ import annotations

import gzip
from importlib.resources import files
from typing import Any

import numpy as np
from scipy import sparse


def msweb() -> Any:
    """Visits of 32,710 users to 285 areas of www.microsoft.com in a week of 1998: a CSR matrix (users, items) of ones.

    Anonymous Microsoft Web Data by J. S. Breese, D. Heckerman and C. M. Kadie, donated to the UCI Machine Learning
    Repository in 1998 and licensed under CC BY 4.0. Ids were replaced by positions.
    """
    packed = files("elbowroom.data").joinpath("msweb.csv.gz").read_bytes()
    pairs = np.array([line.split(b",") for line in gzip.decompress(packed).split()[1:]], dtype=np.int32)
    return sparse.csr_matrix((np.ones(len(pairs), np.float32), pairs.T.copy()))
