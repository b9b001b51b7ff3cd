//! The UDP socket under quinn, and the place where faults are injected.
//!
//! ```text
//!  quinn ── try_send ──▶ [ faults? ] ──▶ sendmsg (GSO: up to ten datagrams in one call)
//!  quinn ◀─ poll_recv ── [ faults? ] ◀── recvmmsg (GRO: up to 32 batches of datagrams in one call)
//! ```
//!
//! Two measured differences from quinn's own socket for async-std:
//!
//! * **Optimistic sends.** Before each send quinn asks whether the socket is writable. Asking the reactor costs several
//!   system calls, and the answer is nearly always yes; so the answer here is yes until a send has said otherwise.
//! * **A receive hint.** After a receive that did not fill all buffers the queue was empty, so the next one waits for
//!   the reactor first, rather than be told by another system call that nothing is there.

use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use async_io::{Async, WritableOwned};
use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncUdpSocket, UdpPoller};
use socket2::{Domain, Protocol, Type};

use super::delay::DelayLine;
use super::faults::Faults;

/// The receive and send buffers asked of the kernel, in bytes. With 1 KiB values and 256 requests in flight the usual
/// 208 KiB lose packets; 2 MiB lose none.
const BUFFER_BYTES: usize = 2 << 20;

/// quinn sends at most this many datagrams in one call, and 10 x 6,500 bytes still fit into one UDP payload.
const SEGMENTS_MAX: usize = 10;

/// So many receive errors in a row, with nothing received between them, mean that the socket is dead.
const RECEIVE_ERRORS_MAX: usize = 100;

/// Opens a UDP socket with large buffers. An IPv6 wildcard address serves IPv4 as well.
pub(super) fn open(listen: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket2::Socket::new(Domain::for_address(listen), Type::DGRAM, Some(Protocol::UDP))?;
    if listen.is_ipv6() {
        // Some systems have no such sockets; IPv6 alone still works there.
        if let Err(error) = socket.set_only_v6(false) {
            tracing::debug!(%error, "the socket serves IPv6 only");
        }
    }
    for (name, result) in [
        ("receive", socket.set_recv_buffer_size(BUFFER_BYTES)),
        ("send", socket.set_send_buffer_size(BUFFER_BYTES)),
    ] {
        if let Err(error) = result {
            tracing::debug!(%error, "the {name} buffer keeps its size");
        }
    }
    // Linux doubles what it grants, and caps it silently.
    let granted = socket.recv_buffer_size()?;
    if granted < BUFFER_BYTES {
        tracing::warn!(
            granted,
            wanted = BUFFER_BYTES,
            "small receive buffer: packets will be lost under load; raise net.core.rmem_max"
        );
    }
    socket.bind(&listen.into())?;
    Ok(socket.into())
}

/// A UDP socket as quinn wants it.
#[derive(Debug)]
pub(super) struct Socket {
    wire: Arc<Wire>,
    /// The last send found the kernel's buffer full.
    is_blocked: AtomicBool,
    /// The last receive emptied the kernel's queue.
    is_drained: AtomicBool,
    faults: Option<Injector>,
}

/// The socket proper, which delayed datagrams share.
#[derive(Debug)]
pub(super) struct Wire {
    io: Arc<Async<UdpSocket>>,
    state: UdpSocketState,
}

impl Wire {
    pub(super) fn new(socket: UdpSocket) -> io::Result<Wire> {
        // This also switches on GRO, ECN and "do not fragment", and makes the socket non-blocking.
        let state = UdpSocketState::new((&socket).into())?;
        Ok(Wire { io: Arc::new(Async::new_nonblocking(socket)?), state })
    }

    /// Sends now or answers *would block*. Any other failure is a lost packet, which QUIC repairs; quinn-udp logs it.
    pub(super) fn send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.state.send((&*self.io).into(), transmit)
    }
}

#[derive(Debug)]
struct Injector {
    faults: Arc<Faults>,
    line: DelayLine,
}

impl Socket {
    pub(super) fn new(socket: UdpSocket, faults: Option<Arc<Faults>>) -> io::Result<Socket> {
        let wire = Arc::new(Wire::new(socket)?);
        let faults =
            faults.map(|faults| Injector { line: DelayLine::start(Arc::clone(&wire), &faults), faults });
        Ok(Socket { wire, is_blocked: false.into(), is_drained: false.into(), faults })
    }

    /// Whether any rule is in force; without one a fault costs one relaxed load.
    fn injector(&self) -> Option<&Injector> {
        self.faults.as_ref().filter(|injector| injector.faults.is_active())
    }

    fn receive(&self, bufs: &mut [IoSliceMut<'_>], meta: &mut [RecvMeta]) -> io::Result<usize> {
        let received = self.wire.state.recv((&*self.wire.io).into(), bufs, meta)?;
        if let Some(injector) = self.injector() {
            for (meta, buf) in meta.iter_mut().zip(bufs).take(received) {
                // quinn skips a batch of length zero.
                meta.len = injector.faults.filter_inbound(meta.addr, &mut buf[..meta.len], meta.stride);
            }
        }
        Ok(received)
    }
}

impl Injector {
    /// Sends each datagram of `transmit` as its fate wants it. Never blocks: what does not fit into the kernel's
    /// buffer waits in the delay line, since quinn would send the whole batch again.
    fn send(&self, wire: &Wire, transmit: &Transmit<'_>) {
        let segment = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        for contents in transmit.contents.chunks(segment) {
            let datagram = Transmit { contents, segment_size: None, ..transmit.clone() };
            for delay in self.faults.fate_outbound(transmit.destination).deliveries() {
                if !delay.is_zero() || wire.send(&datagram).is_err() {
                    self.line.push(delay, &datagram);
                }
            }
        }
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(WritePoller { socket: self, writable: None })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if let Some(injector) = self.injector() {
            injector.send(&self.wire, transmit);
            return Ok(());
        }
        let sent = self.wire.send(transmit);
        if sent.is_err() {
            self.is_blocked.store(true, Ordering::Release);
        }
        sent
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let batch = bufs.len().min(meta.len());
        let mut errors = 0;
        loop {
            if self.is_drained.load(Ordering::Relaxed) {
                ready!(self.wire.io.poll_readable(cx))?;
                self.is_drained.store(false, Ordering::Relaxed);
            }
            match self.receive(bufs, meta) {
                Ok(received) => {
                    self.is_drained.store(received < batch, Ordering::Relaxed);
                    return Poll::Ready(Ok(received));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.is_drained.store(true, Ordering::Relaxed);
                }
                // quinn gives up the whole endpoint on an error. One that passes (no memory for a packet, a strange
                // ICMP answer) must not end a node.
                Err(error) => {
                    errors += 1;
                    if errors >= RECEIVE_ERRORS_MAX {
                        return Poll::Ready(Err(error));
                    }
                    tracing::debug!(%error, "a receive failed");
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.wire.io.get_ref().local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.wire.state.max_gso_segments().min(SEGMENTS_MAX)
    }

    fn max_receive_segments(&self) -> usize {
        self.wire.state.gro_segments()
    }

    fn may_fragment(&self) -> bool {
        self.wire.state.may_fragment()
    }
}

/// One connection's way to wait until it may send again.
struct WritePoller {
    socket: Arc<Socket>,
    writable: Option<WritableOwned<UdpSocket>>,
}

impl UdpPoller for WritePoller {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.socket.is_blocked.load(Ordering::Acquire) {
            self.writable = None;
            return Poll::Ready(Ok(()));
        }
        let WritePoller { socket, writable } = &mut *self;
        let wait = writable.get_or_insert_with(|| Arc::clone(&socket.wire.io).writable_owned());
        let result = ready!(Pin::new(wait).poll(cx));
        *writable = None;
        socket.is_blocked.store(false, Ordering::Release);
        Poll::Ready(result)
    }
}

impl std::fmt::Debug for WritePoller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WritePoller").finish_non_exhaustive()
    }
}
