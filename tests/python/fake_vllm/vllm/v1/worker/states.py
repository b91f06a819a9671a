"""Requests that a model runner knows, and their made-up tokens."""

from vllm.v1.core.sched.output import SchedulerOutput


class Requests:
    def __init__(self, vocabulary: int) -> None:
        self._vocabulary = vocabulary
        # The sum of its prompt, of each.
        self._prompts: dict[str, int] = {}

    def update(self, scheduled: SchedulerOutput) -> None:
        for request in scheduled.scheduled_new_reqs:
            self._prompts[request.req_id] = sum(request.prompt_token_ids)

    def sampled(self, scheduled: SchedulerOutput) -> list[tuple[str, int]]:
        """A new token for each request."""
        cached = scheduled.scheduled_cached_reqs
        so_far = dict(zip(cached.req_ids, cached.num_output_tokens, strict=True))
        return [
            (request, (self._prompts[request] * 31 + so_far.get(request, 0)) % self._vocabulary)
            for request in scheduled.num_scheduled_tokens
        ]
