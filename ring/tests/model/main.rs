//! Every state of a small host and device that follow the protocol: what is promised holds in all of them, and each of
//! several faults breaks it.
//!
//! Checked at every step: nothing is carried out twice, nothing counts as complete that was not carried out, the items of
//! a ring go in order, none before those it needs, no line is overwritten before its item is complete, none is taken
//! torn, and a group that leaves has completed what it worked on. Checked of every state: with no more pushes, and a host
//! that launches the device again whenever it is away, steps lead to a state in which nothing is outstanding; where the
//! device runs and nobody told it to leave, they do so without a launch. So no push is missed because the device was
//! about to leave, and nothing waits for itself.
//!
//! Numbers have 3 bits and begin shortly before they wrap. `tests/model/system.rs` says what a step is.
#![cfg(not(feature = "loom"))]

mod search;
mod system;

use std::time::Instant;

use search::{Found, search};
use system::{Bounds, Fault, RINGS};

/// Pushes to a ring without end.
const ANY: u8 = u8::MAX;

/// Explores with so many pushes to the high and the normal ring of one group, and to a ring of another.
#[track_caller]
fn explore(pushes: [u8; RINGS]) {
    let start = Instant::now();
    let Found { states, steps, broken } = search(&Bounds { pushes, fault: None });
    println!("pushes {pushes:?}: {states} states, {steps} steps, {:.1?}", start.elapsed());
    assert!(broken.is_none(), "pushes {pushes:?}: {broken:#?}");
}

#[track_caller]
fn finds(fault: Fault, pushes: [u8; RINGS], expected: &str) {
    let Found { states, broken, .. } = search(&Bounds { pushes, fault: Some(fault) });
    let (what, trace) = broken.unwrap_or_else(|| panic!("{fault:?} breaks nothing"));
    println!("{fault:?}: {what}, after {} steps, among {states} states", trace.len());
    assert!(what.contains(expected), "{fault:?}: {what}: {trace:#?}");
}

/// A debug build is some ten times slower, and explores less.
fn or_less(pushes: [u8; RINGS], less: [u8; RINGS]) -> [u8; RINGS] {
    if cfg!(debug_assertions) { less } else { pushes }
}

#[test]
fn one_ring_goes_on_for_ever() {
    explore([ANY, 0, 0]);
}

#[test]
fn two_rings_of_a_group() {
    explore(or_less([3, 3, 0], [2, 2, 0]));
}

#[test]
fn two_groups() {
    explore(or_less([0, 3, 3], [0, 2, 2]));
}

#[test]
fn three_rings_with_needs_across() {
    explore([1, 1, 1]);
    explore(or_less([2, 1, 1], [1, 1, 1]));
}

#[test]
fn three_rings_where_the_other_group_goes_round() {
    explore(or_less([1, 1, 3], [1, 1, 1]));
}

#[test]
fn a_need_waits_while_its_ring_goes_on() {
    explore([0, 1, ANY]);
}

#[test]
fn faults_are_found() {
    finds(Fault::FirstWordIsEnough, [0, 1, 1], "torn");
    finds(Fault::UnmetNeedBlocks, [1, 1, 0], "whatever is launched");
    finds(Fault::PlaceReusedEarly, [3, 0, 0], "overwritten");
    finds(Fault::StopAbandonsItem, [1, 0, 0], "without saying");
    finds(Fault::LaunchRepeatsItem, [1, 0, 0], "twice");
    finds(Fault::NeedsIgnored, [0, 1, 1], "before one that it needs");
    finds(Fault::CompletionUnchecked, [1, 0, 0], "lost");
    finds(Fault::DoneIsCopied, [0, 1, 1], "until a new launch");
    finds(Fault::OldNeedsWait, [0, 1, ANY], "dead end");
    finds(Fault::DrainIsNeverStopped, [0, 1, 1], "whatever is launched");
}
