"""Clients that speak HTTP/2, with TLS and without, and obey GOAWAY to the letter (RFC 9113 §6.8).

Each keeps several requests under way on one connection. After a GOAWAY it opens no stream there any more; those up to
the last stream of the GOAWAY go on, those above it were not processed, by the proxy's own word, and are asked again
elsewhere, as is what was refused with REFUSED_STREAM. Nothing else is asked twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl

import h2.config
import h2.connection
import h2.errors
import h2.events

from perf.soaking.clients import ANSWER_TIMEOUT_SECONDS, Failure, Tally

LANES = 4
"""Requests under way at a time."""

GOAWAY = 7
FRAME_HEAD = 9


class NotProcessed(Exception):
    """The proxy says that it has not touched the request."""


class Ended(Exception):
    """The stream or its connection ended without the whole answer."""


class Http2Client:
    """Asks on LANES streams at a time; targets carry a number, so that each request is known by its own."""

    def __init__(
        self, port: int, target: str, tls: ssl.SSLContext | None, pause_seconds: float, tally: Tally
    ) -> None:
        self._port = port
        self._target = target
        self._tls = tls
        self._pause_seconds = pause_seconds
        self._tally = tally
        self._carrier: Carrier | None = None
        self._connecting = asyncio.Lock()

    async def run(self, stop: asyncio.Event) -> None:
        await asyncio.gather(*(self._lane(number, stop) for number in range(LANES)))
        if self._carrier is not None:
            self._carrier.leave()

    async def _lane(self, lane: int, stop: asyncio.Event) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            await self._ask(f"{self._target}-{lane}-{number}")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), self._pause_seconds)

    async def _ask(self, target: str) -> None:
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_SECONDS):
                while (status := await self._attempt(target)) is None:
                    self._tally.told_unprocessed += 1
        except TimeoutError:
            self._tally.fail(target, Failure.TIMEOUT, "")
        except ConnectionRefusedError as error:
            self._tally.fail(target, Failure.REFUSED, str(error))
        except (OSError, Ended) as error:
            self._tally.fail(target, Failure.CUT, repr(error))
        else:
            if status == 200:
                self._tally.answered.append(target)
            else:
                self._tally.fail(target, Failure.STATUS, str(status))

    async def _attempt(self, target: str) -> int | None:
        """The status of the answer; None where the request was not processed."""
        carrier = await self._connected()
        try:
            return await carrier.ask(target)
        except NotProcessed:
            return None

    async def _connected(self) -> Carrier:
        async with self._connecting:
            if self._carrier is None or self._carrier.is_leaving:
                self._carrier = await Carrier.connect(self._port, self._tls)
                self._tally.connections += 1
            return self._carrier


class Carrier:
    """One connection and the streams on it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        configuration = h2.config.H2Configuration(client_side=True, header_encoding="latin-1")
        self._h2 = h2.connection.H2Connection(configuration)
        self._answers: dict[int, asyncio.Future[int]] = {}
        self._statuses: dict[int, int] = {}
        self._unparsed = b""
        self.is_leaving = False
        """No further request goes here."""
        self._h2.initiate_connection()
        self._flush()
        self._reading = asyncio.create_task(self._read())

    @staticmethod
    async def connect(port: int, tls: ssl.SSLContext | None) -> Carrier:
        carrier = Carrier(*await asyncio.open_connection("127.0.0.1", port, ssl=tls))
        return carrier

    async def ask(self, target: str) -> int:
        stream = self._h2.get_next_available_stream_id()
        answer = self._answers[stream] = asyncio.get_running_loop().create_future()
        pseudo = [(":method", "GET"), (":scheme", "http"), (":authority", "soak"), (":path", target)]
        self._h2.send_headers(stream, pseudo, end_stream=True)
        self._flush()
        return await answer

    def leave(self) -> None:
        """Opens no stream any more, and ends when those that are open have."""
        self.is_leaving = True
        if not self._answers:
            self._writer.close()

    def _flush(self) -> None:
        if not self._writer.is_closing():
            self._writer.write(self._h2.data_to_send())

    async def _read(self) -> None:
        error = Ended("the connection ended")
        try:
            while data := await self._reader.read(1 << 16):
                for event in self._h2.receive_data(self._without_goaways(data)):
                    self._handle(event)
                self._flush()
        except OSError as caught:
            error = Ended(repr(caught))
        self.is_leaving = True
        for stream in list(self._answers):
            self._settle(stream, error)
        self._writer.close()

    def _without_goaways(self, data: bytes) -> bytes:
        """Whole frames for the library, which would refuse every frame after a GOAWAY."""
        self._unparsed += data
        frames = b""
        while len(self._unparsed) >= FRAME_HEAD:
            length = FRAME_HEAD + int.from_bytes(self._unparsed[:3])
            if len(self._unparsed) < length:
                break
            frame, self._unparsed = self._unparsed[:length], self._unparsed[length:]
            if frame[3] == GOAWAY:
                self._said_goodbye(last=int.from_bytes(frame[9:13]))
            else:
                frames += frame
        return frames

    def _said_goodbye(self, last: int) -> None:
        for stream in [stream for stream in self._answers if stream > last]:
            self._settle(stream, NotProcessed())
        self.leave()

    def _handle(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.ResponseReceived():
                self._statuses[event.stream_id] = int(dict(event.headers)[":status"])
            case h2.events.DataReceived() if event.flow_controlled_length:
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.StreamEnded():
                self._settle(event.stream_id, self._statuses.pop(event.stream_id))
            case h2.events.StreamReset():
                is_refused = event.error_code == h2.errors.ErrorCodes.REFUSED_STREAM
                self._settle(event.stream_id, NotProcessed() if is_refused else Ended(f"reset: {event.error_code}"))

    def _settle(self, stream: int, result: int | Exception) -> None:
        answer = self._answers.pop(stream, None)
        if answer is not None and not answer.done():
            answer.set_result(result) if isinstance(result, int) else answer.set_exception(result)
        if self.is_leaving and not self._answers:
            self._writer.close()
