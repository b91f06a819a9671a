"""Colonel, the GPU profiler that lives inside the process it profiles.

`colonel run -- CMD` records a session; here sessions are read, and regions of a vLLM run are recorded:
`colonel.profiling.vllm.profile_region`.
"""

from colonel.comparison import Comparison, compare
from colonel.errors import (
    CaptureWarning,
    ColonelError,
    NoSessionError,
    NoWorkerError,
    SessionNotFoundError,
    SessionReadError,
)
from colonel.sessions import Session, Window, open
from colonel.summary import Summary
from colonel.version import __version__

__all__ = [
    "CaptureWarning",
    "ColonelError",
    "Comparison",
    "NoSessionError",
    "NoWorkerError",
    "Session",
    "SessionNotFoundError",
    "SessionReadError",
    "Summary",
    "Window",
    "__version__",
    "compare",
    "open",
]
