//! Every state of a small host and device that follow the protocol: what is promised holds in all of them, and each of
//! several faults breaks it.
//!
//! There are a device of two groups, of which one has a high and a normal ring and the other one ring, and a host that
//! pushes, reaps, tells the device to leave, finds it gone, and launches it if there are items by then. Lines are the
//! protocol's: a look goes by the head of each, or by all words where a head names a need, and reads of every word the
//! item's or what was there before (`look.rs`). `steps.rs` has every step that one of them can take.
//!
//! Checked at every step: nothing is carried out twice, nothing counts as complete that was not carried out, the items of
//! a ring go in order, none before those it needs, no line is overwritten before its item is complete, none is taken
//! torn, and a group that leaves has completed what it worked on. Checked of every state: with no more pushes, steps
//! lead to a state in which nothing is outstanding; where the device runs and nobody told it to leave, they do so without
//! a launch. So no push is missed because the device was about to leave or was found gone, and nothing waits for itself.
//!
//! Left out are faults, and a word that appears so late that all numbers went by: those have 3 bits here and begin shortly
//! before they wrap.
#![cfg(not(feature = "loom"))]

mod bounds;
mod look;
mod numbers;
mod search;
mod state;
mod steps;

use std::time::Instant;

use bounds::{ANY, Bounds, Fault, RINGS};
use look::{Looks, Seen, Written, item};
use numbers::{FIRST, Needed};
use search::{Found, search};
use state::Model;

/// Explores with so many pushes to the high and the normal ring of one group, and to a ring of another.
#[track_caller]
fn explore(pushes: [u8; RINGS]) {
    let start = Instant::now();
    let Found { states, steps, broken } = search(&Model::new(Bounds { pushes, fault: None }));
    println!("pushes {pushes:?}: {states} states, {steps} steps, {:.1?}", start.elapsed());
    assert!(broken.is_none(), "pushes {pushes:?}: {broken:#?}");
}

#[track_caller]
fn finds(fault: Fault, pushes: [u8; RINGS], expected: &str) {
    let model = Model::new(Bounds { pushes, fault: Some(fault) });
    let Found { states, broken, .. } = search(&model);
    let (what, trace) = broken.unwrap_or_else(|| panic!("{fault:?} breaks nothing"));
    println!("{fault:?}: {what}, among {states} states, by {trace:?}");
    assert!(what.contains(expected), "{fault:?}: {what}: {trace:#?}");
}

/// A debug build is some ten times slower, and explores less.
fn or_less(pushes: [u8; RINGS], less: [u8; RINGS]) -> [u8; RINGS] {
    if cfg!(debug_assertions) { less } else { pushes }
}

/// An item without needs is taken whatever lies behind its head, unless another line has the look go by all words; one with
/// needs is taken once all words are there.
#[test]
fn a_look_goes_by_the_head() {
    let looks = Looks::new(None);
    let shows = |written, expected: &[(bool, Option<_>, Option<_>)]| {
        let seen = looks.at(FIRST, written);
        let of = |seen: &Seen| (seen.names_need, seen.item(false), seen.item(true));
        let shown: Vec<_> = seen.iter().map(of).collect();
        assert_eq!(shown.len(), expected.len(), "{written:?}: {shown:?}");
        assert!(expected.iter().all(|seen| shown.contains(seen)), "{written:?}: {shown:?}");
    };
    let nothing = (false, None, None);
    shows(Written::Nothing, &[nothing]);
    let whole = Some(item(FIRST, [None; 2]));
    shows(Written::Partly([None; 2]), &[nothing, (false, whole, None), (false, whole, whole)]);
    shows(Written::Whole([None; 2]), &[(false, whole, whole)]);
    let [first, second] = [1, 2].map(|ring| Some(Needed::new(ring, 3)));
    for needs in [[first, None], [first, second]] {
        let whole = Some(item(FIRST, needs));
        shows(Written::Partly(needs), &[nothing, (true, None, None), (true, None, whole)]);
        shows(Written::Whole(needs), &[(true, None, whole)]);
    }
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
#[ignore = "takes minutes and gigabytes of memory"]
fn larger_bounds() {
    explore([1, 2, 2]);
    explore([2, 2, 1]);
    explore([1, 1, ANY]);
    explore([ANY, ANY, 0]);
    explore([0, ANY, ANY]);
}

#[test]
fn faults_in_lines_are_found() {
    finds(Fault::FirstWordIsEnough, [0, 1, 1], "torn");
    finds(Fault::NeedWithoutItsTag, [0, 1, 1], "before one that it needs");
    finds(Fault::RestWithoutItsTags, [0, 1, 1], "before one that it needs");
    finds(Fault::FirstPlaceIsFree, [0, 1, 1], "before one that it needs");
    finds(Fault::NeedsAreWrittenLater, [0, 1, 1], "before one that it needs");
    finds(Fault::RestIsNotWritten, [1, 1, 0], "whatever is launched");
    finds(Fault::PlaceReusedEarly, [3, 0, 0], "overwritten");
}

#[test]
fn faults_in_order_and_completion_are_found() {
    finds(Fault::UnmetNeedBlocks, [1, 1, 0], "whatever is launched");
    finds(Fault::NeedsIgnored, [0, 1, 1], "before one that it needs");
    finds(Fault::CompletionUnchecked, [1, 0, 0], "lost");
    finds(Fault::DoneIsCopied, [0, 1, 1], "until a new launch");
    finds(Fault::OldNeedsWait, [0, 1, ANY], "dead end");
}

#[test]
fn faults_in_leaving_and_coming_back_are_found() {
    finds(Fault::StopAbandonsItem, [1, 0, 0], "without saying");
    finds(Fault::StopEndsWork, [1, 0, 0], "in the midst");
    finds(Fault::LaunchRepeatsItem, [1, 0, 0], "twice");
    finds(Fault::DrainIsNeverStopped, [0, 1, 1], "whatever is launched");
    finds(Fault::AwayIsSaidLate, [2, 0, 0], "whatever is launched");
    finds(Fault::WakesEarly, [1, 0, 0], "whatever is launched");
}
