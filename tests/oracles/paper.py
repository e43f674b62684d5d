"""TIES, DARE, DARE-TIES and KnOTS as the papers' reference notebooks compute them, written anew from the papers.

All modules of an adapter are flattened into one vector, in sorted order of their names; rows are adapters.
Source: TIES https://arxiv.org/abs/2306.01708, DARE https://arxiv.org/abs/2311.03099,
KnOTS https://arxiv.org/abs/2410.19735.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

ABSOLUTE_CUT = 1e-5  # KnOTS drops singular values up to this, whatever the size of the adapters


def keep_largest(rows: Tensor, density: float) -> Tensor:
    """The entries of each row that are at least the (N - floor(density N))-th smallest; one more than asked."""
    total = rows.shape[1]
    smallest = total - int(density * total)
    if density == 1 or smallest == 0:
        return rows
    threshold = rows.abs().kthvalue(smallest, dim=1, keepdim=True).values
    return rows * (rows.abs() >= threshold)


def elect_and_average(rows: Tensor) -> Tensor:
    """Disjoint mean of the entries that agree with the sign of the sum; without one, the overall majority's."""
    sign = rows.sum(dim=0).sign()
    sign[sign == 0] = sign.sum().sign()
    agreeing = torch.where(sign > 0, rows.clamp(min=0), rows.clamp(max=0))
    return agreeing.sum(dim=0) / (agreeing != 0).sum(dim=0).clamp(min=1)


def merge_rows(
    rows: Tensor, method: str, masks: Tensor | None, density: float, trim_density: float
) -> Tensor:
    if method == "linear":
        return rows.sum(dim=0)
    if method == "ties":
        return elect_and_average(keep_largest(rows, density))
    assert masks is not None
    dropped = rows * masks / density
    if method == "dare":
        return dropped.sum(dim=0)
    return elect_and_average(keep_largest(dropped, trim_density))


def paper_merge(
    deltas: Mapping[str, Mapping[str, Tensor]],
    method: str,
    space: str,
    *,
    density: float = 1.0,
    trim_density: float = 1.0,
    scale: float = 1.0,
    masks: Mapping[tuple[str, str], Tensor] | None = None,
) -> dict[str, Tensor]:
    """The merged delta of every module, float64; every adapter has weight 1.

    Args:
        deltas: adapter -> module -> (O, I) float64; all adapters have the same modules.
        masks: (adapter, module) -> True where DARE keeps, in the shape of what is merged.
    """
    names = list(deltas)
    modules = sorted(deltas[names[0]])
    bases, pieces = {}, {}
    for module in modules:
        each = [deltas[name][module] for name in names]
        if space == "delta":
            bases[module], pieces[module] = torch.eye(len(each[0]), dtype=torch.float64), each
        else:
            u, sigma, vt = torch.linalg.svd(torch.cat(each, dim=1), full_matrices=False)
            real = sigma > ABSOLUTE_CUT
            u, sigma, vt = u[:, real], sigma[real], vt[real]
            # the notebooks take the SVD's signs as they come; the largest entry of a column positive is ours
            flip = u.gather(0, u.abs().argmax(dim=0, keepdim=True)).sign()
            bases[module] = u * flip
            pieces[module] = list((flip.T * sigma[:, None] * vt).split(each[0].shape[1], dim=1))
    # float32, as the notebooks hold what they merge
    rows = torch.stack(
        [torch.cat([pieces[m][i].flatten() for m in modules]).float().double() for i in range(len(names))]
    )
    flat = (
        torch.stack([torch.cat([masks[name, m].flatten() for m in modules]).double() for name in names])
        if masks
        else None
    )
    merged = scale * merge_rows(rows, method, flat, density, trim_density)
    parts = merged.split([pieces[m][0].numel() for m in modules])
    return {m: bases[m] @ part.view(pieces[m][0].shape) for m, part in zip(modules, parts, strict=True)}
