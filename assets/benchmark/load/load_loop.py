"""The loop that puts load on a server: one thread, one epoll, no framework between the socket and the stamp."""

from __future__ import annotations

import gc
import heapq
import json
import select
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from time import perf_counter_ns, process_time_ns

from assets.benchmark.load.connection import CONNECT_TIMEOUT_S, Connection
from assets.benchmark.load.decode import answer_text
from assets.benchmark.load.endpoint import Address, Endpoint
from assets.benchmark.load.exchange import NO_STAMP, Exchange, TransportFailure
from assets.benchmark.load.plan import Chain, LoadPlan

# Each request's X-Request-Id: the prefix, its chain, and its turn.
REQUEST_ID_PREFIX = "dyno-"
RECEIVE_BYTES = 262_144
# A connection that ends this soon after a request was put on it was being closed already; later, the server has worked on the request.
STALE_WITHIN_NS = 50_000_000
# An open loop keeps this many idle connections in hand, so that an arrival need not wait for one.
SPARE_CONNECTIONS = 8
CPU_WINDOW_NS = 500_000_000
_MAX_WAIT_NS = 1_000_000_000


@dataclass(slots=True)
class LoopReport:
    """What the loop cost. `cpu_share_max` is the busiest half second's share of one core."""

    cpu_s: float = 0.0
    wall_s: float = 0.0
    arrivals: int = 0
    cpu_share_max: float = 0.0
    connections: int = 0
    reused_connections: bool = True


@dataclass(slots=True)
class _Conversation:
    """A chain under way. `answers` are the earlier turns' texts as far as a later turn needs them."""

    index: int
    chain: Chain
    turn: int = 0
    due_ns: int = 0
    answers: list[bytes] = field(default_factory=list)


class LoadLoop:
    """Runs one plan against one endpoint. `on_exchange` gets every exchange as it ends; keep it short.

    `first_chain` and `chain_step` name this process's chains in the whole plan.
    """

    def __init__(
        self, endpoint: Endpoint, plan: LoadPlan, on_exchange: Callable[[Exchange], None], first_chain: int = 0, chain_step: int = 1
    ) -> None:
        """Raises EndpointError where the certificates cannot be read."""
        self.receive_buffer = bytearray(RECEIVE_BYTES)
        self.max_response_bytes = plan.max_response_bytes
        self.report = LoopReport()
        self._endpoint, self._plan, self._sink = endpoint, plan, on_exchange
        self._first_chain, self._chain_step = first_chain, chain_step
        self._tls = endpoint.tls_context()
        self._addresses: list[Address] = []
        # the first of the addresses that may answer: those before it have refused
        self._first_address = 0
        self._connected_once = False
        self._refusals: deque[tuple[str, int]] = deque()
        self._epoll = select.epoll()
        self._connections: dict[int, Connection] = {}
        self._watched: dict[int, Callable[[int], None]] = {}
        self._idle: list[Connection] = []
        self._opening = 0
        self._waiting: deque[_Conversation] = deque()
        self._busy: dict[Connection, _Conversation] = {}
        self._later: list[tuple[int, int, _Conversation]] = []
        # in the order of their deadlines, which all lie as far from their sends
        self._deadlines: dict[Connection, int] = {}
        self._connect_deadlines: deque[tuple[int, Connection]] = deque()
        self._next_chain = 0
        self._started_ns = 0
        self._last_send_ns: int | None = None
        self._streams_started = 0
        self._finishing = False
        self._aborted = False
        self._changed = False

    # -- what the process around the loop does ---------------------------------------------------------------------------------------

    def add_reader(self, fd: int, callback: Callable[[int], None]) -> None:
        """Call back from within the loop when `fd` is readable or closed."""
        self._watched[fd] = callback
        self._epoll.register(fd, select.EPOLLIN)

    def finish(self) -> None:
        """Send nothing new; end when what is under way has ended."""
        self._finishing = True

    def abort(self) -> None:
        """End now; what is under way is forgotten."""
        self._aborted = True

    def connect(self) -> None:
        """Open the connections that the plan begins with. A server that is not there shows in the requests' outcome."""
        try:
            self._addresses = self._endpoint.addresses()
        except OSError:
            return  # told when a request needs a connection
        wanted = len(self._plan.streams_start_s) if self._plan.streams_start_s is not None else SPARE_CONNECTIONS
        for _ in range(min(wanted, len(self._plan.chains))):
            self._open_connection()
        while self._opening and not self._aborted:
            self._expire(perf_counter_ns())
            self._handle_refusals()
            self._turn(perf_counter_ns() + _MAX_WAIT_NS, precise=False)

    def run(self, start_ns: int) -> None:
        """Put the load on, from the instant `start_ns`; returns when every request has ended."""
        self._started_ns = start_ns
        if self._plan.duration_s is not None:
            self._last_send_ns = start_ns + int(self._plan.duration_s * 1e9)
        try:
            with _quiet_garbage_collector():
                self._loop()
        finally:
            for connection in list(self._connections.values()):
                connection.close()
            self._epoll.close()

    # -- what connections tell ---------------------------------------------------------------------------------------------------------

    def watch(self, connection: Connection, events: int) -> None:
        """See connection.Owner."""
        fd = connection.fileno()
        if self._connections.get(fd) is connection:
            self._epoll.modify(fd, events)
        else:
            self._connections[fd] = connection
            self._epoll.register(fd, events)

    def on_open(self, connection: Connection) -> None:
        """See connection.Owner."""
        self._changed = True
        self._opening -= 1
        self._connected_once, self._first_address = True, connection.address_number
        self.report.connections += 1
        self._use(connection)

    def on_closed(self, connection: Connection, problem: str | None) -> None:
        """See connection.Owner."""
        self._changed = True
        if connection in self._idle:
            self._idle.remove(connection)
        if problem is not None:
            self._opening -= 1
            self._refusals.append((problem, connection.address_number))

    def on_exchange(self, connection: Connection, exchange: Exchange) -> None:
        """See connection.Owner."""
        self._changed = True
        conversation = self._busy.pop(connection)
        del self._deadlines[connection]
        self.report.arrivals += len(exchange.user_ns)
        if self._was_stale(connection, exchange):
            self.report.reused_connections = False
            self._send(conversation)
            return
        if connection.closed:
            self._keep_spares()
        elif self.report.reused_connections:
            self._use(connection)
        else:
            connection.close()
        self._sink(exchange)
        self._after(conversation, exchange)

    # -- the loop ------------------------------------------------------------------------------------------------------------------------

    def _loop(self) -> None:
        wall_ns, cpu_ns = perf_counter_ns(), process_time_ns()
        window_ns, window_cpu_ns = wall_ns, cpu_ns
        while not self._aborted:
            now = perf_counter_ns()
            self._release(now)
            self._expire(now)
            self._handle_refusals()
            if self._is_over():
                break
            due_ns = self._next_due()
            until_ns = now + _MAX_WAIT_NS if due_ns is None else min(due_ns, now + _MAX_WAIT_NS)
            self._turn(until_ns, precise=due_ns is not None and due_ns == until_ns)
            now, cpu_now = perf_counter_ns(), process_time_ns()
            if now - window_ns >= CPU_WINDOW_NS:
                self.report.cpu_share_max = max(self.report.cpu_share_max, (cpu_now - window_cpu_ns) / (now - window_ns))
                window_ns, window_cpu_ns = now, cpu_now
        self.report.cpu_s = (process_time_ns() - cpu_ns) / 1e9
        self.report.wall_s = (perf_counter_ns() - wall_ns) / 1e9
        self.report.cpu_share_max = max(self.report.cpu_share_max, self.report.cpu_s / max(self.report.wall_s, 1e-9))

    def _turn(self, until_ns: int, *, precise: bool) -> None:
        """Wait for what happens first, and handle it. epoll's own timeout has a grain of a millisecond, select's of a microsecond."""
        deadline_ns = self._first_deadline()
        if deadline_ns is not None and deadline_ns < until_ns:
            until_ns, precise = deadline_ns, False
        self._changed = False
        # most arrivals end nothing: then there is nothing new to be reckoned, and the wait goes on
        while True:
            wait_ns = max(0, until_ns - perf_counter_ns())
            if precise and wait_ns:
                select.select((self._epoll,), (), (), wait_ns / 1e9)
                wait_ns = 0
            for fd, events in self._epoll.poll(wait_ns / 1e9):
                connection = self._connections.get(fd)
                if connection is not None:
                    connection.on_events(events)
                    if connection.closed:
                        self._changed = True
                        if self._connections.get(fd) is connection:
                            del self._connections[fd]
                elif fd in self._watched:
                    self._changed = True
                    self._watched[fd](events)
            if self._changed or perf_counter_ns() >= until_ns:
                return

    def _release(self, now: int) -> None:
        """Send what is due."""
        if self._stopped(now):
            return
        plan = self._plan
        if plan.due_s is not None:
            while self._next_chain < len(plan.chains) and (due_ns := self._at(plan.due_s[self._next_chain])) <= now:
                self._start_chain(due_ns)
        else:
            starts = plan.streams_start_s or ()
            while self._streams_started < len(starts) and self._at(starts[self._streams_started]) <= now:
                self._streams_started += 1
                self._start_chain(perf_counter_ns())
        while self._later and self._later[0][0] <= now:
            self._send(heapq.heappop(self._later)[2])

    def _start_chain(self, due_ns: int) -> None:
        if self._next_chain < len(self._plan.chains):
            index = self._next_chain
            self._next_chain += 1
            self._send(_Conversation(index, self._plan.chains[index], due_ns=due_ns))

    def _after(self, conversation: _Conversation, exchange: Exchange) -> None:
        """What follows the end of a request: the next turn, or the stream's next chain."""
        # by the kernel where it says: what we read late is late from then on
        stamp = exchange.kernel_ns[-1] if exchange.kernel_ns else NO_STAMP
        now = exchange.end_ns if stamp == NO_STAMP else stamp
        if self._stopped(now):
            return
        conversation.turn += 1
        if conversation.turn < len(conversation.chain) and not exchange.failure and exchange.status == 200:
            following = conversation.chain[conversation.turn]
            if len(following.pieces) > 1:
                conversation.answers.append(json.dumps(answer_text(exchange))[1:-1].encode())
            conversation.due_ns = now + int(following.think_s * 1e9)
            if following.think_s:
                heapq.heappush(self._later, (conversation.due_ns, conversation.index, conversation))
            else:
                self._send(conversation)
        elif self._plan.streams_start_s is not None:
            self._start_chain(now)

    def _send(self, conversation: _Conversation) -> None:
        if not self._idle:
            self._waiting.append(conversation)
            if self._opening < len(self._waiting):
                self._open_connection()
            return
        connection = self._idle.pop()
        turn = conversation.chain[conversation.turn]
        body = turn.pieces[0]
        if len(turn.pieces) > 1:
            answers = [*conversation.answers, b""]
            body = b"".join(part for pair in zip(turn.pieces, answers, strict=True) for part in pair)
        chain = self._first_chain + conversation.index * self._chain_step
        request_id = f"{REQUEST_ID_PREFIX}{chain}.{conversation.turn}"
        request = self._endpoint.head("POST" if body else "GET", self._plan.path, len(body), request_id) + body
        exchange = Exchange(chain, conversation.turn, conversation.due_ns)
        exchange.connect_ns = NO_STAMP if connection.used else connection.connect_ns
        self._busy[connection] = conversation
        self._deadlines[connection] = perf_counter_ns() + int(self._plan.timeout_s * 1e9)
        connection.perform(request, exchange)
        self._keep_spares()

    def _use(self, connection: Connection) -> None:
        self._idle.append(connection)
        if self._waiting:
            self._send(self._waiting.popleft())

    # -- connections ---------------------------------------------------------------------------------------------------------------------

    def _open_connection(self, address_number: int | None = None) -> None:
        number = self._first_address if address_number is None else address_number
        self._opening += 1
        try:
            if not self._addresses:
                self._addresses = self._endpoint.addresses()
            connection = Connection(self, self._addresses[number], self._tls, self._endpoint.host, address_number=number)
        except OSError as error:
            self._changed = True
            self._opening -= 1
            self._refusals.append((error.strerror or str(error), number))
            return
        self._connect_deadlines.append((perf_counter_ns() + int(CONNECT_TIMEOUT_S * 1e9), connection))

    def _handle_refusals(self) -> None:
        """Each may lead to another one; here, so that a server that refuses a thousand requests needs no stack as deep."""
        while self._refusals and not self._aborted:
            self._on_refusal(*self._refusals.popleft())

    def _on_refusal(self, problem: str, address_number: int) -> None:
        """Another address of the host may answer; where none does, the request that waits longest has failed."""
        if not self._connected_once and address_number + 1 < len(self._addresses):
            self._open_connection(address_number + 1)
            return
        if not self._waiting:
            return
        conversation = self._waiting.popleft()
        now = perf_counter_ns()
        exchange = Exchange(self._first_chain + conversation.index * self._chain_step, conversation.turn, conversation.due_ns, now, now)
        exchange.failure = TransportFailure.CONNECT
        exchange.detail = f"cannot connect to {self._endpoint.name}: {problem}"
        self._sink(exchange)
        self._after(conversation, exchange)

    def _keep_spares(self) -> None:
        """An open loop's next arrival finds a connection."""
        if self._plan.due_s is not None and self.report.reused_connections and len(self._idle) + self._opening < SPARE_CONNECTIONS // 2:
            remaining = len(self._plan.chains) - self._next_chain
            for _ in range(min(remaining, SPARE_CONNECTIONS) - len(self._idle) - self._opening):
                self._open_connection()

    @staticmethod
    def _was_stale(connection: Connection, exchange: Exchange) -> bool:
        """The server was closing this idle connection when the request left: it has not handled it, so it is sent once more."""
        unanswered = exchange.failure is TransportFailure.DISCONNECTED and not exchange.raw
        return unanswered and exchange.connect_ns == NO_STAMP and exchange.end_ns - exchange.start_ns < STALE_WITHIN_NS

    # -- time ----------------------------------------------------------------------------------------------------------------------------

    def _at(self, seconds: float) -> int:
        return self._started_ns + int(seconds * 1e9)

    def _stopped(self, now: int) -> bool:
        return self._finishing or (self._last_send_ns is not None and now >= self._last_send_ns)

    def _is_over(self) -> bool:
        if self._busy or self._waiting:
            return False
        if self._stopped(perf_counter_ns()):
            return True
        exhausted = self._next_chain >= len(self._plan.chains)
        return exhausted and not self._later

    def _next_due(self) -> int | None:
        if self._stopped(perf_counter_ns()):
            return None
        plan, candidates = self._plan, []
        if plan.due_s is not None and self._next_chain < len(plan.chains):
            candidates.append(self._at(plan.due_s[self._next_chain]))
        elif plan.streams_start_s is not None and self._streams_started < len(plan.streams_start_s):
            candidates.append(self._at(plan.streams_start_s[self._streams_started]))
        if self._later:
            candidates.append(self._later[0][0])
        return min(candidates, default=None)

    def _first_deadline(self) -> int | None:
        while self._connect_deadlines and (self._connect_deadlines[0][1].open or self._connect_deadlines[0][1].closed):
            self._connect_deadlines.popleft()
        firsts = [*islice(self._deadlines.values(), 1), *(deadline for deadline, _ in islice(self._connect_deadlines, 1))]
        return min(firsts, default=None)

    def _expire(self, now: int) -> None:
        while (first := self._first_deadline()) is not None and first <= now:
            connection = next(iter(self._deadlines), None)
            if connection is not None and self._deadlines[connection] == first:
                connection.time_out(self._plan.timeout_s)
            else:
                self._connect_deadlines.popleft()[1].fail(TransportFailure.CONNECT, f"no answer within {CONNECT_TIMEOUT_S:g} s")


@contextmanager
def _quiet_garbage_collector() -> Iterator[None]:
    """A collection in mid-run would show up as latency: what exists is frozen and collection waits until after."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if was_enabled:
            gc.enable()
