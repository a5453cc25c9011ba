"""What goes wrong below us, as errors of ours. What the other side sent is not quoted."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import httpcore2

from app.core.egress.calls import Limits
from app.core.egress.errors import EgressBusy, EgressFailed, EgressTimeout
from app.core.errors import AppError


@contextmanager
def reported(host: str, limits: Limits) -> Iterator[None]:
    """Translates every exception of httpcore2 about a call of `host`."""
    try:
        yield
    except httpcore2.PoolTimeout as error:
        raise EgressBusy("All outgoing connections are in use; try again.") from error
    except httpcore2.TimeoutException as error:
        raise _timeout(error, host, limits) from error
    except httpcore2.ConnectError as error:
        raise EgressFailed(f"No connection to {host!r} could be made: {_why(error)}.") from error
    except httpcore2.ProtocolError as error:
        raise EgressFailed(f"{host!r} did not answer with valid HTTP, or broke off.") from error
    except (httpcore2.NetworkError, ssl.SSLError) as error:  # TLS that breaks later passes untranslated
        raise EgressFailed(f"{host!r} closed the connection before its answer was complete.") from error


def _timeout(error: Exception, host: str, limits: Limits) -> AppError:
    if isinstance(error, httpcore2.ConnectTimeout):
        return EgressTimeout(f"{host!r} accepted no connection within {limits.connect_s:g} s.")
    return EgressTimeout(f"{host!r} stopped reading the request for {limits.idle_s:g} s.")


def _why(error: BaseException | None) -> str:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return f"its TLS certificate was not accepted ({error.verify_message})"
        if isinstance(error, ssl.SSLError):
            return "the TLS handshake failed"
        error = error.__cause__ or error.__context__
    return "it refused, or cannot be reached"
