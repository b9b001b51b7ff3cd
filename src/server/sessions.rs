//! Connections of clients.

use std::sync::{Arc, Weak};

use async_std::channel::Sender;

use super::driver::Driver;
use crate::protocol::codec;
use crate::protocol::input::Input;
use crate::protocol::wire::client::{
    AdminAnswer, AdminRequest, Answer, AnswerFrame, ClientFrame, Code, Direction, Problem, Request,
};
use crate::transport::faults::Faults;
use crate::transport::identity::{Identity, Role};
use crate::transport::link::{CloseCode, Link};

/// What administration over the wire may reach.
#[derive(Clone)]
pub(super) struct Administration {
    /// The faults of the node's socket, if it was started with any.
    pub(super) faults: Option<Arc<Faults>>,
    /// Asks the process to stop.
    pub(super) stop: Sender<()>,
}

/// Serves one client until its connection ends.
pub(super) async fn serve(driver: Weak<Driver>, link: Link, administration: Administration) {
    let role = match link.identity() {
        Identity::Client { role, .. } => *role,
        // A node may do what its operator may: it holds all the data anyway.
        Identity::Node { .. } => Role::Admin,
    };
    let (sender, mut receiver) = (link.sender, link.receiver);
    let Some(strong) = driver.upgrade() else { return };
    let session = strong.open_session(sender.clone());
    drop(strong);
    let mut frames = Vec::new();
    let mut inputs = Vec::new();
    while receiver.next_batch(&mut frames).await.is_ok() {
        let Some(driver) = driver.upgrade() else { break };
        for frame in frames.drain(..) {
            let Ok(ClientFrame { id, deadline_ms, request }) = codec::decode(&frame) else {
                sender.close(CloseCode::VIOLATION, "a frame was no request of this version");
                break;
            };
            let answer = match (needed(&request), request) {
                (needed, _) if role < needed => {
                    let message =
                        format!("the certificate's role is {role}, and this needs the role {needed}");
                    Answer::Refused(Problem::new(Code::Forbidden, message))
                }
                (_, Request::Admin(request)) => administration.answer(request),
                (_, request) => {
                    inputs.push(Input::Client { session, id, deadline_ms, request });
                    continue;
                }
            };
            let _ = sender.push(|out| codec::encode_into(&AnswerFrame { id, answer }, out));
        }
        driver.handle(inputs.drain(..));
    }
    if let Some(driver) = driver.upgrade() {
        driver.close_session(session);
    }
}

/// The least role that may ask this.
fn needed(request: &Request) -> Role {
    match request {
        Request::Read(_) | Request::Explain { .. } | Request::Topology | Request::Status => Role::Reader,
        Request::Write(_) => Role::Writer,
        Request::Admin(_) => Role::Admin,
    }
}

impl Administration {
    fn answer(&self, request: AdminRequest) -> Answer {
        match (request, &self.faults) {
            (AdminRequest::Stop, _) => {
                let _ = self.stop.try_send(());
                Answer::Admin(AdminAnswer::Done)
            }
            (_, None) => Answer::Refused(Problem::new(
                Code::BadRequest,
                "the node was started without --faults, so that nobody can break its network by mistake",
            )),
            (AdminRequest::SetFault { peer, outbound, inbound }, Some(faults)) => {
                let set = faults
                    .set(peer, Direction::Outbound, outbound)
                    .and_then(|()| faults.set(peer, Direction::Inbound, inbound));
                match set {
                    Ok(()) => Answer::Admin(AdminAnswer::Done),
                    Err(error) => Answer::Refused(Problem::new(Code::BadRequest, error.to_string())),
                }
            }
            (AdminRequest::ClearFaults, Some(faults)) => {
                faults.clear_all();
                Answer::Admin(AdminAnswer::Done)
            }
            (AdminRequest::ListFaults, Some(faults)) => Answer::Admin(AdminAnswer::Faults(faults.list())),
        }
    }
}
