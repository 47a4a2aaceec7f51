"""The metrics of several worker processes, together in every scrape.

Each worker leaves its figures in a file of the folder that they share, every PUBLISH_SECONDS, and
locks it as long as it lives. Whoever is scraped adds all of them up; what a dead worker counted is
moved to one file, exactly once, and its own is removed.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

PUBLISH_SECONDS = 0.5
DEAD_FILE = "dead"
COUNTED = {"counter", "histogram"}

Labels = tuple[tuple[str, str], ...]


class Family(msgspec.Struct, array_like=True):
    """A metric with its samples: (name, labels) and value."""

    name: str
    documentation: str
    kind: str
    samples: list[tuple[str, Labels, float]]


class Figures(msgspec.Struct, array_like=True):
    """What a file holds; ``included`` names the dead workers that it counts."""

    families: list[Family] = []
    included: list[str] = []


class SharedMetrics(Collector):
    """The figures of one worker and, at a scrape, of all."""

    def __init__(self, registry: CollectorRegistry, folder: Path) -> None:
        self._registry = registry
        self._folder = folder
        self._name = f"worker-{os.getpid()}"
        self._decode = msgspec.msgpack.Decoder(Figures).decode
        self._publishing = Lock()
        with self._alone():
            self._held = os.open(folder / f"{self._name}.lock", os.O_WRONLY | os.O_CREAT, 0o600)
            fcntl.flock(self._held, fcntl.LOCK_EX)

    def as_registry(self) -> CollectorRegistry:
        """What a scrape shows."""
        registry = CollectorRegistry()
        registry.register(self)
        return registry

    def publish(self) -> None:
        """Replace this worker's file."""
        with self._publishing:
            families = [_family(metric) for metric in self._registry.collect()]
            self._write(self._name, Figures(families))

    def collect(self) -> Iterable[Metric]:
        """Give the sums over all workers to a scrape."""
        self.publish()
        with self._alone():
            self._bury()
            found = [self._read(path.name) for path in self._folder.glob("worker-*[0-9]")]
            found.append(self._read(DEAD_FILE))
        return map(_metric, _added(found))

    def _bury(self) -> None:
        for path in self._folder.glob("worker-*.lock"):
            if path.stem == self._name or not _is_free(path):
                continue
            dead = self._read(DEAD_FILE)
            if path.stem not in dead.included:
                counted = [f for f in self._read(path.stem).families if f.kind in COUNTED]
                families = _added([dead, Figures(counted)])
                self._write(DEAD_FILE, Figures(families, [*dead.included, path.stem]))
            (self._folder / path.stem).unlink(missing_ok=True)
            path.unlink()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        handle = os.open(self._folder / "scrape.lock", os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _read(self, name: str) -> Figures:
        try:
            return self._decode((self._folder / name).read_bytes())
        except FileNotFoundError:
            return Figures()

    def _write(self, name: str, figures: Figures) -> None:
        staged = self._folder / f".{name}-{os.getpid()}"
        staged.write_bytes(msgspec.msgpack.encode(figures))
        staged.replace(self._folder / name)


def _is_free(path: Path) -> bool:
    handle = os.open(path, os.O_WRONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(handle)
    return True


def _family(metric: Metric) -> Family:
    samples = [(s.name, tuple(s.labels.items()), float(s.value)) for s in metric.samples]
    return Family(metric.name, metric.documentation, metric.type, samples)


def _metric(family: Family) -> Metric:
    metric = Metric(family.name, family.documentation, family.kind)
    for name, labels, value in family.samples:
        metric.add_sample(name, dict(labels), value)
    return metric


def _added(figures: Iterable[Figures]) -> list[Family]:
    """Counts and gauges are sums; what names or dates something is the oldest worker's."""
    families: dict[str, Family] = {}
    sums: dict[str, dict[tuple[str, Labels], float]] = {}
    for family in (family for found in figures for family in found.families):
        families.setdefault(family.name, Family(family.name, family.documentation, family.kind, []))
        samples = sums.setdefault(family.name, {})
        for name, labels, value in family.samples:
            key = name, tuple(sorted(labels))
            if key in samples and name.endswith(("_info", "_created", "_start_time_seconds")):
                samples[key] = min(samples[key], value)
            else:
                samples[key] = samples.get(key, 0.0) + value
    return [
        Family(
            name, family.documentation, family.kind, [(*key, v) for key, v in sums[name].items()]
        )
        for name, family in families.items()
    ]
