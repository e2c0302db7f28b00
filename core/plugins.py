"""Loads plugins, and checks what they register: the only place for their names, order and conflicts."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import logging
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy
from pydantic import BaseModel

from . import hookspecs
from .config.options import options_model, validate_options
from .errors import PluginError
from .names import STRATEGIES
from .system.files import resolve_path
from .tasks.table import BUILT_IN, TASKS
from .tasks.task import Task, to_task

log = logging.getLogger("residency")

BUILT_IN_STRATEGIES = (
    f"{STRATEGIES}.persistent",
    f"{STRATEGIES}.on_demand",
    f"{STRATEGIES}.lru_cached",
    f"{STRATEGIES}.cached",
    f"{STRATEGIES}.keep_alive",
)
STRATEGY_MEMBERS = {  # with their parameters, as in `core.contracts.LoadingStrategy`
    "start": ("models",),
    "requested": ("model_id", "now"),
    "loaded": ("model", "reason", "now"),
    "keep": ("model", "now"),
    "evict": ("candidates", "now"),
    "unloaded": ("model", "reason", "now"),
    "explain": ("model", "now"),
    "state": (),
    "restore": ("state",),
}
PRICE_OPTIONS = ("memory_gib_hour", "cpu_hour", "latency_hour")  # options that are filled from `cost`
MAIN_ROUTE = "/predict"
KEBAB = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


@dataclass(frozen=True)
class Registered:
    """A strategy or a loader that a plugin has registered."""

    cls: type[Any]
    kind: str
    source: str
    options: type[BaseModel]

    @property
    def name(self) -> str:
        return str(self.cls.name)

    @property
    def route(self) -> str:
        """Where a strategy is mounted."""
        return str(getattr(self.cls, "route", f"/predict-{self.name}"))

    @property
    def is_main(self) -> bool:
        """Whether a strategy owns `POST /predict`."""
        return self.route == MAIN_ROUTE

    @property
    def summary(self) -> str:
        """The first line of the class's docstring."""
        return (self.cls.__doc__ or "").strip().partition("\n")[0]

    def with_prices(self, options: Mapping[str, Any], prices: Mapping[str, Any]) -> dict[str, Any]:
        """The options, filled with the prices that the strategy has options for and that are left out."""
        filled = {name: prices[name] for name in PRICE_OPTIONS if name in prices and name in self.options.model_fields}
        return {**filled, **options}

    def validate(self, options: dict[str, Any]) -> dict[str, Any]:
        """The options with their types and defaults. Raises OptionError."""
        return validate_options(self.options, options, f"{self.kind} '{self.name}'")


@dataclass(frozen=True)
class Plugins:
    """The strategies, loaders and tasks of all plugins, by name, in order of registration."""

    manager: pluggy.PluginManager
    strategies: dict[str, Registered] = field(default_factory=dict)
    loaders: dict[str, Registered] = field(default_factory=dict)
    tasks: dict[str, Task] = field(default_factory=lambda: {task.name: task for task in BUILT_IN})

    def strategy(self, name: str) -> Registered:
        """Raises PluginError, which lists the known names."""
        return _get(self.strategies, name, "strategy")

    def loader(self, name: str) -> Registered:
        """Raises PluginError, which lists the known names."""
        return _get(self.loaders, name, "loader")


def load_plugins(requested: Sequence[str] = ()) -> Plugins:
    """Load built-in plugins, then installed ones (entry points), then the `requested` modules and `.py` files.

    Raises PluginError if two plugins use one name, or a requested plugin is broken. An installed plugin that is broken
    is left out with a warning.
    """
    plugins = Plugins(pluggy.PluginManager(hookspecs.PROJECT))
    plugins.manager.add_hookspecs(hookspecs)
    for module in _built_in_plugins():
        _register(plugins, module, "built in")
    for point in sorted(entry_points(group=hookspecs.PROJECT), key=lambda point: point.name):
        _add_installed(plugins, point)
    for name in requested:
        module, source = _import_requested(name)
        if not plugins.manager.is_registered(module):
            _register(plugins, module, source)
    return plugins


def _built_in_plugins() -> list[ModuleType]:
    """The plugins of this package, in order. They are imported here, because not every command needs them."""
    from .loaders import transformers
    from .loaders.mapped import loader as mapped
    from .loaders.onnxruntime import loader as onnxruntime
    from .loaders.openvino import loader as openvino
    from .loaders.subprocess import loader as subprocess
    from .residency import load_log

    # By name, because they are beside this package in a checkout, and in it where it is installed.
    strategies = [importlib.import_module(name) for name in BUILT_IN_STRATEGIES]
    return [*strategies, transformers, onnxruntime, openvino, mapped, subprocess, load_log]


def _add_installed(plugins: Plugins, point: EntryPoint) -> None:
    source = f"{point.dist.name} {point.dist.version}" if point.dist else point.value
    try:
        module = point.load()
    except (Exception, SystemExit) as error:  # a third party's import can fail in any way
        log.warning("Plugin '%s' (%s) is left out: %s: %s", point.name, source, type(error).__name__, error)
        return
    if plugins.manager.is_registered(module):
        return  # two entry points for one module
    try:
        _register(plugins, module, source)
    except _Conflict:
        raise
    except PluginError as error:
        log.warning("Plugin '%s' is left out: %s", point.name, error)


def _import_requested(name: str) -> tuple[ModuleType, str]:
    path = resolve_path(name, Path.cwd())
    try:
        if not name.endswith(".py"):
            module = importlib.import_module(name)
            print(f"Running the code of plugin {name}: {module.__file__}", file=sys.stderr)
            return module, name
        if not path.is_file():
            raise PluginError(f"Plugin '{name}' cannot be imported: there is no file {path}.")
        print(f"Running the code of plugin {path}", file=sys.stderr)
        return _import_file(path), str(path)
    except PluginError:
        raise
    except (Exception, SystemExit) as error:
        raise PluginError(f"Plugin '{name}' cannot be imported: {type(error).__name__}: {error}") from error


def _import_file(path: Path) -> ModuleType:
    """Import a file once, under a name that no installed module can have."""
    name = f"residency_plugin:{path}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


class _Conflict(PluginError):
    """Two plugins use one name. This is an error for installed plugins, too."""


def _register(plugins: Plugins, module: Any, source: str) -> None:
    """Register a plugin with its strategies, loaders and tasks, or nothing of it if a part is wrong."""
    manager = plugins.manager
    try:
        manager.register(module)
        _check_hooks(manager, module, source)
        strategies = _collect(manager, "register_strategies", module, source, _check_strategy)
        loaders = _collect(manager, "register_loaders", module, source, _check_loader)
        for known, new in ((plugins.strategies, strategies), (plugins.loaders, loaders)):
            _check_conflicts(known, new)
        tasks = _collect_tasks(plugins, module, source)
    except Exception as error:  # a third party's classes can be of any kind
        if manager.is_registered(module):
            manager.unregister(module)
        if isinstance(error, PluginError):
            raise
        raise PluginError(f"Plugin {source}: {type(error).__name__}: {error}") from error
    plugins.strategies.update((entry.name, entry) for entry in strategies)
    plugins.loaders.update((entry.name, entry) for entry in loaders)
    plugins.tasks.update(tasks)
    TASKS.update(tasks)


def _check_hooks(manager: pluggy.PluginManager, module: Any, source: str) -> None:
    known = sorted(name for name in vars(hookspecs) if name.startswith(("register_", "after_")))
    callers = manager.get_hookcallers(module)
    if not callers:
        raise PluginError(
            f"Plugin {source} has no hook: mark a function with pluggy.HookimplMarker('{hookspecs.PROJECT}')."
            f" The hooks are {', '.join(known)}."
        )
    for caller in callers:
        if not caller.has_spec():
            raise PluginError(f"Plugin {source}: there is no hook '{caller.name}'. The hooks are {', '.join(known)}.")


def _collect(
    manager: pluggy.PluginManager, hook: str, module: Any, source: str, check: Callable[[type[Any], str], Registered]
) -> list[Registered]:
    found: list[Registered] = []
    for cls in _call(manager, hook, module, source):
        entry = check(cls, source)
        _check_conflicts({other.name: other for other in found}, [entry])
        found.append(entry)
    return found


def _collect_tasks(plugins: Plugins, module: Any, source: str) -> dict[str, Task]:
    found: dict[str, Task] = {}
    for row in _call(plugins.manager, "register_tasks", module, source):
        try:
            task = to_task(row)
        except ValueError as error:
            raise PluginError(f"Plugin {source}: {error}.") from error
        if not isinstance(task.name, str) or not KEBAB.fullmatch(task.name):
            raise PluginError(
                f"Plugin {source}: the name {task.name!r} of a task must be in kebab-case, such as 'tag'."
            )
        if task.name in plugins.tasks or task.name in found:
            raise _Conflict(f"Plugin {source} provides a task named '{task.name}', which there is already: rename it.")
        found[task.name] = task
    return found


def _call(manager: pluggy.PluginManager, hook: str, module: Any, source: str) -> list[Any]:
    """What the plugin's implementations of the hook return. Raises PluginError."""
    found: list[Any] = []
    for implementation in getattr(manager.hook, hook).get_hookimpls():
        if implementation.plugin is not module:
            continue
        try:
            found += implementation.function()
        except (Exception, SystemExit) as error:  # a third party's code can fail in any way
            raise PluginError(f"Plugin {source}: {hook}() failed: {type(error).__name__}: {error}") from error
    return found


def _check_strategy(cls: type[Any], source: str) -> Registered:
    if callable(getattr(cls, "acquire", None)):
        raise PluginError(
            f"Plugin {source}: {cls.__name__} has a method acquire, which belongs to an older contract. A strategy now"
            " only decides, in optional members such as def keep(self, model, now): return 0.0, and is constructed"
            " without models, as in def __init__(self, *, option: int = 1)."
        )
    entry = _check_class(cls, "strategy", source, methods=())
    for member, arguments in STRATEGY_MEMBERS.items():
        _check_member(entry, member, arguments)
    return entry


def _check_loader(cls: type[Any], source: str) -> Registered:
    return _check_class(cls, "loader", source, methods=("size", "load"))


def _check_class(cls: type[Any], kind: str, source: str, *, methods: Sequence[str]) -> Registered:
    name = getattr(cls, "name", None)
    if not isinstance(cls, type):
        raise PluginError(f"Plugin {source} must return {kind} classes, but returned {cls!r}.")
    if not isinstance(name, str) or not KEBAB.fullmatch(name):
        raise PluginError(f"Plugin {source}: {cls.__name__}.name must be in kebab-case, such as 'my-{kind}'.")
    missing = [method for method in methods if not callable(getattr(cls, method, None))]
    if missing:
        raise PluginError(f"Plugin {source}: {kind} '{name}' has no method {' and no method '.join(missing)}.")
    try:
        return Registered(cls, kind, source, options_model(cls))
    except PluginError as error:
        raise PluginError(f"Plugin {source}: {error}") from error


def _check_member(entry: Registered, member: str, arguments: Sequence[str]) -> None:
    """Raise PluginError if the member cannot be called with the parameters of the contract."""
    found = inspect.getattr_static(entry.cls, member, None)
    if found is None:
        return
    form = f"def {member}({', '.join(('self', *arguments))})"
    try:
        inspect.signature(getattr(entry.cls, member)).bind(*("self", *arguments))
    except (TypeError, ValueError):
        raise PluginError(
            f"Plugin {entry.source}: {member} of the strategy '{entry.name}' must have the form {form}."
        ) from None


def _check_conflicts(known: dict[str, Registered], new: Sequence[Registered]) -> None:
    for entry in new:
        if other := known.get(entry.name):
            raise _Conflict(
                f"Two plugins provide a {entry.kind} named '{entry.name}': {other.source} and {entry.source}."
                " Rename one, or uninstall one."
            )


def _get(known: dict[str, Registered], name: str, kind: str) -> Registered:
    if name not in known:
        raise PluginError(f"There is no {kind} '{name}'. Known: {', '.join(known)}.")
    return known[name]
