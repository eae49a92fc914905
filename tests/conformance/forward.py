"""A forwarder that adds a token to every request, because the suite cannot be told to send one.

Each request head gets one more line, `Authorization: Bearer …`; every other byte passes as it comes, both ways and at
once, and where one side ends a connection the other side's is ended too.
"""

import asyncio
from asyncio import StreamReader, StreamWriter
from contextlib import suppress

# Bytes that are read at once.
PIECE = 64 * 1024
HEAD_END = b"\r\n\r\n"


class Forwarder:
    """Listens on a free loopback port and passes everything on to another."""

    def __init__(self, target: int, token: str) -> None:
        self.target = target
        self.line = f"Authorization: Bearer {token}\r\n".encode()

    async def start(self) -> int:
        """Starts to listen; the port."""
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0, limit=PIECE)
        port: int = self.server.sockets[0].getsockname()[1]
        return port

    async def serve(self, client: StreamReader, to_client: StreamWriter) -> None:
        """Passes one connection on until either side ends it."""
        with suppress(ConnectionError):
            gateway, to_gateway = await asyncio.open_connection("127.0.0.1", self.target)
            halves = [
                asyncio.create_task(self.requests(client, to_gateway)),
                asyncio.create_task(answers(gateway, to_client)),
            ]
            await asyncio.wait(halves, return_when=asyncio.FIRST_COMPLETED)
            for half in halves:
                half.cancel()
            await asyncio.gather(*halves, return_exceptions=True)
            to_gateway.close()
        to_client.close()

    async def requests(self, client: StreamReader, to_gateway: StreamWriter) -> None:
        """Passes requests on, each with its token."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await client.readuntil(HEAD_END)
                first, rest = head.split(b"\r\n", 1)
                to_gateway.write(first + b"\r\n" + self.line + rest)
                await body(client, to_gateway, headers(rest))


async def answers(gateway: StreamReader, to_client: StreamWriter) -> None:
    """Passes bytes on until there are no more."""
    with suppress(ConnectionError):
        while piece := await gateway.read(PIECE):
            to_client.write(piece)
            await to_client.drain()


def headers(lines: bytes) -> dict[bytes, bytes]:
    """The headers of a head, names in lower case."""
    pairs = (line.split(b":", 1) for line in lines.split(b"\r\n") if b":" in line)
    return {name.lower(): value.strip() for name, value in pairs}


async def body(client: StreamReader, to_gateway: StreamWriter, head: dict[bytes, bytes]) -> None:
    """Passes one body on, as it comes."""
    if head.get(b"transfer-encoding", b"").lower() != b"chunked":
        return await exactly(int(head.get(b"content-length", b"0")), client, to_gateway)
    size = -1
    while size != 0:
        line = await client.readuntil(b"\r\n")
        to_gateway.write(line)
        size = int(line.split(b";")[0], 16)
        # The last chunk has no data, and there are no trailers.
        await exactly(size + 2, client, to_gateway)


async def exactly(count: int, client: StreamReader, to_gateway: StreamWriter) -> None:
    while count > 0:
        piece = await client.read(min(count, PIECE))
        if not piece:
            raise ConnectionResetError
        to_gateway.write(piece)
        await to_gateway.drain()
        count -= len(piece)
    await to_gateway.drain()
