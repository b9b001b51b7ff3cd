//! The delay line: datagrams that a fault holds back, until they are due.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_io::Timer;
use event_listener::Event;
use quinn::udp::{EcnCodepoint, Transmit};

use super::faults::Faults;
use super::socket::Wire;

/// What the line holds at most; beyond it datagrams are dropped and counted, as by a router with a full queue.
const HELD_BYTES_MAX: usize = 32 << 20;

/// When the kernel's buffer is full, what is due waits this long for another attempt.
const RETRY_AFTER: Duration = Duration::from_millis(1);

/// Holds datagrams back and sends them when they are due. Dropping it ends it, with all that it holds.
#[derive(Debug)]
pub(super) struct DelayLine {
    held: Arc<Held>,
}

#[derive(Debug)]
struct Held {
    queue: Mutex<Queue>,
    /// An earlier datagram has come, or the line has ended.
    changed: Event,
    faults: Arc<Faults>,
}

#[derive(Debug, Default)]
struct Queue {
    /// By due time; the number keeps datagrams of one moment in order.
    datagrams: BTreeMap<(Instant, u64), Datagram>,
    pushed: u64,
    bytes: usize,
    /// The socket is gone, and with it whatever was still to be sent.
    is_over: bool,
}

#[derive(Debug)]
struct Datagram {
    destination: SocketAddr,
    ecn: Option<EcnCodepoint>,
    src_ip: Option<IpAddr>,
    contents: Vec<u8>,
}

impl DelayLine {
    /// An empty line that sends through `wire`.
    pub(super) fn start(wire: Arc<Wire>, faults: &Arc<Faults>) -> DelayLine {
        let held =
            Arc::new(Held { queue: Mutex::default(), changed: Event::new(), faults: Arc::clone(faults) });
        async_std::task::spawn(send_when_due(Arc::clone(&held), wire));
        DelayLine { held }
    }

    /// Sends a copy of `datagram` after `delay`.
    pub(super) fn push(&self, delay: Duration, datagram: &Transmit<'_>) {
        let due = Instant::now() + delay;
        let is_first = {
            let mut queue = self.held.queue();
            if queue.bytes + datagram.contents.len() > HELD_BYTES_MAX {
                drop(queue);
                self.held.faults.count_overflow();
                return;
            }
            queue.pushed += 1;
            queue.bytes += datagram.contents.len();
            let key = (due, queue.pushed);
            let copy = Datagram {
                destination: datagram.destination,
                ecn: datagram.ecn,
                src_ip: datagram.src_ip,
                contents: datagram.contents.to_vec(),
            };
            queue.datagrams.insert(key, copy);
            queue.datagrams.first_key_value().is_some_and(|(first, _)| *first == key)
        };
        if is_first {
            self.held.changed.notify(1);
        }
    }
}

impl Drop for DelayLine {
    fn drop(&mut self) {
        self.held.queue().is_over = true;
        self.held.changed.notify(usize::MAX);
    }
}

impl Held {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing panics while it holds the lock, and if it did, the queue would still be whole.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends all that is due at `now`; says when there is more to do.
    fn send_due(&self, wire: &Wire, now: Instant) -> Option<Instant> {
        let mut queue = self.queue();
        while let Some(first) = queue.datagrams.first_entry() {
            if first.key().0 > now {
                return Some(first.key().0);
            }
            let datagram = first.get();
            let transmit = Transmit {
                destination: datagram.destination,
                ecn: datagram.ecn,
                contents: &datagram.contents,
                segment_size: None,
                src_ip: datagram.src_ip,
            };
            if wire.send(&transmit).is_err() {
                return Some(now + RETRY_AFTER);
            }
            let sent = first.remove();
            queue.bytes -= sent.contents.len();
        }
        None
    }
}

/// The task of one line.
async fn send_when_due(held: Arc<Held>, wire: Arc<Wire>) {
    loop {
        // Listening begins before looking, so that nothing that comes in between is missed.
        let changed = held.changed.listen();
        if held.queue().is_over {
            return;
        }
        match held.send_due(&wire, Instant::now()) {
            None => changed.await,
            Some(due) => {
                futures_lite::future::or(changed, async {
                    Timer::at(due).await;
                })
                .await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;
    use crate::protocol::rng::Rng;

    fn line() -> (DelayLine, Arc<Faults>, Arc<Wire>) {
        let wire = Arc::new(Wire::new(UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap());
        let faults = Arc::new(Faults::new(Rng::from_number(1)));
        (DelayLine::start(Arc::clone(&wire), &faults), faults, wire)
    }

    fn datagram(destination: SocketAddr, contents: &[u8]) -> Transmit<'_> {
        Transmit { destination, ecn: None, contents, segment_size: None, src_ip: None }
    }

    #[test]
    fn datagrams_leave_when_they_are_due_whatever_the_order_they_came_in() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        receiver.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let to = receiver.local_addr().unwrap();
        let (line, ..) = line();
        let start = Instant::now();
        for (millis, contents) in [(150, b"c"), (50, b"a"), (100, b"b"), (150, b"d")] {
            line.push(Duration::from_millis(millis), &datagram(to, contents));
        }
        let mut arrived = Vec::new();
        for expected_after in [50, 100, 150, 150] {
            let mut buffer = [0; 10];
            let (bytes, _) = receiver.recv_from(&mut buffer).unwrap();
            assert!(start.elapsed() >= Duration::from_millis(expected_after));
            arrived.extend_from_slice(&buffer[..bytes]);
        }
        assert_eq!(arrived, b"abcd");
    }

    #[test]
    fn a_full_line_drops_and_counts_and_a_dropped_line_lets_its_socket_go() {
        let (line, faults, wire) = line();
        let contents = vec![0; 60_000];
        let to = "127.0.0.1:9".parse().unwrap();
        let fits = HELD_BYTES_MAX / contents.len();
        for _ in 0..fits + 3 {
            line.push(Duration::from_secs(1_000), &datagram(to, &contents));
        }
        assert_eq!(faults.injected().overflowed, 3);
        drop(line);
        let deadline = Instant::now() + Duration::from_secs(10);
        while Arc::strong_count(&wire) > 1 {
            assert!(Instant::now() < deadline, "the task of the line never ends");
            std::thread::yield_now();
        }
    }
}
