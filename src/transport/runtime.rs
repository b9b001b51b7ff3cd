//! What quinn needs from the world around it, on async-std: tasks, timers, sockets.
//!
//! quinn has a runtime of its own for async-std. This one differs in two measured ways: its timer is lazy, and its
//! socket sends before it asks whether it may. It never looks for a current runtime, so a link works
//! from a program on any other one: async-std's tasks bring their own threads.

use std::future::Future;
use std::io;
use std::net::UdpSocket;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_io::Timer;
use quinn::{AsyncTimer, AsyncUdpSocket, Runtime};

use super::socket::Socket;

/// quinn's view of async-std. Public for programs and tests that need a bare QUIC endpoint beside the links.
#[derive(Debug)]
pub struct AsyncStd;

impl Runtime for AsyncStd {
    fn new_timer(&self, deadline: Instant) -> Pin<Box<dyn AsyncTimer>> {
        Box::pin(LazyTimer { deadline, armed: None, timer: Timer::never() })
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        async_std::task::spawn(future);
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        Ok(Arc::new(Socket::new(socket, None)?))
    }
}

/// A timer that is cheap to push back. quinn moves its deadline with every packet, nearly always to a later moment; to
/// tell the reactor each time costs more than to wake up once too early and go on sleeping.
#[derive(Debug)]
struct LazyTimer {
    deadline: Instant,
    /// When `timer` goes off. Never later than the deadline; `None` once it has gone off.
    armed: Option<Instant>,
    timer: Timer,
}

impl LazyTimer {
    fn arm(&mut self) {
        self.timer.set_at(self.deadline);
        self.armed = Some(self.deadline);
    }
}

impl AsyncTimer for LazyTimer {
    fn reset(mut self: Pin<&mut Self>, deadline: Instant) {
        self.deadline = deadline;
        if self.armed.is_some_and(|armed| deadline < armed) {
            self.arm();
        }
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.armed.is_none() {
                self.arm();
            }
            // Both `Future` and `AsyncTimer` have a `poll`.
            if Future::poll(Pin::new(&mut self.timer), cx).is_pending() {
                return Poll::Pending;
            }
            // Forgetting this would lose every later deadline: the reactor knows of none any more.
            self.armed = None;
            if Instant::now() >= self.deadline {
                return Poll::Ready(());
            }
        }
    }
}

/// Awaits `future`, but not for longer than `limit`. `None` means that the time was up.
pub(super) async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    futures_lite::future::or(async { Some(future.await) }, async {
        Timer::after(limit).await;
        None
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    async fn fires(timer: &mut Pin<Box<dyn AsyncTimer>>) -> Instant {
        poll_fn(|cx| timer.as_mut().poll(cx)).await;
        Instant::now()
    }

    #[test]
    fn a_timer_goes_off_at_its_last_deadline_whichever_way_it_was_moved() {
        async_std::task::block_on(async {
            let start = Instant::now();
            let at = |millis| start + Duration::from_millis(millis);
            let mut timer = AsyncStd.new_timer(at(60_000));
            // Registered far away, then moved near: a lazy timer must not sleep on.
            assert!(futures_lite::future::poll_once(poll_fn(|cx| timer.as_mut().poll(cx))).await.is_none());
            timer.as_mut().reset(at(20));
            let fired = fires(&mut timer).await;
            assert!(fired >= at(20) && fired < at(30_000));
            // Registered near, then pushed back: it must not go off early.
            timer.as_mut().reset(at(40));
            assert!(futures_lite::future::poll_once(poll_fn(|cx| timer.as_mut().poll(cx))).await.is_none());
            timer.as_mut().reset(at(120));
            assert!(fires(&mut timer).await >= at(120));
        });
    }
}
