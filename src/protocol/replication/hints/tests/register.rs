//! Who is on the register of an owner: how a node gets onto it, and what strikes it off.

use super::*;

#[test]
fn a_stand_in_is_struck_off_when_it_keeps_nothing_more_and_not_if_it_was_asked_since() {
    let slot = Slot::of_key(&key());
    let (mut story, first) = Story::with_a_hint();
    hinted_by(&mut story, first);
    assert_eq!(story.register.holders(slot).collect::<Vec<_>>(), [first]);

    let old = story.ask_for_hints();
    assert_eq!(old, [(first, RequestId(1), vec![slot])]);
    story.ask(Request::Write(Write { operation: operation(2), ..put("v2") }));
    story.execute();
    story.hear(first, no_hints(&old[0]));
    assert_eq!(story.register.len(), 1, "it was asked to keep another one meanwhile");

    let new = story.ask_for_hints();
    assert_eq!(new, [(first, RequestId(2), vec![slot])]);
    story.hear(first, no_hints(&old[0]));
    assert_eq!(
        story.register.len(),
        1,
        "that answer was late, or came twice, and is older than the last hint"
    );
    story.hear(first, no_hints(&new[0]));
    story.execute();
    assert!(story.register.is_empty());
    assert_eq!(story.meta.get(&MetaKey::HintHolders(slot)), Some(&None));
}

#[test]
fn an_answer_strikes_nobody_off_who_came_onto_the_register_after_it_or_in_a_later_life() {
    let slot = Slot::of_key(&key());
    let (mut story, first) = Story::with_a_hint();
    let old = story.ask_for_hints();
    story.hear(first, no_hints(&old[0]));
    story.execute();
    assert!(story.register.is_empty());
    // Anew, and asked about again: the answer from before comes once more.
    story.ask(Request::Write(Write { operation: operation(2), ..put("v2") }));
    story.execute();
    story.sync();
    story.ask_for_hints();
    story.hear(first, no_hints(&old[0]));
    assert_eq!(story.register.holders(slot).collect::<Vec<_>>(), [first]);

    let meta = story.meta.clone().into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
    story.register = HintRegister::parse(&meta).unwrap();
    story.register.number_from(4_000);
    let new = story.ask_for_hints();
    assert_eq!(new, [(first, RequestId(1_001), vec![slot])]);
    for number in [old[0].1.0, 1_000, 1_002, u64::MAX >> 2] {
        story.hear(first, no_hints(&(first, RequestId(number), vec![slot])));
        assert_eq!(story.register.len(), 1, "{number} is no question of this life");
    }
    story.hear(first, no_hints(&new[0]));
    assert!(story.register.is_empty());
}

#[test]
fn an_answer_from_before_a_suspicion_does_not_end_it() {
    let slots = [Slot::of_key(&key())].into_iter().collect();
    let mut story = coordinator();
    let [first, second] = stand_ins(&story);
    story.peers.gone = vec![C, second];
    let _ = story.register.lost(&slots, &story.view);
    let old = story.ask_for_hints();
    let _ = story.register.lost(&slots, &story.view);
    story.hear(first, no_hints(&old[0]));
    assert_eq!(story.register.len(), 2);
    // Nor is anybody asked about a hint that may be on its way.
    story.ask(Request::Write(put("v1")));
    story.execute();
    story.sync();
    assert_eq!(asked_of(&story.look_at_hints(Duration::from_secs(10))), []);
    let new = story.ask_for_hints();
    story.hear(first, no_hints(&new[0]));
    assert_eq!(story.register.len(), 1);
}

#[test]
fn the_register_survives_a_restart() {
    let mut story = coordinator();
    let [first, _] = stand_ins(&story);
    story.peers.gone = vec![C];
    story.ask(Request::Write(put("v1")));
    story.execute();
    let meta =
        story.meta.into_iter().filter_map(|(key, value): (_, Option<Bytes>)| Some((key, value?))).collect();
    let register = HintRegister::parse(&meta).unwrap();
    assert_eq!(register.holders(Slot::of_key(&key())).collect::<Vec<_>>(), [first]);
}

#[test]
fn who_has_lost_the_register_suspects_every_stranger_until_it_has_said_no() {
    let slot = Slot::of_key(&key());
    let holders = |register: &HintRegister| sorted(register.holders(slot).collect());
    let mut story = coordinator();
    let [first, second] = stand_ins(&story);
    let (key, line) = story.register.lost(&[slot].into_iter().collect(), &story.view);
    assert_eq!(holders(&story.register), sorted(vec![first, second]));
    let read = HintRegister::parse(&BTreeMap::from([(key, line.unwrap())])).unwrap();
    assert_eq!(holders(&read), holders(&story.register), "a crash forgets no suspicion");

    story.peers.gone = vec![second];
    let questions = story.ask_for_hints();
    assert_eq!(questions, [(first, RequestId(1), vec![slot])]);
    story.hear(first, no_hints(&questions[0]));
    story.execute();
    assert_eq!(holders(&story.register), [second]);
    assert!(story.meta.get(&MetaKey::HintSuspects).is_some_and(Option::is_some));
    story.peers.gone = vec![];
    let questions = story.ask_for_hints();
    assert_eq!(questions, [(second, RequestId(2), vec![slot])]);
    story.hear(second, no_hints(&questions[0]));
    story.execute();
    assert!(story.register.is_empty());
    assert_eq!(story.meta.get(&MetaKey::HintSuspects), Some(&None));
}

#[test]
fn a_whole_lost_register_is_asked_for_in_one_go() {
    let mut story = coordinator();
    let [first, _] = stand_ins(&story);
    let suspected = |story: &Story| story.register.len();
    let own: SlotSet = Slot::all().filter(|slot| story.view.slot(*slot).is_owner(OWN)).collect();
    let _ = story.register.lost(&own, &story.view);
    story.peers.gone = story.view.ring().members().iter().map(|m| m.node).filter(|n| *n != first).collect();
    let mut questions = story.ask_for_hints();
    assert_eq!(questions[0].2.len(), 1_024);
    while questions[0].2.len() == 1_024 {
        let before = suspected(&story);
        story.hear(first, no_hints(&questions[0]));
        story.execute();
        assert_eq!(suspected(&story), before - 1_024);
        questions = asked_of(&story.look_at_hints(Duration::ZERO));
    }
}

#[test]
fn who_was_struck_off_meanwhile_does_not_count() {
    let slot = Slot::of_key(&key());
    let mut story = coordinator();
    let [first, _] = stand_ins(&story);
    story.peers.gone = vec![C];
    story.ask(Request::Write(Write { sloppy: true, ..put("v1") }));
    story.execute();
    story.sync();
    // Its answer to an older question is overtaken by the hint, which it has not got yet.
    let questions = story.ask_for_hints();
    assert_eq!(questions, [(first, RequestId(1), vec![slot])]);
    story.hear(first, no_hints(&questions[0]));
    story.execute();
    assert!(story.register.is_empty());
    assert_eq!(hinted_by(&mut story, first), [], "nobody would look for it there");
    assert_eq!(story.coordinator.len(), 1);
}
