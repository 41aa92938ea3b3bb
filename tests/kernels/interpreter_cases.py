"""Every Triton kernel against its reference in Triton's interpreter; run by test_interpreter.py in a new process.

bfloat16 is left out: the interpreter's dot product of it is silently wrong.
"""

import torch
from cases import Case, attention_cases, close, norm_cases, write_cases
from hypothesis import HealthCheck, given, settings

from ponder_kernels import paged_attention, rms_norm, write_kv

few = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@few
@given(attention_cases())
def test_paged_attention_equals_its_reference(case: Case) -> None:
    case.pages[case.unused] = torch.nan  # nobody may read what no page table names
    expected = paged_attention.op_reference(case.q, case.pages, case.where, case.scale)
    found = paged_attention.op_triton(case.q, case.pages, case.where, case.scale)
    close(found, expected)


@few
@given(write_cases())
def test_write_kv_equals_its_reference_and_touches_nothing_else(
    case: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> None:
    kv, pages, slots = case
    expected = pages.clone()
    write_kv.op_reference(kv, expected, slots)
    write_kv.op_triton(kv, pages, slots)
    assert torch.equal(pages, expected)


@few
@given(norm_cases())
def test_rms_norm_equals_its_reference(case: tuple[torch.Tensor, torch.Tensor]) -> None:
    close(rms_norm.op_triton(*case, 1e-5), rms_norm.op_reference(*case, 1e-5))
