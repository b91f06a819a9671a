"""Modules (torch/nn/modules/module.py): the tree, the call, forward hooks."""

from collections.abc import Callable, Iterator
from typing import Any


class RemovableHandle:
    def __init__(self, hooks: list[Any], hook: Any) -> None:
        self._hooks, self._hook = hooks, hook

    def remove(self) -> None:
        self._hooks.remove(self._hook)


class Module:
    def __init__(self) -> None:
        self._pre_hooks: list[Callable[..., Any]] = []
        # Each with whether it is also called where the module raises.
        self._hooks: list[tuple[Callable[..., Any], bool]] = []

    def named_children(self) -> Iterator[tuple[str, "Module"]]:
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, "Module"]]:
        yield prefix, self
        for name, child in self.named_children():
            yield from child.named_modules(f"{prefix}.{name}" if prefix else name)

    def register_forward_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        self._pre_hooks.append(hook)
        return RemovableHandle(self._pre_hooks, hook)

    def register_forward_hook(self, hook: Callable[..., Any], *, always_call: bool = False) -> RemovableHandle:
        self._hooks.append((hook, always_call))
        return RemovableHandle(self._hooks, self._hooks[-1])

    def forward(self, *args: Any) -> Any:
        raise NotImplementedError

    def __call__(self, *args: Any) -> Any:
        for pre in list(self._pre_hooks):
            changed = pre(self, args)
            if changed is not None:
                args = changed if isinstance(changed, tuple) else (changed,)
        hooks = list(self._hooks)
        try:
            result = self.forward(*args)
        except Exception:
            for hook, always in hooks:
                if always:
                    hook(self, args, None)
            raise
        for hook, _ in hooks:
            changed = hook(self, args, result)
            if changed is not None:
                result = changed
        return result


class ModuleList(Module):
    def __init__(self, modules: list[Module]) -> None:
        super().__init__()
        self._list = modules

    def named_children(self) -> Iterator[tuple[str, Module]]:
        return ((str(number), module) for number, module in enumerate(self._list))

    def __getitem__(self, number: int) -> Module:
        return self._list[number]

    def __iter__(self) -> Iterator[Module]:
        return iter(self._list)
