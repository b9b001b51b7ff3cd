//! Stories of made-up lines, and of planted bugs.

use super::super::planted::{Planted, Planting};
use super::super::{Options, run};
use super::*;

fn line(at: u64, topic: Topic, who: &str, text: &str) -> Line {
    Line { at: Moment(at), who: who.to_owned(), topic, text: text.to_owned() }
}

fn plot<'a>(violation: &'a Violation, history: &'a History) -> Plot<'a> {
    Plot { violation, history, named: named_in(&violation.evidence) }
}

#[test]
fn the_evidence_names_writes_in_order() {
    let named = named_in("v12 of c3 was lost; at the end {v4, v12} remain, via nodes, v");
    assert_eq!(named, [WriteId(12), WriteId(4)]);
}

#[test]
fn a_message_is_told_once_and_a_repeated_one_with_a_count() {
    let (violation, history) = (Violation::general(Invariant::NoLostWrite, "v1"), History::default());
    let lines = vec![
        line(1, Topic::Sent, "n1 -> n2", "replicate #1 k [v1]"),
        line(2, Topic::Received, "n2 <- n1", "replicate #1 k [v1]"),
        line(3, Topic::Sent, "n1 -> n3", "replicate #1 k [v1], lost"),
        line(5, Topic::Sent, "n1 -> n3", "replicate #1 k [v1], lost"),
        line(7, Topic::Sent, "n1 -> n3", "replicate #1 k [v1], lost"),
        line(8, Topic::Sent, "n1 -> n2", "replicate #2 k [v2], under way for 900 ms"),
        line(900_008, Topic::Received, "n2 <- n1", "replicate #2 k [v2]"),
    ];
    let told = plot(&violation, &history).once(lines);
    let at: Vec<u64> = told.iter().map(|told| told.line.at.0).collect();
    assert_eq!(at, [1, 3, 8, 900_008]);
    assert_eq!(told[1].again, Some((2, Moment(7))));
}

#[test]
fn what_says_nothing_of_the_write_is_folded_and_what_decides_stays() {
    let (violation, history) = (Violation::general(Invariant::NoLostWrite, "v7"), History::default());
    let mut told: Vec<Told> = (0..1_000)
        .map(|at| Told { line: line(at, Topic::Sent, "n1 -> n2", "fetch k"), mark: None, again: None })
        .collect();
    told[500].mark = Some("here");
    told[600].line.text = "replicate k [v7]".to_owned();
    told[700].line.text = "replicate k [v77]".to_owned();
    let mut told = plot(&violation, &history).fold(told);
    let texts: Vec<&str> = told.iter().map(|told| told.line.text.as_str()).collect();
    assert_eq!(
        texts[..5],
        [
            "... 500 more: 500 messages ...",
            "fetch k",
            "... 99 more: 99 messages ...",
            "replicate k [v7]",
            "... 391 more: 391 messages ...",
        ]
    );
    assert_eq!(texts.len(), 5 + LAST);
    for _ in 0..7 {
        told.extend(told.clone());
    }
    shorten(&mut told);
    assert!(told.len() > LINES_MAX && told.iter().filter(|told| told.mark.is_some()).count() == 128);
}

#[test]
fn the_story_of_a_planted_bug_shows_the_write_and_the_read() {
    let mut reports = (0..50).map(|seed| {
        run(&Options { planted: Some(Planting::Alone(Planted::UnknownAsNotApplied)), ..Options::new(seed) })
    });
    let fails =
        |report: &Report| report.violations.first().is_some_and(|v| v.invariant == Invariant::Outcomes);
    let report = reports.find(fails).expect("it is found");
    let text = report.to_string();
    println!("{text}");
    let marks: Vec<&str> = text.lines().filter(|line| line.starts_with('>')).collect();
    assert!(marks.iter().any(|line| line.contains("<== the write that never happened")), "{text}");
    assert!(marks.iter().any(|line| line.contains("<== here it shows")), "{text}");
    assert!(text.contains("held in the end:") && text.contains("last shown to clients:"), "{text}");
    assert!(text.lines().count() < LINES_MAX + 60, "{text}");
}
