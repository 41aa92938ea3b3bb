"""The specs of verifiers."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from ponder.domain.verifier import PLAIN_VERIFIER_NAMES, VERIFIER, VERIFIER_NAMES


@pytest.mark.parametrize("name", VERIFIER_NAMES)
def test_a_verifier_can_be_asked_for_by_its_name_alone_exactly_if_it_needs_no_parameters(name: str) -> None:
    if name in PLAIN_VERIFIER_NAMES:
        assert VERIFIER.validate_python({"name": name}).name == name
    else:
        with pytest.raises(ValidationError):
            VERIFIER.validate_python({"name": name})
