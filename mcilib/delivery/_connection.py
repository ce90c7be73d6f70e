"""The way to an endpoint: certificates, proxies, and connections that nobody can hold up for ever."""

from __future__ import annotations

import base64
import io
import os
import re
import ssl
import time
from dataclasses import dataclass, field
from functools import cache
from http.client import HTTPResponse
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from mcilib.delivery._answers import Endpoint, is_loopback, place_of
from mcilib.errors import ConfigError, DeliveryError

if TYPE_CHECKING:
    from urllib3 import HTTPConnectionPool

_PIECE_BYTES = 16 * 1024
_HOST = re.compile(r"[A-Za-z0-9._:-]{1,253}")
_TUNNEL = re.compile(r"Tunnel connection failed: (\d{3})")
_ALERTS = ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED")


# --- TLS ----------------------------------------------------------------------------------------------------


def trusting(
    ca_file: str | os.PathLike[str] | None,
    *,
    truststore: bool = False,
    client_cert: str | os.PathLike[str] | None = None,
    client_key: str | os.PathLike[str] | None = None,
) -> ssl.SSLContext:
    """Verifies names and chains, TLS 1.2 or later. Raises `DeliveryError` (files), `ConfigError` (options)."""
    if truststore:
        if ca_file is not None:
            raise ConfigError("truststore and ca_file are both given", "Choose one.")
        context = _of_the_system()
    else:
        context = _of_openssl(ca_file)
    if client_cert is not None:
        _show(context, client_cert, client_key)
    elif client_key is not None:
        raise ConfigError(
            "client_key is given without client_cert", "Give the certificate (--client-cert) too."
        )
    return context


def _of_the_system() -> ssl.SSLContext:
    try:
        import truststore
    except ImportError:
        raise ConfigError(
            "truststore is not installed", "Install it: python -m pip install truststore."
        ) from None
    context: ssl.SSLContext = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return context


def _of_openssl(ca_file: str | os.PathLike[str] | None) -> ssl.SSLContext:
    if ca_file is None:
        return ssl.create_default_context()
    name = os.fspath(ca_file)
    try:
        context = ssl.create_default_context(cafile=name)
        # From Python 3.13 on a server's own certificate would do as an authority; older ones refuse it.
        context.verify_flags &= ~ssl.VERIFY_X509_PARTIAL_CHAIN
        return context
    except ssl.SSLError:
        problem = f"{name} holds no certificate in PEM form"
    except OSError as error:
        problem = f"The file of certificates {name} cannot be read ({error.strerror})"
    raise DeliveryError(
        problem, "Give the file of the authority that signed the server's certificate (--ca-file)."
    )


def _show(context: ssl.SSLContext, cert: str | os.PathLike[str], key: str | os.PathLike[str] | None) -> None:
    names = os.fspath(cert) + (f" with {os.fspath(key)}" if key is not None else "")
    try:
        context.load_cert_chain(cert, key, password=lambda: b"")  # else OpenSSL asks on the terminal
        return
    except ssl.SSLError:
        problem = f"{names} is no certificate with its key in PEM form, or the key has a password"
    except OSError as error:
        problem = f"The client certificate {names} cannot be read ({error.strerror})"
    raise DeliveryError(
        problem, "Give a certificate and its key without a password (--client-cert, --client-key)."
    )


def alert_about_our_certificate(error: BaseException) -> bool:
    """Whether the server ended the handshake because of the client certificate, or for want of one."""
    reason = getattr(error, "reason", None) or ""
    return isinstance(error, ssl.SSLError) and "ALERT" in reason and any(word in reason for word in _ALERTS)


# --- proxy --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Proxy:
    """One that tunnels (CONNECT)."""

    host: str
    port: int
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    """For the proxy alone: credentials."""

    @classmethod
    def parse(cls, text: str) -> Proxy:
        """Raises `ConfigError`, whose message repeats nothing: credentials may be in it."""
        try:
            url = urlsplit(text if "://" in text else f"http://{text}")
            host, port = url.hostname or "", url.port
            pair = f"{unquote(url.username or '')}:{unquote(url.password or '')}".encode()
        except ValueError:
            pass
        else:
            if url.scheme == "http" and _HOST.fullmatch(host) and url.path in ("", "/"):
                basic = {"Proxy-Authorization": f"Basic {base64.b64encode(pair).decode()}"}
                return cls(host, port or 80, {} if url.username is None else basic)
        raise ConfigError("The proxy is not an http address", "Give one like http://proxy.example.org:3128.")

    @property
    def place(self) -> str:
        return f"the proxy {place_of(self.host, self.port)}"


def proxy_of_environment(endpoint: Endpoint) -> Proxy | None:
    """By HTTPS_PROXY (or ALL_PROXY) and NO_PROXY, or what stands for them on this system; none for loopback."""
    from urllib.request import getproxies, proxy_bypass

    if not endpoint.secure or is_loopback(endpoint.host):
        return None
    proxies = getproxies()
    text = proxies.get("https") or proxies.get("all")
    if not text or proxy_bypass(f"{endpoint.host}:{endpoint.port}"):
        return None
    return Proxy.parse(text)


def status_of_proxy(error: BaseException) -> int | None:
    """The status by which a proxy refused to make a tunnel."""
    found = _TUNNEL.search(str(error)) if isinstance(error, OSError) else None
    return int(found[1]) if found else None


# --- connections --------------------------------------------------------------------------------------------


class _Until(io.RawIOBase):
    """Reads from a socket until a moment, however few bytes come at a time."""

    def __init__(self, sock: Any) -> None:
        self._sock, self._raw = sock, sock.makefile("rb", buffering=0)
        self._timeout_s = sock.gettimeout()
        self._ends_s = time.monotonic() + self._timeout_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        left_s = self._ends_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        self._sock.settimeout(left_s)
        read: int | None = self._raw.readinto(buffer)
        return read

    def close(self) -> None:
        if not self.closed:
            try:
                if self._sock.fileno() >= 0:
                    self._sock.settimeout(self._timeout_s)  # the connection may be used again
            finally:
                self._raw.close()
                super().close()


class _Response(HTTPResponse):
    """Its head and body together take no longer than the socket's timeout at its beginning."""

    def __init__(self, sock: Any, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.fp.close()
        self.fp = io.BufferedReader(_Until(sock))


@cache
def _connection_classes() -> tuple[type, type]:
    """For http and for https."""
    from urllib3.connection import HTTPConnection, HTTPSConnection

    class Bounded:
        response_class = _Response
        sock: Any
        timeout: float
        _ends_s = float("inf")

        def request(self, *args: Any, **options: Any) -> None:
            self._ends_s = time.monotonic() + self.timeout
            super().request(*args, **options)  # type: ignore[misc]

        def send(self, data: Any) -> None:
            if self.sock is None or not isinstance(data, bytes):
                super().send(data)  # type: ignore[misc]
                return
            for at in range(0, len(data), _PIECE_BYTES):
                left_s = min(self._ends_s - time.monotonic(), self.timeout)
                if left_s <= 0:
                    raise TimeoutError
                self.sock.settimeout(left_s)
                try:
                    super().send(data[at : at + _PIECE_BYTES])  # type: ignore[misc]
                except ssl.SSLEOFError:  # closed: what the server said before that can still be read
                    raise BrokenPipeError from None

        def _tunnel(self) -> None:
            self._ends_s = float("inf")  # not that of the request before
            try:
                super()._tunnel()  # type: ignore[misc]
            except BaseException:
                self.close()  # type: ignore[attr-defined]  # so urllib3 takes it for a failure of the proxy
                raise

    class Http(Bounded, HTTPConnection):  # type: ignore[misc]
        pass

    class Https(Bounded, HTTPSConnection):  # type: ignore[misc]
        pass

    return Http, Https


def open_pool(
    endpoint: Endpoint, tls: ssl.SSLContext | None, timeout_s: float, proxy: Proxy | None
) -> HTTPConnectionPool:
    """One kept connection. Connecting, sending and the answer take at most `timeout_s` each."""
    import urllib3  # when first used: importing it costs more than all of mcilib

    common: dict[str, Any] = {
        "timeout": urllib3.Timeout(connect=timeout_s, read=timeout_s),
        "maxsize": 1,
        "retries": False,
    }
    pool: HTTPConnectionPool
    if not endpoint.secure:
        pool = urllib3.HTTPConnectionPool(endpoint.host, endpoint.port, **common)
    elif proxy is None:
        pool = urllib3.HTTPSConnectionPool(endpoint.host, endpoint.port, ssl_context=tls, **common)
    else:
        manager = urllib3.ProxyManager(
            f"http://{place_of(proxy.host, proxy.port)}",
            proxy_headers=proxy.headers,
            ssl_context=tls,
            **common,
        )
        pool = manager.connection_from_host(endpoint.host, endpoint.port, "https")
    pool.ConnectionCls = _connection_classes()[endpoint.secure]
    return pool
