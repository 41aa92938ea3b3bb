from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metadata_server import Ec2, MetadataServer, metadata_server, send

from ponder_worker.parent.notices.clouds.aws import Aws
from ponder_worker.parent.notices.metadata_service import MetadataService, NoAnswer
from ponder_worker.parent.notices.notice import Reason

from .garbage import GARBAGE, STATUSES


@pytest.fixture(scope="module")
def server() -> Iterator[MetadataServer]:
    with metadata_server() as server:
        yield server


@pytest.fixture
def ec2(server: MetadataServer) -> Ec2:
    server.cloud, server.instead = Ec2(), lambda handler: False
    return server.cloud


@pytest.fixture
def aws(server: MetadataServer, ec2: Ec2) -> Aws:
    return Aws(MetadataService(server.url), partial(datetime.now, UTC))


def test_an_instance_is_recognised_by_its_token_and_its_id(aws: Aws, ec2: Ec2) -> None:
    assert asyncio.run(aws.is_here())
    ec2.documents["instance-id"] = "vm-1"
    assert not asyncio.run(aws.is_here())


def test_without_a_notice_there_is_none_and_one_token_is_enough(aws: Aws, ec2: Ec2) -> None:
    assert asyncio.run(aws.look()) is None
    assert asyncio.run(aws.look()) is None
    assert ec2.num_tokens == 1


@pytest.mark.parametrize("action", ["terminate", "stop", "hibernate"])
def test_an_interruption_preempts_and_tells_how_long_before_it_came(aws: Aws, ec2: Ec2, action: str) -> None:
    ec2.preempt(seconds=119.5)
    ec2.documents["spot/instance-action"] = ec2.documents["spot/instance-action"].replace("terminate", action)

    notice = asyncio.run(aws.look())

    assert notice is not None
    assert (notice.reason, notice.source, notice.kind) == (Reason.PREEMPTED, "aws", action)
    assert notice.warning_s is not None
    assert 117 < notice.warning_s < 120
    assert notice.detail == f"aws notice, {notice.warning_s:.0f} s before"


def test_a_recommendation_leaves_time_to_drain_and_an_interruption_goes_first(aws: Aws, ec2: Ec2) -> None:
    ec2.recommend(seconds=1)
    notice = asyncio.run(aws.look())
    assert notice is not None
    assert (notice.reason, notice.kind, notice.detail) == (
        Reason.DRAINED, "rebalance", "aws rebalance recommendation"
    )  # fmt: skip
    assert notice.drain_s > 0

    ec2.preempt(seconds=120)
    notice = asyncio.run(aws.look())
    assert notice is not None
    assert notice.reason is Reason.PREEMPTED


def test_a_recommendation_that_is_older_than_the_worker_is_none(aws: Aws, ec2: Ec2) -> None:
    ec2.recommend(seconds=-60)

    assert asyncio.run(aws.look()) is None


def test_an_expired_token_is_replaced(aws: Aws, ec2: Ec2) -> None:
    assert asyncio.run(aws.look()) is None
    ec2.expire_tokens()
    ec2.preempt(seconds=120)

    assert asyncio.run(aws.look()) is not None
    assert ec2.num_tokens == 2


def test_a_service_that_refuses_every_token_is_no_answer(aws: Aws, ec2: Ec2) -> None:
    ec2.oldest_valid = 1_000

    with pytest.raises(NoAnswer, match="401"):
        asyncio.run(aws.look())


@given(
    status=STATUSES,
    body=GARBAGE
    | st.builds(
        lambda action, time: json.dumps({"action": action, "time": time}).encode(),
        st.sampled_from(["terminate", "none", "", None, 7]),
        st.sampled_from(["", "soon", "08:22:00Z", "2017-09-18T08:22:00", "99999-01-01T00:00:00Z", None, [], 1e400]),
    ),
)
@settings(max_examples=100)
def test_no_bad_answer_is_a_notice(server: MetadataServer, status: int, body: bytes) -> None:
    ec2 = server.cloud = Ec2()
    server.instead = lambda handler: "meta-data" in handler.path and send(handler, (status, {}, body))
    aws = Aws(MetadataService(server.url), partial(datetime.now, UTC))

    try:
        assert asyncio.run(aws.look()) is None
        assert status == 404
    except NoAnswer:
        assert ec2.num_tokens <= 2
