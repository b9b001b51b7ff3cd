//! Fits lists into messages.

use serde::Serialize;

use crate::protocol::codec;
use crate::protocol::wire::gossip::GOSSIP_LOAD_MAX;

/// As many of the items as fit in one message, at least the first.
pub(super) fn fitting<T: Serialize>(items: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut room = GOSSIP_LOAD_MAX;
    let fits = |item: &T| {
        let size = codec::encode(item).len();
        let fits = size <= room;
        room = room.saturating_sub(size);
        fits
    };
    items.into_iter().take_while(fits).collect()
}

/// All of the items, cut into messages.
pub(super) fn messages<T: Serialize>(items: impl IntoIterator<Item = T>) -> Vec<Vec<T>> {
    let mut messages: Vec<Vec<T>> = Vec::new();
    let mut room = 0;
    for item in items {
        let size = codec::encode(&item).len();
        match messages.last_mut() {
            Some(last) if size <= room => last.push(item),
            _ => {
                messages.push(vec![item]);
                room = GOSSIP_LOAD_MAX;
            }
        }
        room = room.saturating_sub(size);
    }
    messages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_and_no_message_is_too_large() {
        let items: Vec<String> = (0..100).map(|n| "x".repeat(n * 3)).collect();
        let cut = messages(items.clone());
        assert_eq!(cut.concat(), items);
        let load =
            |message: &Vec<String>| message.iter().map(|item| codec::encode(item).len()).sum::<usize>();
        assert!(cut.iter().all(|message| load(message) <= GOSSIP_LOAD_MAX));
        assert_eq!(fitting(items.clone()), cut[0]);
    }
}
