"""Every Triton kernel against its reference in Triton's interpreter; run by test_interpreter.py in a new process.

bfloat16 is left out: the interpreter's dot product of it is silently wrong.
"""

import torch
from cases import Case, attention_cases, close, norm_cases, poisoned, write_cases
from hypothesis import HealthCheck, given, settings

from ponder_kernels import rms_norm, write_kv

few = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))


@few
@given(attention_cases())
def test_paged_attention_equals_its_reference(case: Case) -> None:
    if case.scales is None:
        case.pages[case.unused] = torch.nan  # nobody may read what no page table names
    with poisoned():
        found = case.kernel()
    close(found, case.reference())


@few
@given(attention_cases(longest=300, head_dims=(16,), family=True))
def test_a_family_has_the_same_bits_grouped_and_ungrouped(case: Case) -> None:
    with poisoned():
        together = case.kernel(share=True, batch_invariant=True, leaf_tokens=32, leaves_per_block=4)
        apart = case.kernel(share=False, batch_invariant=True, leaf_tokens=32, leaves_per_block=4)
    assert torch.equal(together, apart)
    close(together, case.reference())


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
