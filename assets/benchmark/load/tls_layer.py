"""TLS without a socket of its own, so that whoever owns the socket can stamp what the kernel received."""

from __future__ import annotations

import ssl

_READ_BYTES = 65_536


class TlsLayer:
    """One connection's encryption. Bytes from the socket go in by `incoming`, and by `decrypt` once the handshake is done."""

    def __init__(self, context: ssl.SSLContext, *, server_name: str | None = None, server_side: bool = False) -> None:
        """Of a client that asks for `server_name`, or of a server."""
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.ended = False
        self._object = context.wrap_bio(self.incoming, self.outgoing, server_side, server_name)

    def handshake(self) -> bool:
        """Go on with it; True when it is done. What it has to say is in `outgoing`. Raises ssl.SSLError."""
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def encrypt(self, data: bytes) -> bytes:
        """The records to send for `data`."""
        self._object.write(data)
        return self.outgoing.read()

    def decrypt(self, data: memoryview) -> bytes:
        """What `data` completes. Raises ssl.SSLError."""
        self.incoming.write(data)
        pieces: list[bytes] = []
        try:
            while piece := self._object.read(_READ_BYTES):
                pieces.append(piece)
            self.ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.ended = True
        return b"".join(pieces)
