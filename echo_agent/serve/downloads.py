"""Recordings that a client names by a URL: fetched from hosts that the operator named, and from nowhere else.

The address that a host's name leads to is looked up once, must be a public one, and is the one that is connected to;
so a name that leads into the private network, now or a moment later, leads nowhere. A redirection is refused.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable
from urllib.parse import urlsplit

import httpx

from echo_agent.errors import RecordingError

PATIENCE = 20.0
"""Seconds that a host may be silent."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def is_private(address: Address) -> bool:
    """Whether an address is not one of the public internet: of this machine, of a local network, or reserved."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    found = mapped or address
    return not found.is_global or found.is_multicast


async def fetch(
    url: str,
    hosts: frozenset[str],
    most: int,
    *,
    refused: Callable[[Address], bool] = is_private,
    transport: httpx.AsyncBaseTransport | None = None,
) -> bytes:
    """Fetch a recording.

    Args:
        url: Where it is.
        hosts: Names of hosts that may be asked, in lower case.
        most: Bytes that are taken.
        refused: Addresses that are not connected to.
        transport: What makes the connection; httpx's own by default.

    Raises:
        RecordingError: It may not, or cannot, be fetched.
    """
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        raise RecordingError("an audio_url is no URL") from None
    if parts.scheme not in ("http", "https") or not host or parts.username or parts.password:
        raise RecordingError("an audio_url begins with https:// or http:// and a host, or with data:")
    if not hosts:
        raise RecordingError("this server fetches nothing: send the recording itself, as input_audio")
    if host not in hosts:
        raise RecordingError(
            f"this server fetches nothing from {host}: send the recording itself, as input_audio"
        )
    port = port or (443 if parts.scheme == "https" else 80)
    address = await _address(host, port, refused)
    netloc = f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
    target = parts._replace(netloc=netloc, fragment="").geturl()
    headers = {"Host": host if parts.port is None else f"{host}:{port}", "Accept": "audio/*, */*;q=0.1"}
    try:
        async with (
            httpx.AsyncClient(
                timeout=PATIENCE, follow_redirects=False, trust_env=False, transport=transport
            ) as client,
            client.stream("GET", target, headers=headers, extensions={"sni_hostname": host}) as response,
        ):
            if response.is_redirect:
                raise RecordingError(f"{host} sends elsewhere, which is not followed: give the final URL")
            if response.status_code != 200:
                raise RecordingError(f"{host} answered {response.status_code} in place of the recording")
            found = bytearray()
            async for chunk in response.aiter_bytes(1 << 16):
                found += chunk
                if len(found) > most:
                    raise RecordingError(
                        f"the recording at {host} is larger than the {most} bytes that are taken"
                    )
            return bytes(found)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise RecordingError(
            f"the recording cannot be fetched from {host}: {type(error).__name__}"
        ) from error


async def _address(host: str, port: int, refused: Callable[[Address], bool]) -> Address:
    """The address of a host; refused where any of its addresses is."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise RecordingError(f"there is no host {host}") from None
    addresses = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
    if not addresses or any(refused(address) for address in addresses):
        raise RecordingError(f"{host} is not on the public internet: nothing is fetched from there")
    return addresses[0]
