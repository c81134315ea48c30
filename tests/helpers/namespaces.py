"""Hosts of a network that is made for a test: network namespaces, each with an address, at one bridge. Needs root."""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import shutil
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_NEW_NETWORK = 0x40000000  # CLONE_NEWNET


def enter(namespace: str) -> None:
    """Take this process to a host."""
    with open(f"/run/netns/{namespace}") as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), _NEW_NETWORK):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))


def why_not() -> str:
    """Say why there can be no such network; empty if there can."""
    if os.geteuid() != 0:
        return "needs root to make network namespaces"
    if shutil.which("ip") is None:
        return "needs `ip`, of iproute2"
    name = f"multispool-{secrets.token_hex(3)}"
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False)
    if tried.returncode != 0:
        return "needs to be allowed to make network namespaces"
    subprocess.run(["ip", "netns", "del", name], check=True)
    return ""


def _ip(*words: str, at: str = "") -> None:
    subprocess.run(["ip", *(["-n", at] if at else []), *words], check=True, capture_output=True)


class Network:
    """Some hosts, and what joins them, which is none of them."""

    def __init__(self, hosts: int) -> None:
        """Make them, with the addresses 10.77.0.1 and so on."""
        self._mark = secrets.token_hex(2)
        self._made = contextlib.ExitStack()
        self.hosts: list[str] = []
        """Their names."""
        self._bridge = self._namespace("b")
        _ip("link", "add", "bridge", "type", "bridge", at=self._bridge)
        _ip("link", "set", "bridge", "up", at=self._bridge)
        for number in range(1, hosts + 1):
            host = self._namespace(f"h{number}")
            self.hosts.append(host)
            _ip("link", "add", f"to{number}", "type", "veth", "peer", "name", "eth", "netns", host, at=self._bridge)
            _ip("link", "set", f"to{number}", "master", "bridge", at=self._bridge)
            _ip("link", "set", f"to{number}", "up", at=self._bridge)
            _ip("address", "add", f"{self.address(host)}/24", "dev", "eth", at=host)
            _ip("link", "set", "eth", "up", at=host)
            _ip("link", "set", "lo", "up", at=host)

    def _namespace(self, kind: str) -> str:
        name = f"multispool-{self._mark}-{kind}"
        _ip("netns", "add", name)
        _ = self._made.callback(_ip, "netns", "del", name)
        return name

    def address(self, host: str) -> str:
        """Return a host's address."""
        return f"10.77.0.{self.hosts.index(host) + 1}"

    def cut_off(self, host: str) -> None:
        """Pull the plug of a host: nothing is told to anybody."""
        _ip("link", "set", f"to{self.hosts.index(host) + 1}", "down", at=self._bridge)

    def join(self, host: str) -> None:
        """Put it back."""
        _ip("link", "set", f"to{self.hosts.index(host) + 1}", "up", at=self._bridge)

    def close(self) -> None:
        """Remove everything."""
        self._made.close()


@contextlib.contextmanager
def network(hosts: int) -> Iterator[Network]:
    """Yield a network, which is removed at the end."""
    made = Network(hosts)
    try:
        yield made
    finally:
        made.close()
