"""NVTX ranges (torch/cuda/nvtx.py), pushed by the `nvtx` package's own library instead of torch's."""

# Ranges pushed so far, and those open now. The real one counts nothing.
pushed = 0
names: list[str] = []


def range_push(msg: str) -> int:
    import nvtx

    global pushed
    pushed += 1
    names.append(msg)
    nvtx.push_range(msg)
    return len(names) - 1


def range_pop() -> int:
    import nvtx

    names.pop()
    nvtx.pop_range()
    return len(names)
