"""What the scheduler wants done in a step (v1/core/sched/output.py)."""

from dataclasses import dataclass, field


@dataclass
class NewRequestData:
    req_id: str
    prompt_token_ids: list[int]


@dataclass
class CachedRequestData:
    """Requests that the worker knows."""

    req_ids: list[str] = field(default_factory=list)
    resumed_req_ids: set[str] = field(default_factory=set)
    num_output_tokens: list[int] = field(default_factory=list)


@dataclass
class SchedulerOutput:
    scheduled_new_reqs: list[NewRequestData]
    scheduled_cached_reqs: CachedRequestData
    # Tokens that go through the model: whole prompts of new requests, one token of each running one.
    num_scheduled_tokens: dict[str, int]
    total_num_scheduled_tokens: int
