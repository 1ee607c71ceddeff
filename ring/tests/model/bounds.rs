//! What is explored, and with which fault.

/// Rings: 0 (high) and 1 (normal) are the first group's, 2 the second's.
pub(crate) const RINGS: usize = 3;

pub(crate) const GROUPS: usize = 2;

/// Each group's rings, in the order in which it looks at them.
pub(crate) const RINGS_OF: [&[usize]; GROUPS] = [&[0, 1], &[2]];

/// Pushes to a ring without end.
pub(crate) const ANY: u8 = u8::MAX;

/// What is explored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Pushes to each ring, or [`ANY`] number of them.
    pub(crate) pushes: [u8; RINGS],
    pub(crate) fault: Option<Fault>,
}

/// A fault that is built in, to see that it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A line has come when its first word has.
    FirstWordIsEnough,
    /// The device goes by what the last word of a head says, and not by its tag.
    NeedWithoutItsTag,
    /// Where a head names a need, the device takes the words behind it as they are.
    RestWithoutItsTags,
    /// The host puts needs from the second place on.
    FirstPlaceIsFree,
    /// The host writes a line without needs, and then the needs over it.
    NeedsAreWrittenLater,
    /// The host writes the head alone of a line without needs.
    RestIsNotWritten,
    /// A group whose high ring has an item with an unmet need does not look at the normal one.
    UnmetNeedBlocks,
    /// The host uses a place again one item early.
    PlaceReusedEarly,
    /// Told to stop, a group leaves before it has written the completion of its item.
    StopAbandonsItem,
    /// Told to stop, a group leaves its item half done.
    StopEndsWork,
    /// A new launch begins at the last complete item.
    LaunchRepeatsItem,
    /// Needs are not looked at.
    NeedsIgnored,
    /// The host goes on pushing to a ring while an old need on it waits, half of all numbers and more.
    OldNeedsWait,
    /// The host asks a group to leave when there is no work, and never tells it to stop.
    DrainIsNeverStopped,
    /// Needs are looked up in a copy of `done` that was made at the launch.
    DoneIsCopied,
    /// The host takes a completion's word without looking at its number.
    CompletionUnchecked,
    /// Who finds the device gone looks for items before it says so.
    AwayIsSaidLate,
    /// Who pushes looks whether the device is away before the item counts.
    WakesEarly,
}
