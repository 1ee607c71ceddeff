//! The host's side of the rings through which a resident kernel gets its work.
//!
//! A kernel that stays on the GPU cannot be launched for each piece of work. It reads *items* from rings in memory that
//! host and device share, and writes back which of them are complete. [`Rings`] is what the host does: it writes items,
//! waits where a ring is full, sees completions, wakes who waits, and hands everything back when the device is lost. The
//! layout of the memory is `kasmina_types::manifold`'s; the device's side is a kernel, and not here.
//!
//! ```
//! use kasmina_ring::{CloseReason, HostWords, Rings, protocol};
//! use kasmina_types::manifold::{ItemDescriptor, LINE_WORDS, NEEDS, Need, tagged};
//! use std::sync::Arc;
//!
//! let (rings, capacity) = (2, 4);
//! let lines = Arc::new(HostWords::zeroed(rings * capacity * LINE_WORDS));
//! let completions = Arc::new(HostWords::zeroed(rings * capacity));
//! let rings = Rings::new(lines, Arc::clone(&completions), rings, capacity, &[1, 1])?;
//!
//! let item = ItemDescriptor { first: 0, count: 3, blocks: 1, edition: 0, reaches_host: false, needs: [Need::NONE; NEEDS] };
//! let a = rings.try_push(0, item, "a")?;
//! let b = rings.try_push_after(1, item, &[a], "b")?;
//! assert!(!rings.is_complete(a) && rings.depths().eq([1, 1]));
//!
//! // What the device does when it has carried out `a`.
//! use kasmina_ring::Words;
//! completions.store(1, tagged(0, 1));
//!
//! rings.reap(|completed| assert_eq!((completed.ticket, completed.payload), (a, "a")));
//! assert!(rings.is_complete(a) && rings.status(b).is_none());
//! let unfinished = rings.close(CloseReason::ShutDown, |_| unreachable!("`b` has not come"));
//! assert_eq!(unfinished[0].payload, "b");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The protocol
//!
//! Each ring has `capacity` lines, and as many completions. Item `s` has the line and the completion of place
//! `s mod capacity`, and each word of both has `s` in its upper half.
//!
//! ```text
//!           host                       shared memory                        device
//!
//!   items of a ring             lines     [place][0..16]
//!   ─ oldest ≤ s < next    ┌──► tag s │ data                  ─┐    looks at the line of place (done + 1)
//!                          │    tag s │ data                   ├──► tags = done + 1: it has come
//!   push, if               │      ...                         ─┘    needs met: carries it out, else looks
//!   next − oldest <        │                                        at the group's other ring
//!   capacity: ─────────────┘                                        done := s
//!   16 words, in any order
//!                               completions [place]
//!   reap: tag = oldest? ◄────── tag s │ status  ◄────────────────── last of all
//!   oldest + 1, payload out,
//!   wakes waiters, pushers
//! ```
//!
//! - **No line is taken torn.** Words become visible in any order. A line has come when the tags of the words that say
//!   something are the number that the device expects next; what was in the place before has a tag `capacity` less. The
//!   fourth word, the ring of the first need and the last of the line's *head*, says whether there are needs: where there
//!   are none the device looks at no word behind it, unless the group's other line has needs. So an item's needs have to be
//!   in the first places, as pushing puts them, and every word of the line has to be written.
//! - **No line is overwritten early.** Its place is used again once the completion of the item before has been reaped.
//!   So has that completion's word been read before the device writes the next one there.
//! - **Order.** The items of a ring are carried out in their order. Items of different rings have an order only by
//!   *needs*. An item can need only what was pushed before it, so needs go round in no circle: of all outstanding
//!   items, the one that was pushed first is at the head of its ring and has its needs met.
//! - **A device that leaves loses nothing.** It leaves between items, and `done` stays in its memory. Launched again, it
//!   expects `done + 1`, which lies, or will lie, in its line.
//!
//! Host and device count items in numbers that the wire cuts to 32 bits. The host's have 64 and never wrap. On the wire
//! two numbers are compared by their distance (`has_reached`), so they have to be less than 2³¹ apart. A ring's capacity
//! is less than that. A need is written only while its item is outstanding. It would be misread if the ring of the needed
//! item went on by 2³¹ items while the item that needs it waits, as in a normal ring whose group always has work of high
//! priority. Nobody checks that.
//!
//! What a host does that asks the device to leave when there is no work (`Command::Drain`): a group that waits for an
//! item of another group does not leave, and the other may have left before it saw that item. So the host asks with
//! `Command::Stop` if the groups are not gone after a while. The items are carried out after the next launch.
//!
//! # Threads
//!
//! Everything takes `&self`. Each ring has a lock, held for the time of writing a line or of taking an item out; only
//! [`Rings::outstanding`] holds several. Looking in vain, [`Rings::is_complete`] and [`Rings::depths`] take no lock.
//! Pushing and reaping allocate nothing, except that several futures of one item need memory, and so do failures.
//!
//! Somebody has to go on reaping, on a thread of its own or between other work: a blocked [`Rings::push`], a sleeping
//! [`Rings::wait`] and a [`Completion`] are woken by it and by [`Rings::close`] alone.
//!
//! # What is checked
//!
//! `tests/model/` explores all states of a small host and device that follow this protocol, with every mix of old and new
//! words that a look at a line can find; `tests/loom.rs` explores the interleavings of this crate's own threads;
//! `tests/rings.rs` has its behaviour, and a device that is a thread.

mod error;
pub mod protocol;
mod reap;
mod ring;
mod rings;
mod sync;
mod wait;
mod words;

pub use error::{CloseReason, Failure, PushError, Refusal, RingsError, WaitError};
pub use reap::{Completed, Unfinished};
pub use ring::KEPT_FAILURES;
pub use rings::{Outstanding, Rings, Ticket};
pub use wait::Completion;
pub use words::{HostWords, Words};
